"""Wrong inputs of a shell user: one sentence of at most 1,000 characters, exit code 2, no file."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.cli import main as analyse
from sorakit.cli import main
from sorakit.quoting import LONGEST_MESSAGE

GOOD = "text,label\na big cat,x\na new saw,y\nthe cat,x\nthe saw,y\n"
LONG = "x" * 5000

FILES: dict[str, str | bytes] = {
    "t.csv": GOOD,
    "semicolons.csv": "text;label\na;b\n",
    "blank.csv": "\n",
    "header.csv": "text,label\n",
    "quote.csv": 'text,label\n"open quote,x\n',
    "nul.csv": "text,label\na\0b,x\nc,y\n",
    "one_class.csv": "text,label\na,x\nb,x\n",
    "twice.csv": "text,label,label\na,x,y\n",
    "short.csv": "text,label\na,x\nb\n",
    "long_class.csv": f"text,label\n{'a' * 3000},{LONG}\nb,\n",
    "no_number.csv": f"text,label\na,{LONG}\nb,2\n",
    "nan.csv": "text,label\na,nan\nb,2\n",
    "long_header.csv": f"{LONG},{LONG}\na,b\n",
    "blank_text.csv": f"text,label\n {' ' * 3000},x\nb,y\n",
    "utf16.csv": GOOD.encode("utf-16"),
    "latin.csv": "text,label\nna\xefve,x\nb,y\n".encode("latin-1"),
    "binary.csv": bytes(range(256)),
    "binary.parquet": bytes(range(256)),
    "pointer.parquet": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "empty.json": "[]",
    "half.json": '{"text": "a',
    "number.json": f"[{'1' * 4000}]",
    "nested.json": json.dumps({"data": {LONG: [1, 2]}}),
    "lists.jsonl": '{"text": "a", "label": [1]}\n',
    "deep.json": "[" * 100_000,
    "text.txt": GOOD,
    "options_list.yaml": "- a\n",
    "options_half.yaml": f"optim: {{lr: {LONG}\n",
    "options_type.yaml": f"optim: {{lr: {LONG}}}\n",
    "options_name.yaml": f"optim: {{{LONG}: 1}}\n",
    "options_section.yaml": f"optim: {LONG}\n",
    "sweep_scalar.yaml": "grid: {seed: 3}\n",
    "sweep_type.yaml": f"grid: {{seed: [1, {LONG}]}}\n",
    "sweep_name.yaml": f"grid: {{task.{LONG}: [1]}}\n",
    "sweep_controls.yaml": f"controls: [{LONG}]\n",
    "sweep_list.yaml": f"grid: [{LONG}]\n",
    "sweep_records.yaml": f"seed: 1\nrecords: {LONG[:200]}\n",
    "sweep_data.yaml": f"task: {{name: files, train_file: {LONG[:200]}.csv}}\n",
}

RUNS: dict[str, list[str]] = {
    **{
        name: [f"--task.train_file={name}"]
        for name in FILES
        if not name.endswith(("yaml", "t.csv"))
    },
    "no file": [f"--task.train_file={LONG[:240]}.csv"],
    "endless file": [f"--task.train_file={LONG}.csv"],
    "a folder": ["--task.train_file=folder.csv"],
    "no folder": [f"--task.data_dir=/no/{LONG[:200]}"],
    "endless folder": [f"--task.data_dir=/{LONG}"],
    "no column": [f"--task.text_column={LONG}"],
    "no label": ["--task.label_column="],
    "same pair": ["--task.text_pair_column=nothing"],
    "no numbers": ["--task.metric=pearson", "--task.train_file=no_number.csv"],
    "nan": ["--task.metric=spearman", "--task.train_file=nan.csv"],
    "no task": [f"--task.name={LONG}"],
    "no model": [f"--backbone.name={LONG}"],
    "empty model": ["--backbone.name="],
    "data as model": ["--backbone.name=."],
    "length 0": ["--task.max_length=0"],
    "length beyond": ["--task.max_length=100000"],
    "seed": ["--seed=-1"],
    "big seed": ["--seed=99999999999999999999"],
    "long seed": [f"--seed={'9' * 4000}"],
    "lr nan": ["--optim.lr=nan"],
    "lr below 0": ["--optim.lr=-1e-3"],
    "xi": ["--xi.start=inf"],
    "r": ["--method.r=0"],
    "modules": [f"--method.target_modules=[{LONG}]"],
    "exclude": [f"--method.exclude_modules=[{LONG}]"],
    "noise": ["--task.label_noise=2"],
    "sample": ["--task.memorization_examples=-3"],
    "stages": ["--xi.num_stages=0"],
    "levels": [f"--xi.levels=[{LONG}]"],
    "out is a file": ["--out_dir=t.csv"],
    "out cannot be": ["--out_dir=/proc/x"],
    "home of nobody": ["--task.data_dir=~nobody-of-this-name/x"],
    "option": [f"--{LONG}=1"],
    "word": [LONG],
    "choice": [f"--gates.scale={LONG}"],
    "controls": [f"--controls={LONG}"],
    **{f"{name}": [f"--config={name}"] for name in FILES if name.startswith("options")},
    "no options": [f"--config={LONG}"],
}

OTHERS: dict[str, list[str]] = {
    **{name: ["sweep", f"--config={name}"] for name in FILES if name.startswith("sweep")},
    "sweep of a csv": ["sweep", "--config=t.csv"],
    "sweep of nothing": ["sweep", f"--config={LONG}"],
    "sweep workers": ["sweep", "--workers=0", "--config=sweep_type.yaml"],
    "status of nothing": ["status", f"/{LONG[:200]}"],
    "status of endless": ["status", LONG],
    "status of data": ["status", "."],
    "export of nothing": ["export", f"/{LONG[:200]}", "--stage=0", "--out=new"],
    "export of data": ["export", ".", "--stage=0", "--out=new"],
    "export stage": ["export", ".", f"--stage={LONG}", "--out=new"],
    "sync of nothing": ["sync", f"/{LONG[:200]}", "--workspace=false"],
    "run of nothing": ["run", f"/{LONG[:200]}"],
    "run of data": ["run", "."],
    "command": [LONG],
}

ANALYSES: dict[str, list[str]] = {
    "summary of nothing": ["summary", f"/{LONG[:200]}"],
    "figures of data": ["figures", ".", "--out", "new"],
    "report of data": ["report", ".", "--out", "new.html"],
    "frontier of data": ["frontier", "."],
    "compare into nothing": ["compare", ".", "--csv", f"no/{LONG[:200]}"],
    "summary of endless": ["summary", LONG],
    "at": ["figures", ".", "--out", "new", "--at", LONG],
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with wrong files of many kinds."""
    for name, content in FILES.items():
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(data)
    (tmp_path / "folder.csv").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(
    call: Callable[[list[str]], object],
    words: list[str],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> str:
    """Return the one line that a wrong command says; it exits with 2 and writes nothing."""
    before = sorted(folder.rglob("*"))
    capsys.readouterr()
    try:
        code = call(words)
    except SystemExit as stopped:
        code = stopped.code
    printed = capsys.readouterr()
    assert code == 2, printed.err[-300:]
    assert sorted(folder.rglob("*")) == before
    assert len(printed.err) <= LONGEST_MESSAGE + len("sorakit: error: \n")
    assert printed.err.count("\n") == 1, printed.err
    assert printed.out == ""
    return printed.err


def run_words(words: list[str], model: str) -> list[str]:
    given = {
        "--task.name": "files",
        "--task.data_dir": ".",
        "--task.train_file": "t.csv",
        "--task.validation_file": "t.csv",
        "--backbone.name": model,
        "--out_dir": "out",
        "--tracking.wandb": "off",
        "--trainer.accelerator": "cpu",
    }
    given |= {word.partition("=")[0]: word.partition("=")[2] for word in words if "=" in word}
    if any(word.startswith("--controls") for word in words):
        given["--out_dir"] = "out"
    return [
        "run",
        *(word for word in words if "=" not in word),
        *(f"{name}={value}" for name, value in given.items()),
    ]


@pytest.mark.filterwarnings("ignore")  # what else is said of such data has tests of its own
@pytest.mark.parametrize("case", RUNS)
def test_wrong_run(case: str, hub: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = told(main, run_words(RUNS[case], str(hub / "model")), here, capsys)
    assert message.startswith("sorakit: error: ")


@pytest.mark.parametrize("case", OTHERS)
def test_wrong_command(case: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(main, OTHERS[case], here, capsys).startswith("sorakit: error: ")


@pytest.mark.parametrize("case", ANALYSES)
def test_wrong_analysis(case: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(analyse, ANALYSES[case], here, capsys).startswith("error: ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(hub, here, capsys) -> None:
    (here / "t.csv").chmod(0)
    told(main, run_words([], str(hub / "model")), here, capsys)
