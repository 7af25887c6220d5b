"""Ranks are cut where a matrix has most of them, the weakest first, and the others trained."""

from typing import TYPE_CHECKING, final

from typing_extensions import override

from sorakit.controls._mask import Mask

if TYPE_CHECKING:
    import torch

    import sorakit.method.optimizer


@final
class SpreadMask(Mask):
    """A mask that keeps ranks even over the matrices: the strongest of each, then the second.

    Among the ranks of one place the stronger are kept, so it differs from `hard_mask_retrain` in
    that ranks cannot crowd into few matrices.
    """

    @override
    def importance(self, optimizer: "sorakit.method.optimizer.ProxAdamW") -> "torch.Tensor":
        import torch

        strengths = [matrix.strengths() for matrix in optimizer.matrices]
        places = [(-of).argsort(stable=True).argsort() for of in strengths]
        largest = max(float(of.max()) for of in strengths)
        # A place outweighs any strength, and dead ranks are behind all live ones.
        return torch.cat(
            [
                torch.where(of > 0, of / (2 * largest + 1e-30) - place, -torch.inf)
                for of, place in zip(strengths, places, strict=True)
            ]
        )


VARIANT = SpreadMask
