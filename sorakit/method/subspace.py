"""Weights that move in a random subspace of few dimensions (Aghajanyan et al. 2020)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from sorakit.method.bottleneck import wrap


class SubspaceLinear(nn.Module):
    """A linear layer whose weight is `W + reshape(P v)`, with a vector v that layers share.

    P has one entry a row, a random sign in a random column: with all layers together its columns
    are orthogonal, as those of the Fastfood transform that Aghajanyan et al. (2012.13255) take are
    nearly, and it costs one look-up a weight.

    Args:
        base_layer: The layer; it is not trained.
        vector: v, (d,).
        index: Column of the entry of every weight, (out * in,).
        sign: Its sign and size, (out * in,).
    """

    def __init__(
        self, base_layer: nn.Linear, vector: nn.Parameter, *, index: Tensor, sign: Tensor
    ) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.vector = vector
        # Drawn from the seed of the run, so no file holds them.
        self.register_buffer("index", index, persistent=False)
        self.register_buffer("sign", sign, persistent=False)

    @override
    def forward(self, x: Float[Tensor, "*b d_in"]) -> Float[Tensor, "*b d_out"]:
        weight = self.base_layer.weight
        moved = self.vector.index_select(0, self.index) * self.sign  # pyright: ignore[reportArgumentType, reportOperatorIssue]  # buffers
        return F.linear(x, weight + moved.view_as(weight), self.base_layer.bias)


def into_subspace(
    model: nn.Module, names: Sequence[str], *, dimension: int, seed: int
) -> nn.Parameter:
    """Let the weights of some linear layers move in a random subspace, and return its vector.

    Columns of P have norm 1 over all layers together, so that a step of the vector is as long as
    the step of the weights.

    Args:
        model: Model whose layers are replaced.
        names: Linear layers.
        dimension: Length d of the vector.
        seed: Seed of P.

    Raises:
        ValueError: If a layer stores its weight transposed, or there are fewer weights than
            dimensions.
    """
    layers = [model.get_submodule(name) for name in names]
    for name, layer in zip(names, layers, strict=True):
        if not isinstance(layer, nn.Linear):
            raise ValueError(  # noqa: TRY004  # a user's choice of layers
                f"`method.target_modules` must name nn.Linear layers for random_subspace, got "
                f"{name!r} ({type(layer).__name__})."
            )
    sizes = [layer.weight.numel() for layer in layers]  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]  # checked
    if dimension > sum(sizes):
        raise ValueError(
            f"`method.dimension` must be <= {sum(sizes)}, the weights of the layers, got "
            f"{dimension}."
        )
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(dimension, (sum(sizes),), generator=generator, dtype=torch.int32)
    sign = torch.randint(2, (sum(sizes),), generator=generator, dtype=torch.int8).float() * 2 - 1
    counts = torch.bincount(index, minlength=dimension).clamp(min=1)
    sign /= counts.sqrt()[index]
    device = next(model.parameters()).device
    vector = nn.Parameter(torch.zeros(dimension, device=device))
    parts = zip(names, layers, index.split(sizes), sign.split(sizes), strict=True)
    for name, layer, own_index, own_sign in parts:
        wrapped = SubspaceLinear(
            layer,  # pyright: ignore[reportArgumentType]  # checked
            vector,
            index=own_index.to(device),
            sign=own_sign.to(device),
        )
        wrap(model, name, wrapped)
    return vector
