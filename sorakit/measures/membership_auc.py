"""AUC at telling training examples from others by their loss: 0.5 is chance.

Others are those that the run's subset leaves out or, without a subset, the validation split.
"""

from sorakit.measures import Measure
from sorakit.measures._members import member_losses
from sorakit.membership import auc

VARIANT = Measure(
    unit="1", key="memorization/membership_auc", of=lambda stage: member_losses(stage, auc)
)
