"""One run from its configuration to a completed run folder."""

import contextlib
import logging
import pickle
import signal
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import datasets
import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from sorakit.backbones import load_backbone
from sorakit.baselines import build_method
from sorakit.config import RunConfig
from sorakit.locks import FileLock
from sorakit.method.prune import num_adapter_params
from sorakit.method.tuner import AdaptedMatrix, adapted_matrices
from sorakit.records import (
    CHECKPOINTS_DIR,
    DENSE_CHECKPOINT,
    LOCK_FILE,
    FolderInUseError,
    RunWriter,
    check_run_folder,
    is_complete,
    is_run_folder,
    load_run,
    read_meta,
    run_path,
)
from sorakit.tasks import load_task
from sorakit.tasks.label_noise import with_shuffled_labels
from sorakit.tracking.live import live_tracker
from sorakit.training.checkpoint import ResumePoint, checkpoints
from sorakit.training.data import AdaptationData
from sorakit.training.dense import SharedDenseStage, dense_name
from sorakit.training.module import AdaptationModule
from sorakit.training.progress import StageProgress
from sorakit.training.provenance import run_meta
from sorakit.training.recorder import StageRecorder
from sorakit.training.stationarity import Stationarity
from sorakit.training.step_recorder import StepRecorder
from sorakit.training.xi_scheduler import TRAINER_OPTIONS, XiScheduler

_LOCK_PATIENCE = 2.0
"""Seconds: somebody who looks who holds the lock of a run folder takes it for a moment."""


@dataclass(frozen=True, kw_only=True)
class RunOutcome:
    """What `run` did.

    Attributes:
        path: The run folder.
        action: completed (it ran to its end) or skipped (it was complete already).
    """

    path: Path
    action: Literal["completed", "skipped"]


def run(
    config: RunConfig, *, show_progress: bool = True, dense_store: Path | None = None
) -> RunOutcome:
    """Run Algorithm 1, or go on with it where a killed process left it, and record every stage.

    Args:
        config: Resolved configuration.
        show_progress: Show the progress bar and one line a stage on stderr.
        dense_store: Folder of dense stages that runs share: this run starts from its own if it is
            there, or makes it; null trains it for this run alone.

    Raises:
        FolderInUseError: If another process is writing into the run folder.
        ValueError: If the configuration cannot be run; nothing has been written then.
    """
    path = run_path(config)
    check_run_folder(path, config)
    if is_complete(path):
        return RunOutcome(path=path, action="skipped")
    _quiet_libraries()
    if config.trainer.num_threads is not None:
        torch.set_num_threads(config.trainer.num_threads)
    task = load_task(config.task, seed=config.seed)
    if config.stage.control == "shuffled_labels":
        task = with_shuffled_labels(task, config.seed)
    torch.manual_seed(config.seed)  # draws the head and the adapter
    backbone = load_backbone(
        config.backbone, label_names=task.label_names, attention=_attention(config)
    )
    sizes = {
        "hidden_size": int(backbone.model.config.hidden_size),
        "num_layers": int(backbone.model.config.num_hidden_layers),
    }
    model = build_method(backbone.model, config)
    sizes["num_adapter_params"] = num_adapter_params(model)
    data = AdaptationData(
        task,
        backbone.tokenizer,
        max_length=config.task.max_length,
        memorization_examples=config.task.memorization_examples,
        batch_size=config.optim.batch_size,
        eval_batch_size=config.optim.eval_batch_size,
        seed=config.seed,
    )
    module = AdaptationModule(
        model,
        split_names=data.split_names,
        metric=task.metric,
        extra_metrics=task.extra_metrics,
        is_regression=task.is_regression,
        optim=config.optim,
        gates=config.gates,
        xi=config.xi.start,
    )
    writer = RunWriter(path)
    stationarity = _stationarity(config, data)
    recorder = StageRecorder(
        writer,
        config=config,
        task=task,
        stationarity=stationarity,
        hidden_size=sizes["hidden_size"],
    )
    matrices = adapted_matrices(model)
    _check_budget(config, matrices)
    scheduler = XiScheduler(
        xi=config.xi,
        dense=config.dense,
        stage=config.stage,
        warmup_epochs=config.optim.warmup_epochs,
        has_gates=bool(matrices),
        seed=config.seed,
        stationarity_residual=lambda *at: stationarity(*at).stationarity or 0.0,
    )
    steps = StepRecorder(writer, scheduler=scheduler)
    callbacks: list[pl.Callback] = [scheduler, steps]
    if show_progress:
        progress = StageProgress(scheduler, title=_title(config, path))
        callbacks.append(progress)
        scheduler.on_stage_end.append(progress.stage_ended)
    scheduler.on_stage_end.append(recorder)
    tracker = live_tracker(path, config.tracking)
    if tracker is not None:
        steps.on_step.append(tracker.wake)
        scheduler.on_stage_end.append(tracker.wake)
    resume_point = ResumePoint(path / CHECKPOINTS_DIR, scheduler=scheduler)
    callbacks.append(resume_point)
    trainer = _trainer(config, callbacks, show_progress=show_progress)
    meta = run_meta(config, task=task, backbone_fingerprint=backbone.fingerprint, model=sizes)

    lock = _lock(path)
    if is_complete(path):  # since this process looked
        lock.release()
        return RunOutcome(path=path, action="skipped")
    on_interrupt = signal.getsignal(signal.SIGINT)
    dense = None
    if dense_store is not None and matrices:
        dense = SharedDenseStage(dense_store, name=dense_name(config, meta))
    try:
        if not is_run_folder(path):
            writer.write_config(config)
            writer.write_meta(meta)
        writer.write_status("running")
        checkpoint = _restore(scheduler, path)
        if dense is not None:
            checkpoint = _share_dense_stage(dense, scheduler, resume_point, path, checkpoint)
        writer.keep_stages(scheduler.completed_stages)
        writer.keep_steps(scheduler.step)
        recorder.dense_scores = _dense_scores(path)
        with contextlib.nullcontext() if tracker is None else tracker:
            trainer.loggers = [] if tracker is None else tracker.loggers
            if not scheduler.is_finished:
                trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
            writer.write_status("completed")
    except BaseException as error:
        # Lightning 2.6 turns Ctrl-C into SystemExit(1) and goes on ignoring the signal.
        if isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt):
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, on_interrupt)
            writer.write_status("interrupted")
            raise KeyboardInterrupt from error
        with contextlib.suppress(OSError):  # a full disk, which is what `error` tells of
            writer.write_status("failed", error=f"{type(error).__name__}: {error}")
        raise
    finally:
        if dense is not None:
            dense.release()
        lock.release()
    return RunOutcome(path=path, action="completed")


def _lock(path: Path) -> FileLock:
    """Return the lock of a run folder, taken; the folder is made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / LOCK_FILE)
        is_mine = lock.acquire(patience=_LOCK_PATIENCE)
    except OSError as error:
        raise ValueError(
            f"`out_dir` must be a folder that can be written, got {str(path)!r}: {error}."
        ) from error
    if not is_mine:
        raise FolderInUseError(
            f"`out_dir` must not be in use, got {str(path)!r}, which another process is writing."
        )
    return lock


def _share_dense_stage(
    dense: SharedDenseStage,
    scheduler: XiScheduler,
    resume_point: ResumePoint,
    path: Path,
    checkpoint: Path | None,
) -> Path | None:
    """Start from the shared dense stage, or see to it that it is shared when it is trained.

    Returns:
        The checkpoint to go on from, as `_restore` does.
    """
    name = str(read_meta(path)["run_id"])
    if scheduler.stage == 0 and not dense.claim():
        dense.start_run(path)
        return _restore(scheduler, path)
    if (path / CHECKPOINTS_DIR / DENSE_CHECKPOINT).exists() and scheduler.stage > 0:
        dense.publish(path, run_id=name)  # in case its maker died before it could
    else:
        resume_point.on_dense_end.append(lambda: dense.publish(path, run_id=name))
    return checkpoint


def _stationarity(config: RunConfig, data: AdaptationData) -> Stationarity:
    examples = config.stage.kkt_examples
    return Stationarity(
        data,
        num_examples=config.task.memorization_examples if examples < 0 else examples,
        batch_size=config.optim.batch_size,
    )


def _check_budget(config: RunConfig, matrices: list[AdaptedMatrix]) -> None:
    budget = config.xi.budget
    if budget is None or not matrices:
        return
    smallest = min(matrix.params_per_rank for matrix in matrices)
    dense = sum(matrix.params_per_rank * matrix.gate.numel() for matrix in matrices)
    if not smallest <= budget < dense:
        raise ValueError(
            f"`xi.budget` must be at least one rank ({smallest}) and less than the dense adapter "
            f"({dense}), got {budget}."
        )


def _trainer(config: RunConfig, callbacks: list[pl.Callback], *, show_progress: bool) -> pl.Trainer:
    try:
        return pl.Trainer(
            accelerator=config.trainer.accelerator,
            devices=1,
            precision=config.trainer.precision,
            callbacks=callbacks,
            **TRAINER_OPTIONS,
            enable_progress_bar=show_progress,
        )
    except MisconfigurationException as error:
        raise ValueError(
            f"`trainer.accelerator` must be available, got {config.trainer.accelerator!r}: {error}"
        ) from error


def _attention(config: RunConfig) -> str | None:
    """Return the attention kernel.

    On a CPU with AVX-512 BF16 (AMD EPYC), a training step in bf16 took 1.08 to 1.16 times as long
    with sdpa as with eager (`experiments/benchmarks/training_step.py`).
    """
    if config.backbone.attention != "auto":
        return config.backbone.attention
    on_cpu = config.trainer.accelerator == "cpu" or not torch.cuda.is_available()
    return "eager" if on_cpu and config.trainer.precision == "bf16-mixed" else None


def _restore(scheduler: XiScheduler, path: Path) -> Path | None:
    """Return the newest readable checkpoint, after giving the scheduler its position."""
    for file in reversed(checkpoints(path / CHECKPOINTS_DIR)):
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            warnings.warn(f"Skipped the unreadable checkpoint {str(file)!r}: {error}", stacklevel=2)
            continue
        scheduler.load_state_dict(content["callbacks"][scheduler.state_key])
        return file
    return None


def _dense_scores(path: Path) -> tuple[float, float] | None:
    stages = load_run(path).stages
    if stages.empty:
        return None
    return float(stages["memorization"].iloc[0]), float(stages["generalization"].iloc[0])


def _title(config: RunConfig, path: Path) -> str:
    control = "" if config.stage.control == "none" else f", {config.stage.control}"
    method = f"{config.method.name}{control}"
    return f"{config.task.name}, {config.backbone.name}, {method}, seed {config.seed} -> {path}"


def _quiet_libraries() -> None:
    """Keep the libraries' banners and hints that do not apply here out of the terminal."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    # One batch is collated in microseconds from tokens in memory; workers would only cost.
    warnings.filterwarnings("ignore", message="The '.*_dataloader' does not have many workers")
    warnings.filterwarnings("ignore", message="The number of training batches")
    # peft 0.21 with transformers 5.23, in every get_peft_model
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
    # lightning 2.6.6 with torch 2.13
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
