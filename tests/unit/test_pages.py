"""What README and the pages of the site hold beside commands and tables."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import BertForSequenceClassification

import sorakit
from sorakit.config import METHOD_VERSION

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
LOOP = (DOCS / "own_loop.md").read_text("utf-8")
TOP = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")


def python_blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)


def navigation() -> set[str]:
    """Return the pages that the site's navigation names."""
    # strings alone: some tags of mkdocs are Python objects
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    nav = yaml.safe_load(text[text.index("\nnav:") :])["nav"]

    def pages(entry: Any) -> set[str]:
        if isinstance(entry, str):
            return {entry}
        values = entry.values() if isinstance(entry, dict) else entry
        return set().union(*map(pages, values))

    return pages(nav)


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").split()) <= 1000


def test_every_page_is_in_the_navigation():
    there = {str(p.relative_to(DOCS)) for p in DOCS.rglob("*") if p.suffix in (".md", ".ipynb")}
    assert navigation() == there


def test_every_public_name_is_in_the_reference():
    page = (DOCS / "api" / "sorakit.md").read_text("utf-8")
    assert set(re.findall(r"^::: sorakit\.(\w+)$", page, re.MULTILINE)) == set(sorakit.__all__)


@pytest.mark.parametrize("name", TOP)
def test_files_and_images_of_a_page_exist(name):
    page = (ROOT / name).read_text("utf-8")
    paths = re.findall(r"\]\(([^)#:]+)\)", page)
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_files_that_pages_name_exist():
    named = {
        path
        for page in (*DOCS.rglob("*.md"), *map(ROOT.joinpath, TOP))
        for path in re.findall(r"`((?:experiments|tests|paper_figs)/[\w./]+)`", page.read_text())
    }
    made_by_a_reader = {"paper_figs/fig_areas.py", "paper_figs/NAME.py"}
    assert len(named) > 20
    assert {path for path in named - made_by_a_reader if not (ROOT / path).exists()} == set()


def test_changelog_names_the_method_version():
    page = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert f"### Method version {METHOD_VERSION}" in page


def test_citation_names_version_licence_and_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert (citation["cff-version"], citation["type"]) == ("1.2.0", "software")
    assert (citation["version"], citation["license"]) == (sorakit.__version__, "Apache-2.0")
    [paper] = citation["references"]
    assert paper["url"].endswith("2311.11696")
    assert len(paper["authors"]) == 7


def test_training_loop_example_works(tiny_bert: BertForSequenceClassification):
    [example] = [block for block in python_blocks(LOOP) if "ProxSGD" in block]
    names: dict[str, Any] = {"base": tiny_bert}
    exec(example, names)
    labels = {"labels": tiny_bert.dummy_inputs["input_ids"].new_zeros(3)}
    names["model"](**tiny_bert.dummy_inputs, **labels).loss.backward()
    names["gate_optimizer"].step()
    assert names["num_nonzero_params"](names["model"]) > 0


@pytest.mark.filterwarnings("ignore:.*pin_memory.*")  # torch's, on a machine without a GPU
def test_trainer_example_works(tiny_bert: BertForSequenceClassification, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the Trainer makes its folder "out"
    [loop] = [block for block in python_blocks(LOOP) if "ProxSGD" in block]
    [example] = [block for block in python_blocks(LOOP) if "TrainingArguments" in block]
    ids = tiny_bert.dummy_inputs["input_ids"][0]
    names: dict[str, Any] = {
        "base": tiny_bert,
        "train_dataset": [{"input_ids": ids, "labels": k % 3} for k in range(16)],
    }
    exec(loop, names)
    before = {name: gate.detach().clone() for name, gate in names["gates"](names["model"]).items()}
    exec(example, names)
    after = names["gates"](names["model"])
    assert all((after[name] < gate).all() for name, gate in before.items())


def test_analysis_example_works(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    [example] = python_blocks((DOCS / "api" / "analysis.md").read_text("utf-8"))
    exec(example, {})
    assert "pydoc_order" in capsys.readouterr().out
