# pyright: standard
# names of groups and columns are unions in the stubs of pandas, which strict refuses everywhere
"""Bits: how much an adapter knows of the labels it was trained on, and what a parameter holds."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from analysis.load import DATASET_KEYS, FLOOR, KEYS, NULL_FLOOR
from analysis.memory.examples import require_classes
from analysis.slope_changepoint import FloatArray
from sorakit.metric_names import GENERALIZATION_SPLIT, MEMORIZATION_SPLIT

_NATS = np.log(2.0)
"""Nats of a bit."""
_OF_RANDOM_LABELS = "shuffled_labels"
_FLOORS = {FLOOR: FLOOR, _OF_RANDOM_LABELS: NULL_FLOOR}
"""Role of a path -> role of the head-only runs on the same labels."""


def bits_table(examples: pd.DataFrame, sizes: Mapping[str, int]) -> pd.DataFrame:
    """Return the bits that every stage of every run holds of its labels, a row a (run, stage).

    Columns: what names the run, `num_nonzero_params`, `num_train`, and

    - `prior_bits`: label information against the prior, bits an example: mean of
      `log2 p(label) - log2 prior(label)` over the memorization sample. Never above the label
      entropy `entropy_bits`.
    - `held_out_bits`: the same on the validation split, with the prior of the training labels; less
      than 0 where the model is worse than the prior.
    - `unintended_bits`: against the head-only run on the same labels, bits an example: mean of
      `max(0, log2 p(label) - log2 p_head(label))` (Morris et al. 2025, with the head-only model as
      the reference); NaN where there is no such run of the seed.
    - `prior_capacity`, `unintended_capacity`: the same times `num_train` over non-zero parameters,
      bits a parameter; NaN without parameters.

    Args:
        examples: Rows of `example_table`.
        sizes: Run id -> training examples.

    Raises:
        ValueError: If a task has no classes.
    """
    require_classes(examples)
    rows: list[dict[str, object]] = []
    references = _references(examples)
    for run_id, run in examples.groupby("run_id", sort=True):
        trained = run[run["split"] == MEMORIZATION_SPLIT]
        if trained.empty:
            continue
        first = run.iloc[0]
        role = str(first["role"])
        of_floor = _OF_RANDOM_LABELS if role.startswith(_OF_RANDOM_LABELS) else FLOOR
        reference = references.get(
            (*(first[key] for key in DATASET_KEYS), int(first["seed"]), _FLOORS[of_floor])
        )
        prior = label_prior(trained)
        entropy = -sum(share * np.log2(share) for share in prior.values() if share > 0)
        num_train = sizes[str(run_id)]
        for stage, own in run.groupby("stage", sort=True):
            inside = own[own["split"] == MEMORIZATION_SPLIT]
            outside = own[own["split"] == GENERALIZATION_SPLIT]
            count = float(own["num_nonzero_params"].iloc[0])
            against_prior = float(np.mean(_prior_bits(inside, prior)))
            unintended = float("nan")
            if reference is not None:
                of_head = reference.reindex(inside["index"].to_numpy()).to_numpy(dtype=float)
                gain = (of_head - inside["loss"].to_numpy(dtype=float)) / _NATS
                unintended = float(np.mean(np.maximum(gain, 0.0)))
            of_all = num_train / count if count > 0 else float("nan")
            rows.append(
                {
                    **{key: first[key] for key in KEYS},
                    "seed": int(first["seed"]),
                    "run_id": run_id,
                    "role": role,
                    "stage": int(str(stage)),
                    "num_nonzero_params": count,
                    "num_train": num_train,
                    "entropy_bits": entropy,
                    "prior_bits": against_prior,
                    "held_out_bits": float(np.mean(_prior_bits(outside, prior))),
                    "unintended_bits": unintended,
                    "prior_capacity": against_prior * of_all,
                    "unintended_capacity": unintended * of_all,
                }
            )
    return pd.DataFrame(rows)


def label_prior(trained: pd.DataFrame) -> dict[float, float]:
    """Return the share of every label among the training examples of a run.

    The record names the label of an example that was right at some stage. Of one that never was,
    only two classes tell it; with more, examples that were never right are left out of the shares.

    Args:
        trained: Rows of the memorization split of one run.
    """
    labels = example_labels(trained).dropna()
    shares = labels.value_counts(normalize=True)
    return dict(zip(shares.index.astype(float), shares.astype(float), strict=True))


def example_labels(rows: pd.DataFrame) -> "pd.Series[float]":
    """Return the label of every example of one split of one run, by index; NaN where not known."""
    right = rows[rows["correct"].astype(bool)].drop_duplicates("index")
    known = right.set_index("index")["prediction"].astype(float)
    everywhere = pd.Index(rows["index"].unique())
    labels = known.reindex(everywhere)
    classes = np.unique(rows["prediction"].to_numpy(dtype=float))
    if set(classes.tolist()) <= {0.0, 1.0} and labels.isna().any():
        never = labels.index[labels.isna()]
        wrong = rows.drop_duplicates("index").set_index("index")["prediction"].astype(float)
        labels.loc[never] = 1.0 - wrong.loc[never]
    return labels


def code_length(
    sizes: Sequence[int], held_out_losses: Sequence[float], *, entropy: float
) -> FloatArray:
    """Return the online code length of the labels after each size, in bits (Voita and Titov 2020).

    The first block is sent with the label prior, every next one with the model that was trained on
    all before it: `n_1 H + sum_i (n_(i+1) - n_i) L(n_i)`. The loss of a model on the next block is
    estimated by its loss on held-out examples: both are drawn alike, and no run keeps its losses on
    what it has yet to see.

    Args:
        sizes: Training examples of the models, rising.
        held_out_losses: Their mean held-out losses, in nats an example.
        entropy: Entropy of the labels, in nats.

    Returns:
        Bits for all labels up to each size, shape `(sizes,)`.

    Raises:
        ValueError: If the sizes do not rise.
    """
    counts = np.asarray(sizes, dtype=float)
    if (np.diff(counts) <= 0).any() or counts[0] <= 0:
        raise ValueError(f"`sizes` must be positive and rise, got {list(sizes)}.")
    blocks = np.diff(counts) * np.asarray(held_out_losses, dtype=float)[:-1]
    nats = counts[0] * entropy + np.concatenate([[0.0], np.cumsum(blocks)])
    return np.asarray(nats / _NATS)


def _prior_bits(rows: pd.DataFrame, prior: Mapping[float, float]) -> FloatArray:
    """Return log2 p(label) - log2 prior(label) of every example."""
    labels = example_labels(rows).reindex(rows["index"].to_numpy()).to_numpy()
    shares = np.array([prior.get(float(label), np.nan) for label in labels])
    # an example whose label is not known counts with the mean surprise of the prior
    surprise = -np.log2(np.where(shares > 0, shares, np.nan))
    if np.isnan(surprise).any():
        entropy = -sum(share * np.log2(share) for share in prior.values() if share > 0)
        surprise = np.where(np.isnan(surprise), entropy, surprise)
    return np.asarray(surprise - rows["loss"].to_numpy(dtype=float) / _NATS)


def _references(examples: pd.DataFrame) -> dict[tuple[object, ...], "pd.Series[float]"]:
    """Return the losses of the head-only runs on their training examples, in nats, by index."""
    is_floor = examples["role"].isin(list(_FLOORS.values()))
    own = examples[is_floor & (examples["split"] == MEMORIZATION_SPLIT) & (examples["stage"] == 0)]
    return {
        (*(run[key].iloc[0] for key in DATASET_KEYS), int(run["seed"].iloc[0]), str(role)): (
            run.set_index("index")["loss"]
        )
        for (_, role), run in own.groupby(["run_id", "role"], sort=True)
    }
