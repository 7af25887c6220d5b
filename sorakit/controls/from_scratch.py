"""Every level is trained at its xi from the untrained model: it tells whether the path matters."""

from typing import TYPE_CHECKING, final

from typing_extensions import override

from sorakit.controls import Control

if TYPE_CHECKING:
    import torch

    import sorakit.method.optimizer


@final
class FromScratch(Control):
    """Every stage begins at the untrained weights, without optimizer state."""

    restarts = True

    def __init__(self, *, seed: int) -> None:
        super().__init__(seed=seed)
        self._initial: dict[str, torch.Tensor] = {}

    @override
    def begin_run(self, model: "torch.nn.Module") -> None:
        self._initial = {
            name: p.detach().cpu().clone()
            for name, p in model.named_parameters()
            if p.requires_grad
        }

    @override
    def begin_stage(
        self,
        model: "torch.nn.Module",
        optimizer: "sorakit.method.optimizer.ProxAdamW",
        *,
        target: int,
    ) -> None:
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.data.copy_(self._initial[name])
        optimizer.state.clear()


VARIANT = FromScratch
