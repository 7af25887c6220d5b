# pyright: standard
# pyarrow has no type stubs, which strict refuses in every call
"""How much the choice of examples alone moves what is computed from scores.

`examples.parquet` says of every example whether it was right at every stage. Examples are drawn
with replacement, the same ones for every stage, every seed and the floor of a dataset: seeds and
examples are crossed, and an example that is hard is hard for all (Owen 2007). Scores that are means
over examples (accuracy) can be computed anew; others (Matthews, F1) need the predictions, which are
not recorded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from analysis.slope_changepoint import FloatArray
from sorakit.metric_names import GENERALIZATION_SPLIT, MEMORIZATION_SPLIT
from sorakit.records.examples import read_examples_table

NUM_RESAMPLES = 60
SPLITS = {"memorization": MEMORIZATION_SPLIT, "generalization": GENERALIZATION_SPLIT}
"""Score -> split of `examples.parquet`."""

_MEANS = {
    "accuracy": "correct",
    "exact_match": "correct",
    "token_accuracy": "token_accuracy",
    "extraction_strength": "extraction_strength",
}
"""Score that is a mean over examples -> column of `examples.parquet`."""
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Correct:
    """Which examples of one split were right, in one run.

    Attributes:
        stages: Shape `(stages,)`.
        examples: Shape `(examples,)`: their indices in the data set, rising.
        correct: Shape `(stages, examples)`: 0 or 1, or the share of an example's tokens.
    """

    stages: npt.NDArray[np.int64]
    examples: npt.NDArray[np.int64]
    correct: npt.NDArray[np.float32]


def read_correct(run: Path, metric: str) -> dict[str, Correct]:
    """Return the record of each score of a run that can be computed from examples.

    Args:
        run: Run folder, or PACK/RUN_ID of a packed run.
        metric: Name of the run's score.
    """
    column = _MEANS.get(metric)
    if column is None:
        return {}
    table = read_examples_table(run, ["stage", "split", "index", column])
    if table is None:
        return {}
    records: dict[str, Correct] = {}
    for score, name in SPLITS.items():
        rows = table.filter(pc.field("split") == name)
        if not len(rows) or rows[column].null_count:
            continue
        stage, example = (rows[key].to_numpy() for key in ("stage", "index"))
        right = rows[column].cast("float32").to_numpy()
        stages, examples = np.unique(stage), np.unique(example)
        if len(right) != len(stages) * len(examples):
            continue  # a killed run can leave a stage half written
        correct = np.empty((len(stages), len(examples)), dtype=np.float32)
        correct[stages.searchsorted(stage), examples.searchsorted(example)] = right
        records[score] = Correct(stages=stages, examples=examples, correct=correct)
    return records


def resampled_scores(records: Sequence[Correct]) -> list[FloatArray]:
    """Return the scores of every record with examples drawn anew, `(resamples, stages)` each.

    The draws are those of the union of all examples, so records that share examples share draws.
    """
    union = np.unique(np.concatenate([record.examples for record in records]))
    rng = np.random.default_rng(_SEED)
    share = np.full(len(union), 1 / len(union))
    times = rng.multinomial(len(union), share, size=NUM_RESAMPLES).astype(np.float32)
    scores: list[FloatArray] = []
    for record in records:
        drawn = times[:, union.searchsorted(record.examples)]
        total = drawn.sum(axis=1, keepdims=True, dtype=np.float64)
        scores.append((drawn @ record.correct.T).astype(np.float64) / total)
    return scores
