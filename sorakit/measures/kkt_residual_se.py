"""Split-half standard error of `kkt_residual`."""

from sorakit.measures import Measure

VARIANT = Measure(
    unit="lambda", key="gate/kkt_residual_se", of=lambda stage: stage.residuals.kkt_se
)
