"""Options whose values are files."""

import re
from typing import get_args

import pytest

from sorakit.config import GateUpdate
from sorakit.options import checked_values
from sorakit.variants import GATES, Family

FAMILIES = [pytest.param(GATES, GateUpdate, id=GATES.option)]
VALUES = [
    pytest.param(family.values[0], n, id=n) for family in FAMILIES for n in family.values[0].names
]


@pytest.mark.parametrize(("family", "accepted"), FAMILIES)
def test_accepted_values_of_an_option_are_the_files(family: Family, accepted):
    assert get_args(accepted) == family.names


@pytest.mark.parametrize(("family", "accepted"), FAMILIES)
def test_another_value_is_refused_and_the_files_are_named(family: Family, accepted):
    message = rf"^`{re.escape(family.option)}` must be .*got 'xyz'\.$"
    with pytest.raises(ValueError, match=message) as error:
        checked_values(family.option, ["xyz"])
    assert all(name in str(error.value) for name in family.names)
