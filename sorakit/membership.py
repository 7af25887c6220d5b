"""How well a score tells members of a training set from others; free of torch.

Shared by the measures of a stage and by the analysis of many runs.
"""

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

FALSE_POSITIVES = 0.01
"""Share of non-members that the low-error rate of an attack allows (Carlini et al. 2022)."""

Scores = npt.NDArray[np.float64]


def auc(members: npt.ArrayLike, others: npt.ArrayLike) -> float:
    """Return the chance that a member scores higher than another one; a tie counts one half.

    The area under the receiver operating characteristic (Mann and Whitney 1947): 0.5 is chance, 1
    tells them apart.

    Args:
        members: Scores of members, higher where an attack says member. NaNs are left out.
        others: Scores of non-members.

    Returns:
        A share, or NaN without a member or without another.
    """
    inside, outside = _known(members), _known(others)
    if not (len(inside) and len(outside)):
        return float("nan")
    ranks = rankdata(np.concatenate([inside, outside]))
    wins = ranks[: len(inside)].sum() - len(inside) * (len(inside) + 1) / 2
    return float(wins / (len(inside) * len(outside)))


def true_positive_rate(
    members: npt.ArrayLike, others: npt.ArrayLike, *, at: float = FALSE_POSITIVES
) -> float:
    """Return the share of members above the threshold that at most a share of the others is above.

    Args:
        members: Scores of members, higher where an attack says member. NaNs are left out.
        others: Scores of non-members.
        at: Share of non-members that may be above the threshold, in (0, 1).

    Returns:
        A share; NaN without a member, and where there are so few non-members that one of them is
        more than the allowed share.
    """
    inside, outside = _known(members), np.sort(_known(others))[::-1]
    allowed = int(np.floor(at * len(outside) * (1 + 1e-12)))
    if allowed < 1 or not len(inside):
        return float("nan")
    threshold = outside[allowed] if allowed < len(outside) else -np.inf
    return float((inside > threshold).mean())


def _known(scores: npt.ArrayLike) -> Scores:
    values = np.asarray(scores, dtype=np.float64)
    return values[~np.isnan(values)]
