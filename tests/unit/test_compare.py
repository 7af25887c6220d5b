import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.cli import main
from analysis.compare import compare
from analysis.compare_text import comparison_table, first_sentence, inflections_of
from analysis.controls import missing_controls
from analysis.intervals import p_text
from analysis.latex import escape_latex, first_table, shares_table
from analysis.load import KEYS, load_runs
from analysis.ranking_table import RANKED, Names, dataset_names, ranking_rows
from analysis.resampling import read_correct, resampled_scores
from sorakit.config import BackboneConfig, GatesConfig
from sorakit.records import EXAMPLES_FILE, STAGES_FILE
from tests.support import fake_runs
from tests.support.fake_runs import write_run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two datasets of three seeds with floors."""
    for task in ("pydoc_topic", "mrpc"):
        for seed in range(3):
            write_run(tmp_path / "runs", "path", task=task, seed=seed)
            write_run(tmp_path / "runs", "floor", task=task, seed=seed)
    return tmp_path / "runs"


def test_table_has_one_row_a_dataset_score_and_reference(root: Path) -> None:
    table = compare(load_runs([root])).table
    assert table.groupby("task").size().to_dict() == {"mrpc": 4, "pydoc_topic": 4}
    assert table["seeds"].tolist() == [3] * 8


def test_d90_is_the_geometric_mean_of_its_seeds(root: Path) -> None:
    comparison = compare(load_runs([root]))
    keys = {"task": "mrpc", "score": "memorization", "reference": "gain"}
    rows, means = (
        t[(t[list(keys)] == list(keys.values())).all(axis=1)]
        for t in (comparison.runs, comparison.table)
    )
    expected = float(np.exp(np.log(rows["d90"].astype(float)).mean()))
    row = means.iloc[0]
    assert row["d90"] == pytest.approx(expected)
    assert row["d90_low"] <= row["d90"] <= row["d90_high"]


def test_datasets_are_ranked_in_pairs(root: Path) -> None:
    ranking = compare(load_runs([root])).ranking
    assert ranking.groupby(["score", "reference"]).size().tolist() == [1] * len(ranking)
    assert set(ranking["task_fewer"]) | set(ranking["task_more"]) == {"mrpc", "pydoc_topic"}
    assert (ranking["ratio"] >= 1).all()


def test_datasets_of_different_backbones_are_not_ranked(root: Path) -> None:
    for seed in range(3):
        write_run(root, "path", task="cola", seed=seed, backbone=BackboneConfig(name="other"))
    ranking = compare(load_runs([root])).ranking
    assert len(ranking) > 0
    assert set(ranking["task_fewer"]) | set(ranking["task_more"]) == {"mrpc", "pydoc_topic"}


def test_ranking_table_has_a_row_a_pair(root: Path) -> None:
    comparison = compare(load_runs([root]))
    (row,) = ranking_rows(comparison.ranking, dataset_names(comparison.table))
    assert row[0] == "mrpc and pydoc_topic"
    assert len(row) == 1 + len(RANKED)
    for cell, (score, reference) in zip(row[1:], RANKED, strict=True):
        of = comparison.ranking
        (pair,) = of[(of["score"] == score) & (of["reference"] == reference)].to_dict("records")
        named = f"{pair['task_fewer']} ÷ {pair['ratio']:.3g}"
        told = named if pair["p_holm"] <= 0.05 else "not told apart"
        assert cell == f"{told}\n{p_text(pair['p_holm'])}"


def test_pair_that_was_not_tested_has_no_cell() -> None:
    sides = {f"{key}_{side}": "" for key in KEYS for side in ("fewer", "more")}
    sides |= {"task_fewer": "b", "task_more": "a"}
    rows = [
        sides | {"score": "memorization", "reference": "gain", "ratio": 2.5, "p_holm": 0.0004},
        sides | {"score": "generalization", "reference": "gain", "ratio": 2.5, "p_holm": np.nan},
    ]
    names: Names = {(task, "", "", ""): task for task in ("a", "b")}
    assert ranking_rows(pd.DataFrame(rows), names) == [
        ["a and b", "-", "b ÷ 2.5\np < 0.001", "-", "-"]
    ]


def test_what_goes_first_is_paired_by_seed(root: Path) -> None:
    comparison = compare(load_runs([root]))
    row = comparison.first[
        (comparison.first["task"] == "mrpc") & (comparison.first["measure"] == "d90 of gain")
    ].iloc[0]
    gain = comparison.runs[
        (comparison.runs["task"] == "mrpc") & (comparison.runs["reference"] == "gain")
    ]
    wide = np.log10(gain.pivot(index="seed", columns="score", values="d90").astype(float))
    expected = (wide["memorization"] - wide["generalization"]).mean()
    assert row["difference"] == pytest.approx(expected)
    # memorization falls with speed 3, generalization with speed 12 (tests/support/fake_runs.py)
    assert row["verdict"] == "memorization first"


def test_smaller_area_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_runs, "ALIVE_SHARES", [1.0, 0.82, 0.55, 0.33, 0.17, 0.08, 0.005, 0.0])
    for seed in range(3):
        for kind in ("path", "floor"):
            write_run(tmp_path, kind, seed=seed, num_layers=4)
    comparison = compare(load_runs([tmp_path]))
    (row,) = comparison.first[comparison.first["measure"] == "area of gain"].to_dict("records")
    gain = comparison.runs[comparison.runs["reference"] == "gain"]
    wide = gain.pivot(index="seed", columns="score", values="area")
    mean = (wide["memorization"] - wide["generalization"]).mean()
    assert row["difference"] == pytest.approx(mean)
    assert row["high"] < 0
    assert row["verdict"] == "memorization first"
    assert first_sentence(row).startswith(
        "what goes first, by area of gain: memorization first; memorization's minus "
        f"generalization's is {mean:.3f} ["
    )


def test_area_of_paths_that_end_early_is_undefined(root: Path) -> None:
    first = compare(load_runs([root])).first
    assert set(first.loc[first["measure"] == "area of gain", "verdict"]) == {
        "undefined: fewer than two paths reach down to 1 % of the parameters"
    }


def test_one_seed_decides_nothing(tmp_path: Path) -> None:
    write_run(tmp_path, "path")
    write_run(tmp_path, "floor")
    comparison = compare(load_runs([tmp_path]))
    assert comparison.first["verdict"].str.startswith("undefined: ").all()
    gains = comparison.table.loc[comparison.table["reference"] == "gain", "status"]
    assert gains.str.startswith("undefined: one seed and no records of examples").all()


def test_gain_without_a_floor_is_undefined_and_says_so(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path, "path", seed=seed)
    table = compare(load_runs([tmp_path])).table
    gain = table[table["reference"] == "gain"]
    assert gain["status"].tolist() == ["undefined: no floor for 2 of 2 seeds"] * 2
    assert gain[["d90", "area"]].isna().all(axis=None)


def test_gain_whose_interval_contains_zero_is_undefined(root: Path) -> None:
    runs = load_runs([root])
    stages = runs.stages.copy()
    dense = (stages["role"] == "path") & (stages["stage"] == 0) & (stages["task"] == "mrpc")
    stages.loc[dense, "generalization"] = [0.505, 0.52, 0.509]  # floor 0.51
    table = compare(type(runs)(**{**vars(runs), "stages": stages})).table
    status = table.set_index(["task", "score", "reference"])["status"]
    assert status["mrpc", "generalization", "gain"] == (
        "undefined: the interval of dense - floor contains 0"
    )
    assert status["mrpc", "memorization", "gain"] == "defined"


def test_paths_of_different_options_are_compared_apart(tmp_path: Path) -> None:
    write_run(tmp_path, "path", gates=GatesConfig(scale="free"))
    write_run(tmp_path, "path", gates=GatesConfig(scale="unit"))
    comparison = compare(load_runs([tmp_path]))
    assert set(comparison.table["variant"]) == {"gates.scale=free", "gates.scale=unit"}
    assert comparison.notes[0].endswith("have 2 configurations, compared apart.")


def test_floor_serves_paths_whose_gates_differ(tmp_path: Path) -> None:
    for gate_lr in (1.0, 3.0):
        write_run(tmp_path, "path", gates=GatesConfig(gate_lr=gate_lr))
    write_run(tmp_path, "floor", gates=GatesConfig(gate_lr=1.0))
    assert compare(load_runs([tmp_path])).table["floor_score"].notna().all()


def test_missing_controls_are_named_with_their_seeds(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path, "path", seed=seed)
    write_run(tmp_path, "floor", seed=0)
    write_run(tmp_path, "hold_dense", seed=0)
    write_run(tmp_path, "hold_dense", seed=1)
    assert missing_controls(load_runs([tmp_path]).stages) == [
        "pydoc_topic (embedded) has no floor run for seed 1: how much of a score needs no adapter "
        "is unknown, and no gain is defined.",
        "pydoc_topic (embedded) has no random_mask run: whether the ranks that are left matter is "
        "not known.",
    ]


def test_only_single_stages_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, num_stages=1)
    assert main(["compare", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        "error: `RUNS` must hold at least one path run with two stages (method.name sora, "
        "stage.control none), got 0 (1 runs left out).\n"
    )


def test_csv_holds_the_table_and_the_inflections(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "compare.csv"
    assert main(["compare", str(root), "--csv", str(file)]) == 0
    table = pd.read_csv(file)
    assert len(table) == 8
    assert {"d90", "d90_low", "inflection_p_value", "inflection_drop", "status"} <= set(table)


def test_latex_is_a_tabular_with_escaped_names(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "compare.tex"
    assert main(["compare", str(root), "--latex", str(file)]) == 0
    text = file.read_text()
    assert text == shares_table(comparison_table(compare(load_runs([root]))))
    assert r"pydoc\_topic (embedded): 3 seeds, 36.9k parameters dense" in text
    rows = [line for line in text.splitlines() if line.endswith((r"\\", "[2pt]"))]
    cells = {row.replace(r"\&", "").count("&") for row in rows if "multicolumn" not in row}
    assert cells == {7}


def test_latex_of_what_goes_first_has_one_row_a_measure(root: Path) -> None:
    text = first_table(compare(load_runs([root])).first)
    rows = [line for line in text.splitlines() if line.startswith("mrpc")]
    measures = [row.split(" & ")[1] for row in rows]
    assert measures == ["where it drops", "d90 of gain", "area of gain"]
    assert rows[1].endswith(r" & memorization \\")
    assert rows[2].split(" & ")[2] == "--"


def test_inflections_come_back_from_the_table(root: Path) -> None:
    comparison = compare(load_runs([root]))
    drops = inflections_of(comparison_table(comparison))
    expected = comparison.dataset_inflections
    order = ["task", "score"]
    pd.testing.assert_frame_equal(
        drops.sort_values(order, ignore_index=True),
        expected[list(drops)].sort_values(order, ignore_index=True),
        check_dtype=False,
    )


def test_csv_in_a_missing_folder_exits_2_before_reading(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "nowhere" / "compare.csv"
    assert main(["compare", str(tmp_path), "--csv", str(file)]) == 2
    assert capsys.readouterr().err == (
        f"error: `--csv` must be a file in an existing folder, got {str(file)!r}.\n"
    )


def test_latex_escapes_every_special_character() -> None:
    assert escape_latex("a_b & 5% {x}") == r"a\_b \& 5\% \{x\}"


def write_examples(run: Path, correct: np.ndarray) -> None:
    """Write `(stages, examples)` results, the same for both splits, and the scores they give."""
    stages, examples = correct.shape
    frames = [
        pd.DataFrame(
            {
                "stage": np.repeat(np.arange(stages), examples),
                "split": split,
                "index": np.tile(np.arange(examples), stages),
                "correct": pd.array(correct.ravel().astype(bool), dtype="boolean"),
            }
        )
        for split in ("memorization", "generalization")
    ]
    pd.concat(frames, ignore_index=True).to_parquet(run / EXAMPLES_FILE, index=False)
    lines = [json.loads(line) for line in (run / STAGES_FILE).read_text().splitlines()]
    for line, row in zip(lines, correct, strict=True):
        line["memorization"] = line["generalization"] = float(row.mean())
    (run / STAGES_FILE).write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def test_resampled_scores_have_the_binomial_variance(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    correct = np.random.default_rng(7).random((8, 400)) < 0.7  # not the seed of the draws
    write_examples(run, correct)
    record = read_correct(run, "accuracy")["memorization"]
    (scores,) = resampled_scores([record])
    assert scores.mean() == pytest.approx(correct.mean(), abs=0.01)
    # 60 draws: the standard error of a variance is 18 %, of the mean of eight 7 %
    expected = (correct.mean(axis=1) * (1 - correct.mean(axis=1)) / 400).mean()
    assert scores.var(axis=0, ddof=1).mean() == pytest.approx(expected, rel=0.25)


def test_runs_that_share_examples_share_draws(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    write_examples(run, np.random.default_rng(0).random((8, 50)) < 0.7)
    record = read_correct(run, "accuracy")["memorization"]
    first, second = resampled_scores([record, record])
    np.testing.assert_array_equal(first, second)


def test_scores_that_are_no_means_over_examples_are_not_resampled(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    write_examples(run, np.ones((8, 50)))
    assert read_correct(run, "matthews_correlation") == {}


def test_examples_give_one_seed_an_interval(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shares = np.array([0.95, 0.93, 0.9, 0.85, 0.8, 0.7, 0.6, 0.55])
    path, floor = (write_run(tmp_path, kind) for kind in ("path", "floor"))
    write_examples(path, rng.random(500) < shares[:, None])
    write_examples(floor, rng.random((1, 500)) < 0.5)
    row = compare(load_runs([tmp_path])).table.iloc[1]
    assert (row["reference"], row["intervals_from"]) == ("gain", "examples")
    assert row["status"] == "defined"
    assert row["gain_low"] < row["gain"] < row["gain_high"]
    assert row["d90_low"] < row["d90"] < row["d90_high"]


def test_examples_that_contradict_the_scores_are_not_used(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    scores = (run / STAGES_FILE).read_text()
    write_examples(run, np.random.default_rng(0).random((8, 50)) < 0.7)
    (run / STAGES_FILE).write_text(scores)
    assert set(compare(load_runs([tmp_path])).table["intervals_from"]) == {"none"}
