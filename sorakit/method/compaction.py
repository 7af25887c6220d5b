"""Dead ranks taken out of a model and its optimizer while they stay dead, and put back after.

While gates that are zero stay zero (a refit), the rows of A, columns of B, gates and moments of
dead ranks do not move. Steps on what is left give the same weights, to rounding, for the price of
the live ranks; a matrix without any costs its base product, and nothing below the lowest live
matrix is kept for the backward pass.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from sorakit.method.optimizer import ProxAdamW


@dataclass(frozen=True, kw_only=True)
class _Cut:
    """A parameter that was cut down.

    Attributes:
        parameter: It, with live ranks only.
        dim: Dimension of its ranks.
        live: Indices of live ranks.
        whole: Its values as they were.
        state: Tensors of the optimizer's state that have its shape, as they were.
    """

    parameter: nn.Parameter
    dim: int
    live: Tensor
    whole: Tensor
    state: dict[str, Tensor]


class Compaction:
    """Dead ranks of an optimizer's matrices, taken out of model and optimizer until `undo`.

    Parameters stay the same objects and change their shape, so their gradients are dropped. Between
    the two, nothing may look for the dead: no record, checkpoint, count or `state_dict`. Where
    processes share gradients (DDP), whose buffers know the shapes, and in convolutions nothing is
    taken out.

    Args:
        optimizer: Its `matrices`, and its state of them.

    Raises:
        ValueError: If a group of gates could bring ranks back.
    """

    @torch.no_grad()
    def __init__(self, optimizer: ProxAdamW) -> None:
        for group in optimizer.gate_groups:
            if not group.get("holds_zeros", False):
                raise ValueError(
                    "`holds_zeros` of every group of gates must be True while dead ranks are taken "
                    "out, got False. They could come back in a step that does not see them."
                )
        self._optimizer = optimizer
        self._cuts: list[_Cut] = []
        if distributed.is_available() and distributed.is_initialized():
            return
        for matrix in optimizer.matrices:
            if matrix.lora_A.dim() != 2 or bool((matrix.gate != 0).all()):
                continue
            live = (matrix.gate != 0).nonzero().squeeze(1)
            for parameter, dim in ((matrix.lora_A, 0), (matrix.lora_B, 1), (matrix.gate, 0)):
                self._cuts.append(self._cut(parameter, dim, live))

    @torch.no_grad()
    def undo(self) -> None:
        """Put the dead ranks back where they were; a second call does nothing."""
        for cut in self._cuts:
            parameter, state = cut.parameter, self._optimizer.state.get(cut.parameter, {})
            for name, value in state.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    whole = cut.state.get(name, torch.zeros_like(cut.whole, dtype=value.dtype))
                    state[name] = whole.index_copy_(cut.dim, cut.live, value)
            cut.whole.index_copy_(cut.dim, cut.live, parameter.detach())
            parameter.data = cut.whole
            parameter.grad = None
        self._cuts = []

    def _cut(self, parameter: nn.Parameter, dim: int, live: Tensor) -> _Cut:
        state = self._optimizer.state.get(parameter, {})
        shaped = {
            name: value
            for name, value in state.items()
            if isinstance(value, Tensor) and value.shape == parameter.shape
        }
        cut = _Cut(parameter=parameter, dim=dim, live=live, whole=parameter.data, state=shaped)
        for name, value in shaped.items():
            state[name] = value.index_select(dim, live)
        parameter.grad = None
        parameter.data = parameter.data.index_select(dim, live)
        return cut


@contextmanager
def compacted(optimizer: ProxAdamW) -> Iterator[None]:
    """Take dead ranks out for the steps inside, as `Compaction` does."""
    compaction = Compaction(optimizer)
    try:
        yield
    finally:
        compaction.undo()
