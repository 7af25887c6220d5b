import json
import re
from pathlib import Path

import pandas as pd
import pytest

from analysis.arguments import VERBS
from analysis.cli import main
from analysis.frozen import read_frozen
from analysis.load import load_runs
from sorakit.config import METHOD_VERSION, GatesConfig, StageConfig, XiConfig
from sorakit.records import DENSE_STAGES_DIR, STAGES_FILE
from tests.support.fake_runs import write_run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    for kind in ("path", "floor", "hold_dense"):
        write_run(root, kind)
    write_run(root, "path", seed=7, num_stages=0, state="failed", error="out of memory")
    return root


def files_of(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


@pytest.mark.parametrize("verb", [[], *([name] for name in VERBS)])
def test_help_of_every_verb_exits_0(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*verb, "--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: python -m analysis")
    assert "%%" not in out


def test_figures_writes_both_figures_as_pdf_and_png(runs: Path, tmp_path: Path) -> None:
    assert main(["figures", str(runs), "--out", str(tmp_path / "out")]) == 0
    expected = {"curves.pdf", "curves.png", "rank_maps.pdf", "rank_maps.png"}
    assert files_of(tmp_path / "out") == expected


def test_figures_prints_used_and_left_out_runs(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["figures", str(runs), "--out", str(tmp_path / "out")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "3 runs used (1 path, 1 floor, 1 hold_dense), 1 left out"
    assert lines[1].endswith(": failed, no finished stage: out of memory")
    assert [line for line in lines[2:] if not line.startswith("  note: ")] == [
        f"wrote {tmp_path / 'out' / name}"
        for name in ("curves.pdf", "curves.png", "rank_maps.pdf", "rank_maps.png")
    ]


def test_summary_prints_dense_floor_and_fewest_parameters(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["summary", str(runs)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["pydoc_topic", "0", "memorization", "0.974", "0.554", "0.968", "36,864", "20,864",
            "20,864", "*0"] in rows  # fmt: skip


def test_every_text_says_what_its_percentages_are_of(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of dense may be the dense score, the dense stage's parameters, or the full adapter."""
    page = tmp_path / "report.html"
    for verb in ("summary", "compare", "frontier"):
        assert main([verb, str(runs)]) == 0
    assert main(["report", str(runs), "--out", str(page)]) == 0
    for name in VERBS:
        with pytest.raises(SystemExit):
            main([name, "--help"])
    told = " ".join((capsys.readouterr().out + page.read_text("utf-8")).split())
    assert "of the full adapter" in told
    assert (
        re.findall(r".{30}(?:%|percent|&nbsp;%) of (?:the )?dense(?! score| stage| gen).{20}", told)
        == []
    )


def test_summary_prints_the_spacing_of_counts(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["summary", str(runs)])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["0", "1", "+", "7", "36,864", "3", "1", "2", "1", "2.33", "4.17", "%"] in [
        row[-12:] for row in rows
    ]


def test_freeze_writes_tables_and_sources(runs: Path, tmp_path: Path) -> None:
    assert main(["freeze", str(runs), "--out", str(tmp_path / "data")]) == 0
    assert files_of(tmp_path / "data") == {
        "curves.csv", "compare.csv", "first.csv", "ranking.csv", "frontier.csv", "rank_maps.csv",
        "sources.json",
    }  # fmt: skip


def test_freeze_says_which_stages_the_maps_show(runs: Path, tmp_path: Path) -> None:
    main(["freeze", str(runs), "--out", str(tmp_path), "--at", "budget=12000"])
    assert json.loads((tmp_path / "sources.json").read_text())["rank_maps_at"] == "budget=12000"
    maps = read_frozen(tmp_path / "rank_maps.csv")
    counts = set(maps["num_nonzero_params"])
    assert counts == {max(n for n in load_runs([runs]).stages["num_nonzero_params"] if n <= 12000)}


def test_freeze_of_runs_at_a_fixed_xi(runs: Path, tmp_path: Path) -> None:
    levels = [2e-3, 2.6e-3]
    scratch = write_run(
        runs, num_stages=3, xi=XiConfig(spacing="list", levels=levels),
        stage=StageConfig(control="from_scratch"),
    )  # fmt: skip
    out = ["--out", str(tmp_path)]
    assert main(["freeze", str(runs), *out, "--fixed-lambda", "0.002"]) == 0
    assert json.loads((tmp_path / "sources.json").read_text())["fixed_lambda"] == 0.002
    fixed = read_frozen(tmp_path / "fixed_xi_maps.csv")
    ranks = load_runs([scratch]).ranks
    own = ranks[ranks["stage"] == 1]
    assert set(fixed["run_id"]) == {scratch.name}
    assert fixed["nonzero_rank"].sum() == own["nonzero_rank"].sum()
    assert scratch.name not in set(read_frozen(tmp_path / "rank_maps.csv")["run_id"])
    main(["freeze", str(runs), *out])  # no table of another freeze stays
    assert not (tmp_path / "fixed_xi_maps.csv").exists()


def test_fixed_lambda_that_no_run_was_trained_at_exits_2(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    argv = ["freeze", str(runs), "--out", str(out), "--fixed-lambda"]
    assert refused([*argv, "0.1"], capsys) == (
        "error: `RUNS` must hold a from_scratch run, got floor, hold_dense, path."
    )
    assert refused([*argv, "0"], capsys) == "error: `lambda` must be > 0 and finite, got 0."
    assert not out.exists()


def test_freeze_of_a_selection_names_the_rest(tmp_path: Path) -> None:
    for gate_lr in (1.0, 3.0):
        write_run(tmp_path / "runs", gates=GatesConfig(gate_lr=gate_lr))
    out = tmp_path / "data"
    only = ["--only", "gates.gate_lr=3"]
    assert main(["freeze", str(tmp_path / "runs"), "--out", str(out), *only]) == 0
    sources = json.loads((out / "sources.json").read_text())
    assert len(sources["runs"]) == 1
    assert [run["reason"] for run in sources["excluded"]] == ["not selected: gates.gate_lr is 1.0"]


def test_freeze_names_its_sources(runs: Path, tmp_path: Path) -> None:
    main(["freeze", str(runs), "--out", str(tmp_path)])
    used = load_runs([runs]).runs
    sources = json.loads((tmp_path / "sources.json").read_text())
    assert [(run["run_id"], run["method_version"], run["git_sha"]) for run in sources["runs"]] == [
        (run_id, METHOD_VERSION, "0" * 40) for run_id in used["run_id"]
    ]


def test_freeze_lists_what_is_left_out(runs: Path, tmp_path: Path) -> None:
    main(["freeze", str(runs), "--out", str(tmp_path)])
    (left_out,) = json.loads((tmp_path / "sources.json").read_text())["excluded"]
    assert left_out["reason"] == "failed, no finished stage: out of memory"


def test_freeze_is_byte_identical_when_run_again(runs: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        main(["freeze", str(runs), "--out", str(tmp_path / name)])
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_frozen_scores_are_read_back_exactly(runs: Path, tmp_path: Path) -> None:
    main(["freeze", str(runs), "--out", str(tmp_path)])
    columns = ["run_id", "stage", "memorization", "generalization", "xi", "setting", "role"]
    frozen = read_frozen(tmp_path / "curves.csv")[columns]
    loaded = load_runs([runs]).stages[columns]
    order = ["run_id", "stage"]
    pd.testing.assert_frame_equal(
        frozen.sort_values(order, ignore_index=True),
        loaded.sort_values(order, ignore_index=True),
        check_exact=True,
    )


def test_frozen_run_id_of_digits_stays_text(tmp_path: Path) -> None:
    (tmp_path / "curves.csv").write_text("run_id,stage\n012345678901,0\n12345678e901,0\n")
    assert read_frozen(tmp_path / "curves.csv")["run_id"].tolist() == [
        "012345678901",
        "12345678e901",
    ]


def break_runs(root: Path) -> dict[str, Path]:
    """Break runs below `root` in every way that a reader meets; name -> folder."""
    torn, mixed = write_run(root, seed=10), write_run(root, seed=12)
    (torn / STAGES_FILE).write_text((torn / STAGES_FILE).read_text().replace('"xi"', '"x', 1))
    lines = [json.loads(line) for line in (mixed / STAGES_FILE).read_text().splitlines()]
    del lines[3]["memorization"]
    (mixed / STAGES_FILE).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return {
        "torn": torn,
        "empty": write_run(root, seed=11, num_stages=0),
        "mixed": mixed,
        "newer": write_run(root, seed=13, meta={"schema_version": 99}),
        "single": write_run(root, seed=14, num_stages=1),
    }


REASONS = {
    "torn": "`stages.jsonl` must hold a JSON object in every line, got one with ",
    "empty": "completed, no finished stage",
    "mixed": "stages.jsonl mixes schemas: memorization missing in some of its stages",
    "newer": "`schema_version` must be 1, got 99",
    "single": "single stage: no curve",
}


@pytest.mark.parametrize("verb", ["compare", "summary", "figures", "freeze", "report"])
def test_every_verb_counts_and_names_what_it_leaves_out(
    runs: Path, tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = break_runs(runs)
    out = tmp_path / ("report.html" if verb == "report" else "out")
    options = [] if verb in ("compare", "summary") else ["--out", str(out)]
    assert main([verb, str(runs), *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "3 runs used (1 path, 1 floor, 1 hold_dense), 6 left out" in lines
    named = dict(line.split(": ", 1) for line in lines if line.startswith("  left out "))
    assert len(named) == 6
    for name, folder in broken.items():
        assert named[f"  left out {folder}"].startswith(REASONS[name])
    if verb == "freeze":
        sources = json.loads((out / "sources.json").read_text())["excluded"]
        assert {run["path"] for run in sources} >= {str(folder) for folder in broken.values()}
        assert not set(read_frozen(out / "curves.csv")["run_id"]) & {
            f.name for f in broken.values()
        }
    if verb == "report":
        html = out.read_text()
        assert "3 runs used (1 path, 1 floor, 1 hold_dense), 6 left out." in html
        assert all(f'<td class="path">{folder}</td>' in html for folder in broken.values())


@pytest.mark.parametrize("verb", ["figures", "freeze"])
@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("lambda=9", "`at` must be met by a stage of a path run, got lambda=9. "),
        ("stage", "`--at` must be stage=K, lambda=X, retention=SHARE or budget=N, got 'stage'."),
    ],
)
def test_criterion_that_cannot_be_met_exits_2(
    runs: Path, tmp_path: Path, verb: str, option: str, message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    line = refused([verb, str(runs), "--out", str(tmp_path / "out"), "--at", option], capsys)
    assert line.startswith(f"error: {message}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", ["figures", "freeze"])
def test_run_without_the_stage_is_named(
    runs: Path, tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    short = write_run(runs, seed=3, num_stages=2)
    assert main([verb, str(runs), "--out", str(tmp_path), "--at", "stage=5"]) == 0
    sentence = f"No rank map is shown of pydoc_topic, seed 3 ({short.name}): no such stage."
    assert f"  note: {sentence}" in capsys.readouterr().out.splitlines()
    if verb == "freeze":
        assert sentence in json.loads((tmp_path / "sources.json").read_text())["notes"]


def test_unknown_option_of_a_selection_exits_2(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(["summary", str(runs), "--only", "gates.lr=1"], capsys)
    assert line == "error: `--only` must name an option of a run, got 'gates.lr'."


def refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the only line on stderr of a call that exits with 2 and prints nothing else."""
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("\n")
    (line,) = captured.err.splitlines()
    return line


def test_missing_folder_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(["summary", str(tmp_path / "nowhere")], capsys)
    assert line.startswith("error: `RUNS` must be an existing folder, got ")


def test_folder_without_runs_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(["summary", str(tmp_path)], capsys) == (
        "error: `RUNS` must hold at least one run with a finished stage, "
        f"got none in {tmp_path} (0 left out)."
    )


@pytest.mark.parametrize("verb", ["figures", "freeze"])
def test_out_that_is_a_file_exits_2(
    runs: Path, tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "out"
    assert refused([verb, str(runs), "--out", str(out)], capsys) == (
        f"error: `--out` must be a writable folder, got {str(out)!r}. Name another one."
    )


@pytest.mark.parametrize("verb", ["figures", "summary"])
def test_runs_without_a_path_exit_2(
    tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "runs", "floor")
    out = [] if verb == "summary" else ["--out", str(tmp_path / "out")]
    assert refused([verb, str(tmp_path / "runs"), *out], capsys) == (
        "error: `RUNS` must hold at least one path run (method.name sora, stage.control none), "
        "got 0."
    )


def test_nothing_is_written_for_a_refused_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "runs", "floor")
    refused(["figures", str(tmp_path / "runs"), "--out", str(tmp_path / "out")], capsys)
    assert files_of(tmp_path) == {"runs"}


def test_dense_stages_of_a_sweep_are_no_runs(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = runs / DENSE_STAGES_DIR / "0123456789ab"
    shared.mkdir(parents=True)
    (shared / STAGES_FILE).write_text("{}\n")
    main(["summary", str(runs)])
    assert shared.name not in capsys.readouterr().out
