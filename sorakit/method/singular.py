"""The ranks of an adapted matrix as the singular vectors of its update."""

import torch
from jaxtyping import Float
from torch import Tensor

from sorakit.method.tuner import AdaptedMatrix


@torch.no_grad()
def to_singular_ranks_(matrix: AdaptedMatrix) -> Float[Tensor, " r"]:
    """Turn the ranks of a matrix into singular vectors of `s W_u diag(g) W_d`, in place.

    The update stays the same. With `s W_u diag(g) W_d = U diag(sigma) V^T`, row i of A becomes
    `sqrt(sigma_i / s) v_i`, column i of B `sqrt(sigma_i / s) u_i` and the gate 1, or 0 where the
    rank was dead: the live ranks stay as many as they were, and come first.

    Args:
        matrix: A linear layer's; its gates may be any numbers.

    Returns:
        The singular values, in falling order; 0 for dead ranks.
    """
    live = matrix.gate != 0
    num_live = int(live.sum())
    singular = torch.zeros_like(matrix.gate)
    if num_live == 0:
        return singular
    # Two QR factorisations leave a decomposition of (r, r): no matrix of (out, in) is made.
    left, upper = torch.linalg.qr((matrix.lora_B * matrix.gate)[:, live].double())
    right, lower = torch.linalg.qr(matrix.lora_A[live].double().T)
    u, values, v = torch.linalg.svd(upper @ lower.T)
    root = values.sqrt()
    matrix.lora_A.zero_()
    matrix.lora_B.zero_()
    matrix.lora_A[:num_live] = ((right @ v.T) * root).T.to(matrix.lora_A.dtype)
    matrix.lora_B[:, :num_live] = ((left @ u) * root).to(matrix.lora_B.dtype)
    matrix.gate.zero_()
    matrix.gate[:num_live] = 1.0
    singular[:num_live] = (values * matrix.scaling).to(singular.dtype)
    return singular
