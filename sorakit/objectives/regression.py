"""One number a sequence: squared error."""

from collections.abc import Sequence
from statistics import pvariance
from typing import final

from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from sorakit.objectives._sequence import NumberObjective


@final
class Regression(NumberObjective):
    """Squared error."""

    @override
    def losses(
        self, logits: Float[Tensor, "b 1"], labels: Float[Tensor, " b"]
    ) -> Float[Tensor, " b"]:
        return (logits.squeeze(1) - labels.to(logits.dtype)).square()

    @override
    def null_loss(self, labels: Sequence[float]) -> float:
        """Return the variance of the labels: the loss of always giving their mean."""
        return float(pvariance(labels))


VARIANT = Regression()
