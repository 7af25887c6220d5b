"""Scale and decay of ranks, over all adapted matrices at once: a few calls instead of many."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.linalg import vector_norm

from sorakit.method.tuner import AdaptedMatrix

# Loops over matrices in C++, for which there are no public names.
_divide_ = torch._foreach_div_  # pyright: ignore[reportPrivateImportUsage]
_multiply_ = torch._foreach_mul_  # pyright: ignore[reportPrivateImportUsage]


@torch.no_grad()
def to_unit_scale_(matrices: Sequence[AdaptedMatrix]) -> list[Tensor]:
    """Scale rows of A and columns of B to norm 1 and the gate by what was taken off, in place.

    Returns:
        Log of what was taken off each rank of each matrix, `|A_i| |B_i|`; 0 where that was 0.
    """
    sizes = [matrix.gate.numel() for matrix in matrices]
    rows = torch.cat([_norms(m.lora_A, 0) for m in matrices])
    columns = torch.cat([_norms(m.lora_B, 1) for m in matrices])
    # A row that is exactly 0 has no direction; it stays, and its gate is 0 by the product.
    by_row, by_column = torch.where(rows > 0, rows, 1.0), torch.where(columns > 0, columns, 1.0)
    _divide_([m.lora_A for m in matrices], _along(0, by_row, matrices, sizes))
    _divide_([m.lora_B for m in matrices], _along(1, by_column, matrices, sizes))
    taken = rows * columns
    _multiply_([m.gate for m in matrices], list(taken.split(sizes)))
    growth = torch.where(taken > 0, taken, 1.0).to(matrices[0].gate.dtype).log()
    return list(growth.split(sizes))


@torch.no_grad()
def decay_live_ranks_(matrices: Sequence[AdaptedMatrix], shrinks: Sequence[float]) -> None:
    """Multiply rows of A and columns of B of live gates by `1 - shrink`, in place.

    Args:
        matrices: Adapted matrices.
        shrinks: Learning rate times weight decay of each matrix.
    """
    sizes = [matrix.gate.numel() for matrix in matrices]
    live = (torch.cat([matrix.gate for matrix in matrices]) != 0).to(matrices[0].lora_A.dtype)
    if len(set(shrinks)) == 1:
        factors = 1 - shrinks[0] * live
    else:
        pieces = zip(live.split(sizes), shrinks, strict=True)
        factors = torch.cat([1 - shrink * piece for piece, shrink in pieces])
    _multiply_([m.lora_A for m in matrices], _along(0, factors, matrices, sizes))
    _multiply_([m.lora_B for m in matrices], _along(1, factors, matrices, sizes))


def _norms(factor: Tensor, ranks: int) -> Tensor:
    """Return the norm of every rank; `ranks` is the dimension that counts them."""
    if factor.dim() == 2:
        return vector_norm(factor, dim=1 - ranks)
    return vector_norm(factor.transpose(0, ranks).flatten(1), dim=1)


def _along(
    ranks: int, vector: Tensor, matrices: Sequence[AdaptedMatrix], sizes: Sequence[int]
) -> list[Tensor]:
    """Return one number a rank, for each matrix in the shape that multiplies A (0) or B (1)."""
    pieces = list(vector.unsqueeze(1 - ranks).split(sizes, dim=ranks))
    return [
        piece.view(*piece.shape, *[1] * extra) if (extra := m.lora_A.dim() - 2) else piece
        for piece, m in zip(pieces, matrices, strict=True)
    ]
