"""Datasets compared: how few parameters keep how much, where curves drop, what goes first.

All intervals are 95 %. Logarithms of counts are averaged, so a mean count is a geometric mean and
its interval a factor.
"""

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.compressibility import REFERENCES, compressibility
from analysis.control_differences import control_differences
from analysis.controls import configuration_notes, missing_controls
from analysis.curves import SCORES, SHARES, with_gain_retained
from analysis.doubts import doubt_notes
from analysis.example_spread import ExampleSpread, example_spreads
from analysis.inflection_table import inflections_by_dataset, inflections_by_seed
from analysis.intervals import Interval, holm, student_t_interval, welch_p_value
from analysis.load import KEYS, PATH, RunSet, comparability_notes, with_curves

UNDEFINED = "undefined"
RANKED_SHARE = "d90"
FIRST_BY_COUNT = f"{RANKED_SHARE} of gain"
FIRST_BY_AREA = "area of gain"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything that `python -m analysis compare` prints, as tables.

    Attributes:
        runs: One row a (path run, score, reference): see `compressibility`.
        table: One row a (dataset, score, reference): means over seeds with intervals.
        inflections: One row a (path run, score).
        dataset_inflections: One row a (dataset, score).
        first: One row a (dataset, measure): paired difference of memorization and generalization,
            in log10 of a count or, by area, in shares of the gain.
        controls: One row a (dataset, control, score, share): see `control_differences`.
        ranking: One row a pair of datasets, by score and reference.
        excluded: Folder and reason of every run that is in no table.
        notes: Sentences that a reader needs beside the tables.
    """

    runs: pd.DataFrame
    table: pd.DataFrame
    inflections: pd.DataFrame
    dataset_inflections: pd.DataFrame
    first: pd.DataFrame
    controls: pd.DataFrame
    ranking: pd.DataFrame
    excluded: list[tuple[Path, str]]
    notes: list[str]


def compare(runs: RunSet) -> Comparison:
    """Return the comparison of the datasets in `runs`.

    Raises:
        ValueError: If two floor runs of one seed disagree, or no path run has a curve.
    """
    runs = with_curves(runs)
    used, stages = runs.runs, runs.stages
    if not (used["role"] == PATH).any():
        raise ValueError(
            "`RUNS` must hold at least one path run with two stages (method.name sora, "
            f"stage.control none), got 0 ({len(runs.excluded)} runs left out)."
        )
    stages = with_gain_retained(stages)
    counts = compressibility(stages)
    by_seed = inflections_by_seed(stages)
    folders = {str(row["run_id"]): Path(row["path"]) for row in used.to_dict("records")}
    spreads = example_spreads(stages, folders)
    table = _table(counts, stages, spreads)
    by_dataset = inflections_by_dataset(by_seed)
    return Comparison(
        runs=counts,
        table=table,
        inflections=by_seed,
        dataset_inflections=by_dataset,
        first=_what_goes_first(counts, by_seed, table, by_dataset, spreads),
        controls=control_differences(stages),
        ranking=_ranking(counts, table),
        excluded=runs.excluded,
        notes=[
            *comparability_notes(used),
            *configuration_notes(stages),
            *missing_controls(stages),
            *doubt_notes(stages),
        ],
    )


def _blocks(table: pd.DataFrame, keys: list[str]) -> dict[tuple[object, ...], pd.DataFrame]:
    """Return the rows of a table by the values of `keys`."""
    return {tuple(names): group for names, group in table.groupby(keys, sort=True)}


def _table(
    counts: pd.DataFrame,
    stages: pd.DataFrame,
    spreads: dict[tuple[object, ...], ExampleSpread],
) -> pd.DataFrame:
    rows: list[dict[str, object]] = []
    paths = _blocks(stages[(stages["role"] == PATH) & (stages["stage"] == 0)], KEYS)
    for names, group in counts.groupby([*KEYS, "score", "reference"], sort=False):
        *dataset, score, reference = names
        spread = spreads.get((*dataset, score))
        dense = paths[tuple(dataset)]
        gain = student_t_interval(
            (dense[f"{score}_dense"] - dense[f"{score}_floor"]).tolist(),
            extra_variance=spread.gain if spread else 0.0,
        )
        row: dict[str, object] = {
            **dict(zip([*KEYS, "score", "reference"], names, strict=True)),
            "metric": dense["metric"].iloc[0],
            "seeds": len(group),
            "intervals_from": _source(len(group), spread is not None),
            "dense_params": group["dense_params"].mean(),
            "dense_score": dense[f"{score}_dense"].mean(),
            "floor_score": dense[f"{score}_floor"].mean(),
            "gain": gain.mean,
            "gain_low": gain.low,
            "gain_high": gain.high,
            "status": _status(str(reference), gain, len(group)),
        }
        rows.append(
            row | _means(group, str(reference), spread, undefined=row["status"] != "defined")
        )
    order = ["score", "reference"]
    table = pd.DataFrame(rows)
    table["score"] = pd.Categorical(table["score"], SCORES, ordered=True)
    table["reference"] = pd.Categorical(table["reference"], REFERENCES, ordered=True)
    table = table.sort_values([*KEYS, *order], ignore_index=True)
    return table.astype({"score": str, "reference": str})


def _source(seeds: int, with_examples: bool) -> str:
    names = (["seeds"] if seeds > 1 else []) + (["examples"] if with_examples else [])
    return " and ".join(names) or "none"


def _status(reference: str, gain: Interval, seeds: int) -> str:
    """Return defined, or why shares of the gain are undefined."""
    if reference == "dense":
        return "defined"
    if gain.count < seeds:
        return f"{UNDEFINED}: no floor for {seeds - gain.count} of {seeds} seeds"
    if np.isnan(gain.low):
        return f"{UNDEFINED}: one seed and no records of examples, so dense - floor has no interval"
    return (
        f"{UNDEFINED}: the interval of dense - floor contains 0"
        if gain.contains_zero
        else ("defined")
    )


def _means(
    group: pd.DataFrame, reference: str, spread: ExampleSpread | None, *, undefined: bool
) -> dict[str, object]:
    row: dict[str, object] = {}
    for name in SHARES:
        values = group[name].to_numpy(dtype=float)
        measured = group[f"{name}_measured"].to_numpy(dtype=float)
        needed = np.log10(np.where(values > 0, values, np.nan))
        extra = spread.log_count[reference, name] if spread else 0.0
        mean = student_t_interval(needed.tolist(), extra_variance=extra)
        at_bound = group[f"{name}_is_bound"].to_numpy(dtype=bool)
        ends = (float(10**mean.mean), float(10**mean.low), float(10**mean.high))
        # no path needs more than it has
        ends = (*ends[:2], min(ends[2], float(group["dense_params"].max())))
        if at_bound.any():  # some seeds may need fewer: there is no lower end
            ends = (ends[0], np.nan, np.nan if at_bound.all() else ends[2])
        if (values == 0).any():  # 0 has no logarithm
            ends = (0.0 if (values == 0).all() else np.nan, np.nan, np.nan)
        ends = (np.nan, np.nan, np.nan) if undefined else ends
        row |= dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))
        row[f"{name}_measured"] = np.nan if undefined else float(np.median(measured))
        row[f"{name}_seeds_without_adapter"] = int((values == 0).sum())
        row[f"{name}_seeds_at_bound"] = int(at_bound.sum())
    extra = spread.area[reference] if spread else 0.0
    area = student_t_interval(group["area"].tolist(), extra_variance=extra)
    low, high, mean = (area.low, area.high, area.mean) if not undefined else (np.nan,) * 3
    row |= {"area": mean, "area_low": low, "area_high": high, "compression_loss": 1 - mean}
    return row


def _what_goes_first(
    counts: pd.DataFrame,
    by_seed: pd.DataFrame,
    table: pd.DataFrame,
    by_dataset: pd.DataFrame,
    spreads: dict[tuple[object, ...], ExampleSpread],
) -> pd.DataFrame:
    """Return paired differences per seed, memorization - generalization.

    By drop and d90 in log10: the larger needs more parameters and goes first. By area in shares of
    the gain: the smaller has lost more on the way down and goes first.
    """
    gain = counts[counts["reference"] == "gain"]
    blocks = [_blocks(rows, KEYS) for rows in (table, by_dataset, gain)]
    rows: list[dict[str, object]] = []
    for names, group in _blocks(by_seed, KEYS).items():
        of_table, of_drops, of_counts = (block[names] for block in blocks)
        flat = of_drops.loc[~of_drops["detected"].astype(bool), "score"].tolist()
        drop = _differences(group, "drop")
        reason = f"no inflection of {' and '.join(flat)}" if flat else ""
        rows.append({**dict(zip(KEYS, names, strict=True)), **_verdict("drop", drop, 0.0, reason)})
        shares = of_table[of_table["reference"] == "gain"]
        unknown = shares.loc[shares["status"] != "defined", "score"].tolist()
        reason = f"gain of {' and '.join(unknown)} undefined" if unknown else ""
        # the two scores are taken on different examples: their variances add
        known = [spreads[*names, score] for score in SCORES if (*names, score) in spreads]
        extra = sum((spread.log_count["gain", RANKED_SHARE] for spread in known), start=0.0)
        logs = of_counts.assign(d90=np.log10(of_counts[RANKED_SHARE].where(lambda v: v > 0)))
        verdict = _verdict(FIRST_BY_COUNT, _differences(logs, "d90"), extra, reason)
        rows.append({**dict(zip(KEYS, names, strict=True)), **verdict})
        extra = sum((spread.area["gain"] for spread in known), start=0.0)
        areas = _differences(of_counts, "area")
        if not reason and len(areas) > 1 and np.isfinite(areas).sum() < 2:
            reason = "fewer than two paths reach down to 1 % of the parameters"
        verdict = _verdict(FIRST_BY_AREA, areas, extra, reason, smaller_first=True)
        rows.append({**dict(zip(KEYS, names, strict=True)), **verdict})
    return pd.DataFrame(rows)


def _differences(rows: pd.DataFrame, column: str) -> list[float]:
    wide = rows.pivot(index="run_id", columns="score", values=column).astype(float)
    return (wide[SCORES[0]] - wide[SCORES[1]]).tolist()


def _verdict(
    measure: str,
    differences: list[float],
    extra: float,
    reason: str,
    *,
    smaller_first: bool = False,
) -> dict[str, object]:
    interval = student_t_interval(differences, extra_variance=extra)
    if reason:
        verdict, interval = f"{UNDEFINED}: {reason}", student_t_interval([])
    elif interval.count < 2:  # draws of the examples say nothing about another seed
        interval = student_t_interval(differences)
        verdict = f"{UNDEFINED}: fewer than two seeds"
    elif interval.contains_zero:
        verdict = "not told apart"
    else:
        is_larger = interval.low > 0
        verdict = f"{SCORES[0] if is_larger != smaller_first else SCORES[1]} first"
    return {
        "measure": measure,
        "seeds": interval.count,
        "difference": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "verdict": verdict,
    }


def _ranking(counts: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Return Welch's test on log10 d90 for every pair of datasets of one backbone.

    Holm-adjusted by score and reference. Counts of different backbones say nothing about datasets.
    """
    backbone = KEYS.index("backbone")
    rows: list[dict[str, object]] = []
    by_seed = _blocks(counts, [*KEYS, "score", "reference"])
    for (score, reference), block in table.groupby(["score", "reference"], sort=False):
        ranked = block[block[RANKED_SHARE] > 0].sort_values(RANKED_SHARE)
        logs: dict[tuple[object, ...], list[float]] = {}
        for names in ranked[KEYS].itertuples(index=False, name=None):
            of_seeds = by_seed[(*names, score, reference)][RANKED_SHARE].to_numpy(dtype=float)
            logs[names] = np.log10(of_seeds).tolist()
        # runs of one dataset share seeds, and another variant of another one has two differences
        pairs = [
            (a, b)
            for a, b in combinations(logs, 2)
            if a[:-1] != b[:-1] and a[-1] == b[-1] and a[backbone] == b[backbone]
        ]
        p_values = [welch_p_value(logs[a], logs[b]) for a, b in pairs]
        for (a, b), p, adjusted in zip(pairs, p_values, holm(p_values), strict=True):
            rows.append(
                {
                    "score": score,
                    "reference": reference,
                    **{f"{key}_fewer": value for key, value in zip(KEYS, a, strict=True)},
                    **{f"{key}_more": value for key, value in zip(KEYS, b, strict=True)},
                    "ratio": float(10 ** (np.mean(logs[b]) - np.mean(logs[a]))),
                    "p_value": p,
                    "p_holm": adjusted,
                }
            )
    columns = ["score", "reference"]
    columns += [f"{key}_{side}" for side in ("fewer", "more") for key in KEYS]
    return pd.DataFrame(rows, columns=pd.Index([*columns, "ratio", "p_value", "p_holm"]))
