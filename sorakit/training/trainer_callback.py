"""Algorithm 1 in a Hugging Face `Trainer`: what `XiScheduler` does in Lightning, step for step."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

from sorakit.config import (
    DenseConfig,
    GatesConfig,
    MethodConfig,
    OptimConfig,
    RefitConfig,
    RunConfig,
    StageConfig,
    TaskConfig,
    TaskMetric,
    XiConfig,
)
from sorakit.method.compaction import Compaction
from sorakit.method.optimizer import ProxAdamW
from sorakit.method.prune import count_adapter_params, count_nonzero_params, count_nonzero_ranks
from sorakit.method.tuner import adapted_matrices
from sorakit.metric_names import GENERALIZATION_SPLIT, MEMORIZATION_SPLIT
from sorakit.objectives import objective
from sorakit.records import RunWriter, StageRecord, is_run_folder
from sorakit.schedule.schedule import Schedule
from sorakit.training.branch import Snapshot, put_back, take_snapshot
from sorakit.training.gate_changes import GateChanges, zero_gates
from sorakit.training.module import AdaptationModule, step_seed
from sorakit.training.parameter_targets import has_reached, smallest_rank
from sorakit.training.provenance import trainer_meta
from sorakit.training.recorder import rank_records
from sorakit.training.xi_scheduler import PhaseEnd, trains_more_than_ranks

_SPLITS = (MEMORIZATION_SPLIT, GENERALIZATION_SPLIT)


class SoraTrainerCallback(TrainerCallback):
    """Runs Algorithm 1 in a `Trainer`, and records every stage in a run folder.

    Phases, levels or targets, convergence and learning rate are those of `sorakit run`; the
    Trainer keeps data, model and loop. It must evaluate the two splits whose scores are the record:
    `eval_dataset={"memorization": ..., "generalization": ...}`, and `compute_metrics` must return
    `metric`. `optimizer` gives the Trainer's optimizer, `max_epochs` its `num_train_epochs`.

    The record has no residuals and no results of single examples: these need sorakit's own data.

    Args:
        out_dir: New folder of the run.
        dataset: Name of the dataset in titles and tables.
        null_loss: Unit of convergence: loss of a model that knows the labels' distribution alone,
            for classes their entropy in nats.
        metric: Name of the score.
        xi: Levels or targets.
        dense: Dense stage.
        stage: Sparsifying stages; without a control, and not until they are stationary.
        refit: Refit of the ranks that a stage leaves.
        optim: Learning rate, weight decay, warm-up and clipping; batches are the Trainer's.
        gates: Gate update.
        seed: Seed of dropout.
        steps_per_epoch: Optimizer steps that count as a pass over the training data; null takes
            the length of the Trainer's loader.

    Attributes:
        schedule: What is trained next.

    Raises:
        ValueError: If an option does not go with a Trainer, or `out_dir` is not new.
    """

    def __init__(
        self,
        *,
        out_dir: str | Path,
        dataset: str,
        null_loss: float,
        metric: TaskMetric = "accuracy",
        xi: XiConfig | None = None,
        dense: DenseConfig | None = None,
        stage: StageConfig | None = None,
        refit: RefitConfig | None = None,
        optim: OptimConfig | None = None,
        gates: GatesConfig | None = None,
        seed: int = 0,
        steps_per_epoch: int | None = None,
    ) -> None:
        self._config = RunConfig(
            task=TaskConfig(name="hub", label=dataset, metric=metric),
            xi=xi or XiConfig(),
            dense=dense or DenseConfig(),
            stage=stage or StageConfig(),
            refit=refit or RefitConfig(),
            optim=optim or OptimConfig(),
            gates=gates or GatesConfig(),
            seed=seed,
            out_dir=str(out_dir),
        )
        self._metric: TaskMetric = metric
        self._steps_per_epoch = steps_per_epoch
        self._check_options(null_loss)
        config = self._config
        self.schedule = Schedule(
            xi=config.xi,
            dense=config.dense,
            stage=config.stage,
            refit=config.refit,
            warmup_epochs=config.optim.warmup_epochs,
            null_loss=null_loss,
            traits=config.stage.control_class(seed=seed),
            has_gates=True,
        )
        self._writer = RunWriter(Path(str(config.out_dir)))
        self._module: AdaptationModule | None = None
        self._optimizer: ProxAdamW | None = None
        self._hook: Any = None
        # Of a stage whose ranks are chosen, until its refit ends.
        self._chosen: PhaseEnd | None = None
        self._penalised: dict[str, float] = {}
        self._branched_at: Snapshot | None = None
        self._dense_scores: dict[str, float] = {}
        # Of a phase that has ended, until both splits are evaluated.
        self._stopped_by: str | None = None
        self._scores: dict[str, tuple[float, float]] = {}
        # Within a segment.
        self._segment_end = 0
        self._loss_sum: Tensor | float = 0.0
        self._loss_count = 0
        self._train_loss = 0.0
        self._changes: GateChanges | None = None
        self._compaction: Compaction | None = None
        self._is_reached = False
        self._applied_xi = config.xi.start

    @property
    def max_epochs(self) -> float:
        """Passes after which the guards end the run: `num_train_epochs` of the Trainer."""
        config = self._config
        stage = max(config.stage.epochs, config.stage.max_epochs)
        refit = config.refit.max_epochs if config.stage.refit != "none" else 0
        # A segment is at least a step, and steps are rounded.
        return config.dense.max_epochs + self.schedule.num_stages * (stage + refit + 1)

    def optimizer(self, model: PeftModel) -> ProxAdamW:
        """Return the optimizer of a model adapted with `SoraConfig`: `optimizers=(..., None)`.

        Args:
            model: In the place where it is trained.

        Raises:
            ValueError: If it has no gates.
        """
        if not adapted_matrices(model):
            raise ValueError(
                "`model` must be adapted with SoraConfig, got a model without gates. Use "
                "`get_peft_model(base, SoraConfig(...))`."
            )
        config = self._config
        self._module = AdaptationModule(
            model,
            split_names=_SPLITS,
            metric=self._metric,
            objective=objective("classification"),
            optim=config.optim,
            gates=config.gates,
            xi=config.xi.start,
        )
        self._optimizer = self._module.configure_optimizers()
        return self._optimizer

    @override
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        loader = kwargs["train_dataloader"]
        if self._steps_per_epoch is None:
            self._steps_per_epoch = len(loader)
        self._check_trainer(args, state, kwargs["optimizer"])
        self._hook = self._model.register_forward_hook(self._note_loss)
        path = self._writer.path
        path.mkdir(parents=True, exist_ok=True)
        model_config: Any = self._model.peft_config["default"]
        config = replace(
            self._config,
            method=MethodConfig(r=model_config.r, lora_alpha=float(model_config.lora_alpha)),
            optim=replace(self._config.optim, batch_size=args.train_batch_size),
        )
        self._writer.write_config(config)
        matrices = adapted_matrices(self._model)
        sizes = {"num_adapter_params": count_adapter_params(matrices)}
        self._writer.write_meta(trainer_meta(config, model=sizes))
        self._writer.write_status("running")

    @override
    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._stopped_by is not None:
            raise ValueError(
                "`eval_dataset` must be a dict with memorization and generalization, and "
                f"`compute_metrics` must return {self._metric}, got scores of "
                f"{', '.join(self._scores) or 'neither'}."
            )
        optimizer = self._prox
        if self.schedule.position.step >= self._segment_end:
            self._begin_segment()
        torch.manual_seed(step_seed(self._config.seed, self.schedule.position.step))
        factor = self.schedule.learning_rate_factor(self._passes)
        phase = self.schedule.phase
        if phase.ends == "target" and not self._is_reached:
            self.schedule.raise_xi(self._passes)
        for group in optimizer.param_groups:
            if "xi" not in group:
                group["lr"] = optimizer.defaults["lr"] * factor
                continue
            group["xi"] = self.schedule.xi
            group["holds_zeros"] = not phase.thresholds
            group["least"] = self._target() if phase.ends == "target" else 0

    @override
    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        assert self._module is not None
        self._module.configure_gradient_clipping(self._prox)

    @override
    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.schedule.end_step()
        step = self.schedule.position.step
        assert self._changes is not None
        self._changes.look(step)
        for group in self._prox.gate_groups:
            self._applied_xi = group["applied_xi"]
        self._look()
        is_met = self.schedule.phase.ends == "target" and self.schedule.is_target_met(
            self._passes, is_reached=self._is_reached
        )
        if step == self._segment_end or is_met:
            self._segment_end = step
            self._end_segment()
            control.should_evaluate = self._stopped_by is not None

    @override
    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._stopped_by is None:
            return
        metrics: dict[str, float] = kwargs["metrics"]
        for split in _SPLITS:
            names = (f"eval_{split}_{self._metric}", f"eval_{split}_loss")
            if all(name in metrics for name in names):
                self._scores[split] = (metrics[names[0]], metrics[names[1]])
        if len(self._scores) == len(_SPLITS):
            self._end_phase(self._stopped_by)
            self._stopped_by, self._scores = None, {}
            control.should_training_stop = self.schedule.position.is_finished

    @override
    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._hook.remove()
        is_finished = self.schedule.position.is_finished
        self._writer.write_status("completed" if is_finished else "interrupted")

    # What a segment, a phase and a stage do; as in `XiScheduler` -------------------------------

    def _begin_segment(self) -> None:
        optimizer, position = self._prox, self.schedule.position
        if position.stage > 0 and position.steps_in_phase == 0 and self._is_refit:
            if self._config.stage.refit == "branch":
                assert self._module is not None
                self._branched_at = take_snapshot(self._module, optimizer)
            optimizer.forget_dead_ranks()
        if self._is_refit:
            for group in optimizer.gate_groups:
                group["holds_zeros"] = True
            self._compaction = Compaction(optimizer)
        self._loss_sum, self._loss_count = 0.0, 0
        self._changes = GateChanges(optimizer, step=position.step)
        self._look()
        self._segment_end = position.step + self.schedule.segment_steps(self._passes)

    def _end_segment(self) -> None:
        if self._compaction is not None:
            self._compaction.undo()
            self._compaction = None
        if self._loss_count == 0:
            raise ValueError(
                "`model` must return its loss, got none in training. Leave `compute_loss_func` and "
                "`label_smoothing_factor` of the Trainer unset."
            )
        self._train_loss = float(self._loss_sum) / self._loss_count
        self._stopped_by = self.schedule.end_segment(
            self._train_loss, steps_per_epoch=self._passes, is_reached=self._is_reached
        )

    def _end_phase(self, stopped_by: str) -> None:
        optimizer = self._prox
        no_gate_left = bool(zero_gates(optimizer).all())
        can_refit = not no_gate_left or trains_more_than_ranks(optimizer)
        if not self._is_refit:
            self._chosen = self._phase_end(stopped_by)
            self._penalised = {}
        if not self.schedule.ends_stage(can_refit=can_refit):
            for split, (score, loss) in self._scores.items():
                self._penalised |= {f"penalised_{split}": score, f"penalised_{split}_loss": loss}
        else:
            self._record(stopped_by if self._is_refit else None)
        if self._is_refit and self._branched_at is not None:
            assert self._module is not None
            put_back(self._branched_at, self._module, optimizer)
            self._branched_at = None
        self.schedule.end_phase(no_gate_left=no_gate_left, can_refit=can_refit)

    def _phase_end(self, stopped_by: str) -> PhaseEnd:
        assert self._changes is not None
        a_pass_ago = self.schedule.position.step - self._passes
        return PhaseEnd(
            stage=self.schedule.position.stage,
            xi=self.schedule.level,
            applied_xi=self._applied_xi,
            steps=self.schedule.position.steps_in_phase,
            train_loss=self._train_loss,
            gates_flickering=self._changes.flickering(a_pass_ago),
            gates_revived=self._changes.revived(a_pass_ago),
            stopped_by=stopped_by,
        )

    def _record(self, refit_stopped_by: str | None) -> None:
        """Write the stage that has ended, and its adapter."""
        assert self._chosen is not None
        chosen, position, config = self._chosen, self.schedule.position, self._config
        matrices = adapted_matrices(self._model)
        scores = {split: score for split, (score, _) in self._scores.items()}
        if chosen.stage == 0:
            self._dense_scores = scores
        has_refit = refit_stopped_by is not None
        record = StageRecord(
            stage=chosen.stage,
            xi=chosen.xi,
            applied_xi=chosen.applied_xi,
            lambda_=config.gates.lambda_of(chosen.xi),
            num_nonzero_params=count_nonzero_params(matrices),
            num_adapter_params=count_adapter_params(matrices),
            num_nonzero_gates=count_nonzero_ranks(matrices),
            metric=self._metric,
            memorization=scores[MEMORIZATION_SPLIT],
            generalization=scores[GENERALIZATION_SPLIT],
            test=None,
            memorization_percent=self._percent(scores, MEMORIZATION_SPLIT),
            generalization_percent=self._percent(scores, GENERALIZATION_SPLIT),
            extra_metrics={},
            train_loss=self._train_loss,
            memorization_loss=self._scores[MEMORIZATION_SPLIT][1],
            generalization_loss=self._scores[GENERALIZATION_SPLIT][1],
            epochs=position.steps_in_stage / self._passes,
            optimizer_steps=position.steps_in_stage,
            stopped_by=chosen.stopped_by,
            refit_epochs=position.steps_in_phase / self._passes if has_refit else None,
            refit_stopped_by=refit_stopped_by,
            **self._penalised,
        )
        peft_config = self._model.peft_config["default"]
        config.method.adapter.export(
            self._model,
            self._writer.adapter_path(chosen.stage),
            base_model_name_or_path=str(peft_config.base_model_name_or_path or ""),
            task_type=_value(peft_config.task_type),
        )
        self._writer.append_stage(
            record,
            ranks=rank_records(matrices, chosen.stage),
            examples=pd.DataFrame({"stage": pd.Series(dtype="int64")}),
            timing={},
            measures={
                "gates_flickering": chosen.gates_flickering,
                "gates_revived": chosen.gates_revived,
            },
        )
        if chosen.stage == 0:
            self.schedule.count_dense(record.num_nonzero_params)
            self.schedule.check_dense()

    def _percent(self, scores: dict[str, float], split: str) -> float | None:
        dense = self._dense_scores[split]
        return 100 * scores[split] / dense if dense > 0 else None

    def _note_loss(self, module: nn.Module, _: Any, output: Any) -> None:
        """Add the loss of a training batch to that of the segment; a forward hook of the model."""
        loss = output.get("loss") if module.training else None
        if loss is not None:
            self._loss_sum = self._loss_sum + loss.detach().double()
            self._loss_count += 1

    def _look(self) -> None:
        if self.schedule.phase.ends == "target":
            self._is_reached = has_reached(self._prox, self._target())

    def _target(self) -> int:
        if not self.schedule.needs_dense_params:
            return 0
        return self.schedule.target(smallest_rank(self._prox))

    @property
    def _is_refit(self) -> bool:
        return not self.schedule.phase.thresholds

    @property
    def _passes(self) -> int:
        """Optimizer steps in a pass."""
        assert self._steps_per_epoch is not None
        return self._steps_per_epoch

    @property
    def _prox(self) -> ProxAdamW:
        assert self._optimizer is not None
        return self._optimizer

    @property
    def _model(self) -> PeftModel:
        assert self._module is not None
        return self._module.model

    def _check_options(self, null_loss: float) -> None:
        stage, path = self._config.stage, Path(str(self._config.out_dir))
        if not null_loss > 0:
            raise ValueError(f"`null_loss` must be > 0, got {null_loss}.")
        if stage.control != "none":
            raise ValueError(
                f"`stage.control` must be none in a Trainer, got {stage.control!r}. Controls are "
                "those of `sorakit run`."
            )
        if stage.until != "length":
            raise ValueError(
                f"`stage.until` must be length in a Trainer, got {stage.until!r}. The residual "
                "needs sorakit's own data."
            )
        if is_run_folder(path):
            raise ValueError(f"`out_dir` must be a new folder, got {str(path)!r}, which has a run.")

    def _check_trainer(self, args: TrainingArguments, state: TrainerState, optimizer: Any) -> None:
        """Refuse what would make the run another one than Algorithm 1.

        Raises:
            ValueError: If there is such an argument.
        """
        inner = getattr(optimizer, "optimizer", optimizer)  # accelerate's wrapper has it inside
        if self._optimizer is None or inner is not self._optimizer:
            raise ValueError(
                "`optimizers` of the Trainer must be (callback.optimizer(model), None), got "
                f"another optimizer ({type(inner).__name__})."
            )
        needed = {
            "max_grad_norm": (args.max_grad_norm, 0.0, "`optim.max_grad_norm` clips, not gates"),
            "lr_scheduler_type": (
                _value(args.lr_scheduler_type),
                "constant",
                "the callback sets the learning rate",
            ),
            "gradient_accumulation_steps": (
                args.gradient_accumulation_steps,
                1,
                "the loss of a step would not be known",
            ),
            "fp16": (args.fp16, False, "its scaled gradients cannot be clipped here; bf16 can"),
            "eval_strategy": (_value(args.eval_strategy), "no", "phases say when to evaluate"),
            "save_strategy": (
                _value(args.save_strategy),
                "no",
                "the adapter of every stage is in `out_dir`, and a run here cannot be resumed",
            ),
            "world_size": (args.world_size, 1, "one process; `sorakit run` takes several devices"),
        }
        for name, (value, wanted, why) in needed.items():
            if value != wanted:
                raise ValueError(
                    f"`{name}` of TrainingArguments must be {wanted}, got {value}: {why}."
                )
        if state.global_step > 0:
            raise ValueError(
                f"`resume_from_checkpoint` must not be given, got one of step {state.global_step}. "
                "A run in a Trainer cannot be resumed; `sorakit run` can."
            )
        most = int(self.max_epochs * self._passes)
        if state.max_steps < most:
            raise ValueError(
                f"`num_train_epochs` must give at least {most} steps, got {state.max_steps}. Use "
                "`num_train_epochs=callback.max_epochs`; the run ends when Algorithm 1 does."
            )


def _value(option: Any) -> str:
    """Return an option that is an enumeration of transformers, or a text."""
    return str(getattr(option, "value", option))
