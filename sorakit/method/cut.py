"""Ranks cut to a number of parameters: the least important ones, over all matrices."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sorakit.method.prox import strongest
from sorakit.method.tuner import AdaptedMatrix, rank_costs


@torch.no_grad()
def cut_ranks_(
    matrices: Sequence[AdaptedMatrix], importance: Float[Tensor, " ranks"], *, target: int
) -> list[Bool[Tensor, " r"]]:
    """Set the gates of all but the most important ranks to zero, in place.

    Args:
        matrices: Adapted matrices.
        importance: One number a rank, all matrices concatenated; the largest are kept.
        target: Parameters that the kept ranks together have at least.

    Returns:
        Of every matrix, which of its ranks are cut.
    """
    cut = torch.ones(len(importance), dtype=torch.bool, device=importance.device)
    cut[strongest(importance, rank_costs(matrices), target)] = False
    parts = list(cut.split([len(matrix.gate) for matrix in matrices]))
    for matrix, is_cut in zip(matrices, parts, strict=True):
        matrix.gate[is_cut] = 0.0
    return parts
