"""What a run folder holds: the names of its files and the columns of its tables."""

from dataclasses import dataclass, fields
from typing import Literal

from sorakit.variants import MEASURES

SCHEMA_VERSION = 1
CONFIG_FILE = "config.yaml"
META_FILE = "meta.json"
STATUS_FILE = "status.json"
STAGES_FILE = "stages.jsonl"
RANKS_FILE = "ranks.jsonl"
STEPS_FILE = "steps.jsonl"
TIMINGS_FILE = "timings.jsonl"
EXAMPLES_FILE = "examples.parquet"
ADAPTERS_DIR = "adapters"
CHECKPOINTS_DIR = "checkpoints"
DENSE_CHECKPOINT = "dense.ckpt"
"""In `CHECKPOINTS_DIR`: the state at the end of the dense stage."""
DENSE_STAGES_DIR = "dense_stages"
"""In the folder of a sweep: the dense stages that its runs share. They look like runs, and are
none."""
LOG_FILE = "log.txt"
"""What a run of a sweep wrote to stdout and stderr."""
LOCK_FILE = "lock"
"""Held by the process that writes into the folder."""
TRACKING_DIR = "wandb"
"""What the tracker keeps in a run folder; the run itself never reads it."""

State = Literal["running", "completed", "failed", "interrupted"]


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """One line of `stages.jsonl`, before the columns of its measures.

    Scores and counts come from the same weights. With a refit those are the refitted ones;
    `penalised_*` and the residuals among the measures are of the weights before it. Fields that a
    record of an older release lacks are null there.
    """

    stage: int
    """0 is the dense stage."""
    xi: float
    """Threshold of the stage, gate units per optimizer step; along a path it never falls."""
    lambda_: float
    """xi / gate_lr: weight of the L1 norm of the gates. Written as `lambda`."""
    num_nonzero_params: int
    """Elements of A and B that belong to non-zero gates: what the exported LoRA holds."""
    num_adapter_params: int
    """The same count with no gate zero."""
    num_nonzero_gates: int
    """Ranks left, summed over the adapted matrices."""
    metric: str
    """Name of the score."""
    memorization: float
    """Score on the memorization sample (training examples), evaluation mode."""
    generalization: float
    """Score on the validation split."""
    test: float | None
    """Score on the test split, where the split protocol has one."""
    memorization_percent: float | None
    """Memorization in percent of the dense stage's; null where that is not positive."""
    generalization_percent: float | None
    """Generalization in percent of the dense stage's; null where that is not positive."""
    extra_metrics: dict[str, dict[str, float]]
    """Further scores: split -> metric -> value."""
    train_loss: float
    """Mean training loss over the last pass of the stage, training mode."""
    memorization_loss: float
    """Mean loss on the memorization sample, evaluation mode."""
    generalization_loss: float
    """Mean loss on the validation split, evaluation mode."""
    epochs: float
    """Passes over the training data in this stage."""
    optimizer_steps: int
    """Optimizer steps in this stage."""
    stopped_by: str
    """What ended the stage or, with a refit, the choice of its ranks: converged, max_epochs,
    length, stationary or target."""
    applied_xi: float | None = None
    """Threshold that the last step applied: less than `xi` where that would have taken more ranks
    than the target allows. The residuals are in units of `applied_xi / gate_lr`."""
    penalised_memorization: float | None = None
    """Memorization before the refit; null without one."""
    penalised_generalization: float | None = None
    """Generalization before the refit; null without one."""
    penalised_memorization_loss: float | None = None
    """Memorization loss before the refit; null without one."""
    penalised_generalization_loss: float | None = None
    """Generalization loss before the refit; null without one."""
    refit_epochs: float | None = None
    """Passes of the refit, which are among `epochs`; null without one."""
    refit_stopped_by: str | None = None
    """What ended the refit: converged or max_epochs; null without one."""


@dataclass(frozen=True, kw_only=True)
class RankRecord:
    """One line of `ranks.jsonl`: one adapted matrix at the end of one stage."""

    stage: int
    """Stage that ended."""
    module: str
    """Full name of the adapted module in the base model."""
    layer: int | None
    """Index of the transformer layer; null outside of layers."""
    matrix: str
    """Name of the matrix inside its layer, for example attention.self.query."""
    in_features: int
    """Columns of A."""
    out_features: int
    """Rows of B."""
    r: int
    """Rank before pruning."""
    nonzero_rank: int
    """Non-zero gates."""
    strengths: list[float]
    """|g_i| |A_i| |B_i| of every rank, zeros included."""


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One line of `steps.jsonl`: an optimizer step between evaluations, every few steps."""

    step: int
    """Optimizer steps taken since the run began."""
    stage: int
    """Stage that the step belongs to."""
    train_loss: float | None
    """Loss of the step's batch, training mode; null where it is not finite."""
    lr: float
    """Learning rate of A, B and the head."""
    xi: float
    """Threshold, gate units per optimizer step; 0 without gates."""


def stage_name(stage: int) -> str:
    """Return the folder name of a stage's adapter."""
    return f"stage_{stage:02d}"


def stage_columns() -> list[str]:
    """Return the columns of `stages.jsonl` that every record has; measures add theirs."""
    return ["lambda" if field.name == "lambda_" else field.name for field in fields(StageRecord)]


def measure_columns() -> list[str]:
    """Return the columns of measures: null in a record that is older than its measure."""
    return list(MEASURES.names)
