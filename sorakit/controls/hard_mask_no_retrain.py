"""The weakest ranks, by |g||A||B|, are cut, and nothing is trained."""

from typing import final

from sorakit.controls._mask import Mask


@final
class HardMaskNoRetrain(Mask):
    """A mask after which nothing is trained."""

    trains = False


VARIANT = HardMaskNoRetrain
