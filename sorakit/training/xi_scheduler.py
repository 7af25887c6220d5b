"""Algorithm 1 as a Lightning callback: dense until convergence, then xi level by level."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from typing_extensions import override

from sorakit.config import DenseConfig, StageConfig, XiConfig
from sorakit.training.levels import learning_rate_factor, levels
from sorakit.training.module import step_seed

CONVERGED = "converged"
MAX_EPOCHS = "max_epochs"
LENGTH = "length"


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
        xi: Threshold of the stage, gate units per optimizer step.
        steps: Optimizer steps of the stage.
        epochs: Passes over the training data in the stage.
        train_loss: Mean training loss over the last segment, in training mode.
        gates_flickering: Gates whose zero status changed during the last segment.
        stopped_by: converged, max_epochs or length.
    """

    stage: int
    xi: float
    steps: int
    epochs: float
    train_loss: float
    gates_flickering: int
    stopped_by: str


class XiScheduler(pl.Callback):
    """Runs Algorithm 1: dense at `xi.start` until the training loss settles, then by stages.

    An epoch of Lightning is one segment: a pass over the data in the dense stage, a whole stage
    afterwards. Validation follows each segment, so a stage's scores come from its last weights.
    Only the training loss decides when the dense stage ends; validation data decide nothing. The
    run ends after the last level or when no gate is left.

    Needs a data module that is `SegmentedData` (as `AdaptationData`), a module whose optimizer has
    groups with the key `xi`, and a Trainer with `max_epochs=-1, reload_dataloaders_every_n_epochs=1`.

    Args:
        xi: Levels.
        dense: Dense stage.
        stage: Sparsifying stages.
        warmup_epochs: Linear warm-up of the learning rate.
        has_gates: False for a run without an adapter: it ends with the dense stage.
        seed: Seed of dropout.
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
        on_stage_end: Sequence[Callable[[pl.Trainer, pl.LightningModule, StageEnd], None]] = (),
    ) -> None:
        self._levels = levels(xi)
        self._dense = dense
        self._stage_config = stage
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
        self._was_zero: Tensor | None = None
        self._changed: Tensor | None = None

    @property
    def xi(self) -> float:
        """Threshold of the current stage; a `hold_dense` control stays at the first level."""
        if self._stage_config.control == "hold_dense":
            return self._levels[0]
        return self._levels[self.stage]

    @property
    def num_stages(self) -> int:
        """Sparsifying stages that there may be."""
        return len(self._levels) - 1

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
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.step = state_dict["step"]
        self.stage = state_dict["stage"]
        self.is_finished = state_dict["is_finished"]
        self._stage_start = state_dict["stage_start"]
        self._best_loss = state_dict["best_loss"]
        self._epochs_without_improvement = state_dict["epochs_without_improvement"]

    def segment_steps(self, steps_per_epoch: int) -> int:
        """Return the steps until the next evaluation: a pass when dense, else a stage."""
        if self.stage == 0:
            return steps_per_epoch
        return max(1, round(self._stage_config.epochs * steps_per_epoch))

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # After the state is restored, before the loop asks for a loader.
        self._announce_segment(trainer)

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._loss_sum, self._loss_count = 0.0, 0
        self._was_zero = self._zero_gates(trainer)
        self._changed = torch.zeros_like(self._was_zero)
        for group in _gate_groups(trainer):
            group["xi"] = self.xi

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        torch.manual_seed(step_seed(self._seed, self.step))
        factor = learning_rate_factor(
            self.step,
            stage=self.stage,
            steps_per_epoch=_data(trainer).steps_per_epoch,
            warmup_epochs=self._warmup_epochs,
            dense=self._dense,
            stage_factor=self._stage_config.lr_factor,
        )
        for group in trainer.optimizers[0].param_groups:
            # Gates keep their step size, or lambda = xi / gate_lr would not hold.
            if "xi" not in group:
                group["lr"] = trainer.optimizers[0].defaults["lr"] * factor

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self.step += 1
        self._loss_sum = self._loss_sum + outputs["loss"].detach().double()
        self._loss_count += 1
        assert self._was_zero is not None
        assert self._changed is not None
        zero = self._zero_gates(trainer)
        self._changed |= zero != self._was_zero
        self._was_zero = zero

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        train_loss = float(self._loss_sum) / self._loss_count
        stopped_by = self._why_stage_ends(train_loss, _data(trainer).steps_per_epoch)
        if stopped_by is not None:
            self._end_stage(trainer, pl_module, train_loss, stopped_by)
        if self.is_finished:
            trainer.should_stop = True
        else:
            self._announce_segment(trainer)

    def _why_stage_ends(self, train_loss: float, steps_per_epoch: int) -> str | None:
        if self.stage > 0:
            return LENGTH
        if train_loss < self._best_loss * (1 - self._dense.min_improvement):
            self._best_loss = train_loss
            self._epochs_without_improvement = 0
        else:
            self._epochs_without_improvement += 1
        if self._epochs_without_improvement >= self._dense.patience:
            return CONVERGED
        if self.step >= self._dense.max_epochs * steps_per_epoch:
            return MAX_EPOCHS
        return None

    def _end_stage(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        train_loss: float,
        stopped_by: str,
    ) -> None:
        assert self._changed is not None
        end = StageEnd(
            stage=self.stage,
            xi=self.xi if self._has_gates else 0.0,
            steps=self.steps_in_stage,
            epochs=self.steps_in_stage / _data(trainer).steps_per_epoch,
            train_loss=train_loss,
            gates_flickering=int(self._changed.sum()),
            stopped_by=stopped_by,
        )
        for listener in self.on_stage_end:
            listener(trainer, pl_module, end)
        no_gate_left = self.stage > 0 and bool(self._zero_gates(trainer).all())
        if not self._has_gates or no_gate_left or self.stage == self.num_stages:
            self.is_finished = True
        else:
            self.stage += 1
            self._stage_start = self.step

    def _announce_segment(self, trainer: pl.Trainer) -> None:
        data = _data(trainer)
        data.set_segment(self.step, self.segment_steps(data.steps_per_epoch))

    def _zero_gates(self, trainer: pl.Trainer) -> Tensor:
        gates = [gate.detach() for group in _gate_groups(trainer) for gate in group["params"]]
        return torch.cat(gates) == 0 if gates else torch.zeros(0, dtype=torch.bool)


def _gate_groups(trainer: pl.Trainer) -> list[dict[str, Any]]:
    return [group for group in trainer.optimizers[0].param_groups if "xi" in group]


def _data(trainer: pl.Trainer) -> SegmentedData:
    data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]  # set by Trainer.fit
    if not isinstance(data, SegmentedData):
        raise ValueError(  # noqa: TRY004  # a user's mistake in calling Trainer.fit, not a type error of ours
            "`datamodule` must have `steps_per_epoch` and `set_segment`, as AdaptationData, got "
            f"{type(data).__name__}. Pass it to `Trainer.fit`."
        )
    return data
