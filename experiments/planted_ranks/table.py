"""The tables of planted ranks, as Markdown."""

from collections.abc import Iterator, Sequence
from typing import Any

from experiments.planted_ranks.points import Point, chosen
from experiments.planted_ranks.runs import METHODS
from sorakit.tasks.planted import (
    PlantedTransformerConfig,
    score,
)


def table(runs: Sequence[dict[str, Any]]) -> str:
    """Return the tables of all teachers as Markdown."""
    tables = {"mixed": _mixed_table, "null": _null_table, "transformer": _transformer_table}
    teachers = {record["teacher"] for record in runs}
    return "\n\n".join(f(runs) for teacher, f in tables.items() if teacher in teachers) + "\n"


def _by_method(
    runs: Sequence[dict[str, Any]], teacher: str
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for method in METHODS:
        found = [r for r in runs if r["method"] == method and r["teacher"] == teacher]
        if found:
            yield method, found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _span(values: Sequence[float]) -> str:
    low, high = f"{min(values):.3g}", f"{max(values):.3g}"
    return low if low == high else f"{low} to {high}"


def _mixed_table(runs: Sequence[dict[str, Any]]) -> str:
    lines = [
        "Mixed teacher, 30 planted ranks in 10 matrices of r = 16; shares of matrices, over seeds:",
        "",
        "| method | seeds | gates exact | within 1 | numerical rank exact | within 1 | too many / "
        "too few a seed | total | best exact on the path | level | largest A B | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for method, records in _by_method(runs, "mixed"):
        points = [r["points"][chosen(r["points"])] for r in records]
        planted = [r["planted"] for r in records]
        by_gates = [score(p.gates, t) for p, t in zip(points, planted, strict=True)]
        by_rank = [score(p.ranks, t) for p, t in zip(points, planted, strict=True)]
        oracle = [max(score(p.gates, r["planted"]).exact for p in r["points"]) for r in records]
        products = [p.largest_product for p in points if p.largest_product is not None]
        cells = [
            method,
            str(len(records)),
            f"{_mean([s.exact for s in by_gates]):.2f}",
            f"{_mean([s.within_one for s in by_gates]):.2f}",
            f"{_mean([s.exact for s in by_rank]):.2f}",
            f"{_mean([s.within_one for s in by_rank]):.2f}",
            f"{_mean([s.surplus for s in by_gates]):.1f} / "
            f"{_mean([s.deficit for s in by_gates]):.1f}",
            _span([sum(p.gates) for p in points]),
            f"{_mean(oracle):.2f}",
            _span([p.level for p in points]),
            _span(products) if products else "",
            f"{_mean([r['seconds'] for r in records]):.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _null_table(runs: Sequence[dict[str, Any]]) -> str:
    lines = [
        "Null teacher, nothing planted; total over 10 matrices at the chosen point:",
        "",
        "| method | seeds | gates | numerical rank |",
        "|---|---|---|---|",
    ]
    for method, records in _by_method(runs, "null"):
        points = [r["points"][chosen(r["points"])] for r in records]
        gates, ranks = (_span([sum(v) for v in vs]) for vs in _gates_and_ranks(points))
        lines.append(f"| {method} | {len(records)} | {gates} | {ranks} |")
    return "\n".join(lines)


def _transformer_table(runs: Sequence[dict[str, Any]]) -> str:
    planted = (
        sum(PlantedTransformerConfig().ranks_per_layer) * PlantedTransformerConfig().num_layers
    )
    lines = [
        f"Transformer teacher, {planted} planted ranks in 12 matrices of r = 16; totals:",
        "",
        "| method | seeds | gates | numerical rank | gates of the point nearest to the planted |",
        "|---|---|---|---|---|",
    ]
    for method, records in _by_method(runs, "transformer"):
        points = [r["points"][chosen(r["points"])] for r in records]
        gates, ranks = (_span([sum(v) for v in vs]) for vs in _gates_and_ranks(points))
        totals = [[sum(p.gates) for p in r["points"]] for r in records]
        nearest = [min(total, key=lambda t: abs(t - planted)) for total in totals]
        lines.append(f"| {method} | {len(records)} | {gates} | {ranks} | {_span(nearest)} |")
    return "\n".join(lines)


def _gates_and_ranks(points: Sequence[Point]) -> tuple[list[list[int]], list[list[int]]]:
    return [p.gates for p in points], [p.ranks for p in points]
