"""Ranks drawn at random are cut, those of earlier stages among them, and the others trained."""

from typing import TYPE_CHECKING, final

from typing_extensions import override

from sorakit.controls._mask import Mask

if TYPE_CHECKING:
    import torch

    import sorakit.method.optimizer


@final
class RandomMask(Mask):
    """A mask that does not look at the weights."""

    @override
    def importance(self, optimizer: "sorakit.method.optimizer.ProxAdamW") -> "torch.Tensor":
        import torch

        gates = torch.cat([matrix.gate.detach() for matrix in optimizer.matrices])
        generator = torch.Generator().manual_seed(self._seed)
        return torch.rand(len(gates), generator=generator).to(gates)


VARIANT = RandomMask
