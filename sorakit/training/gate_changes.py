"""Which gates lately died or came back: the zero pattern of every step, watched."""

import torch
from torch import Tensor

from sorakit.method.optimizer import ProxAdamW


class GateChanges:
    """Watches the gates of an optimizer step by step.

    Args:
        optimizer: Its gate groups are watched.
        step: Optimizer steps taken so far.
    """

    def __init__(self, optimizer: ProxAdamW, *, step: int) -> None:
        self._optimizer = optimizer
        self._began = step
        self._was_zero = zero_gates(optimizer)
        never = torch.full(self._was_zero.shape, -1, device=self._was_zero.device)
        self._last_change, self._last_revival = never, never.clone()

    def look(self, step: int) -> None:
        """Note what changed in the step that was the `step`th."""
        zero = zero_gates(self._optimizer)
        self._last_change[zero != self._was_zero] = step
        self._last_revival[self._was_zero & ~zero] = step
        self._was_zero = zero

    def flickering(self, since: int) -> int:
        """Return the gates whose zero status changed after step `since`."""
        return int((self._last_change > max(since, self._began)).sum())

    def revived(self, since: int) -> int:
        """Return those among them that came back from zero."""
        return int((self._last_revival > max(since, self._began)).sum())


def zero_gates(optimizer: ProxAdamW) -> Tensor:
    """Return which gates are exactly zero, (gates,), all groups concatenated."""
    gates = [gate.detach() for group in optimizer.gate_groups for gate in group["params"]]
    return torch.cat(gates) == 0 if gates else torch.zeros(0, dtype=torch.bool)
