"""How far a set of gates is from solving the L1 problem at fixed A and B."""

import torch
from jaxtyping import Float
from torch import Tensor


def kkt_residual(
    gate: Float[Tensor, " gates"], gradient: Float[Tensor, " gates"], *, lambda_: float
) -> float:
    """Return the largest violation, in lambdas, of optimality of `min L(g) + lambda |g|_1`.

    `|dL/dg_i| <= lambda` where `g_i = 0`, and `dL/dg_i = -lambda sign(g_i)` elsewhere. 0 is a
    solution; 1 is an error as large as the penalty itself.

    Args:
        gate: All gates.
        gradient: dL/dg of the unpenalised loss at the same point.
        lambda_: Weight of the L1 norm. Must be > 0.

    Raises:
        ValueError: If `lambda_` is not positive.
    """
    if not lambda_ > 0:
        raise ValueError(f"`lambda_` must be > 0, got {lambda_}.")
    if gate.numel() == 0:
        return 0.0
    dead = torch.clamp(gradient.abs() - lambda_, min=0.0)
    alive = (gradient + lambda_ * torch.sign(gate)).abs()
    return float(torch.where(gate == 0, dead, alive).max() / lambda_)
