"""Algorithm 1 itself."""

from sorakit.controls import Control

VARIANT = Control
