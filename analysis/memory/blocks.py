# pyright: standard
# names of groups and columns are unions in the stubs of pandas, which strict refuses everywhere
"""What the measures of memorization say of many runs: tables and sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.intervals import Interval, student_t_interval
from analysis.load import KEYS, PATH
from analysis.memory.counterfactual import LEAST_RUNS
from analysis.memory.examples import groups
from analysis.memory.forgetting import KEPT, NEVER
from analysis.memory.membership import LIRA
from analysis.memory.noise import CURVES, noise_summary
from analysis.memory.validity import QUESTIONS
from analysis.number_text import compact
from sorakit.metric_names import GENERALIZATION_SPLIT, MEMORIZATION_SPLIT
from sorakit.quoting import cut

TITLE = "Memorization"
_ENDS = ("auc", "low", "high")
SHOWN_SHARES = (1.0, 0.1, 0.02, 0.005)
"""Shares of the dense parameters at which tables show a path: at the nearest stage in log."""
_NAMES = {MEMORIZATION_SPLIT: "training examples", GENERALIZATION_SPLIT: "validation examples"}
_TEXT_LENGTH = 120
"""Characters of a text in a table."""
NONE = "-"
"""Cell without an answer."""
_MEMORISED = 0.25
"""Counterfactual memorization from which Feldman and Zhang (2020) call an example memorised."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """One table of the page.

    Attributes:
        title: Its heading.
        hint: What it shows and how to read it.
        heads: Column heads.
        rows: Cells.
        sentences: What is to be said beside it.
    """

    title: str
    hint: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    sentences: Sequence[str] = ()


def noise_block(curves: pd.DataFrame, forgetting: pd.DataFrame) -> Block:
    """Return where label noise is forgotten.

    Args:
        curves: Rows of `noise_curves`.
        forgetting: Rows of `noise_forgetting`.
    """
    rows: list[list[str]] = []
    sentences: list[str] = []
    for row in noise_summary(forgetting).to_dict("records") if len(forgetting) else []:
        name = _dataset(row)
        ends = {
            key: (float(row[key]), float(row[f"{key}_low"]), float(row[f"{key}_high"]))
            for key in ("noise_d50", "validation_d90", "ratio", "rise")
        }
        rows.append(
            [
                name,
                str(row["seeds"]),
                _count_cell(*ends["noise_d50"]),
                _count_cell(*ends["validation_d90"]),
                _cell(*ends["ratio"], "{:.2g}"),
                _cell(*ends["rise"], "{:+.3f}"),
            ]
        )
        sentences += [_ratio_sentence(name, *ends["ratio"]), _rise_sentence(name, *ends["rise"])]
    dense = curves[(curves["role"] == PATH) & (curves["stage"] == 0)]
    for row, own in groups(dense, KEYS):
        values = own.groupby("curve")["value"].mean()
        listed = ", ".join(f"{curve} {values[curve]:.3f}" for curve in CURVES if curve in values)
        sentences.append(f"{_dataset(row)}, dense: {listed}.")
    return Block(
        title="Label noise",
        hint="d50 of noise: fewest parameters that keep half of the wrong labels fitted beyond the "
        "floor. d90 of validation: fewest that keep 90 % of its gain. Ratio above 1: noise goes "
        "first. Rise: validation at the stage nearest to d50 of noise, minus dense. 95 % intervals "
        "over seeds.",
        heads=["dataset", "seeds", "d50 of noise", "d90 of validation", "ratio", "rise"],
        rows=rows,
        sentences=[sentence for sentence in sentences if sentence],
    )


def forgetting_block(lost: pd.DataFrame, spectrum: pd.DataFrame, agreement: pd.DataFrame) -> Block:
    """Return how many examples are lost where, and how alike seeds are.

    Args:
        lost: Rows of `lost_examples`.
        spectrum: Rows of `spectrum`.
        agreement: Rows of `seed_agreement`.
    """
    rows: list[list[str]] = []
    keys = [*KEYS, "split"]
    for row, own in groups(spectrum, keys):
        mine = lost[(lost[keys] == [*row.values()]).all(axis=1)]
        alike = agreement[(agreement[keys] == [*row.values()]).all(axis=1)]
        mean, low, high = (float(alike[e].iloc[0]) for e in ("spearman", "smallest", "largest"))
        by_run = mine.groupby("run_id")["status"]
        never = student_t_interval([float((values == NEVER).mean()) for _, values in by_run])
        kept = student_t_interval([float((values == KEPT).mean()) for _, values in by_run])
        left = [
            _interval_cell(student_t_interval(values), "{:.1%}")
            for values in _at_shares(own, "left").values()
        ]
        rows.append(
            [
                _dataset(row),
                _NAMES.get(str(row["split"]), str(row["split"])),
                _interval_cell(never, "{:.1%}"),
                *left[1:],
                _interval_cell(kept, "{:.1%}"),
                f"{mean:.2f} ({low:.2f} to {high:.2f})" if np.isfinite(mean) else NONE,
            ]
        )
    return Block(
        title="Forgetting, example by example",
        hint="Of the examples that dense has right: share still right, at this stage or a later "
        "one, near a share of the dense parameters. Never right, and right at the last stage: of "
        "all examples. Seeds alike: rank correlation of the budget at which an example is lost, "
        "mean over pairs of seeds (smallest to largest). With two classes half of all examples are "
        "right by chance.",
        heads=[
            "dataset",
            "split",
            "never right",
            *(f"left at {share:.1%}" for share in SHOWN_SHARES[1:]),
            "right at the last stage",
            "seeds alike",
        ],
        rows=rows,
    )


def texts_block(lost: pd.DataFrame, texts: pd.DataFrame, *, count: int = 5) -> Block:
    """Return the first and the last lost examples of each split, with their texts.

    Args:
        lost: Rows of `mean_lost`, the first lost first.
        texts: Rows of `read_texts`.
        count: Examples at either end.

    Raises:
        ValueError: If there are several datasets: an index is one of a dataset.
    """
    tasks = sorted(lost["task"].unique())
    if len(tasks) > 1:
        raise ValueError(
            f"`--texts` must be given with runs of one dataset, got {', '.join(tasks)}."
        )
    rows: list[list[str]] = []
    named = lost.merge(texts, on=["split", "index"], how="left")
    for row, own in groups(named, [*KEYS, "split"]):
        order = [("first", own.head(count)), ("last", own.tail(count))]
        for which, ends in order:
            rows += [
                [
                    _dataset(row),
                    _NAMES.get(str(row["split"]), str(row["split"])),
                    which,
                    compact(float(example["lost_params"])),
                    str(example["label"]),
                    cut(" ".join(str(example["text"]).split()), _TEXT_LENGTH),
                ]
                for example in ends.to_dict("records")
            ]
    return Block(
        title="First and last lost",
        hint="Of the examples that dense has right, geometric mean over seeds of the parameters at "
        "which they are lost; those that never are come last, with half of the path's smallest "
        "number.",
        heads=["dataset", "split", "lost", "at parameters", "label", "text"],
        rows=rows,
    )


def bits_block(bits: pd.DataFrame) -> Block:
    """Return how many bits of the labels are held, and the most that a parameter holds.

    Args:
        bits: Rows of `bits_table`.
    """
    rows: list[list[str]] = []
    paths = bits[bits["num_nonzero_params"] > 0]
    for row, own in groups(paths, [*KEYS, "role"]):
        dense = own[own["stage"] == 0]
        cells = [
            _interval_cell(student_t_interval(dense[column].tolist()), "{:.3f}")
            for column in ("entropy_bits", "prior_bits", "unintended_bits", "held_out_bits")
        ]
        known = own.dropna(subset=["unintended_capacity"])
        most = known.sort_values("unintended_capacity").drop_duplicates("run_id", keep="last")
        capacity = student_t_interval(most["unintended_capacity"].tolist())
        at = [compact(count) for count in sorted(most["num_nonzero_params"])]
        rows.append(
            [
                _dataset(row),
                "true labels" if row["role"] == PATH else str(row["role"]).replace("_", " "),
                *cells,
                _interval_cell(capacity, "{:.2f}"),
                ", ".join(dict.fromkeys(at)) or NONE,
            ]
        )
    return Block(
        title="Bits",
        hint="Dense, bits an example: label entropy; against the label prior; against the head "
        "alone (unintended); held out against the prior (below 0: worse than the prior). Capacity: "
        "the most unintended bits a non-zero parameter of any stage, and at how many parameters. "
        "The trained head, which is not among the parameters, holds bits of its own.",
        heads=[
            "dataset",
            "labels",
            "entropy",
            "against prior",
            "unintended",
            "held out",
            "bits a parameter",
            "at parameters",
        ],
        rows=rows,
    )


def membership_block(membership: pd.DataFrame) -> Block:
    """Return how well training examples are told from others along the path.

    Args:
        membership: Rows of `membership_table`.
    """
    rows: list[list[str]] = []
    paths = membership[membership["role"] == PATH]
    keys = ["task", "backbone", "pool", "variant", "attack"]
    for row, own in groups(paths, keys):
        named = _dataset({**row, "setting": row["pool"]})
        for column, form in (("auc", "{:.3f}"), ("tpr", "{:.3f}")):
            cells = [
                _interval_cell(student_t_interval(values), form)
                for values in _at_shares(own, column).values()
            ]
            label = "AUC" if column == "auc" else "TPR at 1 % FPR"
            attack = "LiRA" if row["attack"] == LIRA else "loss threshold"
            rows.append([named, attack, label, *cells])
    return Block(
        title="Membership",
        hint="How well an attack tells training examples from others, near shares of the dense "
        "parameters; AUC 0.5 and TPR 0.01 are chance. Mean and 95 % interval over runs. -: fewer "
        "than 100 others, or too few reference runs.",
        heads=["dataset", "attack", "", *(f"at {share:.1%}" for share in SHOWN_SHARES)],
        rows=rows,
    )


def counterfactual_block(memorization: pd.DataFrame, influence: pd.DataFrame) -> Block:
    """Return how many examples are memorised, and whose training moves a held-out one.

    Args:
        memorization: Rows of `counterfactual_memorization`.
        influence: Rows of `influence`.
    """
    rows: list[list[str]] = []
    keys = ["task", "backbone", "pool", "variant", "stage"]
    for row, own in groups(memorization, keys):
        pairs = influence[(influence[keys] == [*row.values()]).all(axis=1)]
        clean = own[~own["is_noisy"]]
        kinds = (
            own,
            own[own["is_noisy"]],
            clean[clean["copies"] == 1],
            clean[clean["copies"] > 1],
        )
        runs = own["runs_in"] + own["runs_out"]
        rows.append(
            [
                _dataset({**row, "setting": row["pool"]}),
                compact(float(own["num_nonzero_params"].iloc[0])),
                str(int(runs.max())),
                *(_mean_cell(group["memorization"]) for group in kinds),
                f"{(own['memorization'] >= _MEMORISED).mean():.1%}",
                f"{own['se'].median():.2f}",
                f"{int(pairs['is_told'].sum())} of {len(pairs):,}",
            ]
        )
    return Block(
        title="Counterfactual memorization",
        hint="Chance that an example is right in runs trained on it, minus that in runs that left "
        "it out; mean over examples (± its standard error over examples) of all, of those with a "
        "wrong label, of clean ones that stand in the pool once, and twice. Memorised: 0.25 or "
        f"more. From {LEAST_RUNS} runs on; the standard error of one example is that of the runs. "
        "Pairs told: of training and validation examples, beyond Bonferroni.",
        heads=[
            "dataset",
            "parameters",
            "runs",
            "all",
            "wrong label",
            "once",
            "twice",
            "memorised",
            "error of one",
            "pairs told",
        ],
        rows=rows,
    )


def validity_block(validity: pd.DataFrame) -> Block:
    """Return which measure to trust.

    Args:
        validity: Rows of `validity_table`.
    """
    rows: list[list[str]] = []
    for row, own in groups(validity, ["measure", "stage"], sort=False):
        stage = row["stage"]
        by_question = own.set_index("question")
        cells: list[str] = []
        for question in QUESTIONS:
            if question not in by_question.index:
                cells.append(NONE)
                continue
            mean, low, high = (float(by_question[end][question]) for end in _ENDS)
            cells.append(_cell(mean, low, high, "{:.2f}"))
        of = "path" if not np.isfinite(stage) else f"stage {stage:.0f}" if stage else "dense"
        rows.append([row["measure"], of, *cells])
    return Block(
        title="Which measure to trust",
        hint="AUC at telling examples by the measure, higher meaning more memorised: 1 tells them "
        "apart, 0.5 is chance. Trained on against left out is of all examples; the others are of "
        "those that were trained on. Mean over runs, 95 % interval over runs.",
        heads=["measure", "of", *QUESTIONS],
        rows=rows,
    )


def _at_shares(table: pd.DataFrame, column: str) -> dict[float, list[float]]:
    """Return a column of every run near shares of its dense parameters."""
    found: dict[float, list[float]] = {share: [] for share in SHOWN_SHARES}
    for _, run in table.groupby("run_id", sort=True):
        counts = run["num_nonzero_params"].to_numpy(dtype=float)
        logs = np.log10(np.where(counts > 0, counts, np.nan))
        values = run[column].to_numpy(dtype=float)
        for share in SHOWN_SHARES:
            distance = np.abs(logs - logs[0] - np.log10(share))
            near = int(np.nanargmin(distance))
            found[share].append(values[near] if distance[near] < 0.25 else float("nan"))
    return found


def _dataset(row: Mapping[Any, Any]) -> str:
    parts = [str(row[key]) for key in ("setting", "variant") if row.get(key) not in ("", "default")]
    if row.get("backbone") != "embedded":
        parts.insert(0, str(row["backbone"]).rstrip("/").rpartition("/")[2])
    return f"{row['task']} ({', '.join(parts)})" if parts else str(row["task"])


def _ratio_sentence(name: str, mean: float, low: float, high: float) -> str:
    if not np.isfinite(mean):
        return f"{name}: where noise goes against validation is not known."
    start = f"{name}: d50 of noise is {mean:.2g}"
    if not np.isfinite(low):
        return f"{start} times d90 of validation (one seed, exploratory)."
    verdict = "which goes first is not told"
    if low > 1 or high < 1:
        verdict = "noise goes first" if low > 1 else "validation goes first"
    return f"{start} [{low:.2g}, {high:.2g}] times d90 of validation: {verdict}."


def _rise_sentence(name: str, mean: float, low: float, high: float) -> str:
    if not np.isfinite(low):
        return ""
    verdict = "rises" if low > 0 else "falls" if high < 0 else "neither rises nor falls for sure"
    return (
        f"{name}: validation {verdict} where noise is forgotten, {mean:+.3f} "
        f"[{low:+.3f}, {high:+.3f}]."
    )


def _mean_cell(values: "pd.Series[float]") -> str:
    known = values.dropna().to_numpy(dtype=float)
    if len(known) < 2:
        return NONE
    return f"{known.mean():.2f} ± {known.std(ddof=1) / np.sqrt(len(known)):.2f}"


def _interval_cell(interval: Interval, form: str) -> str:
    return _cell(interval.mean, interval.low, interval.high, form)


def _cell(mean: float, low: float, high: float, form: str) -> str:
    if not np.isfinite(mean):
        return NONE
    text = form.format(mean)
    if not np.isfinite(low):
        return text
    return f"{text} [{form.format(low)}, {form.format(high)}]"


def _count_cell(mean: float, low: float, high: float) -> str:
    if not np.isfinite(mean):
        return NONE
    if not np.isfinite(low):
        return compact(mean)
    return f"{compact(mean)} [{compact(low)}, {compact(high)}]"
