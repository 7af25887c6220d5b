"""Numbers in the documentation are those of the committed records."""

from pathlib import Path

import pytest

from experiments import controls_table, default_gates_table
from experiments.runner import RESULTS

ROOT = Path(__file__).parents[2]
METHOD = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def written(experiment: str) -> str:
    return (RESULTS / experiment / "table.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("experiment", ["default_gates", "controls"])
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
