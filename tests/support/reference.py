"""Slow transcriptions of the method, formula by formula, in float64 and loops: test oracles.

Nothing here imports sorakit. Vectors are lists of floats, matrices lists of rows; a rank is row i
of A and column i of B.
"""

import copy
import math
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

Vector = list[float]
Matrix = list[list[float]]


def soft_threshold(gate: Vector, xi: float) -> Vector:
    """SoRA, Eq. 11."""
    result = []
    for g in gate:
        if g > xi:
            result.append(g - xi)
        elif g < -xi:
            result.append(g + xi)
        else:
            result.append(0.0)
    return result


def metric_threshold(gate: Vector, xi: float, metric: Vector) -> Vector:
    """Eq. 11 with the threshold xi / metric of each entry."""
    return [soft_threshold([g], xi / m)[0] for g, m in zip(gate, metric, strict=True)]


def released_masks(gate: Tensor, xi: float) -> Tensor:
    """Return the three masked updates of the authors' `SparseAdamW`, in the dtype of `gate`."""
    out = gate.clone()
    out[out > xi] -= xi
    out[out < -xi] += xi
    out[out.abs() < xi] = 0
    return out


def released_threshold(gate: Vector, xi: float) -> Vector:
    """The same three updates, entry by entry."""
    result = []
    for g in gate:
        if g > xi:
            g = g - xi
        if g < -xi:
            g = g + xi
        if abs(g) < xi:
            g = 0.0
        result.append(g)
    return result


@dataclass
class Moments:
    """State of AdamW for one parameter, flattened."""

    size: int
    step: int = 0
    first: Vector = field(default_factory=list)
    second: Vector = field(default_factory=list)

    def __post_init__(self) -> None:
        self.first = [0.0] * self.size
        self.second = [0.0] * self.size


def adamw_step(
    weights: Vector,
    gradients: Vector,
    moments: Moments,
    *,
    lr: float,
    weight_decay: float = 0.0,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
) -> Vector:
    """Loshchilov and Hutter, Algorithm 2: decoupled decay, bias correction, eps beside the root."""
    moments.step += 1
    result = []
    for i, (w, d) in enumerate(zip(weights, gradients, strict=True)):
        w = w - lr * weight_decay * w
        moments.first[i] = beta1 * moments.first[i] + (1 - beta1) * d
        moments.second[i] = beta2 * moments.second[i] + (1 - beta2) * d * d
        first = moments.first[i] / (1 - beta1**moments.step)
        second = moments.second[i] / (1 - beta2**moments.step)
        result.append(w - lr * first / (math.sqrt(second) + eps))
    return result


@dataclass
class RunningAverage:
    """Exponential average of a vector, bias-corrected, from zero."""

    weight: float
    step: int = 0
    value: Vector = field(default_factory=list)

    def update(self, gradients: Vector) -> Vector:
        """m <- a m + (1 - a) d; return m / (1 - a^t)."""
        if not self.value:
            self.value = [0.0] * len(gradients)
        self.step += 1
        self.value = [
            self.weight * m + (1 - self.weight) * d
            for m, d in zip(self.value, gradients, strict=True)
        ]
        return [m / (1 - self.weight**self.step) for m in self.value]


@dataclass
class AdaptedLayer:
    """One gated matrix with the AdamW state of its three parameters."""

    lora_A: Matrix
    lora_B: Matrix
    gate: Vector
    moments: dict[str, Moments] = field(default_factory=dict)
    growth: Vector = field(default_factory=list)

    def __post_init__(self) -> None:
        self.moments = {
            "lora_A": Moments(len(self.lora_A) * len(self.lora_A[0])),
            "lora_B": Moments(len(self.lora_B) * len(self.lora_B[0])),
            "gate": Moments(len(self.gate)),
        }


UPDATES = ("sgd", "adamw", "adamw_metric", "released")
"""Gate updates that `prox_adamw_step` transcribes."""


def prox_adamw_step(
    layer: AdaptedLayer,
    gradients: dict[str, Any],
    *,
    gate_update: str,
    unit_scale: bool,
    lr: float,
    gate_lr: float,
    xi: float,
    rank_weight_decay: float,
    gate_eps: float = 1e-8,
) -> AdaptedLayer:
    """One step on one layer: decay of live ranks, AdamW on A and B, the gates' rule, unit scale."""
    layer = copy.deepcopy(layer)
    r = len(layer.gate)
    for i in range(r):  # 1. decoupled weight decay of A and B, live ranks only
        if layer.gate[i] != 0:
            layer.lora_A[i] = [w * (1 - lr * rank_weight_decay) for w in layer.lora_A[i]]
            for row in layer.lora_B:
                row[i] = row[i] * (1 - lr * rank_weight_decay)
    for name in ("lora_A", "lora_B"):  # 2. AdamW without decay
        matrix = getattr(layer, name)
        flat = [w for row in matrix for w in row]
        flat_gradient = [d for row in gradients[name] for d in row]
        flat = adamw_step(flat, flat_gradient, layer.moments[name], lr=lr)
        width = len(matrix[0])
        setattr(layer, name, [flat[k : k + width] for k in range(0, len(flat), width)])
    if gate_update == "sgd":  # 3. the gates
        moved = [g - gate_lr * d for g, d in zip(layer.gate, gradients["gate"], strict=True)]
        layer.gate = soft_threshold(moved, xi)
    else:
        moments = layer.moments["gate"]
        moved = adamw_step(layer.gate, gradients["gate"], moments, lr=gate_lr, eps=gate_eps)
        if gate_update == "adamw":
            layer.gate = soft_threshold(moved, xi)
        elif gate_update == "adamw_metric":
            metric = [math.sqrt(v / (1 - 0.999**moments.step)) + gate_eps for v in moments.second]
            layer.gate = metric_threshold(moved, xi, metric)
        elif gate_update == "released":
            layer.gate = released_threshold(moved, xi)
        else:
            raise AssertionError(gate_update)
    if unit_scale:  # 4. norms of A and B move into the gate; their log is averaged
        was = layer.growth
        layer.growth = []
        for i in range(r):
            row = math.sqrt(sum(w * w for w in layer.lora_A[i]))
            column = math.sqrt(sum(row_of_b[i] ** 2 for row_of_b in layer.lora_B))
            layer.lora_A[i] = [w / row for w in layer.lora_A[i]]
            for row_of_b in layer.lora_B:
                row_of_b[i] = row_of_b[i] / column
            layer.gate[i] = layer.gate[i] * row * column
            now = math.log(row * column)
            layer.growth.append(0.99 * was[i] + 0.01 * now if was else now)
    return layer


def largest_threshold(reach: Vector, costs: Vector, least: float) -> float:
    """Try every threshold at which a gate dies, from the largest down."""
    for xi in sorted(reach, reverse=True):
        if sum(c for r, c in zip(reach, costs, strict=True) if r > xi) >= least:
            return xi
    return 0.0


def kkt_residual(gate: Vector, gradient: Vector, lambda_: float) -> float:
    """Largest distance of -dL/dg_i from the subdifferential of lambda |g_i|, in units of lambda."""
    worst = 0.0
    for g, d in zip(gate, gradient, strict=True):
        if g > 0:
            violation = abs(d + lambda_)
        elif g < 0:
            violation = abs(d - lambda_)
        else:
            violation = max(abs(d) - lambda_, 0.0)
        worst = max(worst, violation)
    return worst / lambda_
