"""The learning rate of a phase that ends by convergence: a pure function of the position in it."""

from sorakit.schedule.position import Position


def converging_factor(
    position: Position, *, steps_per_epoch: int, warmup_epochs: float, cooldown_epochs: int
) -> float:
    """Return the learning rate of the next step as a share of the phase's peak.

    Linear warm-up, constant until the training loss stops improving, then linear to 0. It does not
    depend on the guard `max_epochs`. Gates do not follow it.

    Args:
        position: Position before the step.
        steps_per_epoch: Optimizer steps in a pass over the training data.
        warmup_epochs: Length of the warm-up; 0 for none.
        cooldown_epochs: Length of the fall to 0.
    """
    if position.cooldown_start is not None:
        length = cooldown_epochs * steps_per_epoch
        return max(0.0, 1 - (position.step - position.cooldown_start) / length)
    warmup = warmup_epochs * steps_per_epoch
    if position.steps_in_phase < warmup:
        return (position.steps_in_phase + 1) / (warmup + 1)
    return 1.0
