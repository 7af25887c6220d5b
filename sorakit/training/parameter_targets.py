"""Levels by target: how many parameters each stage ends with, and how far xi has risen."""

import torch

from sorakit.config import XiConfig
from sorakit.method.optimizer import ProxAdamW
from sorakit.method.prune import count_nonzero_params
from sorakit.method.tuner import rank_costs
from sorakit.training.levels import target_counts


class ParameterTargets:
    """Raises xi step by step until the number of parameters has come down to its target.

    A step whose threshold would prune beyond the target lowers it (`least` of `ProxAdamW`), and xi
    waits there until the stage ends.

    Args:
        xi: Levels, with `spacing: target`.

    Attributes:
        xi: How far the threshold has risen, gate units per optimizer step.
        dense_params: Non-zero parameters at the end of the dense stage; 0 before it.
        is_reached: Whether the target of the current stage is reached. Not part of a checkpoint.
    """

    def __init__(self, xi: XiConfig) -> None:
        self._config = xi
        self.xi = xi.first
        self.dense_params = 0
        self.is_reached = False

    def count_dense(self, optimizer: ProxAdamW) -> None:
        """Count what the dense stage left."""
        self.dense_params = count_nonzero_params(optimizer.matrices)

    def check_dense(self) -> None:
        """Raise where the dense stage left nothing to sparsify.

        Raises:
            ValueError: If it left no gate.
        """
        if self.dense_params == 0:
            raise ValueError(
                "`xi.start` must leave a gate after the dense stage when `xi.spacing` is target, "
                f"got {self._config.start}. Lower it."
            )

    def count(self, optimizer: ProxAdamW, stage: int) -> int:
        """Return the non-zero parameters at which a sparsifying stage ends."""
        smallest = self._config.budget or min(m.params_per_rank for m in optimizer.matrices)
        counts = target_counts(
            dense=self.dense_params,
            smallest=min(smallest, self.dense_params),
            num_stages=self._config.num_stages,
        )
        return counts[stage - 1]

    def look(self, optimizer: ProxAdamW, stage: int) -> None:
        """Update `is_reached`."""
        self.is_reached = has_reached(optimizer, self.count(optimizer, stage))

    def before_step(self, optimizer: ProxAdamW, stage: int, *, length: int) -> None:
        """Raise xi, unless the target is reached, and give the optimizer both.

        Args:
            optimizer: Its gate groups get `xi` and `least`.
            stage: The current stage.
            length: Steps in which xi grows by the factor `xi.ratio`.
        """
        if not self.is_reached:
            self.xi *= self._config.ratio ** (1 / length)
        for group in optimizer.gate_groups:
            group["xi"] = self.xi
            group["least"] = self.count(optimizer, stage)


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
