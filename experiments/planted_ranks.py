"""Does a method find the rank that is there? Planted ranks, found without the truth.

The student is the teacher without its planted updates; every method adapts it with r = 16 and draws
a path from dense to sparse. The point on the path is the sparsest within one standard error of the
best held-out loss. A gate count is compared with the planted rank, and so is the numerical rank of
the update (singular values above 1 % of the largest of the model), which does not count a
direction twice.

    python -m experiments.planted_ranks                      # everything that is missing, the table
    python -m experiments.planted_ranks --methods sgd_unit --seeds 5 6
    python -m experiments.planted_ranks --update sgd --scale unit
    python -m experiments.planted_ranks --table              # only the table

Teachers: mixed (ranks 0, 1, 2, 4, 8, twice), null (no planted update: the right answer is 0) and
transformer (a 2-layer BERT; only the total rank can be scored). Finished runs are kept, one line
each with the whole path, in `experiments/results/planted_ranks/paths.jsonl` and skipped next time;
`matrices.csv` (one line a matrix, at the chosen point) and `table.md` are made from it.
"""

import argparse
import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pandas as pd
import torch
from peft import AdaLoraConfig, LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.utils.data import DataLoader
from typing_extensions import override

from experiments.runner import RESULTS
from sorakit.config import DenseConfig, GateScale, GateUpdate, StageConfig, XiConfig
from sorakit.method.optimizer import RELEASED_EPS, ProxAdamW
from sorakit.method.tuner import SoraConfig, adapted_matrices
from sorakit.tasks.planted import (
    Examples,
    Planted,
    PlantedConfig,
    PlantedTransformerConfig,
    compress,
    example_losses,
    numerical_rank,
    plant,
    plant_transformer,
    score,
    select_one_standard_error,
)
from sorakit.training.xi_scheduler import StageEnd, XiScheduler

FOLDER = RESULTS / "planted_ranks"
R = 16
LR = 1e-2  # of A and B; AdaLoRA's and LoRA's too
LR_FACTOR = 0.3
PASS_STEPS = 50  # full-batch steps that XiScheduler takes for one pass
RELATIVE_THRESHOLD = 0.01
"""Numerical rank counts singular values above this share of the model's largest. Planted ones are
above 50 % of it; what is left of a second gate in the same direction is its angle, which a
learning rate of 3e-3 keeps below 1 %."""
LORA_STEPS = 1500
ADALORA_STEPS = 1000
ADALORA_BUDGETS = (12, 8, 6, 5, 4, 3, 2, 1)  # mean rank; the planted mean is 3 (mixed)


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
    """

    update: GateUpdate
    scale: GateScale
    gate_lr: float
    first: float
    ratio: float = 1.3
    batch_size: int = 0


# lambda of sgd and adamw_metric is the weight of an L1 norm; noise alone dies at
# 2 * noise_level = 0.18. AdamW with a constant threshold has no such scale: there lambda is a share
# of its step.
SORA = {
    "sgd_unit": Variant(update="sgd", scale="unit", gate_lr=0.1, first=0.035),
    "adamw_metric_unit": Variant(update="adamw_metric", scale="unit", gate_lr=3e-3, first=0.035),
    "adamw_unit": Variant(update="adamw", scale="unit", gate_lr=3e-3, first=0.5),
    "sgd_free": Variant(update="sgd", scale="free", gate_lr=0.02, first=0.035),
    "adamw_metric_free": Variant(
        update="adamw_metric", scale="free", gate_lr=3e-3, first=0.035, ratio=1.5
    ),
    "adamw_free": Variant(update="adamw", scale="free", gate_lr=3e-3, first=0.5),
    "released_free": Variant(update="released", scale="free", gate_lr=3e-3, first=0.5),
}
OTHERS = ("adalora", "lora_svd", "lora_magnitude")
METHODS = (*SORA, *OTHERS)
TEACHERS = ("mixed", "null", "transformer")
TRANSFORMER_METHODS = ("sgd_unit", "adamw_metric_unit", "lora_svd")
TRANSFORMER_FIRST = 0.01


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point on a path, dense first.

    Attributes:
        level: lambda of SoRA, mean budget of AdaLoRA, threshold of pruned LoRA.
        loss: Mean held-out loss.
        standard_error: Of that mean, over held-out examples.
        gates: Ranks kept in every matrix.
        ranks: Numerical rank of every update.
        largest_product: Largest `|A_i| |B_i|` of SoRA; 1 with unit scale.
    """

    level: float
    loss: float
    standard_error: float
    gates: list[int]
    ranks: list[int]
    largest_product: float | None = None


def measure(
    model: nn.Module,
    planted: Planted,
    *,
    level: float,
    gates: list[int],
    updates: Sequence[Tensor],
    largest_product: float | None = None,
) -> Point:
    """Return the point of a model as it is."""
    with torch.no_grad():
        losses = example_losses(model(planted.held_out.inputs), planted.held_out.targets).double()
    largest = max(float(torch.linalg.matrix_norm(update, 2)) for update in updates)
    return Point(
        level=level,
        loss=float(losses.mean()),
        standard_error=float(losses.std() / len(losses) ** 0.5),
        gates=gates,
        ranks=[numerical_rank(update, RELATIVE_THRESHOLD * largest) for update in updates],
        largest_product=largest_product,
    )


class Regression(pl.LightningModule):
    """SoRA on a planted task: squared error, ProxAdamW.

    Args:
        model: The adapted student.
        variant: Gate update and step size.
    """

    def __init__(self, model: PeftModel, variant: Variant) -> None:
        super().__init__()
        self.model = model
        self._variant = variant

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
        }
        if self._variant.update == "released":
            gates["eps"] = RELEASED_EPS
        factors = [p for matrix in matrices for p in (matrix.lora_A, matrix.lora_B)]
        return ProxAdamW(
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
    return DataLoader(batches, batch_size=None, generator=torch.Generator())  # pyright: ignore[reportArgumentType]  # a list has all that a map-style dataset needs


def sora_path(
    planted: Planted,
    train: Examples,
    variant: Variant,
    *,
    seed: int,
    dense_steps: int = 600,
    stage_steps: int = 150,
    num_stages: int = 40,
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
    """
    torch.manual_seed(seed)
    config = SoraConfig(
        r=R,
        lora_alpha=R,
        target_modules=list(planted.updates),
        gate_scale=variant.scale,
        gate_init="normal" if variant.update == "released" else "auto",
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
                level=end.xi / variant.gate_lr,
                gates=[int((matrix.gate != 0).sum()) for matrix in matrices],
                updates=updates,
                largest_product=max(float(product.max()) for product in products),
            )
        )

    passes = dense_steps // PASS_STEPS
    xi = variant.gate_lr * variant.first
    scheduler = XiScheduler(
        xi=XiConfig(start=xi / 10, first=xi, ratio=variant.ratio, num_stages=num_stages),
        dense=DenseConfig(max_epochs=passes, patience=passes),
        stage=StageConfig(epochs=stage_steps / PASS_STEPS, lr_factor=LR_FACTOR),
        warmup_epochs=0.0,
        has_gates=True,
        seed=seed,
        on_stage_end=[on_stage_end],
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=-1,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[scheduler],
    )
    trainer.fit(Regression(model, variant), datamodule=Batches(train, variant.batch_size))
    return points


def adalora_path(
    planted: Planted,
    train: Examples,
    *,
    make_base: Callable[[], nn.Module],
    seed: int,
    steps: int = ADALORA_STEPS,
    budgets: Sequence[int] = ADALORA_BUDGETS,
) -> list[Point]:
    """Return the path of PEFT's AdaLoRA: one training a budget, and the base as budget 0."""
    points = [_adalora(planted, train, make_base(), b, seed=seed, steps=steps) for b in budgets]
    return [*points, base_point(planted)]


def _adalora(
    planted: Planted, train: Examples, base: nn.Module, budget: int, *, seed: int, steps: int
) -> Point:
    torch.manual_seed(seed)
    config = AdaLoraConfig(
        init_r=R,
        target_r=budget,
        lora_alpha=R,
        tinit=steps // 10,
        tfinal=2 * steps // 5,
        deltaT=10,
        total_step=steps,
        target_modules=list(planted.updates),
    )
    model = get_peft_model(base, config)  # pyright: ignore[reportArgumentType]  # any nn.Module
    vectors = [
        p for n, p in model.named_parameters() if ("lora_A" in n or "lora_B" in n)
    ]
    eye = torch.eye(R)

    def regularizer() -> Tensor:
        # PEFT adds it to `outputs.loss`, which a regression on tensors does not have.
        gram = [p @ p.T if p.shape[0] == R else p.T @ p for p in vectors]
        norms = [torch.linalg.matrix_norm(g - eye) for g in gram]
        return config.orth_reg_weight * torch.stack(norms).mean()

    def after_step(step: int) -> None:
        model.base_model.update_and_allocate(step)  # pyright: ignore[reportCallIssue]  # AdaLoraModel's

    fit(model, train, steps=steps, regularizer=regularizer, after_step=after_step)
    layers = lora_layers(model)
    return measure(
        model,
        planted,
        level=float(budget),
        gates=[int((layer.lora_E["default"] != 0).sum()) for layer in layers],  # pyright: ignore[reportAttributeAccessIssue]  # AdaLoRA's
        updates=[layer.get_delta_weight("default") for layer in layers],  # pyright: ignore[reportAttributeAccessIssue]
    )


def lora_paths(
    planted: Planted, train: Examples, *, seed: int, steps: int = LORA_STEPS
) -> dict[str, list[Point]]:
    """Return the paths of one trained LoRA pruned by SVD and by magnitude, without retraining.

    One threshold for all matrices: on the singular values of `B A`, or on `|A_i| |B_i|`. Every
    threshold that changes the adapter is a point.
    """
    torch.manual_seed(seed)
    config = LoraConfig(r=R, lora_alpha=R, target_modules=list(planted.updates))
    model = get_peft_model(planted.base, config)  # pyright: ignore[reportArgumentType]  # any nn.Module
    fit(model, train, steps=steps)
    layers = lora_layers(model)
    factors = [
        (layer.lora_A["default"].get_parameter("weight"),
         layer.lora_B["default"].get_parameter("weight"))
        for layer in layers
    ]
    trained = [(a.detach().clone(), b.detach().clone()) for a, b in factors]
    decomposed = []
    for a, b in trained:
        u, s, vh = torch.linalg.svd(b @ a)
        decomposed.append((vh[:R], u[:, :R] * s[:R], s[:R]))
    ranked = {
        "lora_svd": decomposed,
        "lora_magnitude": [(a, b, a.norm(dim=1) * b.norm(dim=0)) for a, b in trained],
    }
    paths: dict[str, list[Point]] = {}
    for name, triples in ranked.items():
        strengths = torch.cat([strength for _, _, strength in triples])
        points = []
        for threshold in (0.0, *strengths.sort().values.tolist()):
            keeps = [strength > threshold for _, _, strength in triples]
            with torch.no_grad():
                for (down, up), (a, b, _), keep in zip(factors, triples, keeps, strict=True):
                    down.copy_(a)
                    up.copy_(b * keep)
                updates = [up @ down for down, up in factors]
            gates = [int(keep.sum()) for keep in keeps]
            points.append(measure(model, planted, level=threshold, gates=gates, updates=updates))
        paths[name] = points
    return paths


def base_point(planted: Planted) -> Point:
    """Return the end of every path: no adapter at all."""
    zeros = [torch.zeros(1, 1) for _ in planted.updates]
    return measure(planted.base, planted, level=0.0, gates=[0] * len(zeros), updates=zeros)


def lora_layers(model: nn.Module) -> list[LoraLayer]:
    """Return the adapted layers of `model` in order."""
    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def fit(
    model: nn.Module,
    train: Examples,
    *,
    steps: int,
    regularizer: Callable[[], Tensor] | None = None,
    after_step: Callable[[int], None] | None = None,
) -> None:
    """Train in full batches with AdamW; the learning rate falls to a tenth."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LR, weight_decay=0.0)
    for step in range(1, steps + 1):
        optimizer.param_groups[0]["lr"] = LR * (1 - 0.9 * step / steps)
        loss = example_losses(model(train.inputs), train.targets).mean()
        if regularizer is not None:
            loss = loss + regularizer()
        loss.backward()
        optimizer.step()
        if after_step is not None:
            after_step(step)  # before the gradients go: AdaLoRA's importance needs them
        optimizer.zero_grad()
