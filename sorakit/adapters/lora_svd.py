"""LoRA, trained dense, then cut by one global threshold on its singular values, and refitted."""

from typing import TYPE_CHECKING, final

from typing_extensions import override

from sorakit.adapters._cut_lora import CutHooks, CutLora
from sorakit.config import RunConfig

if TYPE_CHECKING:
    import torch

    import sorakit.method.optimizer


@final
class _BySingularValue(CutHooks):
    """Turns the ranks of every matrix into the singular vectors of its update `s B A` first.

    That is what PARA does to a trained LoRA. Moments of the optimizer belong to the ranks as they
    were, so they are forgotten.
    """

    @override
    def importance(self, optimizer: "sorakit.method.optimizer.ProxAdamW") -> "torch.Tensor":
        import torch

        from sorakit.method.singular import to_singular_ranks_

        values = []
        for matrix in optimizer.matrices:
            values.append(to_singular_ranks_(matrix))
            for parameter in (matrix.lora_A, matrix.lora_B):
                optimizer.state.pop(parameter, None)
        return torch.cat(values)


@final
class LoraSvd(CutLora):
    """Post-hoc: the cut sees the trained weights and no data; the refit sees the data."""

    role = "lora_svd"

    @override
    def hooks(self, config: RunConfig) -> CutHooks:
        return _BySingularValue(seed=config.seed)


VARIANT = LoraSvd()
