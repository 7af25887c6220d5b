"""Paths of SoRA: XiScheduler and ProxAdamW under a Lightning Trainer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from experiments.planted_ranks.points import LR, Point, R, measure
from sorakit.config import (
    DenseConfig,
    GateScale,
    GateUpdate,
    RefitConfig,
    StageConfig,
    XiConfig,
)
from sorakit.controls import Control
from sorakit.method.gates import gate_rule
from sorakit.method.optimizer import ProxAdamW
from sorakit.method.tuner import SoraConfig, adapted_matrices
from sorakit.tasks.planted import (
    Examples,
    Planted,
    example_losses,
)
from sorakit.training.xi_scheduler import TRAINER_OPTIONS, StageEnd, XiScheduler

PASS_STEPS = 50  # full-batch steps that XiScheduler takes for one pass
LR_FACTOR = 0.3


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A SoRA variant and its path: geometric levels until no gate is left.

    Attributes:
        update: Gate update.
        scale: Gate scale.
        gate_lr: Step size eta of the gates.
        first: First lambda = xi / gate_lr; the dense stage has a tenth of it.
        ratio: From one level to the next.
        batch_size: Training examples a step; 0 is the full batch.
        averaging: Weight of the past in the running average of the gate gradient.
    """

    update: GateUpdate
    scale: GateScale
    gate_lr: float
    first: float
    ratio: float = 1.3
    batch_size: int = 0
    averaging: float = 0.0


# lambda of sgd and adamw_metric is the weight of an L1 norm; noise alone dies at
# 2 * noise_level = 0.18. AdamW with a constant threshold has no such scale: there lambda is a share
# of its step.
SORA = {
    "sgd_unit": Variant(update="sgd", scale="unit", gate_lr=0.1, first=0.035),
    "adamw_metric_unit": Variant(update="adamw_metric", scale="unit", gate_lr=3e-3, first=0.035),
    "adamw_unit": Variant(update="adamw", scale="unit", gate_lr=3e-3, first=0.5),
    "sgd_unit_batch256": Variant(
        update="sgd", scale="unit", gate_lr=0.1, first=0.035, batch_size=256
    ),
    "sgd_unit_batch256_averaged": Variant(
        update="sgd", scale="unit", gate_lr=0.1, first=0.035, batch_size=256, averaging=0.9
    ),
    "sgd_free": Variant(update="sgd", scale="free", gate_lr=0.02, first=0.05),
    "adamw_metric_free": Variant(
        update="adamw_metric", scale="free", gate_lr=3e-3, first=0.035, ratio=1.5
    ),
    "adamw_free": Variant(update="adamw", scale="free", gate_lr=3e-3, first=1.0, ratio=1.12),
    "released_free": Variant(update="released", scale="free", gate_lr=3e-3, first=1.0, ratio=1.12),
}
Listener = Callable[[pl.Trainer, pl.LightningModule, StageEnd], None]


class Regression(pl.LightningModule):
    """SoRA on a planted task: squared error, ProxAdamW.

    Args:
        model: The adapted student.
        variant: Gate update and step size.
        optimizer: `ProxAdamW`, or a variation on it.
    """

    def __init__(
        self, model: PeftModel, variant: Variant, optimizer: type[ProxAdamW] = ProxAdamW
    ) -> None:
        super().__init__()
        self.model = model
        self._variant = variant
        self._optimizer = optimizer

    @override
    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        inputs, targets = batch
        return example_losses(self.model(inputs), targets).mean()

    @override
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing: stages are measured by the listener, with the weights of their end."""

    @override
    def configure_optimizers(self) -> ProxAdamW:
        matrices = adapted_matrices(self.model)
        gates: dict[str, Any] = {
            "params": [matrix.gate for matrix in matrices],
            "lr": self._variant.gate_lr,
            "xi": 0.0,
            "gate_update": self._variant.update,
            "averaging": self._variant.averaging,
        }
        factors = [p for matrix in matrices for p in (matrix.lora_A, matrix.lora_B)]
        return self._optimizer(
            [{"params": factors}, gates],
            matrices=matrices,
            lr=LR,
            unit_scale=self._variant.scale == "unit",
        )


class Batches(pl.LightningDataModule):
    """The training examples as one batch, or as seeded batches, again and again.

    Args:
        examples: Training examples.
        batch_size: 0 is the full batch.
    """

    def __init__(self, examples: Examples, batch_size: int) -> None:
        super().__init__()
        self._examples = examples
        self._batch_size = batch_size
        self._segment = (0, PASS_STEPS)

    @property
    def steps_per_epoch(self) -> int:
        """Steps between two looks at the training loss."""
        return PASS_STEPS

    def set_segment(self, start: int, count: int) -> None:
        """Make the next `train_dataloader` give `count` batches from step `start` on."""
        self._segment = (start, count)

    @override
    def train_dataloader(self) -> DataLoader[Any]:
        start, count = self._segment
        return _loader([self._batch(step) for step in range(start, start + count)])

    @override
    def val_dataloader(self) -> DataLoader[Any]:
        return _loader([0])

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        inputs, targets = self._examples.inputs, self._examples.targets
        if self._batch_size == 0:
            return inputs, targets
        generator = torch.Generator().manual_seed(step)
        rows = torch.randint(len(inputs), (self._batch_size,), generator=generator)
        return inputs[rows], targets[rows]


def _loader(batches: list[Any]) -> DataLoader[Any]:
    return DataLoader(
        batches,  # pyright: ignore[reportArgumentType]  # a list has all that a map-style dataset needs
        batch_size=None,
        generator=torch.Generator(),
    )


def sora_path(
    planted: Planted,
    train: Examples,
    variant: Variant,
    *,
    seed: int,
    dense_steps: int = 600,
    stage_steps: int = 150,
    num_stages: int = 40,
    optimizer: type[ProxAdamW] = ProxAdamW,
    listeners: Sequence[Listener] = (),
) -> list[Point]:
    """Return the path of a SoRA variant: XiScheduler and ProxAdamW under a Lightning Trainer.

    Args:
        planted: The task.
        train: Its training examples, compressed where that is possible.
        variant: Gate update, scale, step size and levels.
        seed: Seed of A and B, and of released gates.
        dense_steps: Steps of the dense stage.
        stage_steps: Steps of every sparsifying stage.
        num_stages: The most sparsifying stages; the path ends with the last gate.
        optimizer: `ProxAdamW`, or a variation on it.
        listeners: Called at the end of every stage, as those of `XiScheduler`.
    """
    torch.manual_seed(seed)
    config = SoraConfig(
        r=R,
        lora_alpha=float(R),
        target_modules=list(planted.updates),
        gate_scale=variant.scale,
        gate_init=gate_rule(variant.update).gate_init or "auto",
    )
    model = get_peft_model(planted.base, config)  # pyright: ignore[reportArgumentType]  # any nn.Module
    assert isinstance(model, PeftModel)
    points: list[Point] = []

    def on_stage_end(_trainer: pl.Trainer, _module: pl.LightningModule, end: StageEnd) -> None:
        matrices = adapted_matrices(model)
        with torch.no_grad():
            updates = [m.scaling * (m.lora_B * m.gate) @ m.lora_A for m in matrices]
            products = [m.lora_A.norm(dim=1) * m.lora_B.norm(dim=0) for m in matrices]
        points.append(
            measure(
                model,
                planted,
                level=end.chosen.xi / variant.gate_lr,
                gates=[int((matrix.gate != 0).sum()) for matrix in matrices],
                updates=updates,
                largest_product=max(float(product.max()) for product in products),
            )
        )

    passes = dense_steps // PASS_STEPS
    xi = variant.gate_lr * variant.first
    scheduler = XiScheduler(
        xi=XiConfig(
            spacing="geometric",
            start=xi / 10,
            first=xi,
            ratio=variant.ratio,
            num_stages=num_stages,
        ),
        dense=DenseConfig(max_epochs=passes, patience=passes),
        control=Control(seed=seed),
        refit=RefitConfig(),
        null_loss=1.0,
        stage=StageConfig(refit="none", epochs=stage_steps / PASS_STEPS, lr_factor=LR_FACTOR),
        warmup_epochs=0.0,
        has_gates=True,
        seed=seed,
        on_stage_end=[on_stage_end, *listeners],
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        **TRAINER_OPTIONS,
        enable_progress_bar=False,
        callbacks=[scheduler],
    )
    module = Regression(model, variant, optimizer)
    trainer.fit(module, datamodule=Batches(train, variant.batch_size))
    return points
