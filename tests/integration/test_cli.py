"""The command line, end to end: exit codes, one sentence on stderr, nothing written."""

import json
import math
import os
import resource
import shutil
import socket
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from sorakit.cli import main
from sorakit.config import METHOD_VERSION
from sorakit.records import Run, find_runs, is_complete, load_run, role_of
from sorakit.records.packing import pack_runs
from sorakit.sweep.controls import with_steps_of
from sorakit.training.module import AdaptationModule
from tests.support.broken_runs import files_of
from tests.support.fake_runs import fake_config, write_run
from tests.support.tiny_hub import write_task

ROOT = Path(__file__).parents[2]
LEVELS = "[0.02,0.05,4.0]"


@pytest.fixture(autouse=True)
def _empty_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def options(hub: Path, out_dir: Path | str, **changed: str | None) -> list[str]:
    """Return `run` with its options; `changed` replaces some (`__` is a dot), a null drops one."""
    values: dict[str, str | None] = {
        "task.name": "files",
        "task.data_dir": str(hub / "task"),
        "task.train_file": "train.csv",
        "task.validation_file": "validation.csv",
        "task.max_length": "16",
        "backbone.name": str(hub / "model"),
        "method.r": "4",
        "method.gate_init": "normal",
        "xi.spacing": "list",
        "xi.levels": LEVELS,
        "xi.num_stages": "3",
        "dense.max_epochs": "1",
        "optim.batch_size": "16",
        "trainer.accelerator": "cpu",
        "trainer.precision": "32-true",
        "trainer.num_threads": "1",
        "out_dir": str(out_dir),
    }
    values |= {name.replace("__", "."): value for name, value in changed.items()}
    return ["run", *(f"--{name}={value}" for name, value in values.items() if value is not None)]


def call(*arguments: str) -> Any:
    """Run the command line in this process and return its exit code."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return stop.value.code


@pytest.fixture(scope="module")
def complete(hub: Path) -> Path:
    """A complete run, made through the command line."""
    path = hub / "complete"
    assert call(*options(hub, path)) == 0
    return path


def assert_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], *words: str, folder: Path
) -> None:
    """Assert exit code 2, one line on stderr with `words`, and nothing written below `folder`."""
    before = sorted(str(p) for p in folder.rglob("*"))
    capsys.readouterr()
    assert call(*arguments) == 2
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("sorakit: error: ")
    for word in words:
        assert word in lines[0]
    assert captured.out == ""
    assert sorted(str(p) for p in folder.rglob("*")) == before


def write_status(path: Path, *, pid: int) -> None:
    """Make a run look as if the process `pid` of this host were writing it."""
    status = {"state": "running", "error": None, "host": socket.gethostname(), "pid": pid}
    (path / "status.json").write_text(json.dumps(status))


# Wrong input ---------------------------------------------------------------------------------

WRONG: dict[str, tuple[dict[str, str | None], tuple[str, ...]]] = {
    "unknown_task": ({"task__name": "imdb"}, ("`task.name` must be one of", "mrpc", "'imdb'")),
    "missing_data_folder": (
        {"task__data_dir": "/no/such/folder"},
        ("`task.data_dir` must be an existing folder, got '/no/such/folder'.",),
    ),
    "missing_glue_folder": (
        {
            "task__name": "mrpc",
            "task__data_dir": "/no/such/folder",
            "task__train_file": None,
            "task__validation_file": None,
        },
        ("`task.data_dir`", "/no/such/folder"),
    ),
    "missing_column": (
        {"task__text_column": "sentence"},
        ("`task.text_column` must be a column of train.csv (text, label), got 'sentence'.",),
    ),
    "missing_model": (
        {"backbone__name": "/no/such/model"},
        ("`backbone.name` must be embedded, a local model folder or a Hub id",),
    ),
    "r_0": ({"method__r": "0"}, ("`method.r` must be >= 1, got 0.",)),
    "negative_xi": ({"xi__start": "-1e-4"}, ("`xi.start` must be > 0, got -0.0001.",)),
    "nan_xi": ({"xi__start": ".nan"}, ("`xi.start` must be > 0, got nan.",)),
    "decreasing_levels": (
        {"xi__levels": "[0.2,0.1]"},
        ("`xi.levels` must be finite and strictly increasing", "got [0.2, 0.1]."),
    ),
    "no_module": (
        {"method__target_modules": "[q_proj]"},
        ("`method.target_modules` must match a linear layer", "['q_proj']", "attention.self.query"),
    ),
    "wrong_type": ({"method__r": "many"}, ("method.r", "many")),
    "wrong_choice": ({"gates__update": "adam"}, ("gates.update", "adam", "sgd")),
    "unknown_key": ({"method__rank": "4"}, ("rank",)),
    "too_long": ({"task__max_length": "33"}, ("`task.max_length` must be <= 32",)),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_option_is_refused(case, hub, tmp_path, capsys):
    changed, words = WRONG[case]
    assert_refused(capsys, options(hub, tmp_path / "run", **changed), *words, folder=tmp_path)


def test_unknown_key_in_a_file_is_refused(hub, tmp_path, capsys):
    (tmp_path / "run.yaml").write_text("method:\n  rank: 4\n")
    arguments = ["run", "--config=run.yaml", *options(hub, tmp_path / "run")[1:]]
    assert_refused(capsys, arguments, "rank", folder=tmp_path)


def test_wrong_value_in_a_file_is_refused(hub, tmp_path, capsys):
    (tmp_path / "run.yaml").write_text("seed: -1\n")
    arguments = ["run", "--config=run.yaml", *options(hub, tmp_path / "run")[1:]]
    assert_refused(capsys, arguments, "`seed` must be in [0, 2**31), got -1.", folder=tmp_path)


def test_missing_config_file_is_refused(hub, tmp_path, capsys):
    arguments = ["run", "--config=none.yaml", *options(hub, tmp_path / "run")[1:]]
    assert_refused(capsys, arguments, "none.yaml", folder=tmp_path)


def test_label_outside_the_classes_is_refused(hub, tmp_path, capsys):
    task = write_task(tmp_path / "task")
    with (task / "validation.csv").open("a") as stream:
        stream.write("the old oak,plants\n")
    arguments = options(hub, tmp_path / "run", task__data_dir=str(task))
    words = ("label 'plants'", "row 32 (line 34) of validation.csv", "(animals, tools)")
    assert_refused(capsys, arguments, *words, folder=tmp_path)


def test_folder_below_a_file_is_refused(hub, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    arguments = options(hub, tmp_path / "file" / "run")
    words = ("`out_dir` must be a folder that can be written", str(tmp_path / "file"))
    assert_refused(capsys, arguments, *words, folder=tmp_path)


def test_file_in_the_place_of_the_folder_is_refused(hub, tmp_path, capsys):
    (tmp_path / "run").write_text("")
    arguments = options(hub, tmp_path / "run")
    assert_refused(capsys, arguments, "`out_dir` must be a folder", folder=tmp_path)


def test_folder_with_other_files_is_refused(hub, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("")
    arguments = options(hub, tmp_path / "run")
    assert_refused(capsys, arguments, "`out_dir`", "which holds other files.", folder=tmp_path)


def test_folder_of_another_configuration_is_refused(hub, complete, capsys):
    arguments = [*options(hub, complete), "--seed=1"]
    words = ("`out_dir` must hold no other configuration", "Choose another folder")
    assert_refused(capsys, arguments, *words, folder=complete)


def test_folder_in_use_is_refused(hub, tmp_path, capsys):
    path = tmp_path / "run"
    assert call(*options(hub, path)) == 0
    # the parent of this process is alive, and is not this process
    write_status(path, pid=os.getppid())
    arguments = options(hub, path)
    assert_refused(
        capsys, arguments, "`out_dir` must not be in use", str(os.getppid()), folder=path
    )


def test_folder_of_a_dead_process_goes_on(hub, tmp_path):
    path = tmp_path / "run"
    assert call(*options(hub, path)) == 0
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    write_status(path, pid=done.pid)
    assert call(*options(hub, path)) == 0
    assert load_run(path).state == "completed"


@pytest.mark.parametrize("arguments", [[], ["walk"], ["run", "--no-such-option=1"]])
def test_wrong_command_is_refused(arguments, tmp_path, capsys):
    assert_refused(capsys, arguments, folder=tmp_path)


def test_wrong_option_is_refused_in_a_process_of_its_own(hub, tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from sorakit.cli import main; main()",
            *options(hub, tmp_path / "run", method__r="0"),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "`method.r` must be >= 1, got 0." in done.stderr
    assert not (tmp_path / "run").exists()


# Running -------------------------------------------------------------------------------------


def test_completed_run_of_other_data_is_refused(hub, tmp_path, capsys):
    write_task(tmp_path / "task")
    arguments = options(hub, tmp_path / "run", task__data_dir=str(tmp_path / "task"))
    assert call(*arguments, "--xi.num_stages=1", "--xi.levels=[4.0]") == 0
    write_task(tmp_path / "task", num_train=65)
    capsys.readouterr()
    before = files_of(tmp_path / "run")
    assert call(*arguments, "--xi.num_stages=1", "--xi.levels=[4.0]") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("sorakit: error: `out_dir` must hold a run with the data and base model")
    assert line.endswith(
        "made with other data (changed: train.csv, validation.csv). Put back what it was made "
        "with, or choose another `out_dir`."
    )
    assert files_of(tmp_path / "run") == before


def test_completed_run_is_left_as_it_is(hub, complete, capsys):
    capsys.readouterr()
    assert call(*options(hub, complete)) == 0
    assert capsys.readouterr().out == f"{complete} is complete already; nothing to do.\n"


def test_options_of_a_file_are_overridden_by_later_ones(hub, tmp_path):
    (tmp_path / "run.yaml").write_text("seed: 5\nmethod:\n  r: 2\n")
    arguments = options(hub, tmp_path / "run", method__r=None, xi__levels="[4.0]")
    assert call("run", "--config=run.yaml", *arguments[1:], "--seed=6") == 0
    config = load_run(tmp_path / "run").config
    assert (config["seed"], config["method"]["r"]) == (6, 2)


def test_written_configuration_makes_the_same_run(complete, capsys):
    capsys.readouterr()
    assert call("run", f"--config={complete / 'config.yaml'}") == 0
    assert capsys.readouterr().out.endswith("is complete already; nothing to do.\n")


def test_printed_configuration_is_the_resolved_one(hub, tmp_path, capsys):
    assert call(*options(hub, tmp_path / "run"), "--print_config") == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["xi"]["levels"] == [0.02, 0.05, 4.0]
    assert not (tmp_path / "run").exists()


def test_interruption_exits_130(hub, tmp_path, capsys, monkeypatch):
    def training_step(self: AdaptationModule, batch: Any, batch_idx: int) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(AdaptationModule, "training_step", training_step)
    assert call(*options(hub, tmp_path / "run")) == 130
    assert "Rerun the same command to resume from the last checkpoint." in capsys.readouterr().err


def test_run_says_its_cost_first_and_how_long_it_still_takes(hub, complete, capsys, monkeypatch):
    monkeypatch.setattr("sorakit.training.progress._LINE_SECONDS", 0.0)
    capsys.readouterr()
    assert call(*options(hub, complete.with_name("other-seed")), "--seed=1") == 0
    title, *lines = capsys.readouterr().err.splitlines()
    assert "seed 1" in title
    cost = [line for line in lines if line.startswith("About ")]
    assert [line.endswith(" s, going by finished runs of this kind.") for line in cost] == [True]
    plan = next(i for i, line in enumerate(lines) if line.startswith("At most 4 steps until dense"))
    left = [i for i, line in enumerate(lines) if line.endswith(" left")]
    assert left, "a file is not told how long it still takes"
    assert plan < min(left)


def test_complete_run_is_repeated_beside_itself_bit_for_bit(complete, capsys):
    capsys.readouterr()
    again = complete.with_name(f"{complete.name}-again")
    assert call("run", str(complete)) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{complete} is complete: its configuration runs again in {again}.",
        f"Completed {again}",
        f"Its 4 stages are those of {complete}, bit for bit, with ranks and examples.",
    ]
    files = ("stages.jsonl", "ranks.jsonl", "examples.parquet")
    assert all((again / name).read_bytes() == (complete / name).read_bytes() for name in files)


def test_repetition_goes_where_it_is_told_and_says_where_it_differs(complete, tmp_path, capsys):
    other = tmp_path / "original"
    shutil.copytree(complete, other)
    lines = (other / "stages.jsonl").read_text().splitlines()
    stage = json.loads(lines[2])
    next_loss = math.nextafter(stage["train_loss"], math.inf)
    lines[2] = json.dumps({**stage, "train_loss": next_loss})
    (other / "stages.jsonl").write_text("\n".join(lines) + "\n")
    assert call("run", str(other), f"--out_dir={tmp_path / 'copy'}") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].startswith(
        f"From stage 2 on it differs from {other}: `train_loss` is {stage['train_loss']}, there "
        f"{next_loss}. Machine, versions, data and commit are the same in both meta.json: "
    )
    assert load_run(tmp_path / "copy").state == "completed"


def test_packed_run_is_repeated_in_the_folder_of_a_new_run(complete, tmp_path, capsys):
    pack = tmp_path / "pack"
    pack_runs([complete], pack)
    packed = pack / load_run(complete).run_id
    assert call("run", str(packed)) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].startswith(f"Its 4 stages are those of {packed}, bit for bit")
    assert is_complete(tmp_path / "runs" / "task" / packed.name)


def test_run_that_is_not_complete_goes_on_in_its_folder(complete, tmp_path, capsys):
    path = tmp_path / "run"
    shutil.copytree(complete, path)
    write_status(path, pid=2**22 + 1)  # no process has this number
    assert call("run", str(path)) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{path} is not complete: it goes on where it stopped.",
        f"Completed {path}",
    ]
    assert load_run(path).state == "completed"


def test_what_cannot_be_repeated_is_refused(complete, tmp_path, capsys):
    def refuse(*arguments: str, words: str) -> None:
        assert_refused(capsys, ["run", *arguments], words, folder=tmp_path)

    refuse(str(tmp_path / "none"), words="`RUN_FOLDER` must be a run folder")
    refuse(str(complete), "--seed=1", words="`RUN_FOLDER` must be repeated as it is")
    refuse(str(complete), "--controls=floor", words="`--controls` must not be given")
    path = tmp_path / "run"
    shutil.copytree(complete, path)
    write_status(path, pid=2**22 + 1)
    refuse(str(path), f"--out_dir={tmp_path / 'b'}", words="`--out_dir` must not be given while")
    meta = json.loads((path / "meta.json").read_text())
    (path / "meta.json").write_text(json.dumps({**meta, "method_version": 0}))
    refuse(str(path), words=f"must be of method version {METHOD_VERSION} to be repeated, got 0")


def test_controls_of_a_run_that_are_there_are_not_made_again(tmp_path, capsys):
    runs = tmp_path / "runs" / "pydoc_topic"
    path = load_run(write_run(runs))
    write_run(runs, "floor")
    control = with_steps_of(fake_config("hold_dense"), path.stages)
    write_run(runs, "hold_dense", xi=control.xi, stage=control.stage)
    before = sorted(runs.rglob("*"))
    assert call("run", "--task.name=pydoc_topic", "--controls=floor,hold_dense") == 0
    assert capsys.readouterr().out.endswith("All 3 runs are complete below runs.\n")
    assert sorted(runs.rglob("*")) == before


@pytest.mark.slow
def test_run_has_its_controls_with_one_command(hub, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    out = tmp_path / "out"
    command = [*options(hub, out), "--controls=floor,hold_dense"]
    assert call(*command) == 0
    assert capsys.readouterr().out.endswith(f"All 3 runs are complete below {out}.\n")
    runs = {role(run): run for run in map(load_run, find_runs(out))}
    assert set(runs) == {"path", "floor", "hold_dense"}
    path, control = runs["path"], runs["hold_dense"]
    assert control.meta["dense_stage_of"] == path.run_id
    assert control.stages["optimizer_steps"].sum() == path.stages["optimizer_steps"].sum()
    assert call(*command) == 0, "the same command does not find them"


def role(run: Run) -> str:
    return role_of(run.config["method"]["name"], run.config["stage"]["control"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--controls=random"], "`controls` must name floor, adalora, adapter"),
        (["--controls=floor", "--method.name=head_only"], "`--controls` must be those of a path"),
        (["--controls=random_mask"], "Control random_mask: `xi.spacing` must be target"),
        (["--controls={"], "`--controls` must be names such as floor,random_mask, got '{'."),
    ],
)
def test_wrong_controls_are_refused(hub, tmp_path, capsys, arguments, words):
    command = [*options(hub, tmp_path / "out"), *arguments]
    assert_refused(capsys, command, words, folder=tmp_path)


def test_help_takes_a_fraction_of_a_second() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for command in ([], ["run"]):
        program = [sys.executable, "-c", "from sorakit.cli import main; main()", *command, "--help"]
        subprocess.run(program, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert seconds < 2 * 0.5, "CPU time; 0.16 s each on a busy core"


# sync (the rest is in test_wandb.py) ---------------------------------------------------------


def test_sync_of_a_folder_without_runs_is_refused(tmp_path, capsys):
    assert_refused(capsys, ["sync", str(tmp_path)], "`RUNS` must hold runs", folder=tmp_path)


def test_sync_without_the_workspace_package_is_refused(complete, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    assert_refused(capsys, ["sync", str(complete)], "`--workspace` must be false", folder=tmp_path)


# export and status ---------------------------------------------------------------------------


def elements(folder: Path) -> int:
    state = load_file(folder / "adapter_model.safetensors")
    return sum(value.numel() for name, value in state.items() if ".lora_" in name)


def test_export_copies_the_adapter_of_a_stage(complete, tmp_path):
    assert call("export", str(complete), "--stage=1", f"--out={tmp_path / 'adapter'}") == 0
    original = {p.name: p.read_bytes() for p in (complete / "adapters" / "stage_01").iterdir()}
    assert set(original) == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "rank_pattern.json",
    }
    copied = {name: (tmp_path / "adapter" / name).read_bytes() for name in original}
    assert copied == original


def test_lora_retrained_from_the_ranks_of_a_stage_has_as_many_parameters(hub, complete, tmp_path):
    ranks = complete / "adapters" / "stage_01" / "rank_pattern.json"
    changed = {"method__name": "lora_pattern", "method__gate_init": None}
    again = options(hub, tmp_path / "lora", **changed, method__rank_pattern=str(ranks))
    assert call(*again) == 0
    [stage] = load_run(tmp_path / "lora").stages["num_nonzero_params"]
    assert stage == load_run(complete).stages["num_nonzero_params"][1] > 0
    assert call("run", str(tmp_path / "lora")) == 0  # its record holds the ranks, not the file


def test_export_says_the_score_of_the_adapter_in_plain_peft(complete, tmp_path, capsys):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert call("export", str(complete), "--stage=1", f"--out={tmp_path / 'adapter'}") == 0
    assert [str(warning.message) for warning in caught] == []  # of the libraries
    score = load_run(complete).stages["generalization"][1]
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"Verified: {score:.4f} in plain PEFT (float32), {score:.4f} recorded (32-true); tolerance "
        "0.0625."
    )


def test_export_by_retention_takes_the_fewest_parameters(complete, tmp_path):
    stages = load_run(complete).stages
    kept = stages[stages["generalization"] >= 0.9 * stages["generalization"][0]]
    assert call("export", str(complete), "--retention=0.9", f"--out={tmp_path / 'adapter'}") == 0
    assert elements(tmp_path / "adapter") == kept["num_nonzero_params"].min()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--stage=9"], "`--stage` must be a stage of the run, 0 to 3, got 9."),
        (["--retention=1.5"], "`--retention` must be in (0, 1], got 1.5."),
        ([], "`--stage` or `--retention` must be given, and not both."),
        (["--stage=1", "--retention=0.9"], "`--stage` or `--retention` must be given"),
    ],
)
def test_wrong_export_is_refused(arguments, words, complete, tmp_path, capsys):
    command = ["export", str(complete), *arguments, f"--out={tmp_path / 'adapter'}"]
    assert_refused(capsys, command, words, folder=tmp_path)


def test_export_into_an_existing_folder_is_refused(complete, tmp_path, capsys):
    command = ["export", str(complete), "--stage=1", f"--out={tmp_path}"]
    assert_refused(capsys, command, "`--out` must be a new folder", folder=tmp_path)


def test_export_of_no_run_is_refused(tmp_path, capsys):
    command = ["export", str(tmp_path), "--stage=1", f"--out={tmp_path / 'adapter'}"]
    assert_refused(capsys, command, "`RUN` must be a run folder", folder=tmp_path)


def test_status_lists_the_run(complete, capsys):
    capsys.readouterr()
    assert call("status", str(complete)) == 0
    count, _, row = capsys.readouterr().out.splitlines()
    assert count == "1 run: 1 completed"
    assert row.split() == [str(complete), "completed", "4", "0"]


def test_status_is_not_folded_in_a_pipe(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    error = "ValueError: " + "a reason that is longer than a terminal is wide, " * 4
    path = write_run(tmp_path / "pydoc_topic", num_stages=1, state="failed", error=error)
    assert call("status", str(tmp_path)) == 0
    row = capsys.readouterr().out.splitlines()[2]
    assert row.split(maxsplit=4)[:2] == [f"pydoc_topic/{path.name}", "failed"]
    assert error.strip() in row


def test_status_of_a_folder_without_runs_is_refused(tmp_path, capsys):
    assert_refused(capsys, ["status", str(tmp_path)], "`RUNS` must hold runs", folder=tmp_path)


def test_status_of_a_missing_folder_is_refused(tmp_path, capsys):
    assert_refused(capsys, ["status", str(tmp_path / "none")], "`RUNS`", folder=tmp_path)


def test_windows_is_refused_in_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr("sys.platform", "win32")
    assert call("status", ".") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith("must run on Linux or macOS, got Windows. Use the Linux of WSL 2.")


@pytest.mark.parametrize(
    "command", [[], ["run"], ["study"], ["sweep"], ["status"], ["export"], ["sync"]]
)
def test_help_exits_0(command, capsys):
    assert call(*command, "--help") == 0
    assert capsys.readouterr().out.startswith("usage: sorakit")


# What there is to say of the data


def test_held_out_file_that_is_the_training_file_is_warned_of_and_recorded(hub, tmp_path):
    arguments = options(
        hub, tmp_path / "run", task__validation_file="train.csv", method__name="head_only"
    )
    with pytest.warns(UserWarning, match=r"^64 \(100\.0%\) of the held-out examples are in the "):
        assert call(*arguments) == 0
    assert load_run(tmp_path / "run").meta["data"]["held_out_in_train"] == 64


def test_texts_that_are_cut_are_warned_of_and_recorded(hub, tmp_path):
    arguments = options(hub, tmp_path / "run", task__max_length="8", method__name="head_only")
    with pytest.warns(
        UserWarning, match=r"longer than `task\.max_length` \(8 tokens\) and are cut"
    ):
        assert call(*arguments) == 0
    cut = load_run(tmp_path / "run").meta["data"]["longer_than_max_length"]
    assert 0 < cut["train"] < 64


def test_check_tells_what_a_run_would_do_and_writes_nothing(hub, tmp_path, capsys):
    assert call("check", *options(hub, tmp_path / "run")[1:]) == 0
    lines = capsys.readouterr().out.splitlines()
    facts = dict(line.split("  ", maxsplit=1) for line in lines)
    facts = {name: text.strip() for name, text in facts.items()}
    assert facts["dataset"] == "task (local files: train.csv, validation.csv)"
    assert facts["examples"] == "64 to train on (64 of them for memorization), 32 held out"
    assert facts["labels"] == "2 classes: animals 50.0%, tools 50.0%"
    parameters = 2 * 4 * (4 * (16 + 16) + 2 * (16 + 32))  # layers, r, attention, feed-forward
    kinds = "self.query, self.key, self.value, output.dense, intermediate.dense"
    assert facts["adapter"] == f"{parameters:,} parameters in 12 matrices: {kinds}"
    assert facts["steps"] == "4 a pass of 16 examples each"
    assert " s a step, " in facts["time"]
    assert ", on 1 thread" in facts["time"]
    assert facts["dense stage"].startswith("until the training loss has converged, at most 1 pass")
    assert facts["cut"].startswith("0 training texts (0.0%) and 0 held-out ones (0.0%) are longer")
    # 64 training examples for memorization, 32 held out
    assert facts["evaluations"].startswith("96 examples before and after the refit of every stage")
    assert list(tmp_path.iterdir()) == []


def test_check_refuses_what_a_run_refuses(hub, tmp_path, capsys):
    arguments = options(hub, tmp_path / "run", task__label_column="gold")
    assert_refused(
        capsys,
        ["check", *arguments[1:]],
        "`task.label_column` must be a column of train.csv",
        folder=tmp_path,
    )


def test_warning_of_sorakit_is_one_sentence(hub, tmp_path):
    arguments = options(
        hub, tmp_path / "run", task__validation_file="train.csv", method__name="head_only"
    )
    done = subprocess.run(
        [sys.executable, "-m", "sorakit", *arguments], capture_output=True, text=True, check=True
    )
    (warning,) = [line for line in done.stderr.splitlines() if "held-out" in line]
    assert warning.startswith("sorakit: warning: 64 (100.0%) of the held-out examples")


@pytest.mark.parametrize("load", [0.5, 64.0])
def test_check_says_when_other_work_slows_its_timed_steps(load, hub, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    assert call("check", *options(hub, tmp_path / "run")[1:]) == 0
    said = capsys.readouterr().out
    assert ("the machine is busy (load 64.0 on" in said) == (load == 64.0)
