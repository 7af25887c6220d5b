"""A point of a path: measured, written, read, chosen without the truth."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from experiments import RESULTS
from sorakit.tasks.planted import (
    Planted,
    example_losses,
    numerical_rank,
    select_one_standard_error,
)

FOLDER = RESULTS / "planted_ranks"
R = 16
LR = 1e-2  # of A and B; AdaLoRA's and LoRA's too
RELATIVE_THRESHOLD = 0.01
"""Numerical rank counts singular values above this share of the model's largest. Planted ones are
above 50 % of it; what is left of a second gate in the same direction is its angle, which a
learning rate of 3e-3 keeps below 1 %."""


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


def base_point(planted: Planted) -> Point:
    """Return the end of every path: no adapter at all."""
    zeros = [torch.zeros(1, 1) for _ in planted.updates]
    return measure(planted.base, planted, level=0.0, gates=[0] * len(zeros), updates=zeros)


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
