"""Whole runs on a tiny model and task, CPU, one thread."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from sorakit.locks import FileLock
from sorakit.records import FolderInUseError, RunWriter, load_run, read_status
from sorakit.tasks import load_task
from sorakit.tasks.memorization import memorization_indices
from sorakit.training.checkpoint import ResumePoint
from sorakit.training.module import AdaptationModule
from sorakit.training.run import run
from tests.support.broken_runs import Killed, assert_same_run, files_of, kill_at_step
from tests.support.tiny_hub import tiny_run, write_model, write_regression, write_task


@pytest.fixture(scope="module")
def complete(hub: Path) -> Path:
    """An unbroken run: dense and three sparsifying stages, the last without a gate."""
    return run(tiny_run(hub, out_dir="complete"), show_progress=False).path


def exported_elements(path: Path, stage: int) -> int:
    state = load_file(path / "adapters" / f"stage_{stage:02d}" / "adapter_model.safetensors")
    return sum(value.numel() for name, value in state.items() if ".lora_" in name)


# The run folder ------------------------------------------------------------------------------


def test_run_folder_holds_exactly_its_files(complete):
    adapters = {
        f"adapters/stage_{stage:02d}/{name}"
        for stage in range(4)
        for name in ("adapter_config.json", "adapter_model.safetensors", "rank_pattern.json")
    }
    steps = 2 * 8 + 3 * 8
    checkpoints = {f"checkpoints/step_{step:09d}.ckpt" for step in (steps - 8, steps)}
    checkpoints.add("checkpoints/dense.ckpt")
    assert files_of(complete) == adapters | checkpoints | {
        "config.yaml",
        "meta.json",
        "status.json",
        "stages.jsonl",
        "timings.jsonl",
        "ranks.jsonl",
        "steps.jsonl",
        "examples.parquet",
    }


def test_status_of_a_complete_run(complete):
    assert read_status(complete)["state"] == "completed"


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_every_count_is_that_of_the_exported_tensors(precision, hub):
    config = tiny_run(
        hub,
        out_dir=f"counts-{precision}",
        levels=(0.02, 0.04, 0.06),
        sections={"trainer": {"precision": precision}},
    )
    result = load_run(run(config, show_progress=False).path)
    counts = result.stages["num_nonzero_params"].tolist()
    assert counts == [exported_elements(result.path, stage) for stage in range(len(counts))]
    assert len(set(counts)) > 2, "the levels prune nothing, or everything at once"


def test_ranks_add_up_to_the_count(complete):
    ranks = load_run(complete).ranks
    width = ranks["in_features"] + ranks["out_features"]
    sums = (ranks["nonzero_rank"] * width).groupby(ranks["stage"]).sum()
    assert sums.tolist() == load_run(complete).stages["num_nonzero_params"].tolist()


def test_xi_of_the_stages_are_the_levels(complete):
    assert load_run(complete).stages["xi"].tolist() == [1e-4, 0.02, 0.05, 4.0]


def test_run_ends_when_no_gate_is_left(hub):
    config = tiny_run(hub, out_dir="no-gate-left", levels=(4.0, 5.0, 6.0))
    stages = load_run(run(config, show_progress=False).path).stages
    assert stages["num_nonzero_params"].tolist()[1:] == [0]


def test_dense_stage_without_a_gate_does_not_end_the_run(hub):
    # unit scale starts at 0; steps of next to nothing leave every gate below xi: all 0 when dense
    config = tiny_run(
        hub,
        out_dir="dense-zero",
        levels=(0.05, 0.1),
        sections={
            "method": {"gate_init": "auto"},
            "gates": {"scale": "unit", "gate_lr": 1e-9},
            "dense": {"max_epochs": 1},
        },
    )
    stages = load_run(run(config, show_progress=False).path).stages
    assert stages["num_nonzero_params"].tolist() == [0, 0]


def test_fractional_stages_are_recorded_in_epochs_and_steps(hub):
    config = tiny_run(
        hub, out_dir="fraction", levels=(0.01, 0.02), sections={"stage": {"epochs": 0.5}}
    )
    stages = load_run(run(config, show_progress=False).path).stages
    assert stages["optimizer_steps"].tolist() == [16, 4, 4]
    assert stages["epochs"].tolist() == [2.0, 0.5, 0.5]


def test_hold_dense_trains_the_same_steps_at_the_dense_xi(hub, complete):
    config = tiny_run(hub, out_dir="hold", sections={"stage": {"control": "hold_dense"}})
    stages = load_run(run(config, show_progress=False).path).stages
    assert stages["xi"].tolist() == [1e-4] * 4
    assert (
        stages["optimizer_steps"].tolist() == load_run(complete).stages["optimizer_steps"].tolist()
    )


def test_hold_dense_shares_the_dense_stage(hub, complete):
    config = tiny_run(hub, out_dir="hold-2", sections={"stage": {"control": "hold_dense"}})
    held = load_run(run(config, show_progress=False).path).stages.iloc[0]
    assert held.equals(load_run(complete).stages.iloc[0])


def test_head_only_is_one_stage_without_parameters(hub):
    config = tiny_run(hub, out_dir="head", sections={"method": {"name": "head_only"}})
    stages = load_run(run(config, show_progress=False).path).stages
    assert stages["num_nonzero_params"].tolist() == [0]
    assert stages["num_adapter_params"].tolist() == [0]


def test_lora_is_one_stage_trained_as_the_dense_one_and_counted_exactly(hub):
    config = tiny_run(hub, out_dir="lora", sections={"method": {"name": "lora", "r": 2}})
    result = load_run(run(config, show_progress=False).path)
    [stage] = result.stages.to_dict("records")
    written = load_file(result.path / "adapters" / "stage_00" / "adapter_model.safetensors")
    assert stage["num_nonzero_params"] == stage["num_adapter_params"]
    assert stage["num_nonzero_params"] == sum(
        value.numel() for name, value in written.items() if ".lora_" in name
    )
    assert stage["stopped_by"] in ("converged", "max_epochs")
    assert set(result.ranks["nonzero_rank"]) == {2}


def test_kkt_residual_leaves_the_run_as_it_is(hub, complete):
    config = tiny_run(hub, out_dir="kkt", sections={"stage": {"kkt_examples": 0}})
    stages = load_run(run(config, show_progress=False).path).stages
    columns = ["kkt_residual", "kkt_residual_se", "stationarity_residual"]
    assert stages[columns].isna().all(axis=None)
    expected = load_run(complete).stages
    assert expected[columns].notna().all(axis=None)
    pd.testing.assert_frame_equal(stages.drop(columns=columns), expected.drop(columns=columns))


def test_kkt_residual_of_one_batch_has_no_standard_error(hub):
    config = tiny_run(hub, out_dir="kkt-1", levels=(4.0,), sections={"stage": {"kkt_examples": 8}})
    stages = load_run(run(config, show_progress=False).path).stages
    assert stages["kkt_residual"].notna().all()
    assert stages["kkt_residual_se"].isna().all()


@pytest.mark.parametrize("update", ["adamw", "adamw_metric", "released"])
def test_every_update_runs(update, hub):
    sections = {
        "gates": {"update": update, "gate_lr": 0.01, "scale": "free"},
        "dense": {"max_epochs": 1},
    }
    config = tiny_run(hub, out_dir=update, levels=(0.001, 0.002), sections=sections)
    assert len(load_run(run(config, show_progress=False).path).stages) >= 2


def test_regression_runs(tmp_path):
    write_model(tmp_path / "model")
    write_regression(tmp_path / "task")
    sections = {"task": {"metric": "pearson"}, "dense": {"max_epochs": 1}}
    config = tiny_run(tmp_path, levels=(0.01, 0.02), sections=sections)
    result = load_run(run(config, show_progress=False).path)
    assert len(result.stages) == 3
    assert result.examples()["correct"].isna().all()


def test_max_length_beyond_the_model_is_refused(hub):
    config = tiny_run(hub, out_dir="too-long", sections={"task": {"max_length": 33}})
    message = "`task.max_length` must be <= 32, the longest input of the backbone, got 33."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        run(config, show_progress=False)
    assert not (hub / "too-long").exists()


def test_diverged_training_is_one_sentence(hub):
    config = tiny_run(hub, out_dir="diverged", sections={"optim": {"lr": 1e30}})
    with pytest.raises(ValueError, match=r"^`logits` must be finite, got .* lower `optim\.lr`"):
        run(config, show_progress=False)
    status = read_status(hub / "diverged")
    assert status["state"] == "failed"
    assert status["error"].startswith("ValueError: `logits` must be finite")


def test_rerun_of_a_complete_run_is_skipped(hub, complete):
    before = {name: (complete / name).stat().st_mtime_ns for name in files_of(complete)}
    assert run(tiny_run(hub, out_dir="complete"), show_progress=False).action == "skipped"
    after = {name: (complete / name).stat().st_mtime_ns for name in files_of(complete)}
    assert before == after


def test_seeds_give_different_runs(hub, complete):
    other = run(tiny_run(hub, out_dir="seed-1", seed=1), show_progress=False).path
    first, second = load_run(complete).stages, load_run(other).stages
    assert first["train_loss"][0] != second["train_loss"][0]


def test_equal_runs_are_equal_to_the_bit(hub, complete):
    other = run(tiny_run(hub, out_dir="again"), show_progress=False).path
    assert_same_run(other, complete)


def test_a_run_leaves_the_users_loggers_and_signals(hub, monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    run(tiny_run(hub, out_dir="signals", levels=(4.0,)), show_progress=False)
    assert signal.getsignal(signal.SIGINT) is before


# Scores --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_scores_are_those_of_the_exported_adapter_in_plain_peft(stage, hub, complete):
    record = load_run(complete).stages.iloc[stage]
    config = tiny_run(hub, out_dir="complete")
    task = load_task(config.task, seed=config.seed)
    torch.manual_seed(12345)  # the head is drawn anew, then replaced by the exported one
    base = AutoModelForSequenceClassification.from_pretrained(hub / "model", num_labels=2)
    model = PeftModel.from_pretrained(base, complete / "adapters" / f"stage_{stage:02d}").eval()
    tokenizer = AutoTokenizer.from_pretrained(hub / "model")
    train = task.train.select(
        memorization_indices(len(task.train), config.task.memorization_examples)
    )
    for split, name in ((train, "memorization"), (task.validation, "generalization")):
        encoded = tokenizer(list(split["text"]), padding=True, return_tensors="pt")
        labels = torch.tensor(list(split["label"]))
        with torch.no_grad():
            logits = model(**encoded).logits
        accuracy = (logits.argmax(dim=1) == labels).double().mean().item()
        loss = torch.nn.functional.cross_entropy(logits, labels).item()
        assert record[name] == pytest.approx(accuracy, abs=1e-12)
        assert record[f"{name}_loss"] == pytest.approx(loss, rel=1e-4)


def test_examples_average_to_the_records(complete):
    result = load_run(complete)
    means = result.examples().groupby(["stage", "split"])[["correct", "loss"]].mean()
    for _, record in result.stages.iterrows():
        for split in ("memorization", "generalization"):
            mean = means.loc[(record["stage"], split)]
            assert mean["correct"] == pytest.approx(record[split], abs=1e-12)
            assert mean["loss"] == pytest.approx(record[f"{split}_loss"], rel=1e-6)


# Resuming ------------------------------------------------------------------------------------


def kill_after_record(monkeypatch: pytest.MonkeyPatch, stage: int) -> None:
    """Die when the stage stands in `stages.jsonl`, before its checkpoint."""
    original = RunWriter.append_stage

    def append_stage(self: RunWriter, record: Any, **tables: Any) -> None:
        original(self, record, **tables)
        if record.stage == stage:
            raise Killed

    monkeypatch.setattr(RunWriter, "append_stage", append_stage)


def kill_before_record(monkeypatch: pytest.MonkeyPatch, stage: int) -> None:
    """Die when the adapter of the stage is written and its record is not."""
    original = RunWriter.append_stage

    def append_stage(self: RunWriter, record: Any, **tables: Any) -> None:
        if record.stage == stage:
            raise Killed
        original(self, record, **tables)

    monkeypatch.setattr(RunWriter, "append_stage", append_stage)


def kill_after_checkpoint(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Die right after the checkpoint with that number, counted from 0."""
    original, calls = ResumePoint.on_train_epoch_end, iter(range(10**6))

    def on_train_epoch_end(self: ResumePoint, *args: Any) -> None:
        original(self, *args)
        if next(calls) == number:
            raise Killed

    monkeypatch.setattr(ResumePoint, "on_train_epoch_end", on_train_epoch_end)


def kill_in_dense_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Die while the checkpoint of the dense stage is being copied."""

    def copyfile(*_: Any) -> None:
        raise Killed

    monkeypatch.setattr("sorakit.training.checkpoint.shutil.copyfile", copyfile)


MOMENTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "first_batch": lambda patch: kill_at_step(patch, 0),
    "first_dense_epoch": lambda patch: kill_at_step(patch, 5),
    "second_dense_epoch": lambda patch: kill_at_step(patch, 12),
    "in_stage_1": lambda patch: kill_at_step(patch, 19),
    "in_stage_2": lambda patch: kill_at_step(patch, 27),
    "before_record_0": lambda patch: kill_before_record(patch, 0),
    "after_record_0": lambda patch: kill_after_record(patch, 0),
    "before_record_2": lambda patch: kill_before_record(patch, 2),
    "after_record_2": lambda patch: kill_after_record(patch, 2),
    "after_dense_checkpoint": lambda patch: kill_after_checkpoint(patch, 1),
    "in_dense_copy": kill_in_dense_copy,
    "after_stage_checkpoint": lambda patch: kill_after_checkpoint(patch, 2),
    "after_last_checkpoint": lambda patch: kill_after_checkpoint(patch, 4),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_resumed_run_equals_the_unbroken_one(moment, hub, complete, monkeypatch):
    config = tiny_run(hub, out_dir=f"killed-{moment}")
    with monkeypatch.context() as patch:
        MOMENTS[moment](patch)
        with pytest.raises(Killed):
            run(config, show_progress=False)
    assert run(config, show_progress=False).action == "completed"
    assert_same_run(hub / f"killed-{moment}", complete)


@pytest.mark.parametrize(
    ("precision", "update", "scale"),
    [
        ("bf16-mixed", "sgd", "free"),
        ("32-true", "adamw_metric", "unit"),
        ("32-true", "released", "free"),
    ],
)
def test_resumed_run_equals_the_unbroken_one_in_every_mode(
    precision, update, scale, hub, monkeypatch
):
    sections = {
        "trainer": {"precision": precision},
        "gates": {"update": update, "scale": scale, "gate_lr": 0.1},
    }
    config, twin = (
        tiny_run(hub, out_dir=f"{n}-{update}-{scale}", levels=(0.003, 0.01), sections=sections)
        for n in ("broken", "unbroken")
    )
    run(twin, show_progress=False)
    with monkeypatch.context() as patch:
        kill_at_step(patch, 21)
        with pytest.raises(Killed):
            run(config, show_progress=False)
    run(config, show_progress=False)
    assert_same_run(hub / f"broken-{update}-{scale}", hub / f"unbroken-{update}-{scale}")


def test_run_killed_twice_equals_the_unbroken_one(hub, complete, monkeypatch):
    config = tiny_run(hub, out_dir="twice")
    for kill in (lambda p: kill_at_step(p, 12), lambda p: kill_after_record(p, 1)):
        with monkeypatch.context() as patch:
            kill(patch)
            with pytest.raises(Killed):
                run(config, show_progress=False)
    run(config, show_progress=False)
    assert_same_run(hub / "twice", complete)


def scale_weights(root: Path) -> None:
    file = root / "model" / "model.safetensors"
    save_file({name: 2 * value for name, value in load_file(file).items()}, file)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda root: write_task(root / "task", num_train=65), "other data"),
        (scale_weights, "other base weights"),
    ],
)
@pytest.mark.parametrize("step", [0, 12])
def test_killed_run_does_not_go_on_with_other_inputs(
    change, difference, step, tmp_path, monkeypatch
):
    config = tiny_run(tmp_path)
    with monkeypatch.context() as patch:
        kill_at_step(patch, step)
        with pytest.raises(Killed):
            run(config, show_progress=False)
    change(tmp_path)
    path = tmp_path / "run"
    before = {name: (path / name).read_bytes() for name in files_of(path)}
    with pytest.raises(ValueError, match=rf"^`out_dir` must hold .* made with {difference} \("):
        run(config, show_progress=False)
    assert {name: (path / name).read_bytes() for name in files_of(path)} == before


def test_unreadable_checkpoint_is_skipped_with_a_warning(hub, complete, monkeypatch):
    config = tiny_run(hub, out_dir="torn")
    with monkeypatch.context() as patch:
        kill_at_step(patch, 27)
        with pytest.raises(Killed):
            run(config, show_progress=False)
    newest = max((hub / "torn" / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.warns(
        UserWarning, match=r"^Skipped the unreadable checkpoint '.*step_000000024\.ckpt'"
    ):
        run(config, show_progress=False)
    assert_same_run(hub / "torn", complete)


def test_full_disk_is_said_and_nothing_is_lost(hub, complete):
    # A limit on the size of files: adapters and records fit, the first checkpoint does not.
    config = tiny_run(hub, out_dir="full")
    size = (complete / "checkpoints" / "dense.ckpt").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))
    try:
        with pytest.raises(OSError, match=r"File too large"):
            run(config, show_progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    status = read_status(hub / "full")
    assert (status["state"], "File too large" in status["error"]) == ("failed", True)
    assert not list((hub / "full" / "checkpoints").glob("*.ckpt"))
    run(config, show_progress=False)
    assert_same_run(hub / "full", complete)


def test_run_folder_is_locked_while_it_is_written(hub, monkeypatch):
    # The other process came between the first look at the folder and the lock.
    config = tiny_run(hub, out_dir="locked")
    monkeypatch.setattr("sorakit.training.run._LOCK_PATIENCE", 0.0)
    monkeypatch.setattr("sorakit.training.run.check_run_folder", lambda path, config: None)
    (hub / "locked").mkdir()
    lock = FileLock(hub / "locked" / "lock")
    assert lock.acquire()
    with pytest.raises(FolderInUseError, match=r"^`out_dir` must not be in use, got .*locked'"):
        run(config, show_progress=False)
    lock.release()
    assert not list((hub / "locked").iterdir())


def test_run_killed_by_the_system_goes_on(hub, complete):
    # os._exit: no `finally`, no `except`, as after SIGKILL
    config = tiny_run(hub, out_dir="exit")
    program = textwrap.dedent(
        """
        import os, sys
        from pathlib import Path
        from sorakit.records import RunWriter
        from sorakit.training.run import run
        from tests.support.tiny_hub import tiny_run

        original = RunWriter.append_stage

        def append_stage(self, record, **tables):
            original(self, record, **tables)
            if record.stage == 1:
                os._exit(9)

        RunWriter.append_stage = append_stage
        run(tiny_run(Path(sys.argv[1]), out_dir="exit"), show_progress=False)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(hub)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 9, done.stderr
    assert read_status(hub / "exit")["state"] == "running"
    run(config, show_progress=False)
    assert_same_run(hub / "exit", complete)


def test_interrupted_run_says_so_and_goes_on(hub, complete, monkeypatch):
    config = tiny_run(hub, out_dir="interrupted")
    original, calls = AdaptationModule.training_step, iter(range(10**6))

    def training_step(self: AdaptationModule, batch: Any, batch_idx: int) -> Any:
        if next(calls) == 20:
            raise KeyboardInterrupt
        return original(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(AdaptationModule, "training_step", training_step)
        with pytest.raises(KeyboardInterrupt):
            run(config, show_progress=False)
    assert read_status(hub / "interrupted")["state"] == "interrupted"
    run(config, show_progress=False)
    assert_same_run(hub / "interrupted", complete)


def test_terminated_run_says_so_and_goes_on(hub, complete, monkeypatch):
    # as a cluster ends a job; Lightning's own exception for it would exit with 0
    config = tiny_run(hub, out_dir="terminated")
    original, calls = AdaptationModule.training_step, iter(range(10**6))

    def training_step(self: AdaptationModule, batch: Any, batch_idx: int) -> Any:
        if next(calls) == 20:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(AdaptationModule, "training_step", training_step)
        with pytest.raises(KeyboardInterrupt) as stop:
            run(config, show_progress=False)
    assert stop.value.args == (signal.SIGTERM,)
    assert read_status(hub / "terminated")["state"] == "interrupted"
    run(config, show_progress=False)
    assert_same_run(hub / "terminated", complete)


def test_interruption_leaves_the_signal_handler(hub, monkeypatch):
    def training_step(self: AdaptationModule, batch: Any, batch_idx: int) -> Any:
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(AdaptationModule, "training_step", training_step)
        with pytest.raises(KeyboardInterrupt):
            run(tiny_run(hub, out_dir="handler"), show_progress=False)
    assert signal.getsignal(signal.SIGINT) is before


def test_failed_run_names_its_error(hub, monkeypatch):
    def training_step(self: AdaptationModule, batch: Any, batch_idx: int) -> Any:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(AdaptationModule, "training_step", training_step)
        with pytest.raises(RuntimeError, match=r"^out of memory$"):
            run(tiny_run(hub, out_dir="failed"), show_progress=False)
    status = json.loads((hub / "failed" / "status.json").read_text())
    assert (status["state"], status["error"]) == ("failed", "RuntimeError: out of memory")


# The meaning of lambda -----------------------------------------------------------------------


def test_half_the_step_size_at_the_same_lambda_prunes_alike(hub):
    # xi, gate_lr and the learning rate halved, steps doubled: the same path in finer steps
    runs = []
    for part in (1, 2):
        sections = {
            "gates": {"gate_lr": 0.5 / part},
            "xi": {"start": 1e-4 / part},
            "dense": {"max_epochs": 10 * part, "patience": 1000},
            "stage": {"epochs": 10.0 * part},
            "optim": {"batch_size": 64, "lr": 0.01 / part, "warmup_epochs": 1.0 * part},
        }
        levels = [0.5 * lambda_ / part for lambda_ in (0.02, 0.04, 0.06, 0.08, 0.1)]
        config = tiny_run(hub, out_dir=f"lambda-{part}", levels=levels, sections=sections)
        runs.append(load_run(run(config, show_progress=False).path).stages)
    coarse, fine = runs
    assert coarse["lambda"].tolist() == fine["lambda"].tolist()
    counts, dense = coarse["num_nonzero_params"], coarse["num_nonzero_params"][0]
    assert counts.between(0.1 * dense, 0.9 * dense).sum() >= 3, "pruning is not gradual"
    assert ((counts - fine["num_nonzero_params"]).abs() <= 0.1 * dense).all()
