"""The hooks of a method, called around the steps of a run by Lightning's own."""

from typing import Any, final

import lightning.pytorch as pl
import torch
from typing_extensions import override

from sorakit.adapters._hooks import TrainingHooks
from sorakit.config import RunConfig
from sorakit.controls import Control
from sorakit.method.optimizer import ProxAdamW
from sorakit.training.module import AdaptationModule
from sorakit.training.xi_scheduler import SegmentedData, XiScheduler


@final
class AdapterHooks(pl.Callback):
    """Calls the hooks in the dense stage; it comes before `XiScheduler` in the callbacks.

    What a method does after a step follows the optimizer, while gradients are there: Lightning sets
    them to None before the next backward pass only.

    Args:
        hooks: What the method does.
        scheduler: The run's schedule, which counts its steps.
    """

    def __init__(self, hooks: TrainingHooks, *, scheduler: XiScheduler) -> None:
        self._hooks = hooks
        self._scheduler = scheduler

    @override
    def state_dict(self) -> dict[str, Any]:
        return self._hooks.state_dict()

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._hooks.load_state_dict(state_dict)

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # After the state is restored, and the model is where it is trained.
        data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]  # set by `fit`
        assert isinstance(data, SegmentedData)
        self._hooks.begin(_model(pl_module), steps_per_epoch=data.steps_per_epoch)

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._scheduler.stage == 0:
            self._hooks.before_step(_model(pl_module), step=self._scheduler.step)

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any
    ) -> None:
        # Here gradients are unscaled and not yet clipped. The loss that is recorded, and that
        # convergence is judged by, is the one of the data.
        penalty = self._hooks.penalty(_model(pl_module))
        if penalty is None:
            return
        parameters = [p for p in pl_module.parameters() if p.grad is not None]
        gradients = torch.autograd.grad(penalty, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None and parameter.grad is not None:
                parameter.grad += gradient

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self._scheduler.stage == 0:
            self._hooks.after_step(_model(pl_module), step=self._scheduler.step + 1)


@final
class AdapterStages(Control):
    """Stages of a method's own: what is kept is set at their start, and then perhaps refitted.

    Args:
        hooks: What the method does.
        seed: Not used; what is drawn is drawn by the hooks.
    """

    rises = False
    trains = False

    def __init__(self, hooks: TrainingHooks, *, seed: int) -> None:
        super().__init__(seed=seed)
        self._hooks = hooks
        self.refits = hooks.refits

    @override
    def begin_stage(self, model: torch.nn.Module, optimizer: ProxAdamW, *, target: int) -> None:
        self._hooks.begin_stage(optimizer, target=target)


def control_of(config: RunConfig, hooks: TrainingHooks) -> Control:
    """Return what is done in the place of Algorithm 1, or that itself."""
    if config.method.adapter.has_stages:
        return AdapterStages(hooks, seed=config.seed)
    return config.stage.control_class(seed=config.seed)


def _model(module: pl.LightningModule) -> torch.nn.Module:
    assert isinstance(module, AdaptationModule)
    return module.model
