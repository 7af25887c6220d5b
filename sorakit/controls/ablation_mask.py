"""The ranks that the training loss misses least are cut, and the others trained."""

from typing import TYPE_CHECKING, final

from typing_extensions import override

from sorakit.controls._mask import Mask

if TYPE_CHECKING:
    import torch

    import sorakit.method.optimizer


@final
class AblationMask(Mask):
    """A mask by what the loss rises without a rank: ALoRA's ablation score (arXiv 2403.16187).

    Ranks are left out one at a time, the others as they are, so two ranks of which either would do
    both look superfluous. It costs an evaluation of the sample a live rank and stage.
    """

    @override
    def importance(self, optimizer: "sorakit.method.optimizer.ProxAdamW") -> "torch.Tensor":
        import torch

        gates = [matrix.gate.data for matrix in optimizer.matrices]
        complete = self.training_loss()
        importance = [torch.full_like(gate, -torch.inf) for gate in gates]
        for gate, rises in zip(gates, importance, strict=True):
            for rank in gate.nonzero().flatten().tolist():
                size = gate[rank].clone()
                gate[rank] = 0.0
                rises[rank] = self.training_loss() - complete
                gate[rank] = size
        return torch.cat(importance)


VARIANT = AblationMask
