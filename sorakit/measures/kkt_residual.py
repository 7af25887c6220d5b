"""Largest violation of the gates' optimality conditions at fixed A and B, in units of lambda."""

from sorakit.measures import Measure

VARIANT = Measure(unit="lambda", key="gate/kkt_residual", of=lambda stage: stage.residuals.kkt)
