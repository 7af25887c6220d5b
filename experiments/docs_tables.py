"""Puts the tables where the documentation shows them: `python -m experiments.docs_tables`.

A page names a table between two comments, and what stands between them is replaced:

    <!-- table: controls/scores -->
    <!-- end of table -->

`tests/unit/test_docs.py` fails when a page and the tables differ.
"""

import re
from itertools import pairwise
from pathlib import Path

from analysis.frozen import (
    COMPARE_FILE,
    CURVES_FILE,
    FIRST_FILE,
    FIXED_XI_FILE,
    RANK_MAPS_FILE,
    RANKING_FILE,
    read_frozen,
)
from analysis.markdown import (
    agreement_table,
    differences_table,
    drops_table,
    ranking_table,
    ranks_table,
    scores_table,
)
from experiments import RESULTS

ROOT = Path(__file__).parents[1]
PAGES = (
    ROOT / "docs" / "method.md",
    ROOT / "docs" / "results.md",
    ROOT / "experiments" / "README.md",
)
FROZEN = ROOT / "paper_figs" / "data"
_PLACE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def tables() -> dict[str, str]:
    """Return every table that pages may show, by name, without its caption."""
    # pydoc_order, pydoc_pair, pydoc_topic: scores and differences of each
    scores, differences, _, pair, _, topic = _tables("controls/controls.md")
    mrpc_scores, mrpc_differences = _tables("mrpc_minilm/controls.md")
    mixed, *others = _tables("planted_ranks/table.md")
    comparison, curves, first, ranking, maps, fixed = (
        read_frozen(FROZEN / file)
        for file in (
            COMPARE_FILE,
            CURVES_FILE,
            FIRST_FILE,
            RANKING_FILE,
            RANK_MAPS_FILE,
            FIXED_XI_FILE,
        )
    )
    return {
        "results/scores": scores_table(comparison, curves),
        "results/differences": differences_table(curves),
        "results/drops": drops_table(comparison, first),
        "results/ranking": ranking_table(comparison, ranking),
        "results/ranks": ranks_table(maps),
        "results/agreement": agreement_table(maps),
        "results/ranks_fixed": ranks_table(fixed),
        "results/agreement_fixed": agreement_table(fixed),
        "default_gates": _tables("default_gates/gates.md")[0],
        "mrpc_minilm/gates": _tables("mrpc_minilm/gates.md")[0],
        "unit_scale": _tables("unit_scale/table.md")[0],
        "controls/scores": scores,
        "controls/differences": differences,
        "controls/differences_pair": pair,
        "controls/differences_topic": topic,
        "mrpc_minilm/controls": mrpc_scores,
        "mrpc_minilm/differences": mrpc_differences,
        "planted_ranks/mixed": _columns(mixed, 6),
        **_by_task("small_curves"),
        **dict(zip(("planted_ranks/null", "planted_ranks/transformer"), others, strict=False)),
    }


def filled(page: str, named: dict[str, str]) -> str:
    """Return a page with its tables as they are in `named`.

    Raises:
        KeyError: If it names a table that is not there.
    """
    return _PLACE.sub(lambda m: f"{m[1]}\n{named[m[2]]}\n\n{m[3]}", page)


def main() -> None:
    """Fill every page."""
    named = tables()
    for path in PAGES:
        path.write_text(filled(path.read_text("utf-8"), named), "utf-8")


def _tables(file: str) -> list[str]:
    """Return the tables of a file below `results`, without what stands between them."""
    parts = (RESULTS / file).read_text("utf-8").strip().split("\n\n")
    return [part for part in parts if part.startswith("|")]


def _by_task(experiment: str) -> dict[str, str]:
    """Return the tables of `small_curves_table`, by experiment and task."""
    parts = (RESULTS / experiment / "curves.md").read_text("utf-8").split("\n\n")
    return {
        f"{experiment}/{name.strip().removesuffix(':')}": table
        for name, table in pairwise(parts)
        if table.startswith("|")
    }


def _columns(table: str, count: int) -> str:
    """Return a table with its first columns only."""
    rows = [line.split("|")[1 : count + 1] for line in table.splitlines()]
    return "\n".join(f"|{'|'.join(cells)}|" for cells in rows)


if __name__ == "__main__":
    main()
