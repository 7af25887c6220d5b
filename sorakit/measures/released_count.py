"""The authors' count, `2 * hidden_size` for a rank of any matrix, for comparison only.

Right for square matrices; never in the place of `num_nonzero_params`.
"""

from sorakit.measures import Measure, StageView


def _of(stage: StageView) -> int:
    ranks = sum(int(matrix.gate.count_nonzero()) for matrix in stage.matrices)
    return 2 * stage.hidden_size * ranks


VARIANT = Measure(unit="parameters", key="gate/released_count", of=_of)
