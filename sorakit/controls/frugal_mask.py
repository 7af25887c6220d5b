"""The ranks that are weakest for their parameters are cut, and the others trained."""

from typing import TYPE_CHECKING, final

from typing_extensions import override

from sorakit.controls._mask import Mask

if TYPE_CHECKING:
    import torch

    import sorakit.method.optimizer


@final
class FrugalMask(Mask):
    """A mask by strength |g||A||B| a parameter: small matrices keep more ranks than in others."""

    @override
    def importance(self, optimizer: "sorakit.method.optimizer.ProxAdamW") -> "torch.Tensor":
        import torch

        return torch.cat([m.strengths() / m.params_per_rank for m in optimizer.matrices])


VARIANT = FrugalMask
