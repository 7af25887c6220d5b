"""`kkt_residual` with the penalty that unit scale leaves on a live gate.

The growth that a live gate has from A and B is never thresholded. So this is how far the gates are
from a fixed point of the training step.
"""

from sorakit.measures import Measure

VARIANT = Measure(
    unit="lambda",
    key="gate/stationarity_residual",
    of=lambda stage: stage.residuals.stationarity,
)
