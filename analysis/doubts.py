"""What makes a curve doubtful: phases that were cut short, a dense stage that is no full one."""

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from analysis.controls import dataset_name
from analysis.curves import SCORES
from analysis.intervals import student_t_interval
from analysis.load import KEYS, PATH
from analysis.number_text import percent

CAP = "max_epochs"
FULL_SHARE = 0.9
"""Share of its parameters from which on a dense stage counts as full."""
BETTER_BY = {"several": 0.005, "one": 0.02}
"""By how much another stage must be above dense, in the unit of the score: on average over several
seeds, where its interval excludes 0 as well, or for one seed, where nothing tells noise from it."""


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """One thing to be said beside a curve.

    Attributes:
        short: As it fits below a panel.
        sentence: As a page and a terminal say it, to follow the name of the dataset.
    """

    short: str
    sentence: str


def doubts(paths: pd.DataFrame) -> list[Doubt]:
    """Return what makes the curve of some paths doubtful.

    Args:
        paths: Stages of the paths of one dataset and configuration, one a seed.
    """
    dense = paths[paths["stage"] == 0]
    found = [*_cut_short(paths, dense), *_not_full(dense)]
    return [*found, *(doubt for score in SCORES if (doubt := _better_than_dense(paths, score)))]


def doubt_notes(stages: pd.DataFrame) -> list[str]:
    """Return one sentence for every doubt about every curve of a stage table."""
    return [
        f"{dataset_name(*names)}: {doubt.sentence}"
        for names, paths in stages[stages["role"] == PATH].groupby(KEYS, sort=True)
        for doubt in doubts(paths)
    ]


def doubt_sentences(paths: pd.DataFrame) -> list[str]:
    """Return a sentence for every doubt about one curve, each by itself."""
    return [f"{doubt.sentence[:1].upper()}{doubt.sentence[1:]}" for doubt in doubts(paths)]


def capped(stopped_by: Iterable[object]) -> tuple[int, int]:
    """Return how many phases ended by their cap, and how many there are; null is no phase."""
    known = [reason for reason in stopped_by if isinstance(reason, str)]
    return sum(reason == CAP for reason in known), len(known)


def _cut_short(paths: pd.DataFrame, dense: pd.DataFrame) -> Iterable[Doubt]:
    phases = {"dense stage": capped(dense["stopped_by"])}
    if "refit_stopped_by" in paths:
        phases["refit"] = capped(paths["refit_stopped_by"])
    for name, (cut, total) in phases.items():
        if cut:
            many = f"{name}s" if total > 1 else name
            yield Doubt(
                short=f"{cut} of {total} {many} cut short",
                sentence=f"{cut} of {total} {many} ended by the cap ({CAP}), not by convergence: "
                "more passes would move the scores.",
            )


def _not_full(dense: pd.DataFrame) -> Iterable[Doubt]:
    shares = dense["num_nonzero_params"] / dense["num_adapter_params"]
    share = float(shares.astype(float).mean())
    if share < FULL_SHARE:
        yield Doubt(
            short=f"dense holds {percent(share)} of the full adapter",
            sentence=f"the dense stage holds {percent(share)} of the full adapter only, so a share "
            "of its parameters is no share of the full adapter (lower `xi.start`).",
        )


def _better_than_dense(paths: pd.DataFrame, score: str) -> Doubt | None:
    """Return the stage that is furthest above dense, if that is more than noise."""
    table = paths.pivot_table(index="seed", columns="stage", values=score, aggfunc="first")
    if 0 not in table:
        return None
    above = table.drop(columns=0).sub(table[0], axis="index").dropna(axis="columns")
    best: tuple[float, int] | None = None
    for stage, differences in above.items():
        interval = student_t_interval(differences.astype(float).tolist())
        least = BETTER_BY["one" if interval.count == 1 else "several"]
        told = interval.count == 1 or interval.low > 0
        if told and interval.mean > least and (best is None or interval.mean > best[0]):
            best = (interval.mean, int(str(stage)))
    if best is None:
        return None
    by, stage = best
    return Doubt(
        short=f"{score} of stage {stage} is {by:.3f} above dense",
        sentence=f"{score} of stage {stage} is {by:.3f} above the dense one: the dense stage is "
        "not the best adapter, so what is kept of it can be more than it has.",
    )
