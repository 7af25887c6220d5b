"""The weakest ranks, by |g||A||B|, are cut, and the others are trained."""

from sorakit.controls._mask import Mask

VARIANT = Mask
