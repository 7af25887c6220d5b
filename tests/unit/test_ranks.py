from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.load import load_runs
from analysis.ranks import (
    agreements,
    depth_trend,
    depth_trend_interval,
    map_agreement,
    mean_map,
    rank_maps,
    stages_at,
)
from tests.support.fake_runs import write_run
from tests.unit.test_curves import PATH


def table(values: list[list[float]]) -> pd.DataFrame:
    return pd.DataFrame(values, columns=["query", "value"])


def test_stage_is_chosen_by_number_retention_or_budget() -> None:
    assert stages_at(PATH, stage=1) == {"p": 1}
    assert stages_at(PATH, retention=0.99) == {"p": 2}  # 100 parameters keep all of 0.8
    assert stages_at(PATH, budget=499) == {"p": 2}
    assert stages_at(PATH, stage=9) == {}


def test_two_criteria_are_refused() -> None:
    message = r"^`stage`, `retention` or `budget` must be given alone, got 2 of them\.$"
    with pytest.raises(ValueError, match=message):
        stages_at(PATH, stage=1, budget=3)


def test_maps_hold_the_recorded_ranks(tmp_path: Path) -> None:
    path = write_run(tmp_path, num_layers=3)
    runs = load_runs([tmp_path])
    (found,) = rank_maps(runs.ranks, stages_at(runs.stages, stage=3)).values()
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
