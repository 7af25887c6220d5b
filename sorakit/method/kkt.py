"""How far a set of gates is from solving the L1 problem at fixed A and B."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Residuals:
    """Violations of what must hold at an end, in units of lambda; None where not measured.

    Attributes:
        kkt: Of the optimality of `min L(g) + lambda |g|_1` at fixed A and B.
        kkt_se: Split-half standard error of `kkt`; None where one batch holds all examples.
        stationarity: Of a fixed point of the training step: `kkt`, but in unit scale under proximal
            SGD with the penalty that the growth of A and B leaves (`unit_scale_relief`).
    """

    kkt: float | None = None
    kkt_se: float | None = None
    stationarity: float | None = None


def kkt_residual(
    gate: Float[Tensor, " gates"],
    gradient: Float[Tensor, " gates"],
    *,
    lambda_: float,
    relief: Float[Tensor, " gates"] | None = None,
) -> float:
    """Return the largest violation, in lambdas, of optimality of `min L(g) + lambda |g|_1`.

    `|dL/dg_i| <= lambda` where `g_i = 0`, and `dL/dg_i = -lambda sign(g_i)` elsewhere. 0 is a
    solution; 1 is an error as large as the penalty itself.

    Args:
        gate: All gates.
        gradient: dL/dg of the unpenalised loss at the same point.
        lambda_: Weight of the L1 norm. Must be > 0.
        relief: What is taken off the penalty of each live gate (`unit_scale_relief`): the residual
            is then that of a fixed point of the training step, not of the L1 problem.

    Raises:
        ValueError: If `lambda_` is not positive.
    """
    if not lambda_ > 0:
        raise ValueError(f"`lambda_` must be > 0, got {lambda_}.")
    if gate.numel() == 0:
        return 0.0
    dead = torch.clamp(gradient.abs() - lambda_, min=0.0)
    penalty = lambda_ if relief is None else lambda_ - relief
    alive = (gradient + penalty * torch.sign(gate)).abs()
    return float(torch.where(gate == 0, dead, alive).max() / lambda_)


def unit_scale_relief(
    gate: Float[Tensor, " gates"], growth: Float[Tensor, " gates"], *, gate_lr: float
) -> Float[Tensor, " gates"]:
    """Return what unit scale takes off the penalty of each gate under proximal SGD.

    A step thresholds the gate and then multiplies it by what A and B have grown, `exp(growth)`. It
    stays where it is if `gate_lr (|dL/dg| - lambda) + |g| (1 - exp(-growth)) = 0`: the penalty that
    the data must hold against is `lambda - |g| (1 - exp(-growth)) / gate_lr`, which falls with the
    size of the gate as that of the minimax concave penalty (Zhang 2010).

    Args:
        gate: All gates.
        growth: Mean log growth of `|A_i| |B_i|` a step (`ProxAdamW.growth`).
        gate_lr: Step size of the gates.
    """
    return -gate.abs() * torch.expm1(-growth) / gate_lr
