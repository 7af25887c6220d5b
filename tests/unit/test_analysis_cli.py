import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from analysis.cli import main
from analysis.frozen import read_frozen
from analysis.load import load_runs
from paper_figs import fig2_curves, fig3_rank_maps
from sorakit.config import METHOD_VERSION
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
    assert lines[2:] == [
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
        "curves.csv", "floors.csv", "hold_dense.csv", "ranks.csv", "sources.json", "summary.csv",
    }  # fmt: skip


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


@pytest.mark.parametrize("script", [fig2_curves, fig3_rank_maps])
def test_figure_script_draws_from_frozen_tables(runs: Path, tmp_path: Path, script) -> None:
    main(["freeze", str(runs), "--out", str(tmp_path)])
    name = script.__name__.rsplit(".", 1)[-1]
    assert script.main(tmp_path, tmp_path / "out") == [tmp_path / "out" / f"{name}.pdf"]


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


def test_analysis_imports_no_torch() -> None:
    code = (
        "import sys, analysis.cli, paper_figs.fig2_curves, paper_figs.fig3_rank_maps; "
        "banned = {'torch', 'lightning', 'transformers', 'wandb', 'datasets'}; "
        "print(sorted(banned & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"
