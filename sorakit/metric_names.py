"""Every key that is logged or recorded, once.

Keys with a slash go to loggers and the progress bar; the others are columns of the run folder's
tables.
"""

from sorakit.variants import MEASURES

# Loggers, per optimizer step; the x axis is OPTIMIZER_STEP.
OPTIMIZER_STEP = "train/optimizer_step"
TRAIN_LOSS = "train/loss"
LEARNING_RATE = "train/lr"
TRAIN_XI = "train/xi"
TRAIN_STAGE = "train/stage"

# Loggers, per stage; the x axis is NUM_NONZERO_PARAMS.
NUM_NONZERO_PARAMS = "gate/num_nonzero_params"
XI = "gate/xi"
LAMBDA = "gate/lambda"
MEMORIZATION = "memorization/score"
GENERALIZATION = "generalization/score"
MEMORIZATION_LOSS = "memorization/loss"
GENERALIZATION_LOSS = "generalization/loss"
MEMORIZATION_GAIN = "memorization/gain_retained"
GENERALIZATION_GAIN = "generalization/gain_retained"
PENALISED_MEMORIZATION = "memorization/penalised_score"
"""Of the weights before the refit of a stage; `MEMORIZATION` is of the refitted ones."""
PENALISED_GENERALIZATION = "generalization/penalised_score"
GAP = "generalization/gap"
"""Memorization - generalization."""
STRENGTHS = "gate/strengths"
"""Histogram of the strengths of the ranks that are left."""
RANKS = "ranks/map"
"""Heatmap of the ranks; its table is RANKS_TABLE."""
RANKS_TABLE = f"{RANKS}_table"

# Loggers, once a run, on a grid that all runs share; the x axis is CURVE_LOG10_SHARE.
CURVE_LOG10_SHARE = "curve/log10_share"
"""log10 of a share of the full adapter's parameters, all ranks of it."""
CURVE_PERCENT = "curve/percent_of_full_adapter"
"""The same share in percent, for the reader."""
CURVE_RUNS = "curve/runs"
"""1 where a run was measured: its sum over runs is N."""
CURVE_COLUMNS = {
    "memorization": "curve/memorization",
    "generalization": "curve/generalization",
    "gap": "curve/gap",
    "memorization_percent": "curve/memorization_percent_of_dense",
    "generalization_percent": "curve/generalization_percent_of_dense",
    "memorization_gain_retained": "curve/memorization_gain_retained",
    "generalization_gain_retained": "curve/generalization_gain_retained",
}
"""Column of a path's stages -> key of its value on the grid."""
CURVE_CONFIG = "curve"
"""Key of W&B's configuration that runs of one curve share: its dataset, backbone and method."""

_STAGE_KEYS = {
    "stage": "stage/number",
    "xi": XI,
    "lambda": LAMBDA,
    "num_nonzero_params": NUM_NONZERO_PARAMS,
    "num_adapter_params": "gate/num_adapter_params",
    "num_nonzero_gates": "gate/num_nonzero_gates",
    "metric": "stage/metric",
    "memorization": MEMORIZATION,
    "generalization": GENERALIZATION,
    "test": "test/score",
    "memorization_percent": "memorization/percent_of_dense",
    "generalization_percent": "generalization/percent_of_dense",
    "train_loss": "stage/train_loss",
    "memorization_loss": MEMORIZATION_LOSS,
    "generalization_loss": GENERALIZATION_LOSS,
    "epochs": "stage/epochs",
    "optimizer_steps": "stage/optimizer_steps",
    "stopped_by": "stage/stopped_by",
    "applied_xi": "gate/applied_xi",
    "penalised_memorization": PENALISED_MEMORIZATION,
    "penalised_generalization": PENALISED_GENERALIZATION,
    "penalised_memorization_loss": "memorization/penalised_loss",
    "penalised_generalization_loss": "generalization/penalised_loss",
    "refit_epochs": "stage/refit_epochs",
    "refit_stopped_by": "stage/refit_stopped_by",
}

# Loggers, per run.
SMALLEST_BUDGET = "run/smallest_budget"
"""Fewest non-zero parameters of a stage that keeps any."""
LAST_KKT_RESIDUAL = "run/last_kkt_residual"
RECORDS_DIGEST = "run/records_digest"
"""Hash of the records that were sent: says whether a server holds the newest."""

# Columns of a task's splits, of its batches and of `examples.parquet`.
TEXT = "text"
TEXT_PAIR = "text_pair"
IMAGE = "image"
LABEL = "label"
INDEX = "index"
IS_NOISY = "is_noisy"
CLEAN_LABEL = "clean_label"
"""Label before noise was added; only where labels were replaced."""
POOL_INDEX = "pool_index"
"""Position of an example among those that a subset was drawn from."""
COPIES = "copies"
"""How often the example is among those; only where examples were planted twice."""

# Splits of `examples.parquet` and of a stage's scores.
MEMORIZATION_SPLIT = "memorization"
GENERALIZATION_SPLIT = "generalization"
TEST_SPLIT = "test"
LEFT_OUT_SPLIT = "left_out"
"""Training examples that the run's subset leaves out."""

SCORES = (MEMORIZATION_SPLIT, GENERALIZATION_SPLIT)
"""The two scores that are set against the number of parameters."""

SHARES = {"d99": 0.99, "d95": 0.95, "d90": 0.90}
"""Name -> share of the dense score that the fewest parameters must keep."""


def stage_keys() -> dict[str, str]:
    """Return column of `stages.jsonl` -> key, those of measures among them.

    `extra_metrics` becomes one key a split and metric.
    """
    return {**_STAGE_KEYS, **{name: MEASURES.load(name).key for name in MEASURES.names}}


def extra_metric(split: str, metric: str) -> str:
    """Return the key of a further score, for example generalization/f1."""
    return f"{split}/{metric}"


def dense_score(score: str) -> str:
    """Return the key of the dense stage's memorization or generalization."""
    return f"run/dense_{score}"


def floor_score(score: str) -> str:
    """Return the key of the floor's memorization or generalization: no adapter at all."""
    return f"run/floor_{score}"


def fewest_params(score: str, share: str) -> str:
    """Return the key of the fewest parameters that keep a share of dense, for example d99."""
    return f"run/{score}_{share}"
