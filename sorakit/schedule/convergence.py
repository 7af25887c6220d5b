"""When training has converged: a judgement of the mean training loss of every pass.

The scale does not shrink: improvements are shares of the null loss, which is that of a model that
knows the labels' distribution and nothing else. One percent of the loss itself would never be
missed by a loss that decays to 0. Validation data decide nothing, or generalization would be
selected on.
"""

from dataclasses import replace
from typing import Protocol, runtime_checkable

from sorakit.schedule.position import Position

CONVERGED = "converged"
MAX_EPOCHS = "max_epochs"


@runtime_checkable
class ConvergenceRule(Protocol):
    """When a phase ends; `DenseConfig` and `RefitConfig` have these fields."""

    @property
    def max_epochs(self) -> int:
        """Guard: the most passes."""
        ...

    @property
    def patience(self) -> int:
        """Passes in a row without an improvement that begin the cooldown."""
        ...

    @property
    def min_improvement(self) -> float:
        """What counts as an improvement, as a share of the null loss."""
        ...

    @property
    def low_loss(self) -> float:
        """Loss at which the phase ends at once, as a share of the null loss."""
        ...

    @property
    def cooldown_epochs(self) -> int:
        """Passes in which the learning rate falls to 0."""
        ...


def cooldown_length(rule: ConvergenceRule) -> int:
    """Return the passes of the cooldown: at most half of the passes that there may be."""
    return min(rule.cooldown_epochs, rule.max_epochs // 2)


def judge_pass(
    position: Position,
    train_loss: float,
    *,
    rule: ConvergenceRule,
    null_loss: float,
    steps_per_epoch: int,
) -> Position:
    """Return the position after a pass over the training data; it may begin the cooldown.

    Args:
        position: Position at the end of the pass.
        train_loss: Mean training loss of the pass, training mode.
        rule: Counts as an improvement what is more than `min_improvement * null_loss` below the
            best loss so far. The cooldown begins after `patience` passes without one, or when just
            enough passes are left for it.
        null_loss: Unit of the rule, in that of the loss.
        steps_per_epoch: Optimizer steps in a pass over the training data.
    """
    if position.cooldown_start is not None:
        return position
    if train_loss < position.best_loss - rule.min_improvement * null_loss:
        at = replace(position, best_loss=train_loss, passes_without_improvement=0)
    else:
        missed = position.passes_without_improvement + 1
        at = replace(position, passes_without_improvement=missed)
    passes_left = rule.max_epochs - at.steps_in_phase / steps_per_epoch
    is_time = passes_left <= cooldown_length(rule)
    if is_time or at.passes_without_improvement >= rule.patience:
        return replace(at, cooldown_start=at.step)
    return at


def why_training_ends(
    position: Position,
    train_loss: float,
    *,
    rule: ConvergenceRule,
    null_loss: float,
    steps_per_epoch: int,
) -> str | None:
    """Return what ends a phase: converged, max_epochs, or None while it goes on.

    Converged is a loss below `low_loss * null_loss`, or a cooldown that followed `patience` passes
    without an improvement.

    Args:
        position: As `judge_pass` returns it.
        train_loss: Mean training loss of the pass.
        rule: When a phase ends.
        null_loss: Unit of the rule.
        steps_per_epoch: Optimizer steps in a pass over the training data.
    """
    if train_loss < rule.low_loss * null_loss:
        return CONVERGED
    if position.cooldown_start is None:
        return None
    cooled = position.step - position.cooldown_start
    if cooled < cooldown_length(rule) * steps_per_epoch:
        return None
    return CONVERGED if position.passes_without_improvement >= rule.patience else MAX_EPOCHS
