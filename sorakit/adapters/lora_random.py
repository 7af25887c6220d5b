"""LoRA, trained dense, then cut stage by stage to ranks drawn at random, and refitted."""

from typing import TYPE_CHECKING, final

from typing_extensions import override

from sorakit.adapters._cut_lora import CutHooks, CutLora
from sorakit.config import RunConfig

if TYPE_CHECKING:
    import torch

    import sorakit.method.optimizer


@final
class _AtRandom(CutHooks):
    """The ranks of a smaller adapter are among those of every larger one."""

    @override
    def importance(self, optimizer: "sorakit.method.optimizer.ProxAdamW") -> "torch.Tensor":
        import torch

        count = sum(len(matrix.gate) for matrix in optimizer.matrices)
        generator = torch.Generator().manual_seed(self._seed)
        return torch.rand(count, generator=generator).to(optimizer.matrices[0].gate)


@final
class LoraRandom(CutLora):
    """A cut that does not look at the weights."""

    role = "lora_random"

    @override
    def hooks(self, config: RunConfig) -> CutHooks:
        return _AtRandom(seed=config.seed)


VARIANT = LoraRandom()
