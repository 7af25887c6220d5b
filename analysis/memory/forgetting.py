# pyright: standard
# names of groups and columns are unions in the stubs of pandas, which strict refuses everywhere
"""Per-example forgetting: at which budget each example is lost, and how alike seeds are."""

from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from analysis.load import KEYS, PATH
from analysis.memory.examples import groups, require_classes
from analysis.slope_changepoint import FloatArray

NEVER = "never right"
LOST = "lost"
KEPT = "kept"

LEAST_SEEDS = 3
"""Seeds below which the most frequent prediction of a population means nothing."""

_EXAMPLE = [*KEYS, "seed", "run_id", "split", "index"]


def lost_examples(examples: pd.DataFrame) -> pd.DataFrame:
    """Return the budget at which every example of every path is lost, a row a (run, example).

    An example is lost at the first stage from which on it is wrong to the end of the path.
    Columns: identity, `status` (`never right`, `lost`, or `kept`: right at the last stage),
    `kept_params`: parameters of the last stage at which it is right, `lost_params`: those of the
    next one (0 for kept, NaN for never right), `lost_stage`: that stage (NaN if there is none),
    `is_right_dense`, `is_noisy` and `events`: forgetting events over the stages.

    Args:
        examples: Rows of `example_table`.

    Raises:
        ValueError: If a task has no classes.
    """
    path = examples[examples["role"] == PATH]
    require_classes(path)
    tables: list[pd.DataFrame] = []
    for names, run in groups(path, [*KEYS, "seed", "run_id", "split"]):
        stages, indices, right = right_matrix(run)
        counts = _counts(run, stages)
        last = _last_right(right)
        status = np.where(last < 0, NEVER, np.where(last == len(stages) - 1, KEPT, LOST))
        padded, following = np.append(counts, 0.0), np.append(stages.astype(float), np.nan)
        table = pd.DataFrame(
            {
                "index": indices,
                "status": status,
                "kept_params": np.where(last < 0, np.nan, counts[np.maximum(last, 0)]),
                "lost_params": np.where(last < 0, np.nan, padded[last + 1]),
                "lost_stage": np.where(status == LOST, following[last + 1], np.nan),
                "is_right_dense": right[0],
                "events": forgetting_events(right),
            }
        )
        flags = run.drop_duplicates("index").set_index("index")["is_noisy"].astype(bool)
        table["is_noisy"] = table["index"].map(flags)
        tables.append(table.assign(**names))
    return pd.concat(tables, ignore_index=True)[
        [
            *_EXAMPLE,
            "status",
            "kept_params",
            "lost_params",
            "lost_stage",
            "is_right_dense",
            "is_noisy",
            "events",
        ]
    ]


def spectrum(lost: pd.DataFrame, counts: pd.DataFrame) -> pd.DataFrame:
    """Return how many of the examples that dense has right are lost at each stage of each path.

    Columns: identity, `split`, `stage`, `num_nonzero_params`, `share`: of those that were right
    dense, lost at this stage, and `left`: still right at it or right again later.

    Args:
        lost: Rows of `lost_examples`.
        counts: Stages with `run_id`, `stage` and `num_nonzero_params`.
    """
    rows: list[dict[str, object]] = []
    keys = [*KEYS, "seed", "run_id", "split"]
    for names, own in groups(lost[lost["is_right_dense"]], keys):
        stages = counts[counts["run_id"] == names["run_id"]].sort_values("stage")
        left = 1.0
        for stage, count in zip(stages["stage"], stages["num_nonzero_params"], strict=True):
            share = float((own["lost_stage"] == stage).mean())
            left -= share
            rows.append(
                {
                    **names,
                    "stage": int(stage),
                    "num_nonzero_params": float(count),
                    "share": share,
                    "left": left,
                }
            )
    return pd.DataFrame(rows)


def mean_lost(lost: pd.DataFrame) -> pd.DataFrame:
    """Return the mean budget over seeds at which each example is lost, first lost first.

    `lost_params` is a geometric mean over the seeds in which dense has the example right; kept ones
    count with half of the path's smallest number of parameters, so that they come last. Columns:
    dataset, `split`, `index`, `lost_params`, `seeds`, `kept` (share of the seeds), `is_noisy`.
    """
    own = lost[lost["is_right_dense"]].copy()
    smallest = own.groupby("run_id")["kept_params"].transform(lambda c: c[c > 0].min())
    value = own["lost_params"].where(own["lost_params"] > 0, smallest / 2)
    own["log"] = np.log10(value.to_numpy(dtype=float))
    own["is_kept"] = own["status"] == KEPT
    grouped = own.groupby([*KEYS, "split", "index"], sort=True)
    table = grouped.agg(
        log=("log", "mean"),
        seeds=("seed", "nunique"),
        kept=("is_kept", "mean"),
        is_noisy=("is_noisy", "any"),
    ).reset_index()
    table["lost_params"] = 10.0 ** table.pop("log")
    order = [*KEYS, "split", "lost_params", "index"]
    ascending = [True] * (len(KEYS) + 1) + [False, True]
    return table.sort_values(order, ascending=ascending).reset_index(drop=True)


def seed_agreement(lost: pd.DataFrame) -> pd.DataFrame:
    """Return how alike two seeds are in which examples they lose first, a row a (dataset, split).

    `spearman`: mean over pairs of seeds of the rank correlation of `lost_params`, over the examples
    that both have right dense; `smallest` and `largest` of the pairs, and their number `pairs`. NaN
    with one seed.
    """
    rows: list[dict[str, object]] = []
    for names, block in groups(lost, [*KEYS, "split"]):
        right = block[block["is_right_dense"]]
        table = right.pivot_table(index="index", columns="run_id", values="lost_params")
        found = [_rank_correlation(table[[a, b]]) for a, b in combinations(table.columns, 2)]
        known = [value for value in found if np.isfinite(value)]
        rows.append(
            {
                **names,
                "spearman": float(np.mean(known)) if known else float("nan"),
                "smallest": min(known, default=float("nan")),
                "largest": max(known, default=float("nan")),
                "pairs": len(found),
            }
        )
    return pd.DataFrame(rows)


def data_map(passes: pd.DataFrame, *, axis: str) -> pd.DataFrame:
    """Return the cartography coordinates of every example (Swayamdipta et al. 2020).

    `confidence`: mean over the passes of the probability of the label; `variability`: its standard
    deviation, of the population; `correctness`: share of the passes in which it is right;
    `events`: forgetting events, `first_learned`: place of the first pass in which it is right, NaN
    for never.

    Args:
        passes: Columns `run_id`, `split`, `index`, `probability`, `correct`, and the axis.
        axis: What the passes are numbered by: `stage`, or `epoch` of the dense stage.
    """
    tables: list[pd.DataFrame] = []
    for (run_id, split), run in passes.groupby(["run_id", "split"], sort=True):
        chance = run.pivot(index=axis, columns="index", values="probability").sort_index()
        values = chance.to_numpy(dtype=float)
        _, indices, right = right_matrix(run, axis=axis)
        tables.append(
            pd.DataFrame(
                {
                    "run_id": run_id,
                    "split": split,
                    "index": indices,
                    "confidence": values.mean(axis=0),
                    "variability": values.std(axis=0),
                    "correctness": right.mean(axis=0),
                    "events": forgetting_events(right),
                    "first_learned": np.where(
                        right.any(axis=0), right.argmax(axis=0).astype(float), np.nan
                    ),
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def forgetting_events(right: np.ndarray) -> FloatArray:
    """Return how often an example goes from right to wrong (Toneva et al. 2019).

    Args:
        right: Shape `(passes, examples)`.

    Returns:
        Counts, shape `(examples,)`; infinite for examples that are never right, as there.
    """
    events = (right[:-1] & ~right[1:]).sum(axis=0).astype(float)
    return np.where(right.any(axis=0), events, np.inf)


def exemplars(examples: pd.DataFrame) -> pd.DataFrame:
    """Return pruning-identified exemplars (Hooker et al. 2019), a row a (dataset, stage, example).

    Those whose most frequent prediction over seeds differs between the dense stage and a later one;
    among equally frequent ones the smallest. Columns: dataset, `stage`, `split`, `index`, `dense`,
    `compressed` (predictions), `right_dense`, `right_compressed` (shares of the seeds),
    `num_nonzero_params` (geometric mean over seeds), `is_noisy`.

    Args:
        examples: Rows of `example_table`.

    Raises:
        ValueError: If no dataset has `LEAST_SEEDS` seeds, or a task has no classes.
    """
    path = examples[examples["role"] == PATH]
    require_classes(path)
    tables: list[pd.DataFrame] = []
    for names, block in groups(path, KEYS):
        if block["run_id"].nunique() < LEAST_SEEDS:
            continue
        grouped = block.groupby(["stage", "split", "index"], sort=True)
        table = grouped.agg(
            modal=("prediction", lambda values: values.mode().iloc[0]),
            right=("correct", "mean"),
            is_noisy=("is_noisy", "any"),
        ).reset_index()
        stages = block.drop_duplicates(["run_id", "stage"])
        logs = stages.assign(log=np.log10(stages["num_nonzero_params"].clip(lower=1)))
        counts = logs.groupby("stage")["log"].mean()
        dense = table[table["stage"] == 0][["split", "index", "modal", "right"]]
        both = table[table["stage"] > 0].merge(
            dense, on=["split", "index"], suffixes=("_compressed", "_dense")
        )
        both = both[both["modal_compressed"] != both["modal_dense"]]
        both["num_nonzero_params"] = 10.0 ** both["stage"].map(counts).to_numpy(dtype=float)
        renamed = both.rename(columns={"modal_dense": "dense", "modal_compressed": "compressed"})
        tables.append(renamed.assign(**names))
    if not tables:
        raise ValueError(
            f"`RUNS` must hold {LEAST_SEEDS} seeds of a path to compare populations, got fewer."
        )
    return pd.concat(tables, ignore_index=True)


def right_matrix(
    run: pd.DataFrame, *, axis: str = "stage"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return passes, indices, and which example is right at which pass, `(passes, examples)`.

    Args:
        run: Rows of one split of one run.
        axis: What the passes are numbered by.
    """
    table = run.pivot(index=axis, columns="index", values="correct").sort_index()
    return table.index.to_numpy(), table.columns.to_numpy(), table.to_numpy(dtype=bool)


def _counts(run: pd.DataFrame, stages: np.ndarray) -> FloatArray:
    of_stage = run.drop_duplicates("stage").set_index("stage")["num_nonzero_params"]
    return of_stage.loc[stages].to_numpy(dtype=float)


def _last_right(right: np.ndarray) -> np.ndarray:
    """Return the last pass at which each example is right; -1 for never."""
    back = right[::-1].argmax(axis=0)
    return np.where(right.any(axis=0), len(right) - 1 - back, -1)


def _rank_correlation(pair: pd.DataFrame) -> float:
    both = pair.dropna()
    if len(both) < 3 or (both.nunique() < 2).any():
        return float("nan")
    return float(spearmanr(both.iloc[:, 0], both.iloc[:, 1]).statistic)
