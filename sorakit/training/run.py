"""One run from its configuration to a completed run folder."""

import contextlib
import logging
import os
import pickle
import signal
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import datasets
import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from sorakit.backbones import load_backbone
from sorakit.config import RunConfig, TrainerConfig
from sorakit.locks import FileLock
from sorakit.method.prune import count_adapter_params
from sorakit.method.tuner import AdaptedMatrix, adapted_matrices
from sorakit.metric_names import LABEL
from sorakit.objectives import objective
from sorakit.quoting import cut
from sorakit.records import (
    CHECKPOINTS_DIR,
    DENSE_CHECKPOINT,
    FLOOR,
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
from sorakit.tracking.live import live_tracker
from sorakit.training.checkpoint import ResumePoint, checkpoints
from sorakit.training.compatibility import (
    check_tokens,
    describe_interface,
    interface_lines,
    leave_out_unreached,
    settle_padding,
)
from sorakit.training.data import AdaptationData
from sorakit.training.data_report import data_report
from sorakit.training.dense import SharedDenseStage, dense_name
from sorakit.training.devices import end_with_parent, global_rank, join, new_trainer
from sorakit.training.inputs import load_data, require_same_inputs
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
        action: completed (it ran to its end), skipped (it was complete already) or followed (as
            one of the other processes of a run on several devices).
    """

    path: Path
    action: Literal["completed", "skipped", "followed"]


def run(
    config: RunConfig,
    *,
    show_progress: bool = True,
    dense_store: Path | None = None,
    cost: str | None = None,
) -> RunOutcome:
    """Run Algorithm 1, or go on with it where a killed process left it, and record every stage.

    With several devices, every process of the run calls this; that of rank 0 writes.

    Args:
        config: Resolved configuration.
        show_progress: Show the progress bar and one line a stage on stderr.
        dense_store: Folder of dense stages that runs share: this run starts from its own if it is
            there, or makes it; null trains it for this run alone.
        cost: What it will take, if that is known; shown when training begins.

    Raises:
        FolderInUseError: If another process is writing into the run folder.
        KeyboardInterrupt: After Ctrl-C; after SIGTERM, with that signal as its argument.
        ValueError: If the configuration cannot be run; nothing has been written then.
    """
    path = run_path(config)
    quiet_libraries()
    rank = global_rank(config.trainer)
    if rank > 0:
        return _follow(config, path, rank=rank)
    check_run_folder(path, config)
    if is_complete(path):
        require_same_inputs(path, config, read_meta(path))
        return RunOutcome(path=path, action="skipped")
    fit = prepare(config, path, rank=rank, show_progress=show_progress, cost=cost)
    lock = _lock(path)
    try:
        if is_run_folder(path):
            require_same_inputs(path, config, read_meta(path), loaded=fit.meta)
        if is_complete(path):  # since this process looked
            return RunOutcome(path=path, action="skipped")
        _lead(fit, config, path, dense_store=dense_store)
    finally:
        lock.release()
    return RunOutcome(path=path, action="completed")


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What a process of a run trains with."""

    trainer: pl.Trainer
    module: AdaptationModule
    data: AdaptationData
    scheduler: XiScheduler
    steps: StepRecorder
    recorder: StageRecorder
    resume_point: ResumePoint
    has_adapter: bool
    meta: dict[str, Any]

    def __call__(self, checkpoint: Path | None) -> None:
        """Train to the end of the run from a checkpoint, or from the start."""
        if not self.scheduler.is_finished:
            self.trainer.fit(
                self.module, datamodule=self.data, ckpt_path=checkpoint, weights_only=True
            )


def prepare(
    config: RunConfig, path: Path, *, rank: int, show_progress: bool, cost: str | None = None
) -> Fit:
    """Return everything that training needs; nothing is written."""
    _hold_to_threads(config.trainer)
    task = load_data(config)
    control = config.stage.control_class(seed=config.seed)
    torch.manual_seed(config.seed)  # draws the head and the adapter
    goal = objective(task.objective)
    backbone = load_backbone(
        config.backbone,
        objective=goal,
        label_names=task.label_names,
        attention=_attention(config),
    )
    sizes: dict[str, Any] = {
        "hidden_size": backbone.hidden_size,
        "num_layers": backbone.num_layers,
    }
    data = AdaptationData(
        task,
        backbone.tokenizer,
        max_length=config.task.max_length,
        memorization_examples=config.task.memorization_examples,
        batch_size=config.optim.batch_size,
        eval_batch_size=config.optim.eval_batch_size,
        seed=config.seed,
        rank=rank,
        world_size=config.trainer.num_processes,
        show_progress=show_progress,
    )
    report = data_report(task, data.num_cut, max_length=config.task.max_length)
    if rank == 0:
        for sentence in report.warnings:
            warnings.warn(sentence, stacklevel=2)
    check_tokens(backbone.model, data, name=config.backbone.name)
    data.padding = settle_padding(backbone.model, data)
    interface = describe_interface(task, data)
    adapter = config.method.adapter
    head = goal.head_modules(backbone.model)
    adapted, left_out = config, []
    if adapter.role != FLOOR:
        adapted, left_out = leave_out_unreached(backbone.model, data, config, head=head)
    model = adapter.build(backbone.model, adapted, head=head)
    sizes |= {
        "num_adapter_params": count_adapter_params(adapter.matrices(model)),
        "layers_left_out": left_out,
    }
    module = AdaptationModule(
        model,
        split_names=data.split_names,
        metric=task.metric,
        extra_metrics=task.extra_metrics,
        objective=goal,
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
        task_type=goal.task_type,
        stationarity=stationarity,
        hidden_size=sizes["hidden_size"],
    )
    matrices = adapted_matrices(model)
    _check_budget(config, matrices)
    scheduler = XiScheduler(
        xi=config.xi,
        dense=config.dense,
        stage=config.stage,
        control=control,
        refit=config.refit,
        warmup_epochs=config.optim.warmup_epochs,
        null_loss=goal.null_loss(task.train[LABEL]),
        has_gates=bool(matrices),
        seed=config.seed,
        stationarity_residual=lambda *at: stationarity(*at).stationarity or 0.0,
    )
    steps = StepRecorder(writer, scheduler=scheduler)
    callbacks: list[pl.Callback] = [scheduler, steps]
    if show_progress:
        progress = StageProgress(
            scheduler,
            config=config,
            adapter=adapter,
            title=_title(config, path),
            notes=[*interface_lines(interface), *([cost] if cost else [])],
        )
        callbacks.append(progress)
        scheduler.on_stage_end.append(progress.stage_ended)
    scheduler.on_stage_end.append(recorder)
    scheduler.on_ranks_chosen = recorder.ranks_chosen
    resume_point = ResumePoint(path / CHECKPOINTS_DIR, scheduler=scheduler)
    callbacks.append(resume_point)
    return Fit(
        trainer=new_trainer(
            config.trainer,
            callbacks=callbacks,
            enable_progress_bar=show_progress,
            **TRAINER_OPTIONS,
        ),
        module=module,
        data=data,
        scheduler=scheduler,
        steps=steps,
        recorder=recorder,
        resume_point=resume_point,
        has_adapter=bool(matrices),
        meta=run_meta(
            config,
            task=task,
            data=report.meta,
            backbone_fingerprint=backbone.fingerprint,
            model=sizes,
            interface=interface,
        ),
    )


def _follow(config: RunConfig, path: Path, *, rank: int) -> RunOutcome:
    """Train as a process of rank > 0, which writes nothing."""
    end_with_parent()
    if not is_complete(path):
        try:
            fit = prepare(config, path, rank=rank, show_progress=False)
            join(fit.trainer)  # by then rank 0 has prepared the run folder
            fit(_restore(fit.scheduler, path))
        except KeyboardInterrupt as error:  # rank 0 tells the user
            raise SystemExit(128 + signal.SIGINT) from error
    return RunOutcome(path=path, action="followed")


def _lead(fit: Fit, config: RunConfig, path: Path, *, dense_store: Path | None) -> None:
    """Train in the run folder, whose lock this process holds, and keep its status true."""
    on_interrupt = signal.getsignal(signal.SIGINT)
    writer = RunWriter(path)
    tracker = live_tracker(path, config.tracking)
    if tracker is not None:
        fit.steps.on_step.append(tracker.wake)
        fit.scheduler.on_stage_end.append(tracker.wake)
    dense = None
    if dense_store is not None and fit.has_adapter:
        dense = SharedDenseStage(dense_store, name=dense_name(config, fit.meta))
    try:
        if not is_run_folder(path):
            writer.write_config(config)
            writer.write_meta(fit.meta)
        writer.write_status("running")
        checkpoint = _restore(fit.scheduler, path)
        if dense is not None:
            checkpoint = _share_dense_stage(
                dense, fit.scheduler, fit.resume_point, path, checkpoint
            )
        writer.keep_stages(fit.scheduler.schedule.completed_stages)
        writer.keep_steps(fit.scheduler.step)
        fit.recorder.dense_scores = _dense_scores(path)
        join(fit.trainer)
        with contextlib.nullcontext() if tracker is None else tracker:
            fit.trainer.loggers = [] if tracker is None else tracker.loggers
            fit(checkpoint)
            writer.write_status("completed")
    except BaseException as error:
        stopped_by = _signal_behind(error)
        if stopped_by is not None:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, on_interrupt)  # Lightning goes on ignoring it
            writer.write_status("interrupted")
            raise KeyboardInterrupt(*stopped_by) from error
        with contextlib.suppress(OSError):  # a full disk, which is what `error` tells of
            writer.write_status("failed", error=cut(f"{type(error).__name__}: {error}"))
        raise
    finally:
        if dense is not None:
            dense.release()


def _signal_behind(error: BaseException) -> tuple[signal.Signals, ...] | None:
    """Return the arguments of the KeyboardInterrupt that an error stands for, or None.

    Lightning 2.6 turns Ctrl-C into SystemExit(1), and SIGTERM into an exception of its own.
    """
    if isinstance(error, SIGTERMException):
        return (signal.SIGTERM,)
    is_interrupt = isinstance(error, KeyboardInterrupt)
    return () if is_interrupt or isinstance(error.__context__, KeyboardInterrupt) else None


def _hold_to_threads(config: TrainerConfig) -> None:
    if config.num_threads is None:
        return
    torch.set_num_threads(config.num_threads)
    if config.num_processes > 1:  # or Lightning chooses, when it launches the others
        os.environ["OMP_NUM_THREADS"] = str(config.num_threads)


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


def _attention(config: RunConfig) -> str | None:
    """Return the attention kernel.

    On a CPU with AVX-512 BF16 (AMD EPYC), a training step in bf16 took 1.08 to 1.16 times as long
    with sdpa as with eager (`experiments/benchmarks/steps.py`).
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


def quiet_libraries() -> None:
    """Keep the libraries' banners and hints that do not apply here out of the terminal."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    # One batch is collated in microseconds from tokens in memory; workers would only cost.
    warnings.filterwarnings("ignore", message="The '.*_dataloader' does not have many workers")
    warnings.filterwarnings("ignore", message="The number of training batches")
    # peft 0.21 with transformers 5.23, in every get_peft_model
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
    # lightning 2.6.6 with torch 2.13
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
