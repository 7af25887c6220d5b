"""Numbers in the documentation are those of the committed records."""

import json
from pathlib import Path

import pandas as pd
import pytest

from analysis.lasso import LEVELS_FILE, PATH_FILE, SOURCE_FILE, largest_differences
from experiments import controls_table, default_gates_table, unit_scale
from experiments.planted_ranks.points import FOLDER, load
from experiments.planted_ranks.table import table
from experiments.runner import RESULTS

ROOT = Path(__file__).parents[2]
METHOD = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def written(experiment: str) -> str:
    return (RESULTS / experiment / "table.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("experiment", ["default_gates", "controls", "unit_scale"])
def test_method_page_shows_the_table(experiment):
    assert written(experiment) in METHOD


def test_readme_shows_the_table_of_the_controls():
    assert written("controls").split("\n\n")[0] in README


def test_table_of_the_default_is_made_of_the_records():
    rows = default_gates_table.run_table(RESULTS / "default_gates")
    assert default_gates_table.markdown(default_gates_table.summarise(rows)) == written(
        "default_gates"
    )


def test_table_of_the_controls_is_made_of_the_records():
    rows = controls_table.table(RESULTS / "controls")
    assert controls_table.markdown(rows) == written("controls")


def test_table_of_planted_ranks_is_made_of_the_records():
    runs = load(FOLDER / "paths.jsonl")
    assert table(runs) == written("planted_ranks")


def test_table_of_unit_scale_is_made_of_the_records():
    lines = (unit_scale.FOLDER / "runs.jsonl").read_text("utf-8").splitlines()
    assert unit_scale.table([json.loads(line) for line in lines]) == written("unit_scale")


@pytest.mark.parametrize("page", [METHOD, README], ids=["method", "README"])
def test_page_shows_the_first_columns_of_the_planted_ranks(page):
    rows = [line for line in written("planted_ranks").splitlines() if line.startswith("| ")]
    methods = [row.split(" | ")[:6] for row in rows if row.split(" | ")[0] != "| method"]
    assert len(methods) >= 11
    assert all(" | ".join(cells) + " |" in page for cells in methods if len(cells) == 6)


@pytest.mark.parametrize("page", [METHOD, README], ids=["method", "README"])
def test_page_says_how_close_the_lasso_is(page):
    data = ROOT / "paper_figs" / "data"
    difference = largest_differences(pd.read_csv(data / PATH_FILE)).max()
    levels = pd.read_csv(data / LEVELS_FILE)
    condition = json.loads((data / SOURCE_FILE).read_text("utf-8"))["condition_number"]
    numbers = [f"{difference:.2g}", f"{levels['kkt_residual'].max():.2g}", f"{len(levels)} lambdas"]
    assert all(number in " ".join(page.split()) for number in numbers)
    assert f"{condition:.1f}" in page or f"number {condition:.0f}" in " ".join(page.split())
