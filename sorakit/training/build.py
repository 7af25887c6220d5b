"""Everything that a run trains with, built from its configuration; nothing is written."""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from peft import PeftModel

from sorakit.adapters import Adapter
from sorakit.backbones import Backbone, load_backbone
from sorakit.config import RunConfig, TrainerConfig
from sorakit.method.tuner import AdaptedMatrix, adapted_matrices
from sorakit.metric_names import LABEL
from sorakit.objectives import Objective, objective
from sorakit.records import CHECKPOINTS_DIR, FLOOR, RunWriter
from sorakit.tasks.base import Task
from sorakit.training.adapter_hooks import AdapterHooks, control_of
from sorakit.training.checkpoint import ResumePoint
from sorakit.training.compatibility import (
    check_images,
    check_tokens,
    describe_interface,
    interface_lines,
    leave_out_unreached,
    loss_of,
    settle_inputs,
    settle_padding,
)
from sorakit.training.data import AdaptationData
from sorakit.training.data_report import DataReport, data_report
from sorakit.training.devices import new_trainer
from sorakit.training.inputs import load_data
from sorakit.training.module import AdaptationModule
from sorakit.training.progress import StageProgress
from sorakit.training.provenance import run_meta
from sorakit.training.recorder import StageRecorder
from sorakit.training.sample_loss import SampleLoss
from sorakit.training.stationarity import Stationarity
from sorakit.training.step_recorder import StepRecorder
from sorakit.training.xi_scheduler import TRAINER_OPTIONS, XiScheduler


@dataclass(frozen=True, kw_only=True)
class Adapted:
    """An adapted model and the data that it is trained and evaluated on, checked for each other.

    Attributes:
        task: Texts and labels.
        objective: What the task is trained for.
        backbone: The base model.
        method: How it is adapted.
        model: The adapted model, on the CPU.
        data: Tokenised splits.
        report: What is known of the data.
        interface: What class indices and inputs mean.
        null_loss: Unit of convergence, in that of the loss.
        sizes: Sizes of the model, for `meta.json`.
    """

    task: Task
    objective: Objective
    backbone: Backbone
    method: Adapter
    model: PeftModel
    data: AdaptationData
    report: DataReport
    interface: dict[str, Any]
    null_loss: float
    sizes: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What a process of a run trains with.

    Attributes:
        adapted: Model and data.
        trainer: Lightning's Trainer, with the callbacks below.
        module: The model as a LightningModule.
        scheduler: Algorithm 1.
        steps: Writes `steps.jsonl`.
        resume_point: Writes checkpoints.
        meta: Content of `meta.json`.
    """

    adapted: Adapted
    trainer: pl.Trainer
    module: AdaptationModule
    scheduler: XiScheduler
    steps: StepRecorder
    resume_point: ResumePoint
    meta: dict[str, Any]

    @property
    def data(self) -> AdaptationData:
        """Tokenised splits."""
        return self.adapted.data

    @property
    def has_adapter(self) -> bool:
        """Whether there is anything to sparsify."""
        return has_stages(self.adapted.method, self.adapted.model)

    def train(self, checkpoint: Path | None) -> None:
        """Train to the end of the run from a checkpoint, or from the start.

        Where nothing can be trained (the floor of a model without a head of its own), the model is
        evaluated as it is, as the only stage.
        """
        if not any(p.requires_grad for p in self.module.parameters()):
            self.trainer.validate(self.module, datamodule=self.data, verbose=False)
            self.scheduler.end_untrained(self.trainer, self.module)
            return
        self.trainer.fit(self.module, datamodule=self.data, ckpt_path=checkpoint, weights_only=True)


def adapt(config: RunConfig, *, rank: int = 0, show_progress: bool = False) -> Adapted:
    """Return the adapted model of a run and its data.

    Args:
        config: Resolved configuration.
        rank: Which of the processes of the run this is.
        show_progress: Show bars on stderr.

    Raises:
        ValueError: If data, backbone and options do not go together.
    """
    _hold_to_threads(config.trainer)
    task = load_data(config)
    torch.manual_seed(config.seed)  # draws the head and the adapter
    goal = objective(task.objective)
    backbone = load_backbone(
        config.backbone,
        objective=goal,
        label_names=task.label_names,
        attention=_attention(config),
    )
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
        image_size=config.task.image_size,
    )
    report = data_report(task, data.num_cut, max_length=config.task.max_length)
    if rank == 0:
        for sentence in report.warnings:
            warnings.warn(sentence, stacklevel=2)
    if goal.inputs == "texts":
        check_tokens(backbone.model, data, name=config.backbone.name)
        data.padding = settle_padding(backbone.model, data)
    else:
        check_images(backbone.model, data)
    interface = describe_interface(task, data)
    null_loss = goal.null_loss(task.train[LABEL][:])  # all rows at once
    if null_loss is None:
        null_loss = loss_of(backbone.model, data)
    adapter = config.method.adapter
    head = goal.head_modules(backbone.model)
    adapted, left_out = config, []
    if adapter.role != FLOOR:
        adapted, left_out = leave_out_unreached(backbone.model, data, config, head=head)
    model = adapter.build(backbone.model, adapted, head=head)
    settle_inputs(model, data)
    _check_budget(config, adapted_matrices(model))
    return Adapted(
        task=task,
        objective=goal,
        backbone=backbone,
        method=adapter,
        model=model,
        data=data,
        report=report,
        interface=interface,
        null_loss=null_loss,
        sizes={
            "hidden_size": backbone.hidden_size,
            "num_layers": backbone.num_layers,
            "num_adapter_params": adapter.count_all(model),
            "layers_left_out": left_out,
        },
    )


def build(
    config: RunConfig, path: Path, *, rank: int, show_progress: bool, cost: str | None = None
) -> Fit:
    """Return everything that a process of a run trains with.

    Args:
        config: Resolved configuration.
        path: The run folder, which need not exist.
        rank: Which of the processes of the run this is.
        show_progress: Show the progress bar and one line a stage on stderr.
        cost: What it will take, if that is known; shown when training begins.

    Raises:
        ValueError: As `adapt`.
    """
    adapted = adapt(config, rank=rank, show_progress=show_progress)
    method = adapted.method
    hooks = method.hooks(config)
    module = AdaptationModule(
        adapted.model,
        split_names=adapted.data.split_names,
        metric=adapted.task.metric,
        extra_metrics=adapted.task.extra_metrics,
        objective=adapted.objective,
        optim=config.optim,
        gates=config.gates if method.has_gates else None,
        xi=config.xi.start,
    )
    writer = RunWriter(path)
    stationarity = _stationarity(config, adapted.data)
    recorder = StageRecorder(
        writer,
        config=config,
        task=adapted.task,
        task_type=adapted.objective.task_type,
        stationarity=stationarity,
        hidden_size=adapted.sizes["hidden_size"],
    )
    control = control_of(config, hooks)
    control.training_loss = SampleLoss(
        module, adapted.data, batch_size=config.optim.eval_batch_size
    )
    scheduler = XiScheduler(
        xi=method.levels(config),
        dense=config.dense,
        stage=config.stage,
        control=control,
        refit=config.refit,
        warmup_epochs=config.optim.warmup_epochs,
        null_loss=adapted.null_loss,
        has_gates=has_stages(method, adapted.model),
        has_threshold=method.has_gates,
        settling_epochs=hooks.settling_epochs,
        seed=config.seed,
        stationarity_residual=lambda module, optimizer, xi: (
            stationarity(module, optimizer, config.gates.lambda_of(xi)).stationarity or 0.0
        ),
        on_ranks_chosen=recorder.ranks_chosen,
    )
    steps = StepRecorder(writer, scheduler=scheduler)
    resume_point = ResumePoint(path / CHECKPOINTS_DIR, scheduler=scheduler)
    # Before the schedule looks at what a step left.
    callbacks: list[pl.Callback] = [AdapterHooks(hooks, scheduler=scheduler), scheduler, steps]
    if show_progress:
        progress = StageProgress(
            scheduler,
            config=config,
            adapter=config.method.adapter,
            title=_title(config, path),
            notes=[*interface_lines(adapted.interface), *([cost] if cost else [])],
        )
        callbacks.append(progress)
        scheduler.on_stage_end.append(progress.stage_ended)
    scheduler.on_stage_end.append(recorder)
    callbacks.append(resume_point)
    return Fit(
        adapted=adapted,
        trainer=new_trainer(
            config.trainer,
            callbacks=callbacks,
            enable_progress_bar=show_progress,
            **TRAINER_OPTIONS,
        ),
        module=module,
        scheduler=scheduler,
        steps=steps,
        resume_point=resume_point,
        meta=run_meta(
            config,
            task=adapted.task,
            data=adapted.report.meta,
            backbone_fingerprint=adapted.backbone.fingerprint,
            model=adapted.sizes,
            interface=adapted.interface,
        ),
    )


def has_stages(method: Adapter, model: PeftModel) -> bool:
    """Return whether stages follow the dense one, in which gates of the model are cut."""
    return (method.has_gates or method.has_stages) and bool(adapted_matrices(model))


def _hold_to_threads(config: TrainerConfig) -> None:
    if config.num_threads is None:
        return
    torch.set_num_threads(config.num_threads)
    if config.num_processes > 1:  # or Lightning chooses, when it launches the others
        os.environ["OMP_NUM_THREADS"] = str(config.num_threads)


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


def _title(config: RunConfig, path: Path) -> str:
    control = "" if config.stage.control == "none" else f", {config.stage.control}"
    method = f"{config.method.name}{control}"
    return f"{config.task.name}, {config.backbone.name}, {method}, seed {config.seed} -> {path}"
