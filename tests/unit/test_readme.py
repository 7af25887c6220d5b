"""What README.md tells a reader to type."""

import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from transformers import BertForSequenceClassification

from sorakit.cli import parse_run_config
from sorakit.config import RunConfig
from sorakit.sweep.grid import load_sweep

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands(program: str) -> list[list[str]]:
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines if line.startswith(program)]
    return [line[len(program.split()) :] for line in words]


RUNS = commands("sorakit run")


def test_readme_shows_runs():
    assert len(RUNS) >= 5


@pytest.mark.parametrize("arguments", RUNS, ids=" ".join)
def test_run_command_parses(arguments, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert parse_run_config(arguments) != RunConfig()


def test_sweep_commands_have_points(monkeypatch):
    monkeypatch.chdir(ROOT)
    sweeps = commands("sorakit sweep")
    assert len(sweeps) >= 2
    for arguments in sweeps:
        values = dict(itertools.pairwise(arguments))
        files = [Path(value) for name, value in itertools.pairwise(arguments) if name == "--config"]
        assert set(values) >= {"--config", "--out"}
        assert len(load_sweep(files).points) > 1


def test_make_commands_are_targets():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = commands("make")
    assert named
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for [target] in named)


def test_training_loop_example_works(tiny_bert: BertForSequenceClassification):
    [example] = [block for block in blocks("python") if "ProxSGD" in block]
    names: dict[str, Any] = {"base": tiny_bert}
    exec(example, names)
    labels = {"labels": tiny_bert.dummy_inputs["input_ids"].new_zeros(3)}
    names["model"](**tiny_bert.dummy_inputs, **labels).loss.backward()
    names["gate_optimizer"].step()
    assert names["num_nonzero_params"](names["model"]) > 0


@pytest.mark.filterwarnings("ignore:.*pin_memory.*")  # torch's, on a machine without a GPU
def test_trainer_example_works(tiny_bert: BertForSequenceClassification, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the Trainer makes its folder "out"
    [loop] = [block for block in blocks("python") if "ProxSGD" in block]
    [example] = [block for block in blocks("python") if "TrainingArguments" in block]
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


def test_files_and_images_exist():
    paths = re.findall(r"\]\(([^)#:]+)\)", README)
    paths += re.findall(r"`(experiments/[\w./]+)`", README)
    missing = [path for path in paths if not (ROOT / path).exists()]
    assert paths
    assert not missing
