"""Scale and decay of ranks, over all adapted matrices at once: a few calls instead of many."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.linalg import vector_norm

from sorakit.method.tuner import AdaptedMatrix


@torch.no_grad()
def to_unit_scale_(matrices: Sequence[AdaptedMatrix]) -> list[Tensor]:
    """Scale rows of A and columns of B to norm 1 and the gate by what was taken off, in place.

    Returns:
        Log of what was taken off each rank of each matrix, `|A_i| |B_i|`; 0 where that was 0.
    """
    sizes = [len(matrix.gate) for matrix in matrices]
    rows = torch.cat([vector_norm(m.lora_A.flatten(1), dim=1) for m in matrices])
    columns = torch.cat([vector_norm(m.lora_B.transpose(0, 1).flatten(1), dim=1) for m in matrices])
    # A row that is exactly 0 has no direction; it stays, and its gate is 0 by the product.
    by_row = torch.where(rows > 0, rows, 1.0).split(sizes)
    by_column = torch.where(columns > 0, columns, 1.0).split(sizes)
    for matrix, row, column in zip(matrices, by_row, by_column, strict=True):
        matrix.lora_A.div_(along_rows(row, matrix.lora_A))
        matrix.lora_B.div_(along_columns(column, matrix.lora_B))
    taken = rows * columns
    torch._foreach_mul_([m.gate for m in matrices], list(taken.split(sizes)))  # pyright: ignore[reportPrivateImportUsage]  # no public one
    growth = torch.where(taken > 0, taken, 1.0).to(matrices[0].gate.dtype).log()
    return list(growth.split(sizes))


@torch.no_grad()
def decay_live_ranks_(matrices: Sequence[AdaptedMatrix], shrinks: Sequence[float]) -> None:
    """Multiply rows of A and columns of B of live gates by `1 - shrink`, in place.

    Args:
        matrices: Adapted matrices.
        shrinks: Learning rate times weight decay of each matrix.
    """
    sizes = [len(matrix.gate) for matrix in matrices]
    live = torch.cat([matrix.gate for matrix in matrices]) != 0
    for matrix, is_live, shrink in zip(matrices, live.split(sizes), shrinks, strict=True):
        factor = 1 - shrink * is_live.to(matrix.lora_A.dtype)
        matrix.lora_A.mul_(along_rows(factor, matrix.lora_A))
        matrix.lora_B.mul_(along_columns(factor, matrix.lora_B))


def along_rows(vector: Tensor, like: Tensor) -> Tensor:
    """Return one number a rank in the shape that multiplies the rows of A."""
    return vector.view(-1, *[1] * (like.dim() - 1))


def along_columns(vector: Tensor, like: Tensor) -> Tensor:
    """Return one number a rank in the shape that multiplies the columns of B."""
    return vector.view(1, -1, *[1] * (like.dim() - 2))
