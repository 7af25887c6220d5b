"""Tables, figures and report of a study, by `python -m analysis`, which sorakit does not import."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sorakit.records.durable import replace_text

REPORT_FILE = "report.html"
SUMMARY_FILE = "summary.txt"
TABLES_DIR = "tables"
FIGURES_DIR = "figures"
_NEEDED = ("analysis", "altair", "jinja2", "matplotlib", "seaborn", "vl_convert")
VERBS = {
    "summary": None,
    "compare": None,
    "frontier": None,
    "freeze": TABLES_DIR,
    "figures": FIGURES_DIR,
    "report": REPORT_FILE,
}
"""Verbs of the analysis, and what each writes in the folder of a study; null is its text."""
GET_IT = "pip install 'sorakit[analysis]'"


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """What was made of the runs of a study.

    Attributes:
        summary: What a terminal shows: how few parameters keep how much, a row a path.
        failures: What could not be made, with the reason.
    """

    summary: str
    failures: list[str]


def missing_packages() -> list[str]:
    """Return the packages that the analysis needs and that are not installed."""
    return [name for name in _NEEDED if importlib.util.find_spec(name) is None]


def conclude(folder: Path, runs: Path, say: Callable[[str], None]) -> Conclusion:
    """Make summary.txt, tables, figures and report.html of the runs of a study.

    Args:
        folder: Folder of the study; files of these names are replaced.
        runs: Folder of its runs, at least one of them a path with stages.
        say: Is told what is being made.
    """
    texts: list[str] = []
    failures: list[str] = []
    for verb, out in VERBS.items():
        arguments = [] if out is None else ["--out", str(folder / out)]
        done = subprocess.run(
            [sys.executable, "-P", "-m", "analysis", verb, str(runs), *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            failures.append(f"{verb}: {reason.removeprefix('error: ')}")
        elif not arguments:
            texts.append(done.stdout.rstrip())
        else:
            say(f"wrote {arguments[-1]}")
    replace_text(folder / SUMMARY_FILE, "\n\n".join(texts) + "\n")
    return Conclusion(summary=texts[0] if texts else "", failures=failures)
