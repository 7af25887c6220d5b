"""Numbers in the documentation are those of the committed records."""

import json
from pathlib import Path

import pandas as pd
import pytest

from analysis.lasso import LEVELS_FILE, PATH_FILE, SOURCE_FILE, largest_differences
from experiments import (
    RESULTS,
    controls_table,
    default_gates_table,
    docs_tables,
    small_curves_table,
    unit_scale,
)
from experiments.planted_ranks.points import FOLDER, load
from experiments.planted_ranks.table import table

ROOT = Path(__file__).parents[2]
METHOD = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def written(experiment: str, file: str = "table.md") -> str:
    return (RESULTS / experiment / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", docs_tables.PAGES, ids=lambda path: path.name)
def test_page_shows_the_tables_as_they_are(page):
    text = page.read_text("utf-8")
    assert docs_tables.filled(text, docs_tables.tables()) == text, (
        "python -m experiments.docs_tables"
    )


def test_every_table_is_shown_somewhere():
    text = "".join(page.read_text("utf-8") for page in docs_tables.PAGES)
    assert [name for name in docs_tables.tables() if f"<!-- table: {name} -->" not in text] == []


def test_table_between_its_comments_is_replaced():
    page = "a\n<!-- table: t -->\n\n| old |\n\n<!-- end of table -->\nb"
    new = "a\n<!-- table: t -->\n\n| new |\n\n<!-- end of table -->\nb"
    assert docs_tables.filled(page, {"t": "| new |"}) == new


@pytest.mark.parametrize("experiment", ["default_gates", "mrpc_minilm"])
def test_table_of_the_default_is_made_of_the_records(experiment):
    rows = default_gates_table.run_table(RESULTS / experiment)
    made = default_gates_table.markdown(default_gates_table.summarise(rows))
    assert made == written(experiment, default_gates_table.FILE)


@pytest.mark.parametrize("experiment", ["controls", "mrpc_minilm"])
def test_tables_of_the_controls_are_made_of_the_records(experiment):
    made = controls_table.page(RESULTS / experiment)
    assert made == written(experiment, controls_table.FILE)


def test_tables_of_the_small_curves_are_made_of_the_records():
    made = small_curves_table.page(small_curves_table.FOLDER)
    assert made == written("small_curves", small_curves_table.FILE)


def test_table_of_planted_ranks_is_made_of_the_records():
    runs = load(FOLDER / "paths.jsonl")
    assert table(runs) == written("planted_ranks")


def test_table_of_unit_scale_is_made_of_the_records():
    lines = (unit_scale.FOLDER / "runs.jsonl").read_text("utf-8").splitlines()
    assert unit_scale.table([json.loads(line) for line in lines]) == written("unit_scale")


@pytest.mark.parametrize("page", [METHOD, README], ids=["method", "README"])
def test_page_says_how_close_the_lasso_is(page):
    data = ROOT / "paper_figs" / "data"
    difference = largest_differences(pd.read_csv(data / PATH_FILE)).max()
    levels = pd.read_csv(data / LEVELS_FILE)
    condition = json.loads((data / SOURCE_FILE).read_text("utf-8"))["condition_number"]
    numbers = [f"{difference:.2g}", f"{levels['kkt_residual'].max():.2g}", f"{len(levels)} lambdas"]
    assert all(number in " ".join(page.split()) for number in numbers)
    assert f"{condition:.1f}" in page or f"number {condition:.0f}" in " ".join(page.split())
