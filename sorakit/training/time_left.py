"""How long a run will still take, from the steps that it has taken. Free of torch."""

from dataclasses import dataclass

from sorakit.config import RunConfig

_FEWEST_STEPS = 5
"""Steps before which a step's time says nothing."""
_FORWARD = 1 / 3
"""Time of a forward pass as a share of that of a training step."""


@dataclass(frozen=True, kw_only=True)
class Remaining:
    """The rest of a run.

    Attributes:
        seconds: Time.
        may_be_less: Whether the stage may end by itself before the steps that are counted.
    """

    seconds: float
    may_be_less: bool

    def __str__(self) -> str:
        """Return it as a person says it."""
        how = "up to" if self.may_be_less else "about"
        return f"{how} {describe_seconds(self.seconds)} left"


class TimeLeft:
    """Watches the clock of one process of a run; evaluations are part of the steps before them.

    Args:
        dense_steps: Most optimizer steps of the dense stage.
        stage_steps: Steps that a sparsifying stage is expected to take; what the stages take counts
            as soon as one has ended.
        num_stages: Sparsifying stages.

    Attributes:
        plan: What is ahead of the run, in a sentence.
    """

    def __init__(self, *, dense_steps: int, stage_steps: int, num_stages: int) -> None:
        self.plan = f"At most {dense_steps:,} steps until dense training has converged"
        if num_stages:
            self.plan += f", then about {stage_steps:,} in each of {num_stages} stages"
        self.plan += "; the time left is shown as soon as the first steps are taken."
        self._dense_steps = dense_steps
        self._stage_steps = stage_steps
        self._num_stages = num_stages
        self._taken: list[int] = []
        self._began: float | None = None
        self._now = 0.0
        self._steps = 0

    @classmethod
    def of(cls, config: RunConfig, *, steps_per_epoch: int, num_stages: int) -> "TimeLeft":
        """Return the clock of a run, by the lengths in its configuration.

        Args:
            config: Resolved configuration.
            steps_per_epoch: Optimizer steps in a pass over the training data.
            num_stages: Sparsifying stages.
        """
        passes = config.stage.epochs
        if config.stage.refit != "none":  # as few as it may take to see that it has converged
            passes += 1 + config.refit.patience + config.refit.cooldown_epochs
        return cls(
            dense_steps=config.dense.max_epochs * steps_per_epoch,
            stage_steps=max(1, round(passes * steps_per_epoch)),
            num_stages=num_stages,
        )

    def begin(self, now: float) -> None:
        """Start the clock, in seconds."""
        self._began = now

    def step(self, now: float) -> None:
        """Take note of an optimizer step."""
        self._now = now
        self._steps += 1

    def stage_ended(self, stage: int, steps: int) -> None:
        """Take note of a stage that has ended, of this process or before it."""
        if stage > 0:
            self._taken.append(steps)

    def remaining(self, stage: int, steps: int) -> Remaining | None:
        """Return the rest of the run, or None while too little is known.

        Args:
            stage: The current stage; 0 is dense.
            steps: Steps taken in it.
        """
        if self._began is None or self._steps < _FEWEST_STEPS:
            return None
        expected = self._stage_steps
        if self._taken:
            expected = round(sum(self._taken) / len(self._taken))
        length = self._dense_steps if stage == 0 else expected
        left = max(0, length - steps) + (self._num_stages - stage) * expected
        pace = (self._now - self._began) / self._steps
        return Remaining(seconds=left * pace, may_be_less=stage == 0)


def describe_seconds(seconds: float) -> str:
    """Return a duration as a person says it: 40 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def evaluation_seconds(num_batches: float, seconds_a_step: float) -> float:
    """Return the time of an evaluation.

    Args:
        num_batches: Its batches of training size.
        seconds_a_step: Of a training step on such a batch.
    """
    return num_batches * seconds_a_step * _FORWARD
