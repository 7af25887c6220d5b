"""The frontier: which adapter of N parameters is best, from planted curves."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from analysis.cli import main
from analysis.frontier import NOT_MEASURED, NOT_TOLD_APART, difference, frontier
from analysis.frontier_text import caution, frontier_rows
from analysis.load import load_runs
from sorakit.config import MethodConfig, StageConfig, XiConfig
from tests.support.fake_runs import write_run

DENSE = 36_864  # parameters of a fake path


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Three seeds: path and random_mask as curves in log N, LoRA of three sizes.

    Generalization is 0.5 + 0.05 log10 N + seed / 10 for the path; random ranks lose 0.02 and LoRA
    gains 0.01 on it, in every seed alike up to 0.001.
    """
    root = tmp_path_factory.mktemp("runs")
    masked = StageConfig(control="random_mask")
    for seed in range(3):
        write_run(root, seed=seed)
        write_run(root, seed=seed, stage=masked, xi=XiConfig(spacing="target"))
        for r in (1, 2, 4):
            write_run(root, seed=seed, num_stages=1, method=MethodConfig(name="lora", r=r))
    table = load_runs([root]).stages
    added = table["role"].map({"path": 0.0, "random_mask": -0.02, "lora": 0.01})
    wiggle = 0.001 * (table["seed"] - 1) * (table["role"] != "path")
    counts = table["num_nonzero_params"].clip(lower=1).astype(float)
    score = 0.5 + 0.05 * np.log10(counts) + 0.1 * table["seed"] + added + wiggle
    return table.assign(generalization=score, memorization=score)


def place(table: pd.DataFrame, share: float, role: str) -> pd.Series:
    is_here = (table["share"] == share) & (table["role"] == role)
    return table[is_here & (table["score"] == "generalization")].iloc[0]


def test_scores_are_read_off_in_log_parameters(stages: pd.DataFrame) -> None:
    row = place(frontier(stages), 0.2, "path")
    assert row["params"] == pytest.approx(0.2 * DENSE)
    assert row["mean"] == pytest.approx(0.5 + 0.05 * np.log10(0.2 * DENSE) + 0.1)
    assert row["seeds"] == 3


def test_differences_are_paired_by_seed(stages: pd.DataFrame) -> None:
    row = place(frontier(stages), 0.1, "random_mask")
    assert row["difference"] == pytest.approx(0.02)
    assert row["paired"]
    assert row["pairs"] == 3
    # seeds differ by 0.1, pairs by 0.001: only pairs tell the two apart
    assert row["difference_high"] - row["difference_low"] == pytest.approx(
        2 * 4.3026527 * 0.001 / 3**0.5, rel=1e-4
    )
    assert row["verdict"] == "path"


def test_lora_of_several_ranks_is_one_curve(stages: pd.DataFrame) -> None:
    row = place(frontier(stages), 0.2, "lora")
    assert row["mean"] == pytest.approx(0.5 + 0.05 * np.log10(0.2 * DENSE) + 0.1 + 0.01)
    assert row["verdict"] == "lora"
    assert row["best_role"] == "lora"
    assert row["best_against"] == "path"
    assert row["best_difference"] == pytest.approx(0.01)
    assert row["best_verdict"] == "lora"


def test_nothing_is_extrapolated(stages: pd.DataFrame) -> None:
    table = frontier(stages)
    row = place(table, 0.1, "lora")  # its smallest rank is an eighth of dense
    assert np.isnan(row["mean"])
    assert row["verdict"] == NOT_MEASURED
    assert row["best_role"] == "path"
    assert row["best_against"] == "random_mask"
    path = place(table, 0.01, "path")  # the last stage with parameters is at 3 %
    assert np.isnan(path["mean"])


def test_interval_with_0_is_not_told_apart(stages: pd.DataFrame) -> None:
    masked = stages["role"] == "random_mask"
    noisy = stages.assign(
        generalization=stages["generalization"] + masked * 0.1 * (stages["seed"] - 1)
    )
    row = place(frontier(noisy), 0.1, "random_mask")
    assert row["difference_low"] < 0 < row["difference_high"]
    assert row["verdict"] == row["best_verdict"] == NOT_TOLD_APART


def test_unpaired_seeds_are_compared_by_welch() -> None:
    found = difference({0: 0.8, 1: 0.9, 2: 0.7}, {3: 0.5, 4: 0.7})
    assert not found.paired
    assert found.interval.mean == pytest.approx(0.2)
    test = scipy.stats.ttest_ind([0.8, 0.9, 0.7], [0.5, 0.7], equal_var=False)
    low, high = test.confidence_interval()
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high))


def test_one_seed_has_no_interval_and_no_verdict() -> None:
    found = difference({0: 0.8}, {0: 0.6})
    assert found.interval.mean == pytest.approx(0.2)
    assert np.isnan(found.interval.low)
    assert found.interval.contains_zero


def test_of_two_runs_of_one_size_the_better_trained_counts(stages: pd.DataFrame) -> None:
    lora = stages[stages["role"] == "lora"]
    second = lora.assign(
        run_id=lora["run_id"] + "b", train_loss=lora["train_loss"].astype(float) - 0.5,
        generalization=lora["generalization"] - 0.3,
    )  # fmt: skip
    row = place(frontier(pd.concat([stages, second], ignore_index=True)), 0.2, "lora")
    own = place(frontier(stages), 0.2, "lora")
    assert row["mean"] == pytest.approx(own["mean"] - 0.3)


def test_rows_say_score_difference_and_best(stages: pd.DataFrame) -> None:
    rows = frontier_rows(frontier(stages, shares=[0.2]))
    assert [row[1] for row in rows[:4]] == ["SoRA path", "random_mask", "lora", "best"]
    assert rows[3][2].startswith("lora\n+0.010\n[0.0")


def test_verb_prints_and_writes_the_frontier(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "runs"
    write_run(root)
    write_run(root, stage=StageConfig(control="random_mask"), xi=XiConfig(spacing="target"))
    files = [tmp_path / "f.csv", tmp_path / "f.tex"]
    argv = ["frontier", str(root), "--csv", str(files[0]), "--latex", str(files[1])]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "random_mask" in out
    assert "not told apart" in out  # one seed
    assert pd.read_csv(files[0])["role"].unique().tolist() == ["path", "random_mask"]
    assert files[1].read_text().startswith(r"\begin{tabular}{llrrrrr}")


def test_caution_says_how_many_intervals_there_are(stages: pd.DataFrame) -> None:
    table = frontier(stages)
    number = int(np.isfinite(table["difference_low"].astype(float)).sum())
    assert number > 5
    sentence = caution(table)
    assert sentence.startswith(f"{number} intervals over budgets, scores and rivals")
    assert f"about {0.05 * number:.2g} would exclude 0 by chance" in sentence
    one_seed = caution(frontier(stages[stages["seed"] == 0]))
    assert one_seed.startswith("no intervals: ")
    alone = caution(frontier(stages[stages["role"] == "path"]))
    assert alone.startswith("nothing is compared: there is no rival.")


def test_lora_with_the_ranks_of_stages_is_a_rival_of_its_own(tmp_path: Path) -> None:
    write_run(tmp_path)
    for r, ranks in ((1, {"a": 1}), (4, {"a": 4})):  # of two stages: a row is read off in between
        pattern = MethodConfig(name="lora_pattern", r=r, rank_pattern=ranks)
        write_run(tmp_path, num_stages=1, method=pattern)
        write_run(tmp_path, num_stages=1, method=MethodConfig(name="lora", r=r))
    table = frontier(load_runs([tmp_path]).stages, shares=[0.2])
    rows = table[table["score"] == "generalization"].set_index("role")
    assert rows.loc["lora_pattern", "mean"] == pytest.approx(rows.loc["lora", "mean"])
    assert rows.loc["lora_pattern", "seeds"] == 1
