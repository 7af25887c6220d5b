"""Refitted scores come first, those before the refit on request."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.curves import with_gain_retained
from analysis.figures import curve_figure
from analysis.load import RunSet, load_runs
from analysis.report.page import report
from analysis.weights import has_refit, with_weights
from tests.support.fake_runs import write_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> RunSet:
    """A path and its floor, whose stages after the dense one were refitted."""
    root = tmp_path_factory.mktemp("runs")
    for kind in ("path", "floor"):
        write_run(root, kind)
    loaded = load_runs([root])
    stages = loaded.stages
    refitted = stages["stage"] > 0
    before = {
        f"penalised_{name}": (stages[name].astype(float) - 0.1).where(refitted)
        for name in (
            "memorization", "generalization", "memorization_loss", "generalization_loss",
        )
    }  # fmt: skip
    return replace(loaded, stages=stages.assign(**before))


def test_refitted_scores_are_the_recorded_ones(runs: RunSet) -> None:
    assert has_refit(runs.stages)
    pd.testing.assert_frame_equal(with_weights(runs.stages, "refitted"), runs.stages)


def test_penalised_scores_replace_those_of_stages_with_a_refit(runs: RunSet) -> None:
    table = with_weights(runs.stages, "penalised")
    path = table["role"] == "path"
    expected = runs.stages["memorization"] - 0.1 * (runs.stages["stage"] > 0)
    np.testing.assert_allclose(table["memorization"].astype(float), expected.astype(float))
    dense = float(table.loc[path & (table["stage"] == 0), "memorization"].iloc[0])
    np.testing.assert_allclose(
        table.loc[path, "memorization_percent"], 100 * table.loc[path, "memorization"] / dense
    )
    gains = with_gain_retained(table)
    last = gains[gains["role"] == "path"].iloc[0]
    floor = float(last["memorization_floor"])
    assert last["memorization_gain_retained"] == pytest.approx(
        (last["memorization"] - floor) / (dense - floor)
    )


def test_older_records_have_no_refit(tmp_path: Path) -> None:
    write_run(tmp_path)
    stages = load_runs([tmp_path]).stages
    assert not has_refit(stages)
    assert with_weights(stages, "penalised") is stages


def test_figure_says_that_it_shows_the_scores_before_the_refit(runs: RunSet) -> None:
    figure = curve_figure(with_weights(runs.stages, "penalised"), remark="before the refit")
    assert figure.axes[0].get_ylabel() == "Accuracy\n(before the refit)"


def data_of(html: str) -> dict[str, Any]:
    (text,) = re.findall(r'id="data">(.*?)</script>', html, flags=re.DOTALL)
    return json.loads(text)


def test_page_has_both_and_opens_with_the_refitted(runs: RunSet) -> None:
    html = report(runs).html
    radios = re.findall(r'<input type="radio" name="weights" value="(\w+)"( checked)?>', html)
    assert radios == [("curves", " checked"), ("penalised", "")]
    data = data_of(html)
    (refitted,), (penalised,) = data["curves"].values(), data["penalised"].values()
    points = [one["tables"]["points"] for one in (refitted, penalised)]
    places = list(zip(points[0]["stage"], points[0]["curve"], strict=True))
    index = places.index((1, "memorization"))
    assert points[0]["raw"][index] - points[1]["raw"][index] == pytest.approx(0.1, abs=1e-4)
    assert penalised["tables"]["drops"] == {}


def test_page_without_a_refit_has_no_choice(tmp_path: Path) -> None:
    write_run(tmp_path)
    html = report(load_runs([tmp_path])).html
    assert 'name="weights"' not in html
    assert data_of(html)["penalised"] == {}
