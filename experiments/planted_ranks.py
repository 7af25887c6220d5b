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
from sorakit.training.xi_scheduler import TRAINER_OPTIONS, StageEnd, XiScheduler

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
    "sgd_unit_batch256": Variant(
        update="sgd", scale="unit", gate_lr=0.1, first=0.035, batch_size=256
    ),
    "sgd_free": Variant(update="sgd", scale="free", gate_lr=0.02, first=0.05),
    "adamw_metric_free": Variant(
        update="adamw_metric", scale="free", gate_lr=3e-3, first=0.035, ratio=1.5
    ),
    "adamw_free": Variant(update="adamw", scale="free", gate_lr=3e-3, first=1.0, ratio=1.12),
    "released_free": Variant(update="released", scale="free", gate_lr=3e-3, first=1.0, ratio=1.12),
}
OTHERS = ("adalora", "lora_svd", "lora_magnitude")
METHODS = (*SORA, *OTHERS)
TEACHERS = ("mixed", "null", "transformer")
TRANSFORMER_METHODS = ("sgd_unit", "adamw_metric_unit", "lora_svd", "lora_magnitude")
TRANSFORMER_FIRST = 0.05  # lambda; its loss is a sum over tokens too
TRANSFORMER_RATIO = 1.5
TRANSFORMER_STEPS = {"dense_steps": 600, "stage_steps": 100}
TRANSFORMER_LORA_STEPS = 1000
Listener = Callable[[pl.Trainer, pl.LightningModule, StageEnd], None]
NULL_RANKS = (0,) * len(PlantedConfig().ranks)


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point on a path, dense first.

    Attributes:
        level: lambda of SoRA, mean budget of AdaLoRA, threshold of pruned LoRA.
        loss: Mean held-out loss.
        standard_error: Of that mean, over held-out examples.
        gates: Ranks kept in every matrix.
        ranks: Numerical rank of every update.
        nuclear_norm: Sum of the singular values of all updates.
        largest_product: Largest `|A_i| |B_i|` of SoRA; 1 with unit scale.
    """

    level: float
    loss: float
    standard_error: float
    gates: list[int]
    ranks: list[int]
    nuclear_norm: float
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
    updates = [update.detach() for update in updates]
    largest = max(float(torch.linalg.matrix_norm(update, 2)) for update in updates)
    return Point(
        level=level,
        loss=float(losses.mean()),
        standard_error=float(losses.std() / len(losses) ** 0.5),
        gates=gates,
        ranks=[numerical_rank(update, RELATIVE_THRESHOLD * largest) for update in updates],
        nuclear_norm=sum(float(torch.linalg.matrix_norm(u, "nuc")) for u in updates),
        largest_product=largest_product,
    )


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
        }
        if self._variant.update == "released":
            gates["eps"] = RELEASED_EPS
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
    vectors = [p for n, p in model.named_parameters() if ("lora_A" in n or "lora_B" in n)]
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
        (
            layer.lora_A["default"].get_parameter("weight"),
            layer.lora_B["default"].get_parameter("weight"),
        )
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


def make(teacher: str, seed: int) -> Planted:
    """Return the task of a teacher."""
    if teacher == "transformer":
        return plant_transformer(PlantedTransformerConfig(), seed)
    ranks = NULL_RANKS if teacher == "null" else PlantedConfig().ranks
    return plant(PlantedConfig(ranks=ranks), seed)


def run(method: str, teacher: str, seed: int) -> dict[str, list[Point]]:
    """Return the path of a method; LoRA is trained once for both of its prunings."""
    planted = make(teacher, seed)
    is_full_batch = method not in SORA or SORA[method].batch_size == 0
    is_compressed = is_full_batch and teacher != "transformer"
    train = compress(planted.train) if is_compressed else planted.train
    if method in SORA:
        variant = SORA[method]
        if teacher != "transformer":
            return {method: sora_path(planted, train, variant, seed=seed)}
        variant = replace(variant, first=TRANSFORMER_FIRST, ratio=TRANSFORMER_RATIO)
        return {method: sora_path(planted, train, variant, seed=seed, **TRANSFORMER_STEPS)}
    if method == "adalora":
        points = adalora_path(planted, train, make_base=lambda: make(teacher, seed).base, seed=seed)
        return {method: points}
    steps = LORA_STEPS if teacher != "transformer" else TRANSFORMER_LORA_STEPS
    return lora_paths(planted, train, seed=seed, steps=steps)


def chosen(points: Sequence[Point]) -> int:
    """Return the index of the point that the stated rule takes."""
    return select_one_standard_error(
        [point.loss for point in points],
        [point.standard_error for point in points],
        [sum(point.gates) for point in points],
    )


def load(path: Path) -> list[dict[str, Any]]:
    """Return the finished runs, their points as `Point`; none is an empty list."""
    if not path.exists():
        return []
    runs = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [{**run, "points": [Point(**point) for point in run["points"]]} for run in runs]


def append(path: Path, record: dict[str, Any]) -> None:
    """Add a finished run as one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    points = [asdict(point) for point in record["points"]]
    rounded = [
        {k: float(f"{v:.7g}") if isinstance(v, float) else v for k, v in point.items()}
        for point in points
    ]
    with path.open("a", encoding="utf-8") as file:
        line = json.dumps({**record, "points": rounded}, separators=(",", ":"))
        file.write(line + "\n")


def matrix_rows(runs: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return one row a (method, teacher, seed, matrix) at the chosen point."""
    rows = []
    for record in runs:
        points: list[Point] = record["points"]
        point = points[chosen(points)]
        best = min(points, key=lambda p: p.loss)
        for index, planted in enumerate(record["planted"]):
            rows.append(
                {
                    **{key: record[key] for key in ("method", "teacher", "seed")},
                    "matrix": index,
                    "planted_rank": planted,
                    "gate_count": point.gates[index],
                    "numerical_rank": point.ranks[index],
                    "level": point.level,
                    "held_out_loss": point.loss,
                    "best_loss": best.loss,
                    "standard_error_of_best": best.standard_error,
                }
            )
    return pd.DataFrame(rows)


def table(runs: Sequence[dict[str, Any]]) -> str:
    """Return the tables of all teachers as Markdown."""
    tables = {"mixed": _mixed_table, "null": _null_table, "transformer": _transformer_table}
    teachers = {record["teacher"] for record in runs}
    return "\n\n".join(f(runs) for teacher, f in tables.items() if teacher in teachers) + "\n"


def _by_method(
    runs: Sequence[dict[str, Any]], teacher: str
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for method in METHODS:
        found = [r for r in runs if r["method"] == method and r["teacher"] == teacher]
        if found:
            yield method, found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _span(values: Sequence[float]) -> str:
    low, high = f"{min(values):.3g}", f"{max(values):.3g}"
    return low if low == high else f"{low} to {high}"


def _mixed_table(runs: Sequence[dict[str, Any]]) -> str:
    lines = [
        "Mixed teacher, 30 planted ranks in 10 matrices of r = 16; shares of matrices, over seeds:",
        "",
        "| method | seeds | gates exact | within 1 | numerical rank exact | within 1 | too many / "
        "too few a seed | total | best exact on the path | level | largest A B | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for method, records in _by_method(runs, "mixed"):
        points = [r["points"][chosen(r["points"])] for r in records]
        planted = [r["planted"] for r in records]
        by_gates = [score(p.gates, t) for p, t in zip(points, planted, strict=True)]
        by_rank = [score(p.ranks, t) for p, t in zip(points, planted, strict=True)]
        oracle = [max(score(p.gates, r["planted"]).exact for p in r["points"]) for r in records]
        products = [p.largest_product for p in points if p.largest_product is not None]
        cells = [
            method,
            str(len(records)),
            f"{_mean([s.exact for s in by_gates]):.2f}",
            f"{_mean([s.within_one for s in by_gates]):.2f}",
            f"{_mean([s.exact for s in by_rank]):.2f}",
            f"{_mean([s.within_one for s in by_rank]):.2f}",
            f"{_mean([s.surplus for s in by_gates]):.1f} / "
            f"{_mean([s.deficit for s in by_gates]):.1f}",
            _span([sum(p.gates) for p in points]),
            f"{_mean(oracle):.2f}",
            _span([p.level for p in points]),
            _span(products) if products else "",
            f"{_mean([r['seconds'] for r in records]):.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _null_table(runs: Sequence[dict[str, Any]]) -> str:
    lines = [
        "Null teacher, nothing planted; total over 10 matrices at the chosen point:",
        "",
        "| method | seeds | gates | numerical rank |",
        "|---|---|---|---|",
    ]
    for method, records in _by_method(runs, "null"):
        points = [r["points"][chosen(r["points"])] for r in records]
        gates, ranks = (_span([sum(v) for v in vs]) for vs in _gates_and_ranks(points))
        lines.append(f"| {method} | {len(records)} | {gates} | {ranks} |")
    return "\n".join(lines)


def _transformer_table(runs: Sequence[dict[str, Any]]) -> str:
    planted = (
        sum(PlantedTransformerConfig().ranks_per_layer) * PlantedTransformerConfig().num_layers
    )
    lines = [
        f"Transformer teacher, {planted} planted ranks in 12 matrices of r = 16; totals:",
        "",
        "| method | seeds | gates | numerical rank | gates of the point nearest to the planted |",
        "|---|---|---|---|---|",
    ]
    for method, records in _by_method(runs, "transformer"):
        points = [r["points"][chosen(r["points"])] for r in records]
        gates, ranks = (_span([sum(v) for v in vs]) for vs in _gates_and_ranks(points))
        totals = [[sum(p.gates) for p in r["points"]] for r in records]
        nearest = [min(total, key=lambda t: abs(t - planted)) for total in totals]
        lines.append(f"| {method} | {len(records)} | {gates} | {ranks} | {_span(nearest)} |")
    return "\n".join(lines)


def _gates_and_ranks(points: Sequence[Point]) -> tuple[list[list[int]], list[list[int]]]:
    return [p.gates for p in points], [p.ranks for p in points]


def jobs(options: argparse.Namespace) -> Iterator[tuple[str, str, int]]:
    """Yield (method, teacher, seed), seed by seed so that an early table compares all methods."""
    for teacher in options.teachers:
        methods = TRANSFORMER_METHODS if teacher == "transformer" else METHODS
        for seed in options.seeds:
            for method in methods:
                variant = SORA.get(method)
                if options.update and (variant is None or variant.update not in options.update):
                    continue
                if options.scale and (variant is None or variant.scale not in options.scale):
                    continue
                if method in options.methods:
                    yield method, teacher, seed


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=METHODS,
        default=METHODS,
        metavar="METHOD",
        help=f"Any of {', '.join(METHODS)}.",
    )
    parser.add_argument(
        "--update",
        nargs="+",
        choices=("sgd", "adamw", "adamw_metric", "released"),
        help="Only SoRA variants with these gate updates.",
    )
    parser.add_argument(
        "--scale",
        nargs="+",
        choices=("free", "unit"),
        help="Only SoRA variants with these gate scales.",
    )
    parser.add_argument("--teachers", nargs="+", choices=TEACHERS, default=TEACHERS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, default=FOLDER, help="Folder of rows and table.")
    parser.add_argument("--table", action="store_true", help="Run nothing, make the table.")
    return parser.parse_args()


def main() -> None:
    """Run what is missing and make the tables."""
    options = parse()
    warnings.filterwarnings("ignore")  # Lightning's and PEFT's advice for real trainings
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    path = options.out / "paths.jsonl"
    done = {(r["method"], r["teacher"], r["seed"]) for r in load(path)}
    todo = [] if options.table else [job for job in jobs(options) if job not in done]
    for number, job in enumerate(todo, start=1):
        if job in done:  # the other pruning of a LoRA that has just been trained
            continue
        method, teacher, seed = job
        began = time.monotonic()
        paths = run(method, teacher, seed)
        seconds = time.monotonic() - began
        for name, points in paths.items():
            if (name, teacher, seed) in done:
                continue
            planted = list(make(teacher, seed).ranks)
            record = {"method": name, "teacher": teacher, "seed": seed, "planted": planted}
            append(path, {**record, "seconds": round(seconds, 1), "points": points})
            done.add((name, teacher, seed))
            point = points[chosen(points)]
            print(
                f"{number}/{len(todo)} {teacher} seed {seed} {name}: gates {point.gates}, ranks "
                f"{point.ranks}, planted {planted}, {seconds:.0f} s",
                flush=True,
            )
    runs = load(path)
    text = table(runs)
    (options.out / "table.md").write_text(text, encoding="utf-8")
    matrix_rows(runs).to_csv(options.out / "matrices.csv", index=False, float_format="%.6g")
    print(text)


if __name__ == "__main__":
    main()
