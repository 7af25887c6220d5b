import subprocess
import sys

import pytest

from analysis.number_text import compact, percent


@pytest.mark.parametrize(
    ("share", "text"),
    [(1.0, "100 %"), (0.997, "100 %"), (0.29, "29 %"), (0.0821, "8.2 %"), (0.00123, "0.12 %"),
     (0.0, "0 %"), (12.5, "1250 %"), (float("nan"), "-")],
)  # fmt: skip
def test_percent_is_written_as_a_person_does(share: float, text: str) -> None:
    assert percent(share) == text


def test_three_digits_of_percent() -> None:
    assert [percent(share, digits=3) for share in (0.9996, 0.04166)] == ["100 %", "4.17 %"]


@pytest.mark.parametrize(
    ("count", "text"), [(55_512.0, "55.5k"), (999.0, "999"), (1_310_720.0, "1.31M"), (2e9, "2G")]
)
def test_compact_has_three_digits(count: float, text: str) -> None:
    assert compact(count) == text


def test_counts_are_written_without_matplotlib() -> None:
    code = "import sys, analysis.number_text; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
