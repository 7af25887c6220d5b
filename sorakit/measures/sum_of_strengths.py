"""Sum over ranks of `|g_i| |A_i| |B_i|`."""

import math

from sorakit.measures import Measure, StageView


def _of(stage: StageView) -> float:
    return math.fsum(float(matrix.strengths().double().sum()) for matrix in stage.matrices)


VARIANT = Measure(unit="gate units", key="gate/sum_of_strengths", of=_of)
