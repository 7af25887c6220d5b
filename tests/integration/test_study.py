"""A study from one command to its report, resumed, refused, and read as tables."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

import sorakit
from sorakit.cli import main
from sorakit.records import is_complete

ROOT = Path(__file__).parents[2]
SMALL = {
    "task.max_length": "16",
    "method.r": "2",
    "method.gate_init": "normal",
    "xi.num_stages": "2",
    "stage.max_epochs": "1",
    "dense.max_epochs": "3",
    "refit.max_epochs": "2",
    "optim.batch_size": "16",
    "trainer.accelerator": "cpu",
    "trainer.precision": "32-true",
}


@pytest.fixture(autouse=True)
def _empty_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for the processes of runs and analysis


def words(hub: Path, *more: str) -> list[str]:
    """Return the words of a study that takes seconds."""
    options = [f"--{name}={value}" for name, value in SMALL.items()]
    data = ["--data", f"{hub}/task/train.csv", f"--backbone={hub}/model", "--out=study"]
    return ["study", *data, *options, *more]


def call(*arguments: str) -> Any:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return stop.value.code


def written(folder: Path) -> list[str]:
    return sorted(str(file) for file in folder.rglob("*"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--task.label_column=gold"], "`task.label_column` must be a column of train.csv"),
        (["--seeds", "0"], "`--seeds` must be >= 1, got 0."),
        (["--workers=0"], "`--workers` must be >= 1, got 0."),
        (["--controls", "nothing"], "`controls` must name floor, "),
        (["--lora-ranks", "a"], "`--lora-ranks` must be ranks such as 1,2,4, or none"),
        (["--seed=3"], "`--seed` must be left to `--seeds` in a study, got 3."),
        (["--config", "none.yaml"], "`--config` must be a file that can be read"),
        (["--xi.num_stage", "3"], "xi.num_stage"),
    ],
)
def test_wrong_study_is_refused_and_writes_nothing(more, message, hub, tmp_path, capsys):
    assert call(*words(hub, *more)) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert line.startswith("sorakit: error: ")
    assert message in line
    assert written(tmp_path) == []


def test_dry_run_says_what_was_understood_and_how_long_it_takes(hub, tmp_path, capsys):
    assert call(*words(hub, "--dry-run", "--seeds", "1")) == 0
    said = capsys.readouterr().out
    assert re.search(r"^labels +2 classes: animals 50\.0%, tools 50\.0%$", said, re.MULTILINE)
    assert "warning: The dataset has no held-out split: 10% of the training split is held" in said
    assert "6 runs: 0 done, 0 running, 0 failed, 6 to run\n" in said  # path, 3 controls, 2 ranks
    assert "a timed training step took " in said
    assert said.endswith("Folder: study; Ctrl-C stops, and the same command goes on.\n")
    assert written(tmp_path) == []


@pytest.mark.slow
@pytest.mark.timeout(1200)  # a dozen processes, each of which imports torch or draws
def test_study_ends_in_a_report_and_is_not_repeated(hub, tmp_path, capsys):
    more = ["--seeds=1", "--controls=floor, lora_pattern: [1]", "--lora-ranks=1"]
    assert call(*words(hub, *more)) == 0
    said = capsys.readouterr().out
    assert "The report: study/report.html" in said
    assert "<html" in Path("study/report.html").read_text()
    assert Path("study/figures/curves.pdf").stat().st_size > 0
    study = sorakit.load_study("study")
    curves = study.curves()
    assert set(zip(curves["role"], curves["seed"], strict=True)) == {
        (role, 0) for role in ("path", "floor", "lora", "lora_pattern")
    }
    counts = curves.groupby("role")["num_nonzero_params"].apply(list)
    assert counts["lora_pattern"] == counts["path"][1:2]
    assert (curves.loc[curves["stage"] == 0, "share"].dropna() > 0).all()
    assert len(study.runs()) == 4
    assert isinstance(study.frontier(), pd.DataFrame)
    assert "train" not in set(study.comparison()["task"])  # a file is not named for its split
    before = {file: file.stat().st_mtime_ns for file in Path("study/runs").rglob("stages.jsonl")}
    same = sorakit.study(
        f"{hub}/task/train.csv",
        backbone=f"{hub}/model",
        seeds=1,
        controls="floor, lora_pattern: [1]",
        lora_ranks=[1],
        out="study",
        options={name: yaml.safe_load(value) for name, value in SMALL.items()},
    )
    assert same.curves().equals(curves)
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert call(*words(hub, *more, "--optim.lr=0.1")) == 2
    assert "`optim.lr` must stay its default in 'study'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(1200)  # a dozen processes, each of which imports torch or draws
def test_interrupted_study_goes_on(hub, tmp_path, capsys):
    arguments = words(hub, "--seeds=1", "--controls=none", "--lora-ranks=none")
    arguments += ["--dense.max_epochs=200", "--dense.patience=200"]
    process = subprocess.Popen(
        [sys.executable, "-m", "sorakit", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job may ignore it
    )
    last = time.monotonic() + 300
    while not list(tmp_path.glob("study/runs/*/*/checkpoints/step_*.ckpt")):
        assert time.monotonic() < last
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130
    assert "Interrupted. Rerun the same command" in said
    [run] = (path.parent for path in tmp_path.glob("study/runs/*/*/config.yaml"))
    assert not is_complete(run)
    assert call(*arguments) == 0
    assert is_complete(run)


@pytest.mark.slow
@pytest.mark.timeout(1200)  # a dozen processes, each of which imports torch or draws
def test_python_of_the_page_works(hub, tmp_path):
    page = (ROOT / "docs" / "study.md").read_text("utf-8")
    [block] = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "reviews.csv").write_bytes((hub / "task" / "train.csv").read_bytes())
    names: dict[str, Any] = {}
    exec(block, names)
    assert set(names["curves"]["role"]) == {"path", "floor", "lora"}
    assert sorakit.load_study("studies/small").report.is_file()
