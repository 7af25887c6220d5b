"""Whether the number of parameters has come down to its target."""

import torch

from sorakit.method.optimizer import ProxAdamW
from sorakit.method.tuner import rank_costs


def smallest_rank(optimizer: ProxAdamW) -> int:
    """Return the parameters of the smallest rank of any adapted matrix."""
    return min(matrix.params_per_rank for matrix in optimizer.matrices)


def has_reached(optimizer: ProxAdamW, target: int) -> bool:
    """Return whether the weakest rank that is left would take the count below `target`.

    Not the smallest one: a step keeps the strongest ranks that add up to the target, which can be a
    small one and two large ones, of which the small one is not the next to go.
    """
    costs = rank_costs(optimizer.matrices)
    sizes = torch.cat([m.gate.detach() for m in optimizer.matrices]).abs()
    live = sizes > 0
    if not bool(live.any()):
        return True
    weakest = torch.where(live, sizes, torch.inf).argmin()
    return bool(costs[live].sum() - costs[weakest] < target)
