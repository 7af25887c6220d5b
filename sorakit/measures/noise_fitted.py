"""Share of the training examples with a wrong label that are given it: pure memorization."""

from sorakit.measures import Measure, StageView
from sorakit.metric_names import IS_NOISY, MEMORIZATION_SPLIT


def _of(stage: StageView) -> float | None:
    rows = stage.examples[stage.examples["split"] == MEMORIZATION_SPLIT]
    noisy = rows.loc[rows[IS_NOISY].astype(bool), "correct"]
    return None if noisy.empty or noisy.isna().any() else float(noisy.astype(float).mean())


VARIANT = Measure(unit="1", key="memorization/noise_fitted", of=_of)
