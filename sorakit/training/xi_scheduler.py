"""Algorithm 1 as a Lightning callback: dense until convergence, then xi level by level."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from typing_extensions import override

from sorakit.config import DenseConfig, StageConfig, XiConfig
from sorakit.method.optimizer import ProxAdamW
from sorakit.training.controls import make_control
from sorakit.training.devices import mean_over_processes
from sorakit.training.levels import learning_rate_factor, levels
from sorakit.training.module import step_seed
from sorakit.training.parameter_targets import ParameterTargets

CONVERGED = "converged"
MAX_EPOCHS = "max_epochs"
LENGTH = "length"
STATIONARY = "stationary"
TARGET = "target"

TRAINER_OPTIONS: dict[str, Any] = {
    "max_epochs": -1,  # the schedule ends the run
    "reload_dataloaders_every_n_epochs": 1,  # every segment has batches of its own
    "num_sanity_val_steps": 0,
    "logger": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
}
"""What a Trainer under `XiScheduler` is made with; checkpoints are `ResumePoint`'s."""


@runtime_checkable
class SegmentedData(Protocol):
    """What `XiScheduler` needs of a data module: training batches in pieces of any length."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the training data."""
        ...

    def set_segment(self, start: int, count: int) -> None:
        """Make the next `train_dataloader` give `count` batches from optimizer step `start` on."""
        ...


@dataclass(frozen=True, kw_only=True)
class StageEnd:
    """What is known of a stage when it ends; scores are in the module's `results`.

    Attributes:
        stage: 0 is dense.
        xi: Threshold of the stage's last step, gate units per optimizer step.
        steps: Optimizer steps of the stage.
        epochs: Passes over the training data in the stage.
        train_loss: Mean training loss over the last segment, in training mode.
        gates_flickering: Gates whose zero status changed in the last pass over the data, or in the
            last segment where that is shorter.
        gates_revived: Those among them that came back from zero.
        stopped_by: converged, max_epochs, length, stationary or target.
    """

    stage: int
    xi: float
    steps: int
    epochs: float
    train_loss: float
    gates_flickering: int
    gates_revived: int
    stopped_by: str


class XiScheduler(pl.Callback):
    """Runs Algorithm 1: dense at `xi.start` until the training loss settles, then by stages.

    An epoch of Lightning is one segment: a pass over the data in the dense stage, usually a whole
    stage afterwards. Validation follows each segment, so a stage's scores come from its last
    weights. Only the training loss decides when the dense stage ends; validation data decide
    nothing. The run ends after the last level or when no gate is left.

    With `xi.spacing: target` xi grows by the factor `xi.ratio` within `stage.epochs`, and a stage
    ends at the first step at which the number of parameters has come down to its target and the
    stage is `stage.epochs` long (`ParameterTargets`).

    Needs a data module that is `SegmentedData` (as `AdaptationData`), a module whose optimizer is
    `ProxAdamW` with gate groups, and a Trainer with `TRAINER_OPTIONS`.

    Args:
        xi: Levels.
        dense: Dense stage.
        stage: Sparsifying stages.
        warmup_epochs: Linear warm-up of the learning rate.
        has_gates: False for a run without an adapter: it ends with the dense stage.
        seed: Seed of dropout and of random controls.
        stationarity_residual: Returns how far the gates of a module are from a fixed point of the
            training step at a lambda, in units of it; needed for `until: stationary`.
        on_stage_end: Called as `f(trainer, module, stage_end)` after a stage's evaluation, before
            xi rises.
    """

    def __init__(
        self,
        *,
        xi: XiConfig,
        dense: DenseConfig,
        stage: StageConfig,
        warmup_epochs: float,
        has_gates: bool,
        seed: int,
        stationarity_residual: (
            Callable[[pl.LightningModule, ProxAdamW, float], float] | None
        ) = None,
        on_stage_end: Sequence[Callable[[pl.Trainer, pl.LightningModule, StageEnd], None]] = (),
    ) -> None:
        self._xi_config = xi
        self._levels = () if xi.spacing == "target" else levels(xi)
        self._targets = ParameterTargets(xi)  # followed where there are no levels
        self._dense = dense
        self._stage_config = stage
        self._control = make_control(stage.control, seed=seed)
        self._stationarity_residual = stationarity_residual
        self._warmup_epochs = warmup_epochs
        self._has_gates = has_gates
        self._seed = seed
        self.on_stage_end = list(on_stage_end)
        # Position in the run: everything a resumed run needs.
        self.step = 0
        self.stage = 0
        self.is_finished = False
        self._stage_start = 0
        self._best_loss = float("inf")
        self._epochs_without_improvement = 0
        # Within a segment, which is never interrupted by a checkpoint.
        self._loss_sum: Tensor | float = 0.0
        self._loss_count = 0
        self._segment_start = 0
        self._was_zero: Tensor | None = None
        self._last_change: Tensor | None = None
        self._last_revival: Tensor | None = None
        self._used_xi = xi.start

    @property
    def xi(self) -> float:
        """Threshold of the current stage; with `xi.spacing: target`, how far it has risen."""
        if self.stage == 0 or not self._control.rises:
            return self._xi_config.start
        return self._levels[self.stage] if self._levels else self._targets.xi

    @property
    def num_stages(self) -> int:
        """Sparsifying stages that there may be."""
        return len(self._levels) - 1 if self._levels else self._xi_config.num_stages

    @property
    def steps_in_stage(self) -> int:
        """Optimizer steps taken in the current stage."""
        return self.step - self._stage_start

    @property
    def completed_stages(self) -> int:
        """Stages that have ended, dense among them."""
        return self.stage + 1 if self.is_finished else self.stage

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "stage": self.stage,
            "is_finished": self.is_finished,
            "stage_start": self._stage_start,
            "best_loss": self._best_loss,
            "epochs_without_improvement": self._epochs_without_improvement,
            "risen_xi": self._targets.xi,
            "dense_params": self._targets.dense_params,
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.step = state_dict["step"]
        self.stage = state_dict["stage"]
        self.is_finished = state_dict["is_finished"]
        self._stage_start = state_dict["stage_start"]
        self._best_loss = state_dict["best_loss"]
        self._epochs_without_improvement = state_dict["epochs_without_improvement"]
        self._targets.dense_params = state_dict["dense_params"]
        # Right after the dense stage, which may be that of a run with other levels, xi rises from
        # this run's own first level.
        if self.stage > 1 or self.steps_in_stage > 0:
            self._targets.xi = state_dict["risen_xi"]

    @property
    def _is_like_dense(self) -> bool:
        """Whether the current stage is trained by the rules of the dense one."""
        return self.stage == 0 or self._control.restarts

    @property
    def _followed(self) -> ParameterTargets | None:
        """The targets, where the current stage ends when its number of parameters is reached."""
        follows = self.stage > 0 and not self._levels and self._control.rises
        return self._targets if follows else None

    def segment_steps(self, steps_per_epoch: int) -> int:
        """Return the most steps until the next evaluation."""
        if self._is_like_dense:
            return steps_per_epoch
        if not self._control.trains and not self._control.rises:
            return 1  # nothing changes; Lightning evaluates after a step, not before the first
        if self._followed:
            return max(1, round(self._stage_config.max_epochs * steps_per_epoch))
        return max(1, round(self._stage_config.epochs * steps_per_epoch))

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # Before the state is restored.
        self._control.begin_run(pl_module)

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # After the state is restored, before the loop asks for a loader.
        if self.stage > 0:
            self._check_dense_params()
        self._announce_segment(trainer)

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        optimizer = prox_optimizer(trainer)
        if self.stage > 0 and self.steps_in_stage == 0:
            target = 0 if self._levels else self._targets.count(optimizer, self.stage)
            self._control.begin_stage(pl_module, optimizer, target=target)
        self._loss_sum, self._loss_count = 0.0, 0
        self._segment_start = self.step
        self._was_zero = _zero_gates(optimizer)
        self._last_change = torch.full(self._was_zero.shape, -1, device=self._was_zero.device)
        self._last_revival = self._last_change.clone()
        for group in optimizer.gate_groups:
            group["xi"] = self.xi
        if self._followed:
            self._followed.look(optimizer, self.stage)

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        torch.manual_seed(step_seed(self._seed, self.step, rank=trainer.global_rank))
        steps_per_epoch = _data(trainer).steps_per_epoch
        optimizer = prox_optimizer(trainer)
        trains = self.stage == 0 or self._control.trains
        factor = learning_rate_factor(
            self.steps_in_stage if self._is_like_dense else self.step,
            stage=0 if self._is_like_dense else self.stage,
            steps_per_epoch=steps_per_epoch,
            warmup_epochs=self._warmup_epochs,
            dense=self._dense,
            stage_factor=self._stage_config.lr_factor,
        )
        for group in optimizer.param_groups:
            # Gates keep their step size, or lambda = xi / gate_lr would not hold.
            if "xi" not in group:
                group["lr"] = optimizer.defaults["lr"] * factor * trains
            elif not trains:
                group["lr"] = 0.0
        if self._followed:
            length = max(1, round(self._stage_config.epochs * steps_per_epoch))
            self._followed.before_step(optimizer, self.stage, length=length)

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any
    ) -> None:
        self._control.before_step(prox_optimizer(trainer), step=self.step)

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        optimizer = prox_optimizer(trainer)
        if self.stage > 0:
            self._control.after_step(optimizer)
        self.step += 1
        self._loss_sum = self._loss_sum + outputs["loss"].detach().double()
        self._loss_count += 1
        assert self._was_zero is not None
        assert self._last_change is not None
        assert self._last_revival is not None
        zero = _zero_gates(optimizer)
        self._last_change[zero != self._was_zero] = self.step
        self._last_revival[self._was_zero & ~zero] = self.step
        self._was_zero = zero
        for group in optimizer.gate_groups:
            self._used_xi = group["xi"]
        if not self._followed:
            return
        self._followed.look(optimizer, self.stage)
        if self._is_target_met(trainer):
            # Ends the epoch of Lightning after this batch, and evaluates, as its last batch would.
            trainer.fit_loop.epoch_loop.batch_progress.is_last_batch = True
            trainer.val_check_batch = batch_idx + 1

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        assert isinstance(self._loss_sum, Tensor)
        train_loss = float(mean_over_processes(self._loss_sum)) / self._loss_count
        stopped_by = self._why_stage_ends(trainer, pl_module, train_loss)
        if stopped_by is not None:
            self._end_stage(trainer, pl_module, train_loss, stopped_by)
        if self.is_finished:
            trainer.should_stop = True
        else:
            self._announce_segment(trainer)

    def _why_stage_ends(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, train_loss: float
    ) -> str | None:
        steps_per_epoch = _data(trainer).steps_per_epoch
        if self._is_like_dense:
            return self._why_dense_stage_ends(train_loss, steps_per_epoch)
        if self._followed:
            return TARGET if self._is_target_met(trainer) else MAX_EPOCHS
        if self._stage_config.until == "stationary" and self._control.trains:
            assert self._stationarity_residual is not None
            optimizer = prox_optimizer(trainer)
            lambda_ = self._used_xi / _gate_lr(optimizer)
            residual = self._stationarity_residual(pl_module, optimizer, lambda_)
            if residual <= self._stage_config.tolerance:
                return STATIONARY
            longest = max(1, round(self._stage_config.max_epochs * steps_per_epoch))
            return MAX_EPOCHS if self.steps_in_stage >= longest else None
        return LENGTH

    def _why_dense_stage_ends(self, train_loss: float, steps_per_epoch: int) -> str | None:
        if train_loss < self._best_loss * (1 - self._dense.min_improvement):
            self._best_loss = train_loss
            self._epochs_without_improvement = 0
        else:
            self._epochs_without_improvement += 1
        if self._epochs_without_improvement >= self._dense.patience:
            return CONVERGED
        if self.steps_in_stage >= self._dense.max_epochs * steps_per_epoch:
            return MAX_EPOCHS
        return None

    def _end_stage(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        train_loss: float,
        stopped_by: str,
    ) -> None:
        assert self._last_change is not None
        assert self._last_revival is not None
        optimizer = prox_optimizer(trainer)
        steps_per_epoch = _data(trainer).steps_per_epoch
        recently = max(self.step - steps_per_epoch, self._segment_start)
        end = StageEnd(
            stage=self.stage,
            xi=self._used_xi if self._has_gates else 0.0,
            steps=self.steps_in_stage,
            epochs=self.steps_in_stage / steps_per_epoch,
            train_loss=train_loss,
            gates_flickering=int((self._last_change > recently).sum()),
            gates_revived=int((self._last_revival > recently).sum()),
            stopped_by=stopped_by,
        )
        for listener in self.on_stage_end:
            listener(trainer, pl_module, end)
        if self.stage == 0:
            self._targets.count_dense(optimizer)
            self._check_dense_params()
        no_gate_left = self.stage > 0 and bool(_zero_gates(optimizer).all())
        if not self._has_gates or no_gate_left or self.stage == self.num_stages:
            self.is_finished = True
        else:
            self.stage += 1
            self._stage_start = self.step
            self._best_loss = math.inf
            self._epochs_without_improvement = 0

    def _check_dense_params(self) -> None:
        if self._has_gates and not self._levels:
            self._targets.check_dense()

    def _is_target_met(self, trainer: pl.Trainer) -> bool:
        length = round(self._stage_config.epochs * _data(trainer).steps_per_epoch)
        assert self._followed is not None
        return self._followed.is_reached and self.steps_in_stage >= length

    def _announce_segment(self, trainer: pl.Trainer) -> None:
        data = _data(trainer)
        data.set_segment(self.step, self.segment_steps(data.steps_per_epoch))


def prox_optimizer(trainer: pl.Trainer) -> ProxAdamW:
    """Return the trainer's optimizer.

    Raises:
        ValueError: If it is another one than `ProxAdamW`.
    """
    optimizer = trainer.optimizers[0]
    if not isinstance(optimizer, ProxAdamW):
        raise ValueError(  # noqa: TRY004  # a user's mistake in configure_optimizers
            f"`configure_optimizers` must return a ProxAdamW, got {type(optimizer).__name__}."
        )
    return optimizer


def _gate_lr(optimizer: ProxAdamW) -> float:
    return optimizer.gate_groups[0]["lr"]


def _zero_gates(optimizer: ProxAdamW) -> Tensor:
    gates = [gate.detach() for group in optimizer.gate_groups for gate in group["params"]]
    return torch.cat(gates) == 0 if gates else torch.zeros(0, dtype=torch.bool)


def _data(trainer: pl.Trainer) -> SegmentedData:
    data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]  # set by Trainer.fit
    if not isinstance(data, SegmentedData):
        raise ValueError(  # noqa: TRY004  # a user's mistake in calling Trainer.fit, not a type error of ours
            "`datamodule` must have `steps_per_epoch` and `set_segment`, as AdaptationData, got "
            f"{type(data).__name__}. Pass it to `Trainer.fit`."
        )
    return data
