"""The frozen tables of memorization are those of the committed records."""

from pathlib import Path

import pytest

from experiments.memory_tables import VERBS, memory_texts

DATA = Path(__file__).parents[2] / "paper_figs" / "data"


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return memory_texts()


@pytest.mark.parametrize("name", VERBS)
def test_frozen_table_is_that_of_the_records(name, texts):
    assert texts[f"{name}.csv"] == (DATA / f"{name}.csv").read_text("utf-8")
