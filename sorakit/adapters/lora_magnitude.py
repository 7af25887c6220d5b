"""LoRA, trained dense, then cut stage by stage by one threshold on `|A_i| |B_i|`, and refitted."""

from typing import TYPE_CHECKING, final

from typing_extensions import override

from sorakit.adapters._cut_lora import CutHooks, CutLora
from sorakit.config import RunConfig

if TYPE_CHECKING:
    import torch

    import sorakit.method.optimizer


@final
class _ByMagnitude(CutHooks):
    """One threshold on the size of ranks, scaling included."""

    @override
    def importance(self, optimizer: "sorakit.method.optimizer.ProxAdamW") -> "torch.Tensor":
        import torch

        return torch.cat([m.strengths() * m.scaling for m in optimizer.matrices])


@final
class LoraMagnitude(CutLora):
    """Ranks as they were trained; the smallest of all matrices go first."""

    role = "lora_magnitude"

    @override
    def hooks(self, config: RunConfig) -> CutHooks:
        return _ByMagnitude(seed=config.seed)


VARIANT = LoraMagnitude()
