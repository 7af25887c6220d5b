"""Algorithm 1, step by step: dense until convergence, then xi level by level."""

import math
from dataclasses import replace
from typing import final

from sorakit.config import DenseConfig, RefitConfig, StageConfig, XiConfig
from sorakit.schedule.convergence import (
    MAX_EPOCHS,
    ConvergenceRule,
    cooldown_length,
    judge_pass,
    why_training_ends,
)
from sorakit.schedule.learning_rate import converging_factor
from sorakit.schedule.levels import levels, target_counts
from sorakit.schedule.phases import (
    LENGTH,
    STATIONARY,
    TARGET,
    Phase,
    Traits,
    phases_of,
)
from sorakit.schedule.position import Position


@final
class Schedule:
    """Says what the next optimizer step does, and when a phase, a stage and the run end.

    A phase is trained in segments: a pass over the data where it ends by convergence, usually the
    whole phase otherwise. Only the training loss decides; validation data decide nothing.

    Args:
        xi: Thresholds.
        dense: Dense stage.
        stage: Sparsifying stages.
        refit: Refit of the ranks that a stage leaves.
        warmup_epochs: Linear warm-up of the learning rate when training starts anew.
        null_loss: Unit of convergence: the loss of a model that knows the labels' distribution and
            nothing else.
        traits: What the control changes.
        has_gates: False for a run without gates: it ends with the dense stage.
        has_threshold: False where gates are set and not learnt: xi is 0 throughout.
        settling_epochs: Passes at the start of the run in which convergence is not judged.

    Attributes:
        position: The whole state.
    """

    def __init__(
        self,
        *,
        xi: XiConfig,
        dense: DenseConfig,
        stage: StageConfig,
        refit: RefitConfig,
        warmup_epochs: float,
        null_loss: float,
        traits: Traits,
        has_gates: bool,
        has_threshold: bool = True,
        settling_epochs: float = 0.0,
    ) -> None:
        self._xi = xi
        self._levels = () if xi.spacing == "target" else levels(xi)
        self._dense = dense
        self._stage = stage
        self._refit = refit
        self.null_loss = null_loss
        self._warmup_epochs = warmup_epochs
        self._traits = traits
        self._has_gates = has_gates
        self._has_threshold = has_threshold
        self._settling_epochs = settling_epochs
        self.position = Position(risen_xi=xi.first)

    @property
    def num_stages(self) -> int:
        """Sparsifying stages that there may be."""
        return len(self._levels) - 1 if self._levels else self._xi.num_stages

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Phases of the current stage."""
        return phases_of(self.position.stage, xi=self._xi, config=self._stage, traits=self._traits)

    @property
    def phase(self) -> Phase:
        """The current phase."""
        return self.phases[self.position.phase]

    def ends_stage(self, *, can_refit: bool) -> bool:
        """Return whether the stage ends with the current phase.

        Args:
            can_refit: Whether anything is left that a refit could train.
        """
        return not can_refit or self.position.phase == len(self.phases) - 1

    @property
    def level(self) -> float:
        """Xi of the current stage; on the way to a target, how far it has risen."""
        if not self._has_threshold:
            return 0.0
        if self.position.stage == 0 or not self._traits.rises:
            return self._xi.start
        return self._levels[self.position.stage] if self._levels else self.position.risen_xi

    @property
    def xi(self) -> float:
        """Threshold of the next step, gate units."""
        return self.level if self.phase.thresholds else 0.0

    @property
    def needs_dense_params(self) -> bool:
        """Whether stages end at numbers of parameters, counted from those of the dense stage."""
        return self._has_gates and not self._levels

    def resume(self, position: Position) -> None:
        """Go on from a position; right after the dense stage, xi rises from this run's first level.

        The dense stage may be that of a run with other levels.
        """
        is_fresh = position.stage <= 1 and position.steps_in_stage == 0
        self.position = replace(position, risen_xi=self._xi.first) if is_fresh else position

    def count_dense(self, num_params: int) -> None:
        """Note the non-zero parameters at the end of the dense stage."""
        self.position = replace(self.position, dense_params=num_params)

    def check_dense(self) -> None:
        """Raise where the dense stage left nothing to sparsify.

        Raises:
            ValueError: If stages end at targets, and it left no gate.
        """
        if self.needs_dense_params and self.position.dense_params == 0:
            raise ValueError(
                "`xi.start` must leave a gate after the dense stage when `xi.spacing` is target, "
                f"got {self._xi.start}. Lower it."
            )

    def target(self, smallest: int) -> int:
        """Return the non-zero parameters at which the current stage ends; 0 without targets.

        Args:
            smallest: Parameters of the smallest rank.
        """
        if self._levels or self.position.stage == 0:
            return 0
        dense = self.position.dense_params
        counts = target_counts(
            dense=dense,
            smallest=min(self._xi.budget or smallest, dense),
            num_stages=self._xi.num_stages,
        )
        return counts[self.position.stage - 1]

    def segment_steps(self, steps_per_epoch: int) -> int:
        """Return the most steps until the schedule looks again whether the phase ends."""
        phase = self.phase
        if phase.ends == "convergence":
            return steps_per_epoch
        if not phase.trains and not self._traits.rises:
            return 1  # nothing changes; Lightning evaluates after a step, not before the first
        if phase.ends == "target":
            return max(1, round(self._stage.max_epochs * steps_per_epoch))
        return max(1, round(self._stage.epochs * steps_per_epoch))

    def learning_rate_factor(self, steps_per_epoch: int) -> float:
        """Return the learning rate of the next step as a share of `optim.lr`; gates keep theirs."""
        if not self.phase.trains:
            return 0.0
        if self.phase.ends != "convergence":
            return self._stage.lr_factor
        is_refit = self.phase.name == "refit"
        factor = converging_factor(
            self.position,
            steps_per_epoch=steps_per_epoch,
            warmup_epochs=0.0 if is_refit else self._warmup_epochs,
            cooldown_epochs=cooldown_length(self._rule),
        )
        return self._refit.lr_factor * factor if is_refit else factor

    def raise_xi(self, steps_per_epoch: int) -> None:
        """Raise xi towards a target, by the factor `xi.ratio` within `stage.epochs`."""
        length = max(1, round(self._stage.epochs * steps_per_epoch))
        risen = self.position.risen_xi * self._xi.ratio ** (1 / length)
        self.position = replace(self.position, risen_xi=risen)

    def end_step(self) -> None:
        """Count an optimizer step."""
        self.position = replace(self.position, step=self.position.step + 1)

    def is_target_met(self, steps_per_epoch: int, *, is_reached: bool) -> bool:
        """Return whether a phase that ends at a target does so now.

        Args:
            steps_per_epoch: Optimizer steps in a pass over the training data.
            is_reached: Whether the number of parameters has come down to the target.
        """
        length = round(self._stage.epochs * steps_per_epoch)
        return is_reached and self.position.steps_in_phase >= length

    def end_segment(
        self,
        train_loss: float,
        *,
        steps_per_epoch: int,
        is_reached: bool = False,
        residual: float = math.inf,
    ) -> str | None:
        """Take note of a segment, and return what ends the phase with it, or None.

        Args:
            train_loss: Mean training loss of the segment, training mode.
            steps_per_epoch: Optimizer steps in a pass over the training data.
            is_reached: For a target: whether the number of parameters has come down to it.
            residual: For `until: stationary`: distance of the gates from a fixed point of the
                training step, in units of lambda.
        """
        match self.phase.ends:
            case "convergence":
                return self._end_pass(train_loss, steps_per_epoch)
            case "target":
                met = self.is_target_met(steps_per_epoch, is_reached=is_reached)
                return TARGET if met else MAX_EPOCHS
            case "stationary":
                if residual <= self._stage.tolerance:
                    return STATIONARY
                longest = max(1, round(self._stage.max_epochs * steps_per_epoch))
                return MAX_EPOCHS if self.position.steps_in_phase >= longest else None
            case "length":
                return LENGTH

    def end_phase(self, *, no_gate_left: bool, can_refit: bool = True) -> None:
        """Go on to the next phase, or to the next stage, or end the run.

        Args:
            no_gate_left: Whether every gate is zero.
            can_refit: Whether anything is left that a refit could train.
        """
        at = replace(
            self.position,
            phase_start=self.position.step,
            best_loss=math.inf,
            passes_without_improvement=0,
            cooldown_start=None,
        )
        if not self.ends_stage(can_refit=can_refit):
            at = replace(at, phase=at.phase + 1)
        elif not self._has_gates or at.stage == self.num_stages or (no_gate_left and at.stage > 0):
            at = replace(at, is_finished=True)
        else:
            at = replace(at, stage=at.stage + 1, phase=0, stage_start=at.step)
        self.position = at

    @property
    def _rule(self) -> ConvergenceRule:
        return self._refit if self.phase.name == "refit" else self._dense

    def _end_pass(self, train_loss: float, steps_per_epoch: int) -> str | None:
        if self.position.step < round(self._settling_epochs * steps_per_epoch):
            return None
        rule, null_loss = self._rule, self.null_loss
        self.position = judge_pass(
            self.position,
            train_loss,
            rule=rule,
            null_loss=null_loss,
            steps_per_epoch=steps_per_epoch,
        )
        return why_training_ends(
            self.position,
            train_loss,
            rule=rule,
            null_loss=null_loss,
            steps_per_epoch=steps_per_epoch,
        )
