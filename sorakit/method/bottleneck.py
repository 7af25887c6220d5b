"""Bottleneck adapters: a small network behind a linear layer (Houlsby et al. 2019)."""

from typing import cast

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override


class Bottleneck(nn.Module):
    """A linear layer, and what is added to its output: `y + W_up gelu(W_down y + b) + c`.

    `W_up` and `c` start at zero, so that at first nothing is added.

    Args:
        base_layer: The layer; it is not trained.
        width: Width of the bottleneck.
    """

    def __init__(self, base_layer: nn.Module, width: int) -> None:
        super().__init__()
        weight = cast(Tensor, base_layer.weight)
        size = cast(int, getattr(base_layer, "out_features", None) or base_layer.nf)
        self.base_layer = base_layer
        self.down = nn.Linear(size, width, device=weight.device)
        self.up = nn.Linear(width, size, device=weight.device)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    @override
    def forward(self, x: Float[Tensor, "*b d_in"]) -> Float[Tensor, "*b d_out"]:
        out = self.base_layer(x)
        return out + self.up(F.gelu(self.down(out)))


def wrap(model: nn.Module, name: str, wrapped: nn.Module) -> None:
    """Put a module in the place of the one of that full name."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, wrapped)
