"""What a stage is described by, beside its scores and counts: each file is a column of its record.

The name of the file is the column of `stages.jsonl`, the first line of its docstring the help.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import pandas as pd

from sorakit.variants import MEASURES

if TYPE_CHECKING:
    import peft

    import sorakit.method.kkt
    import sorakit.method.tuner


@dataclass(frozen=True, kw_only=True)
class StageView:
    """A stage at its end, as a measure sees it.

    Model, matrices and examples are of the same weights: with a refit, of the refitted ones.

    Attributes:
        model: The adapted model, in evaluation mode, on its device.
        matrices: Its adapted matrices.
        hidden_size: Width of the backbone.
        xi: Threshold of the stage, gate units.
        lambda_: xi / gate_lr.
        residuals: How far the gates were from optimal when the ranks of the stage were chosen.
        gates_flickering: Gates whose zero status changed during the last pass (or segment).
        gates_revived: Those among them that came back from zero.
        examples: The stage's rows of `examples.parquet`.
    """

    model: "peft.PeftModel"
    matrices: Sequence["sorakit.method.tuner.AdaptedMatrix"]
    hidden_size: int
    xi: float
    lambda_: float
    residuals: "sorakit.method.kkt.Residuals"
    gates_flickering: int
    gates_revived: int
    examples: pd.DataFrame


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One number a stage.

    Attributes:
        unit: Unit of the number; 1 for ratios.
        key: Its name in W&B.
        of: The number, or None where it is not defined.
    """

    unit: str
    key: str
    of: Callable[[StageView], int | float | None]


def measure(name: str) -> Measure:
    """Return the measure that a column names.

    Raises:
        ValueError: If there is none of that name.
    """
    return cast(Measure, MEASURES.load(name))


def measures_of(stage: StageView) -> dict[str, int | float | None]:
    """Return every measure of a stage, by its column."""
    return {name: measure(name).of(stage) for name in MEASURES.names}
