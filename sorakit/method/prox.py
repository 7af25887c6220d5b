"""Proximal operators on gates: pure tensor functions, no modules and no state."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def soft_threshold(gate: Float[Tensor, "*batch r"], xi: float) -> Float[Tensor, "*batch r"]:
    """Return the proximal operator of `xi * ||.||_1` at `gate`, entrywise.

    `T_xi(g) = sign(g) * max(|g| - xi, 0)` (SoRA, arXiv:2311.11696, Eq. 11). This is the operator of
    the paper; the released code also zeroes `xi < |g| < 2 xi`, see `released_threshold`.

    Args:
        gate: Gate entries of any sign, dimensionless.
        xi: Threshold in gate units, taken off once per call. Must be >= 0.

    Returns:
        A new tensor with the shape and dtype of `gate`. Entries with `|g| <= xi` are exactly 0.

    Raises:
        ValueError: If `xi` is negative or NaN.
    """
    _check(xi)
    return _shrink(gate, xi)


def metric_threshold(
    gate: Float[Tensor, "*batch r"], xi: float, *, metric: Float[Tensor, "*batch r"]
) -> Float[Tensor, "*batch r"]:
    """Return the soft threshold of `gate` with one threshold `xi / metric` per entry.

    This is the proximal operator of `xi * ||.||_1` in the norm that AdamW's step uses, with
    `metric = sqrt(v_hat) + eps`: a large past gradient protects a gate. Not in the paper.

    Args:
        gate: Gate entries of any sign, dimensionless.
        xi: Threshold in gate units before division. Must be >= 0.
        metric: Positive divisor of every entry's threshold.

    Returns:
        A new tensor with the shape and dtype of `gate`.

    Raises:
        ValueError: If `xi` is negative or NaN.
    """
    _check(xi)
    return _shrink(gate, xi / metric)


def released_threshold(gate: Float[Tensor, "*batch r"], xi: float) -> Float[Tensor, "*batch r"]:
    """Return what the authors' released optimizer makes of `gate`, entrywise.

    `g - sign(g) xi` where `|g| >= 2 xi`, 0 below, but `|g| = xi` exactly is left as it is. It
    departs from Eq. 11 for `xi <= |g| < 2 xi`, where the paper keeps `|g| - xi`. For replication
    only.

    Args:
        gate: Gate entries of any sign, dimensionless.
        xi: Threshold in gate units. Must be >= 0.

    Returns:
        A new tensor with the shape and dtype of `gate`.

    Raises:
        ValueError: If `xi` is negative or NaN.
    """
    _check(xi)
    shrunk = torch.where(gate.abs() > xi, _shrink(gate, xi), gate)
    return torch.where(shrunk.abs() < xi, torch.zeros_like(gate), shrunk)


def strongest(
    importance: Float[Tensor, " gates"], costs: Float[Tensor, " gates"], least: int
) -> Int[Tensor, " kept"]:
    """Return the most important gates that together cost at least `least`, in falling order.

    Args:
        importance: One number a gate; of equal ones the earlier gate comes first.
        costs: What a gate counts, for example its in + out parameters.
        least: What the gates must cost together; no more than the sum of `costs`.
    """
    order = torch.argsort(importance, descending=True, stable=True)
    return order[: int(torch.searchsorted(costs[order].cumsum(0), least)) + 1]


def largest_threshold(
    reach: Float[Tensor, " gates"], costs: Float[Tensor, " gates"], least: int
) -> float:
    """Return the largest threshold after which the survivors still cost at least `least`.

    Args:
        reach: Largest threshold that each gate survives is just below this value, gate units.
        costs: What a surviving gate counts.
        least: What the survivors must cost together; no more than the sum of `costs`.

    Returns:
        The reach of the strongest gate that may die; 0 where none may.
    """
    weakest_kept = reach[strongest(reach, costs, least)[-1]]
    may_die = reach[reach < weakest_kept]  # gates that tie with a kept one are kept
    return float(may_die.max()) if len(may_die) else 0.0


def _shrink(gate: Tensor, xi: float | Tensor) -> Tensor:
    return torch.sign(gate) * torch.clamp(gate.abs() - xi, min=0.0)


def _check(xi: float) -> None:
    if not xi >= 0:
        raise ValueError(f"`xi` must be >= 0, got {xi}.")
