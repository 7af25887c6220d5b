"""Null model: noise of the same size moves the gates, which never see the data while xi acts."""

import zlib
from typing import TYPE_CHECKING, final

from typing_extensions import override

from sorakit.controls import Control

if TYPE_CHECKING:
    import sorakit.method.optimizer


@final
class RandomGradient(Control):
    """Gaussian noise of equal root mean square in the place of every gate gradient.

    A refit trains the gates that are left on the data: what is null is the choice of the ranks.
    """

    is_null_model = True

    @override
    def before_step(self, optimizer: "sorakit.method.optimizer.ProxAdamW", *, step: int) -> None:
        import torch

        gates = [gate for group in optimizer.gate_groups for gate in group["params"]]
        gradients = [gate.grad for gate in gates if gate.grad is not None]
        if not gradients:
            return
        generator = torch.Generator().manual_seed(zlib.crc32(f"noise {self._seed} {step}".encode()))
        size = torch.cat(gradients).square().mean().sqrt()
        for gradient in gradients:
            noise = torch.randn(len(gradient), generator=generator).to(gradient)
            gradient.copy_(noise * size)


VARIANT = RandomGradient
