"""xi stays at xi.start for as many stages: it tells sparsity from more training."""

from typing import final

from sorakit.controls import Control


@final
class HoldDense(Control):
    """xi never rises."""

    rises = False


VARIANT = HoldDense
