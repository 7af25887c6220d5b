"""Proximal SGD, Eq. 10 as printed: `g <- T_xi(g - eta * dL/dg)`."""

from typing import TYPE_CHECKING, final

from typing_extensions import override

from sorakit.method.gates import GateRule

if TYPE_CHECKING:
    import torch


@final
class Sgd(GateRule):
    """A gradient step of size eta, then the soft threshold; no moments of AdamW."""

    moved_by_adamw = False
    averaging = 0.9
    may_average = True
    yields_to_growth = True

    @override
    def move(self, gate: "torch.Tensor", gradient: "torch.Tensor", *, lr: float) -> "torch.Tensor":
        return gate - lr * gradient


VARIANT = Sgd()
