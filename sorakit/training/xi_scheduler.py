"""Algorithm 1 as a Lightning callback: it only says when; what and how long is `Schedule`'s."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import lightning.pytorch as pl
import torch
from torch import Tensor
from typing_extensions import override

from sorakit.config import DenseConfig, RefitConfig, StageConfig, XiConfig
from sorakit.controls import Control
from sorakit.method.compaction import Compaction
from sorakit.method.optimizer import ProxAdamW
from sorakit.method.prune import count_nonzero_params
from sorakit.schedule.convergence import CONVERGED
from sorakit.schedule.position import Position
from sorakit.schedule.schedule import Schedule
from sorakit.training.branch import Snapshot, put_back, take_snapshot
from sorakit.training.devices import mean_over_processes
from sorakit.training.gate_changes import GateChanges, zero_gates
from sorakit.training.lightning_epoch import end_epoch
from sorakit.training.module import step_seed
from sorakit.training.parameter_targets import has_reached, smallest_rank

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
class PhaseEnd:
    """What is known when the ranks of a stage are chosen: at the end of its first phase.

    Attributes:
        stage: 0 is dense.
        xi: Level of the stage, gate units per optimizer step. Along a path it never falls.
        applied_xi: Threshold that the last step applied: lower where it would have taken more than
            the target.
        steps: Optimizer steps of the phase.
        train_loss: Mean training loss over the last segment, in training mode.
        gates_flickering: Gates whose zero status changed in the last pass over the data, or in the
            last segment where that is shorter.
        gates_revived: Those among them that came back from zero.
        stopped_by: converged, max_epochs, length, stationary or target.
    """

    stage: int
    xi: float
    applied_xi: float
    steps: int
    train_loss: float
    gates_flickering: int
    gates_revived: int
    stopped_by: str


@dataclass(frozen=True, kw_only=True)
class StageEnd:
    """What is known of a stage when it ends; scores are in the module's `results`.

    Attributes:
        chosen: What was known when its ranks were chosen.
        penalised: What `on_ranks_chosen` returned then; empty without a refit.
        steps: Optimizer steps of the stage, refit included.
        epochs: Passes over the training data in the stage.
        train_loss: Mean training loss over the last segment, in training mode.
        refit_epochs: Passes of the refit; None without one.
        refit_stopped_by: converged or max_epochs; None without a refit.
    """

    chosen: PhaseEnd
    penalised: dict[str, float | None]
    steps: int
    epochs: float
    train_loss: float
    refit_epochs: float | None
    refit_stopped_by: str | None

    @property
    def stage(self) -> int:
        """0 is dense."""
        return self.chosen.stage


class XiScheduler(pl.Callback):
    """Runs Algorithm 1: dense at `xi.start` until the training loss settles, then by stages.

    A sparsifying stage chooses its ranks under xi and then, with `stage.refit`, trains them at xi =
    0 while the others stay at exactly zero. An epoch of Lightning is one segment of the `Schedule`:
    a pass over the data where a phase ends by convergence, usually a whole phase otherwise.
    Validation runs at the end of a phase, so its scores come from its last weights. The run ends
    after the last level or when no gate is left.

    Needs a data module that is `SegmentedData` (as `AdaptationData`), a module whose optimizer is
    `ProxAdamW` with gate groups, and a Trainer with `TRAINER_OPTIONS`.

    Args:
        xi: Levels.
        dense: Dense stage.
        stage: Sparsifying stages.
        control: What is done in the place of Algorithm 1; `stage.control` is not looked at.
        refit: Refit of the ranks that a stage leaves.
        warmup_epochs: Linear warm-up of the learning rate when training starts anew.
        null_loss: Unit of convergence: loss of a model that knows the labels' distribution alone.
        has_gates: False for a run without an adapter: it ends with the dense stage.
        has_threshold: False where gates are set and not learnt: xi is 0 throughout.
        settling_epochs: Passes at the start of the run in which convergence is not judged.
        seed: Seed of dropout.
        stationarity_residual: Returns how far the gates of a module are from a fixed point of the
            training step at a threshold, in units of its lambda; needed for `until: stationary`.
        on_stage_end: Called as `f(trainer, module, stage_end)` after a stage's evaluation, before
            xi rises.
        on_ranks_chosen: Called as `f(trainer, module, phase_end)` before a refit, after an
            evaluation of the penalised weights; what it returns is kept until the stage ends.

    Attributes:
        schedule: What is trained next; its `position` is the state that a checkpoint holds.
    """

    def __init__(
        self,
        *,
        xi: XiConfig,
        dense: DenseConfig,
        stage: StageConfig,
        control: Control,
        refit: RefitConfig,
        warmup_epochs: float,
        null_loss: float,
        has_gates: bool,
        has_threshold: bool = True,
        settling_epochs: float = 0.0,
        seed: int,
        stationarity_residual: (
            Callable[[pl.LightningModule, ProxAdamW, float], float] | None
        ) = None,
        on_stage_end: Sequence[Callable[[pl.Trainer, pl.LightningModule, StageEnd], None]] = (),
        on_ranks_chosen: (
            Callable[[pl.Trainer, pl.LightningModule, PhaseEnd], dict[str, float | None]] | None
        ) = None,
    ) -> None:
        self._control = control
        self.schedule = Schedule(
            xi=xi,
            dense=dense,
            stage=stage,
            refit=refit,
            warmup_epochs=warmup_epochs,
            null_loss=null_loss,
            traits=self._control,
            has_gates=has_gates,
            has_threshold=has_threshold,
            settling_epochs=settling_epochs,
        )
        self._stationarity_residual = stationarity_residual
        self._has_gates = has_gates
        self._seed = seed
        self._is_branch = stage.refit == "branch"
        self.on_stage_end = list(on_stage_end)
        self.on_ranks_chosen = on_ranks_chosen
        # Of a stage whose ranks are chosen, until its refit ends; a checkpoint holds them.
        self._chosen: PhaseEnd | None = None
        self._penalised: dict[str, float | None] = {}
        self._branched_at: Snapshot | None = None
        # Within a segment, which is never interrupted by a checkpoint.
        self._segment_end = 0
        self._loss_sum: Tensor | float = 0.0
        self._loss_count = 0
        self._changes: GateChanges | None = None
        self._is_reached = False
        self._compaction: Compaction | None = None
        self._applied_xi = xi.start
        self._train_loss = 0.0
        self._stopped_by: str | None = None

    @property
    def step(self) -> int:
        """Optimizer steps taken since the run began."""
        return self.schedule.position.step

    @property
    def stage(self) -> int:
        """Current stage; 0 is dense."""
        return self.schedule.position.stage

    @property
    def is_finished(self) -> bool:
        """Whether the run has come to its end."""
        return self.schedule.position.is_finished

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "position": asdict(self.schedule.position),
            "chosen": None if self._chosen is None else asdict(self._chosen),
            "penalised": self._penalised,
            "branched_at": self._branched_at,
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.schedule.resume(Position(**state_dict["position"]))
        chosen = state_dict["chosen"]
        self._chosen = None if chosen is None else PhaseEnd(**chosen)
        self._penalised = state_dict["penalised"]
        self._branched_at = state_dict["branched_at"]

    def end_untrained(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End the dense stage of a run that has nothing to train, after an evaluation."""
        chosen = PhaseEnd(
            stage=0,
            xi=0.0,
            applied_xi=0.0,
            steps=0,
            train_loss=self.schedule.null_loss,
            gates_flickering=0,
            gates_revived=0,
            stopped_by=CONVERGED,
        )
        end = StageEnd(
            chosen=chosen,
            penalised={},
            steps=0,
            epochs=0.0,
            train_loss=chosen.train_loss,
            refit_epochs=None,
            refit_stopped_by=None,
        )
        for listener in self.on_stage_end:
            listener(trainer, pl_module, end)

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # Before the state is restored.
        self._control.begin_run(pl_module)

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # After the state is restored, before the loop asks for a loader.
        if self.stage > 0:
            self.schedule.check_dense()
        self._announce_segment(trainer)

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        optimizer = prox_optimizer(trainer)
        if self.stage > 0 and self.schedule.position.steps_in_phase == 0:
            self._begin_phase(pl_module, optimizer)
        if not self.schedule.phase.thresholds:
            self._compaction = _take_dead_ranks_out(optimizer)
        self._loss_sum, self._loss_count = 0.0, 0
        self._changes = GateChanges(optimizer, step=self.step)
        self._stopped_by = None
        self._look(optimizer)

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        torch.manual_seed(step_seed(self._seed, self.step, rank=trainer.global_rank))
        optimizer = prox_optimizer(trainer)
        steps_per_epoch = _data(trainer).steps_per_epoch
        factor = self.schedule.learning_rate_factor(steps_per_epoch)
        phase = self.schedule.phase
        if phase.ends == "target" and not self._is_reached:
            self.schedule.raise_xi(steps_per_epoch)
        for group in optimizer.param_groups:
            if "xi" not in group:
                group["lr"] = optimizer.defaults["lr"] * factor
                continue
            # Gates keep their step size, or lambda = xi / gate_lr would not hold.
            if not phase.trains:
                group["lr"] = 0.0
            group["xi"] = self.schedule.xi
            group["holds_zeros"] = not phase.thresholds
            group["least"] = self._target(optimizer) if phase.ends == "target" else 0

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any
    ) -> None:
        if self.schedule.phase.thresholds:
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
        if self.stage > 0 and self.schedule.phase.thresholds:
            self._control.after_step(optimizer)
        self.schedule.end_step()
        self._loss_sum = self._loss_sum + outputs["loss"].detach().double()
        self._loss_count += 1
        assert self._changes is not None
        self._changes.look(self.step)
        for group in optimizer.gate_groups:
            self._applied_xi = group["applied_xi"]
        self._look(optimizer)
        if self.step == self._segment_end or self._is_target_met(trainer):
            self._end_segment(trainer, pl_module)
            end_epoch(trainer, batch_idx, validate=self._stopped_by is not None)

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # After validation, where the segment was the last of its phase.
        if self._stopped_by is not None:
            self._end_phase(trainer, pl_module, self._stopped_by)
        if self.is_finished:
            trainer.should_stop = True
        else:
            self._announce_segment(trainer)

    def _end_segment(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ask the schedule what ends the phase with this segment, if anything does."""
        if self._compaction is not None:
            self._compaction.undo()  # whoever looks from here on sees all ranks
            self._compaction = None
        residual = math.inf
        if self.schedule.phase.ends == "stationary":
            assert self._stationarity_residual is not None
            optimizer = prox_optimizer(trainer)
            residual = self._stationarity_residual(pl_module, optimizer, self._applied_xi)
        assert isinstance(self._loss_sum, Tensor)
        self._train_loss = float(mean_over_processes(self._loss_sum)) / self._loss_count
        self._stopped_by = self.schedule.end_segment(
            self._train_loss,
            steps_per_epoch=_data(trainer).steps_per_epoch,
            is_reached=self._is_reached,
            residual=residual,
        )

    def _begin_phase(self, pl_module: pl.LightningModule, optimizer: ProxAdamW) -> None:
        if self.schedule.phase.thresholds:
            self._control.begin_stage(pl_module, optimizer, target=self._target(optimizer))
            return
        if self._is_branch:
            self._branched_at = take_snapshot(pl_module, optimizer)
        optimizer.forget_dead_ranks()

    def _end_phase(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, stopped_by: str
    ) -> None:
        optimizer = prox_optimizer(trainer)
        no_gate_left = bool(zero_gates(optimizer).all())
        can_refit = not no_gate_left or trains_more_than_ranks(optimizer)
        phase = self.schedule.phase
        if phase.thresholds:
            self._chosen = self._phase_end(trainer, stopped_by)
            self._penalised = {}
        assert self._chosen is not None
        if not self.schedule.ends_stage(can_refit=can_refit):
            if self.on_ranks_chosen is not None:
                self._penalised = self.on_ranks_chosen(trainer, pl_module, self._chosen)
        else:
            self._end_stage(trainer, pl_module, None if phase.thresholds else stopped_by)
        if not phase.thresholds and self._branched_at is not None:
            put_back(self._branched_at, pl_module, optimizer)
            self._branched_at = None
        self.schedule.end_phase(no_gate_left=no_gate_left, can_refit=can_refit)

    def _phase_end(self, trainer: pl.Trainer, stopped_by: str) -> PhaseEnd:
        assert self._changes is not None
        a_pass_ago = self.step - _data(trainer).steps_per_epoch
        return PhaseEnd(
            stage=self.stage,
            xi=self.schedule.level if self._has_gates else 0.0,
            applied_xi=self._applied_xi if self._has_gates else 0.0,
            steps=self.schedule.position.steps_in_phase,
            train_loss=self._train_loss,
            gates_flickering=self._changes.flickering(a_pass_ago),
            gates_revived=self._changes.revived(a_pass_ago),
            stopped_by=stopped_by,
        )

    def _end_stage(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, refit_stopped_by: str | None
    ) -> None:
        assert self._chosen is not None
        position = self.schedule.position
        steps_per_epoch = _data(trainer).steps_per_epoch
        has_refit = refit_stopped_by is not None
        end = StageEnd(
            chosen=self._chosen,
            penalised=self._penalised,
            steps=position.steps_in_stage,
            epochs=position.steps_in_stage / steps_per_epoch,
            train_loss=self._train_loss,
            refit_epochs=position.steps_in_phase / steps_per_epoch if has_refit else None,
            refit_stopped_by=refit_stopped_by,
        )
        for listener in self.on_stage_end:
            listener(trainer, pl_module, end)
        if self.stage == 0:
            self.schedule.count_dense(count_nonzero_params(prox_optimizer(trainer).matrices))
            self.schedule.check_dense()

    def _target(self, optimizer: ProxAdamW) -> int:
        if not self.schedule.needs_dense_params:
            return 0
        return self.schedule.target(smallest_rank(optimizer))

    def _look(self, optimizer: ProxAdamW) -> None:
        """Note whether the number of parameters has come down to the target of the phase."""
        if self.schedule.phase.ends == "target":
            self._is_reached = has_reached(optimizer, self._target(optimizer))

    def _is_target_met(self, trainer: pl.Trainer) -> bool:
        return self.schedule.phase.ends == "target" and self.schedule.is_target_met(
            _data(trainer).steps_per_epoch, is_reached=self._is_reached
        )

    def _announce_segment(self, trainer: pl.Trainer) -> None:
        data = _data(trainer)
        count = self.schedule.segment_steps(data.steps_per_epoch)
        data.set_segment(self.step, count)
        self._segment_end = self.step + count


def _take_dead_ranks_out(optimizer: ProxAdamW) -> Compaction:
    """Leave the steps of a refit the ranks that train, until the segment ends."""
    for group in optimizer.gate_groups:
        group["holds_zeros"] = True
    return Compaction(optimizer)


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


def trains_more_than_ranks(optimizer: ProxAdamW) -> bool:
    """Return whether anything is trained beside A, B and gates: the task head."""
    ranks = {id(p) for m in optimizer.matrices for p in (m.lora_A, m.lora_B, m.gate)}
    groups = (group for group in optimizer.param_groups if "xi" not in group)
    return any(id(p) not in ranks for group in groups for p in group["params"])


def _data(trainer: pl.Trainer) -> SegmentedData:
    data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]  # set by Trainer.fit
    if not isinstance(data, SegmentedData):
        raise ValueError(  # noqa: TRY004  # a user's mistake in calling Trainer.fit, not a type error of ours
            "`datamodule` must have `steps_per_epoch` and `set_segment`, as AdaptationData, got "
            f"{type(data).__name__}. Pass it to `Trainer.fit`."
        )
    return data
