"""Share of the training examples with a wrong label that are given their true one."""

from sorakit.measures import Measure, StageView
from sorakit.metric_names import CLEAN_LABEL, IS_NOISY, MEMORIZATION_SPLIT


def _of(stage: StageView) -> float | None:
    rows = stage.examples[stage.examples["split"] == MEMORIZATION_SPLIT]
    noisy = rows[rows[IS_NOISY].astype(bool)]
    if noisy.empty or noisy["correct"].isna().any() or CLEAN_LABEL not in noisy:
        return None
    return float((noisy["prediction"] == noisy[CLEAN_LABEL]).mean())


VARIANT = Measure(unit="1", key="memorization/noise_returned", of=_of)
