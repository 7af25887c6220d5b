"""What the choice of examples alone adds to the uncertainty of a dataset's numbers."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.compressibility import REFERENCES, area_of, fewest_params, retention_points
from analysis.curves import SCORES, SHARES
from analysis.load import FLOOR, KEYS, PATH, controls_of
from analysis.resampling import Correct, read_correct, resampled_scores
from analysis.slope_changepoint import FloatArray
from sorakit.retention import gain_retained


@dataclass(frozen=True, kw_only=True)
class ExampleSpread:
    """Variance, over draws of the examples, of the means over the seeds of one dataset and score.

    Attributes:
        gain: Of dense - floor; 0 where it is not known.
        log_count: (reference, share) -> of log10 of the fewest parameters.
        area: reference -> of the area.
    """

    gain: float
    log_count: dict[tuple[str, str], float]
    area: dict[str, float]


def example_spreads(
    stages: pd.DataFrame, folders: dict[str, Path]
) -> dict[tuple[object, ...], ExampleSpread]:
    """Return (dataset, score) -> spread, where every path run has records of its examples.

    Args:
        stages: Stage table with the columns of `with_gain_retained`.
        folders: Run id -> run folder.
    """
    floors = stages[(stages["role"] == FLOOR) & (stages["stage"] == 0)]
    spreads: dict[tuple[object, ...], ExampleSpread] = {}
    for names, group in stages[stages["role"] == PATH].groupby(KEYS, sort=True):
        paths = [run for _, run in group.groupby("run_id", sort=True)]
        records = [_checked_records(run, folders) for run in paths]
        own = floors[controls_of(floors, group)]
        of_floor = {
            int(floor["seed"].iloc[0]): _checked_records(floor, folders)
            for _, floor in own.drop_duplicates("seed").groupby("seed")
        }
        for score in SCORES:
            if not all(score in record for record in records):
                continue
            known = [record[score] for record in records]
            floor = {seed: record[score] for seed, record in of_floor.items() if score in record}
            scores = resampled_scores([*known, *floor.values()])
            floor_scores = dict(zip(floor, scores[len(known) :], strict=True))
            spreads[*names, score] = _spread(paths, scores[: len(known)], floor_scores)
    return spreads


def _checked_records(run: pd.DataFrame, folders: dict[str, Path]) -> dict[str, Correct]:
    """Return the examples of a run by score, stages in the order of `run`.

    Without those that do not give the recorded scores.
    """
    folder = folders[str(run["run_id"].iloc[0])]
    checked: dict[str, Correct] = {}
    for score, record in read_correct(folder, str(run["metric"].iloc[0])).items():
        place = {stage: index for index, stage in enumerate(record.stages.tolist())}
        stages: list[int] = run["stage"].astype(int).tolist()
        if not set(stages) <= set(place):
            continue
        correct = record.correct[[place[stage] for stage in stages]]
        recorded = run[score].to_numpy(dtype=float)
        if np.allclose(correct.mean(axis=1, dtype=np.float64), recorded, rtol=0, atol=1e-5):
            checked[score] = Correct(
                stages=np.array(stages), examples=record.examples, correct=correct
            )
    return checked


def _spread(
    paths: list[pd.DataFrame], scores: list[FloatArray], floors: dict[int, FloatArray]
) -> ExampleSpread:
    shares = list(SHARES.values())
    counts: dict[str, list[FloatArray]] = {reference: [] for reference in REFERENCES}
    areas: dict[str, list[FloatArray]] = {reference: [] for reference in REFERENCES}
    gains: list[FloatArray] = []
    for run, drawn in zip(paths, scores, strict=True):
        points = retention_points(run)
        dense = drawn[:, run["stage"].to_numpy() == 0]
        floor = floors.get(int(run["seed"].iloc[0]))
        kept = {"dense": drawn / np.where(dense > 0, dense, np.nan)}
        if floor is not None:
            gains.append((dense - floor)[:, 0])
            kept["gain"] = gain_retained(drawn, dense=dense, floor=floor)
        for reference, values in kept.items():
            fewest = np.array([fewest_params(points, row, shares) for row in values])
            counts[reference].append(np.log10(np.where(fewest > 0, fewest, np.nan)))
            areas[reference].append(area_of(points, values))
    return ExampleSpread(
        gain=_variance_of_mean(gains) if len(gains) == len(paths) else 0.0,
        log_count={
            (reference, name): _variance_of_mean([seed[:, index] for seed in counts[reference]])
            for reference in REFERENCES
            for index, name in enumerate(SHARES)
        },
        area={reference: _variance_of_mean(areas[reference]) for reference in REFERENCES},
    )


def _variance_of_mean(by_seed: list[FloatArray]) -> float:
    """Return the variance over resamples of the mean over seeds; 0 if too few are defined."""
    if not by_seed:
        return 0.0
    means = np.mean(by_seed, axis=0)
    known = means[np.isfinite(means)]
    return float(known.var(ddof=1)) if len(known) > len(means) / 2 else 0.0
