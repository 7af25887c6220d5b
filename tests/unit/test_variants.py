"""Options whose values are files."""

import re
from typing import get_args

import pytest

from sorakit.cli import main
from sorakit.config import GateUpdate, MethodName, StageControl
from sorakit.options import checked_values
from sorakit.variants import ADAPTERS, CONTROLS, GATES, Family

FAMILIES = [
    pytest.param(ADAPTERS, MethodName, id="method.name"),
    pytest.param(CONTROLS, StageControl, id="stage.control"),
    pytest.param(GATES, GateUpdate, id="gates.update"),
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


@pytest.mark.parametrize(("family", "accepted"), FAMILIES)
def test_help_of_an_option_says_what_every_file_says_of_itself(family: Family, accepted, capsys):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    shown = "".join(capsys.readouterr().out.split())  # lines are broken at hyphens, too
    for name in family.names:
        sentence = family.sentence(name)
        assert sentence.endswith(".")
        assert "".join(f"{name}: {sentence}".split()) in shown
