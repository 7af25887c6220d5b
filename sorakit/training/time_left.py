"""How long a run will still take, from the steps that it has taken. Free of torch."""

from dataclasses import dataclass

_FEWEST_STEPS = 5
"""Steps before which a step's time says nothing."""


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
    """

    def __init__(self, *, dense_steps: int, stage_steps: int, num_stages: int) -> None:
        self._dense_steps = dense_steps
        self._stage_steps = stage_steps
        self._num_stages = num_stages
        self._taken: list[int] = []
        self._began: float | None = None
        self._now = 0.0
        self._steps = 0

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
