"""How gates are updated: each file is a value of `gates.update` and holds its rule."""

# ruff: noqa: ARG002  # a rule takes no notice of what it has no use for
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from sorakit.config import GateInit, GateScale, GatesConfig
from sorakit.variants import GATES

if TYPE_CHECKING:
    import torch


class GateRule:
    """What a step does to gates: AdamW moves them, and a threshold makes exact zeros.

    The methods take all gates of a group, concatenated, and return new tensors.

    Attributes:
        moved_by_adamw: Whether AdamW takes its step on the gates; if not, `move` does.
        eps: AdamW's epsilon on gates; None is torch's.
        needs_metric: Whether `reach` and `threshold` get AdamW's `sqrt(v_hat) + eps`.
        averaging: What `gates.averaging: null` stands for.
        may_average: Whether `gates.averaging` may be anything but 0.
        gate_init: Gates at the start under `gate_init: auto`; None leaves that to the scale.
        scales: Values of `gates.scale` that it is defined for.
        yields_to_growth: Whether a live gate rests where the growth of A and B in unit scale makes
            up for a part of its penalty (`unit_scale_relief`).
    """

    moved_by_adamw: bool = True
    eps: float | None = None
    needs_metric: bool = False
    averaging: float = 0.0
    may_average: bool = False
    gate_init: GateInit | None = None
    scales: Sequence[GateScale] = ("free", "unit")
    yields_to_growth: bool = False

    def check(self, gates: GatesConfig) -> None:
        """Refuse options of the section `gates` that do not go with this update.

        Raises:
            ValueError: If `averaging` or `scale` is none of its own.
        """
        if gates.gradient_averaging > 0 and not self.may_average:
            raise ValueError(
                f"`gates.averaging` must be 0 when `gates.update` is {gates.update}, got "
                f"{gates.averaging}. AdamW averages the gradient itself."
            )
        if gates.scale not in self.scales:
            raise ValueError(
                f"`gates.scale` must be {' or '.join(self.scales)} when `gates.update` is "
                f"{gates.update}, got {gates.scale!r}. Set it."
            )

    def move(
        self,
        gate: "torch.Tensor",
        gradient: "torch.Tensor",
        *,
        lr: float,
    ) -> "torch.Tensor":
        """Return the gates before the threshold, where AdamW does not move them.

        Args:
            gate: Gates.
            gradient: dL/dg, or the running average of it.
            lr: Step size eta, gate units per unit of gradient.
        """
        raise NotImplementedError

    def reach(
        self,
        gate: "torch.Tensor",
        metric: "torch.Tensor | None",
    ) -> "torch.Tensor":
        """Return for every gate the threshold below which it survives, in gate units."""
        return gate.abs()

    def threshold(
        self,
        gate: "torch.Tensor",
        xi: float,
        metric: "torch.Tensor | None",
    ) -> "torch.Tensor":
        """Return the gates after the threshold `xi`: the soft threshold, Eq. 11."""
        from sorakit.method.prox import soft_threshold

        return soft_threshold(gate, xi)


def gate_rule(update: str) -> GateRule:
    """Return the rule that a value of `gates.update` names.

    Raises:
        ValueError: If there is none of that name.
    """
    return cast(GateRule, GATES.load(update))
