"""Share of training examples found by their loss at 1 % false positives: 0.01 is chance.

As `membership_auc`; null below 100 others.
"""

from sorakit.measures import Measure
from sorakit.measures._members import member_losses
from sorakit.membership import true_positive_rate

VARIANT = Measure(
    unit="1",
    key="memorization/membership_tpr",
    of=lambda stage: member_losses(stage, true_positive_rate),
)
