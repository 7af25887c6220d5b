"""Where a run stands: the whole state of Algorithm 1, as a checkpoint holds it."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far a run has come.

    Attributes:
        step: Optimizer steps taken since the run began.
        stage: Current stage; 0 is dense.
        phase: Index of the current phase among those of its stage.
        stage_start: `step` at which the stage began.
        phase_start: `step` at which the phase began.
        best_loss: Lowest mean training loss of a pass that counted as an improvement, this phase.
        passes_without_improvement: Passes since then.
        cooldown_start: `step` at which the learning rate began to fall to 0; None before that.
        risen_xi: How far xi has risen on the way to a target, gate units per optimizer step.
        dense_params: Non-zero parameters at the end of the dense stage; 0 before it.
        is_finished: Whether the run has come to its end.
    """

    step: int = 0
    stage: int = 0
    phase: int = 0
    stage_start: int = 0
    phase_start: int = 0
    best_loss: float = math.inf
    passes_without_improvement: int = 0
    cooldown_start: int | None = None
    risen_xi: float
    dense_params: int = 0
    is_finished: bool = False

    @property
    def steps_in_stage(self) -> int:
        """Optimizer steps taken in the current stage."""
        return self.step - self.stage_start

    @property
    def steps_in_phase(self) -> int:
        """Optimizer steps taken in the current phase."""
        return self.step - self.phase_start

    @property
    def completed_stages(self) -> int:
        """Stages that have ended, dense among them."""
        return self.stage + self.is_finished
