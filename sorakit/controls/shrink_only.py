"""Gates lose xi at every step and nothing is trained: what the authors' release does."""

from typing import final

from sorakit.controls import Control


@final
class ShrinkOnly(Control):
    """Sparsifying stages do not train."""

    trains = False


VARIANT = ShrinkOnly
