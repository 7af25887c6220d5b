"""What the masks share: ranks are cut at the start of a stage and stay cut."""

from typing import TYPE_CHECKING

from typing_extensions import override

from sorakit.controls import Control

if TYPE_CHECKING:
    import torch

    import sorakit.method.optimizer


class Mask(Control):
    """Ranks are cut at the start of a stage and stay cut; the others train with xi at its start."""

    rises = False
    sets_count = True

    def __init__(self, *, seed: int) -> None:
        super().__init__(seed=seed)
        self._cut: list[torch.Tensor] = []

    @override
    def begin_stage(
        self,
        model: "torch.nn.Module",
        optimizer: "sorakit.method.optimizer.ProxAdamW",
        *,
        target: int,
    ) -> None:
        from sorakit.method.cut import cut_ranks_

        matrices = optimizer.matrices
        self._cut = cut_ranks_(matrices, self.importance(optimizer), target=target)

    @override
    def after_step(self, optimizer: "sorakit.method.optimizer.ProxAdamW") -> None:
        for matrix, cut in zip(optimizer.matrices, self._cut, strict=True):
            matrix.gate.data[cut] = 0.0

    def importance(self, optimizer: "sorakit.method.optimizer.ProxAdamW") -> "torch.Tensor":
        """Return one number a rank, (ranks,), all matrices concatenated; the largest are kept."""
        import torch

        return torch.cat([matrix.strengths() for matrix in optimizer.matrices])
