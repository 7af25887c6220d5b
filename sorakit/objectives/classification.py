"""One class a sequence: cross entropy in nats."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import final

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from typing_extensions import override

from sorakit.objectives._sequence import ClassObjective


@final
class Classification(ClassObjective):
    """Cross entropy."""

    @override
    def losses(
        self, logits: Float[Tensor, "b classes"], labels: Int[Tensor, " b"]
    ) -> Float[Tensor, " b"]:
        return F.cross_entropy(logits, labels, reduction="none")

    @override
    def null_loss(self, labels: Sequence[int]) -> float:
        """Return the entropy of the labels, in nats: the loss of always giving their shares."""
        return entropy(labels)


def entropy(labels: Sequence[int]) -> float:
    """Return the entropy of classes, in nats."""
    shares = [count / len(labels) for count in Counter(labels).values()]
    return -math.fsum(share * math.log(share) for share in shares)


VARIANT = Classification()
