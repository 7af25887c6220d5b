"""How far a score could move had other held-out examples been drawn: a bootstrap interval."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

LEVEL = 0.95
_RESAMPLES = 1000


@dataclass(frozen=True, kw_only=True)
class ScoreInterval:
    """The percentile interval of a score, in its own unit.

    Attributes:
        low: Lower end.
        high: Upper end.
        examples: How many examples were drawn from, and each time drawn.
    """

    low: float
    high: float
    examples: int


def score_interval(
    score: Callable[[Tensor, Tensor], float], outputs: Tensor, labels: Tensor
) -> ScoreInterval:
    """Return the 95 % percentile bootstrap interval of a score over examples (Efron 1979).

    It says what the choice of the examples adds, and nothing of other seeds or training data. The
    draws are seeded: the interval is the same however often it is computed.

    Args:
        score: Score of some outputs and their labels.
        outputs: What the model says of every example, examples first.
        labels: Their labels.
    """
    generator = torch.Generator().manual_seed(0)
    count = len(labels)
    draws = torch.randint(count, (_RESAMPLES, count), generator=generator)
    drawn = [score(outputs[rows], labels[rows]) for rows in draws]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return ScoreInterval(low=low, high=high, examples=count)
