import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.load import load_runs
from analysis.ranks import (
    Criterion,
    agreements,
    depth_trend,
    depth_trend_interval,
    map_agreement,
    maps_at,
    mean_map,
    parse_criterion,
    rank_maps,
    stages_at,
)
from sorakit.config import XiConfig
from tests.support.fake_runs import write_run
from tests.unit.test_curves import PATH


def table(values: list[list[float]]) -> pd.DataFrame:
    return pd.DataFrame(values, columns=["query", "value"])


def at(text: str) -> Criterion:
    return parse_criterion(text)


@pytest.mark.parametrize(
    ("text", "stage"),
    [
        ("stage=1", {"p": 1}),
        ("retention=0.99", {"p": 2}),  # 100 parameters keep all of 0.8
        ("budget=499", {"p": 2}),
        ("stage=9", {}),
        ("lambda=0.02", {"p": 2}),
        ("lambda=0.0215", {"p": 2}),  # the nearest, within a factor 1.15
        ("lambda=0.026", {}),
        ("lambda=0.0279", {"p": 3}),
    ],
)
def test_stage_is_chosen_by_criterion(text: str, stage: dict[str, int]) -> None:
    stages = PATH.assign(**{"lambda": [0.0001, 0.01, 0.02, 0.032]})
    assert stages_at(stages, at(text)) == stage


@pytest.mark.parametrize("text", ["retention", "retention=", "xi=1", "0.95", "stage=two", ""])
def test_what_is_no_criterion_is_refused(text: str) -> None:
    message = f"`--at` must be stage=K, lambda=X, retention=SHARE or budget=N, got {text!r}."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        at(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("retention=0", "`retention` must be in (0, 1], got 0."),
        ("retention=95", "`retention` must be in (0, 1], got 95."),
        ("stage=1.5", "`stage` must be a whole number >= 0, got 1.5."),
        ("stage=-1", "`stage` must be a whole number >= 0, got -1."),
        ("lambda=0", "`lambda` must be > 0 and finite, got 0."),
        ("budget=-5", "`budget` must be a whole number >= 0, got -5."),
    ],
)
def test_criterion_out_of_range_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        at(text)


def test_criterion_that_no_stage_meets_says_what_there_is(tmp_path: Path) -> None:
    write_run(tmp_path)
    runs = load_runs([tmp_path])
    message = (
        "`at` must be met by a stage of a path run, got lambda=9. Their stages go to 7, lambda "
        "from 0.0001 to 0.00965, parameters from 0 to 36,864."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        maps_at(runs.ranks, runs.stages, at("lambda=9"))


def test_maps_of_a_control_that_is_not_there_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path)
    runs = load_runs([tmp_path])
    with pytest.raises(ValueError, match=r"^`RUNS` must hold a from_scratch run, got path\.$"):
        maps_at(runs.ranks, runs.stages, at("stage=1"), role="from_scratch")


def test_maps_of_runs_at_one_lambda(tmp_path: Path) -> None:
    fixed = XiConfig(spacing="list", levels=[2e-3])
    for seed in range(2):
        write_run(tmp_path, seed=seed, num_stages=2, xi=fixed)
    runs = load_runs([tmp_path])
    maps = maps_at(runs.ranks, runs.stages, at("lambda=0.002"))
    assert maps.groupby("seed")["stage"].unique().tolist() == [[1], [1]]
    assert len(maps) == 2 * 2 * 6
    own = runs.ranks[runs.ranks["stage"] == 1]
    assert maps["nonzero_rank"].sum() == own["nonzero_rank"].sum()


def test_maps_hold_the_recorded_ranks(tmp_path: Path) -> None:
    path = write_run(tmp_path, num_layers=3)
    runs = load_runs([tmp_path])
    (found,) = rank_maps(runs.ranks, stages_at(runs.stages, at("stage=3"))).values()
    row = runs.ranks[
        (runs.ranks["stage"] == 3)
        & (runs.ranks["layer"] == 2)
        & (runs.ranks["matrix"] == "output.dense")
    ]
    assert found.shape == (3, 6)
    assert found.loc[2, "output.dense"] == row["nonzero_rank"].iloc[0]
    assert path.name in rank_maps(runs.ranks, {path.name: 0})


def test_mean_map_is_the_mean_of_cells() -> None:
    shuffled = table([[3.0, 4.0], [5.0, 6.0]])[["value", "query"]]
    mean = mean_map({"a": table([[1.0, 2.0], [3.0, 4.0]]), "b": shuffled})
    assert mean.to_numpy().tolist() == [[2.0, 3.0], [4.0, 5.0]]


def test_maps_of_different_backbones_are_refused() -> None:
    message = r"^`maps` must be of one backbone: the same layers, the same matrices\.$"
    with pytest.raises(ValueError, match=message):
        mean_map({"a": table([[1.0, 2.0]]), "b": table([[1.0, 2.0], [3.0, 4.0]])})


def test_depth_trend_is_one_if_deeper_layers_keep_more() -> None:
    assert depth_trend(table([[0.0, 1.0], [2.0, 1.0], [3.0, 9.0]])) == 1.0


def test_depth_trend_of_a_flat_map_is_missing() -> None:
    assert np.isnan(depth_trend(table([[1.0, 1.0]] * 3)))


def test_depth_trend_has_an_interval_over_seeds() -> None:
    up = table([[0.0, 1.0], [2.0, 1.0], [3.0, 9.0]])
    interval = depth_trend_interval({"a": up, "b": up.iloc[::-1].reset_index(drop=True)})
    assert (interval.mean, interval.count) == (0.0, 2)
    assert interval.contains_zero


def test_agreement_ignores_the_order_of_matrices() -> None:
    one = table([[0.0, 1.0], [2.0, 5.0]])
    assert map_agreement(one, one[["value", "query"]]) == pytest.approx(1.0)
    assert map_agreement(one, -one) == pytest.approx(-1.0)


def test_agreements_have_one_row_a_pair() -> None:
    one = table([[0.0, 1.0], [2.0, 5.0]])
    rows = agreements({"a": one, "b": one, "c": -one})
    assert rows[["first", "second"]].to_numpy().tolist() == [["a", "b"], ["a", "c"], ["b", "c"]]
    assert rows["spearman"].tolist() == pytest.approx([1.0, -1.0, -1.0])
