"""What the measures of membership share: scores of members and of others."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sorakit.measures import StageView
from sorakit.metric_names import GENERALIZATION_SPLIT, LEFT_OUT_SPLIT, MEMORIZATION_SPLIT

Losses = npt.NDArray[np.float64]


def member_losses(stage: StageView, told_by: Callable[[Losses, Losses], float]) -> float | None:
    """Return how well less loss tells training examples from others; null where it is not known.

    Args:
        stage: The stage.
        told_by: Scores of members and of others -> a number.
    """
    splits = stage.examples["split"]
    outside = LEFT_OUT_SPLIT if (splits == LEFT_OUT_SPLIT).any() else GENERALIZATION_SPLIT
    members, others = (
        -stage.examples.loc[splits == split, "loss"].to_numpy(dtype=np.float64)
        for split in (MEMORIZATION_SPLIT, outside)
    )
    found = told_by(members, others)
    return None if np.isnan(found) else found
