"""Path minus control: paired by seed, at shares of the full adapter, never extrapolated."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.compare_text import control_sentences
from analysis.control_differences import control_differences, scores_at_shares

COUNTS = (1000, 100, 10)


def run_of(role: str, seed: int, scores: tuple[float, ...], task: str = "mrpc") -> pd.DataFrame:
    counts = COUNTS[: len(scores)] if role != "hold_dense" else (COUNTS[0],) * len(scores)
    return pd.DataFrame(
        {
            **{
                "task": task,
                "method": "sora",
                "backbone": "embedded",
                "setting": "",
                "variant": "",
            },
            **{"role": role, "seed": seed, "run_id": f"{task}{role}{seed}"},
            **{"dense_id": f"{task}{seed}", "floor_id": f"{task}{seed}"},
            "stage": range(len(scores)),
            "num_nonzero_params": counts,
            "num_adapter_params": COUNTS[0],
            "memorization": scores,
            "generalization": [0.5 * score for score in scores],
        }
    )


@pytest.fixture(scope="module")
def stages() -> pd.DataFrame:
    runs = [
        run_of("path", 0, (0.9, 0.8, 0.6)),
        run_of("path", 1, (0.9, 0.7, 0.5)),
        run_of("path", 2, (0.9, 0.8, 0.4)),
        run_of("random_mask", 0, (0.9, 0.7, 0.6)),
        run_of("random_mask", 1, (0.9, 0.5, 0.5)),
        run_of("hold_dense", 0, (0.9, 0.95, 0.99)),
        run_of("path", 0, (0.9, 0.8, 0.6), task="cola"),
    ]
    return pd.concat(runs, ignore_index=True)


def test_scores_lie_on_straight_lines_in_log10(stages: pd.DataFrame) -> None:
    path = stages[stages["run_id"] == "mrpcpath0"]
    found = scores_at_shares(path, "memorization", [1.0, 10**-0.5, 0.1, 0.01, 0.001])
    np.testing.assert_allclose(found, [0.9, 0.85, 0.8, 0.6, np.nan])


def test_hold_dense_has_its_last_score_at_every_share(stages: pd.DataFrame) -> None:
    held = stages[stages["role"] == "hold_dense"]
    assert scores_at_shares(held, "memorization", [0.5, 0.001]).tolist() == [0.99, 0.99]


def test_difference_is_paired_by_seed(stages: pd.DataFrame) -> None:
    table = control_differences(stages, shares=[0.1])
    masked = table[(table["control"] == "random_mask") & (table["score"] == "memorization")]
    (row,) = masked.to_dict("records")  # seed 2 has no such control
    differences = [0.1, 0.2]
    low, high = stats.t.interval(0.95, 1, np.mean(differences), stats.sem(differences))
    assert row["count"] == 2
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((0.15, low, high))


def test_one_seed_has_no_interval(stages: pd.DataFrame) -> None:
    table = control_differences(stages, controls=["hold_dense"], shares=[0.01])
    (row,) = table[table["score"] == "generalization"].to_dict("records")
    assert row["mean"] == pytest.approx(0.5 * (0.6 - 0.99))
    assert np.isnan(row["low"])


def test_share_that_was_not_measured_is_nan(stages: pd.DataFrame) -> None:
    table = control_differences(stages, controls=["random_mask"], shares=[0.001])
    assert len(table) == 2
    assert table["mean"].isna().all()
    assert (table["count"] == 0).all()


def test_sentence_says_from_how_many_seeds(stages: pd.DataFrame) -> None:
    table = control_differences(stages, shares=[0.2])
    held, masked = control_sentences(table, ("mrpc", "embedded", "", ""))
    assert held == (
        "path minus hold_dense at 20 % of the full adapter: memorization -0.160, "
        "generalization -0.080 (1 seed)."
    )
    assert masked.endswith("], generalization +0.052 [-0.170, +0.274] (2 seeds).")
    assert control_sentences(table, ("cola", "embedded", "", "")) == []


def test_dataset_without_controls_has_no_row(stages: pd.DataFrame) -> None:
    assert set(control_differences(stages)["task"]) == {"mrpc"}
