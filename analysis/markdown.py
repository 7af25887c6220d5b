"""Tables of `docs/results.md`, from the frozen tables behind the figures."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from analysis.compare import FIRST_BY_AREA, FIRST_BY_COUNT
from analysis.compare_text import (
    INFLECTION,
    Row,
    block_name,
    difference_text,
    fewest_text,
    first_text,
    interval_line,
    interval_text,
    levels_off,
    power_text,
)
from analysis.control_differences import SHARES, control_differences
from analysis.controls import block_of
from analysis.curves import SCORES, hold_dense_scores
from analysis.frontier_text import frontier_heads, frontier_rows
from analysis.intervals import p_text
from analysis.load import KEYS
from analysis.number_text import compact, percent
from analysis.ranking_table import RANKED, dataset_names, ranking_rows
from analysis.ranks import agreements, depth_trend_interval, mean_map, rank_maps


def scores_table(table: pd.DataFrame, curves: pd.DataFrame) -> str:
    """Return dense score, floor, hold_dense and fewest parameters of every dataset.

    Args:
        table: What `analysis.compare_text.comparison_table` returns.
        curves: Stages, with the columns of `analysis.curves.with_gain_retained`.
    """
    heads = ["dataset", "seeds", "dense", "floor", "end of hold_dense", "gain in generalization"]
    heads += ["parameters dense", *(f"keep 90 % of the gain, {score}" for score in SCORES)]
    rows: list[Sequence[str]] = []
    for names, block in table.groupby(KEYS, sort=True):
        of = {(row["score"], row["reference"]): row for row in block.to_dict("records")}
        dense = [of[score, "dense"] for score in SCORES]
        held = hold_dense_scores(block_of(curves, names))
        gain = of["generalization", "gain"]
        rows.append(
            [
                block_name(gain),
                str(gain["seeds"]),
                _pair(row["dense_score"] for row in dense),
                _pair(row["floor_score"] for row in dense),
                _pair(held[f"{score}_hold_dense"].mean() for score in SCORES),
                _one_line(interval_text(gain, "gain", _score)),
                compact(float(gain["dense_params"])),
                *(_kept(of[score, "gain"]) for score in SCORES),
            ]
        )
    return _markdown(heads, rows)


def drops_table(table: pd.DataFrame, first: pd.DataFrame) -> str:
    """Return where the curves of every dataset drop, and what goes first.

    Args:
        table: What `analysis.compare_text.comparison_table` returns.
        first: `Comparison.first`.
    """
    heads = ["dataset", *(f"{score} drops below" for score in SCORES)]
    heads += ["d90 of gain: memorization / generalization", "goes first"]
    heads += ["area of gain: memorization - generalization", "goes first"]
    rows: list[Sequence[str]] = []
    for names, block in table.groupby(KEYS, sort=True):
        own = first[(first[KEYS] == list(names)).all(axis=1)].set_index("measure", drop=False)
        verdicts = [own.loc[measure].to_dict() for measure in (FIRST_BY_COUNT, FIRST_BY_AREA)]
        by_score = block.drop_duplicates("score").set_index("score").to_dict("index")
        rows.append(
            [
                block_name(verdicts[0]),
                *(_drop(by_score[score]) for score in SCORES),
                *(
                    cell
                    for row in verdicts
                    for cell in (first_text(row), str(row["verdict"]).removesuffix(" first"))
                ),
            ]
        )
    return _markdown(heads, rows)


def differences_table(curves: pd.DataFrame) -> str:
    """Return path minus hold_dense and random_mask, where there are any, at shares of full.

    Shares are of the parameters of the full adapter.

    Args:
        curves: Stages of paths and controls.
    """
    table = control_differences(curves)
    heads = [
        "dataset",
        "control",
        "seeds",
        *(f"at {share:.0%} of the full adapter" for share in SHARES),
    ]
    rows: list[Sequence[str]] = []
    for _, block in table.groupby([*KEYS, "control"], sort=True):
        cells = {(row["score"], row["share"]): row for row in block.to_dict("records")}
        rows.append(
            [
                block_name(block.iloc[0].to_dict()),
                str(block["control"].iloc[0]),
                str(block["count"].max()),
                *(
                    " / ".join(difference_text(cells[score, share]) for score in SCORES)
                    for share in SHARES
                ),
            ]
        )
    return _markdown(heads, rows)


def ranking_table(table: pd.DataFrame, ranking: pd.DataFrame) -> str:
    """Return which of two datasets needs fewer parameters, a row a pair.

    Args:
        table: What `analysis.compare_text.comparison_table` returns.
        ranking: `Comparison.ranking`.
    """
    heads = ["datasets", *(f"{score}, share of {reference}" for score, reference in RANKED)]
    rows = ranking_rows(ranking, dataset_names(table))
    cells = [[cell.replace("\n", ", ") for cell in row] for row in rows]
    return _markdown(heads, cells)


def frontier_tables(table: pd.DataFrame) -> dict[str, str]:
    """Return for every task how its path stands beside its rivals, as Markdown.

    Args:
        table: What `analysis.frontier.frontier` returns, one configuration a task.
    """
    return {
        str(block["task"].iloc[0]): _markdown(
            ["score", "adapter", *map(_one_line, frontier_heads(block))],
            [[_one_line(cell) for cell in row] for row in frontier_rows(block)],
        )
        for _, block in table.groupby(KEYS, sort=True)
    }


def ranks_table(maps: pd.DataFrame) -> str:
    """Return where the ranks are that Fig. 3 shows: their share, trend over layers, agreement.

    The share is of the parameters of the full adapter.

    Args:
        maps: What `analysis.ranks.maps_at` returns.
    """
    heads = [
        "dataset",
        "seeds",
        "share of the full adapter",
        "lambda",
        "rank by depth",
        "seeds agree by",
    ]
    rows: list[Sequence[str]] = []
    for _, block in maps.groupby(KEYS, sort=True):
        stages = block.drop_duplicates("run_id")
        by_seed = _maps(block)
        trend = depth_trend_interval(by_seed)
        share = float((stages["num_nonzero_params"] / stages["num_adapter_params"]).mean())
        lambdas = stages["lambda"].astype(float)
        rows.append(
            [
                block_name(block.iloc[0].to_dict()),
                str(len(stages)),
                percent(share),
                " to ".join(dict.fromkeys(f"{v:.2g}" for v in (lambdas.min(), lambdas.max()))),
                interval_line(trend.mean, trend.low, trend.high, _correlation),
                _correlation(agreements(by_seed)["spearman"].mean()),
            ]
        )
    return _markdown(heads, rows)


def agreement_table(maps: pd.DataFrame) -> str:
    """Return how far the mean maps of every two datasets of one backbone agree.

    Args:
        maps: What `analysis.ranks.maps_at` returns.
    """
    rows: list[Sequence[str]] = []
    for _, own in maps.groupby("backbone", sort=True):
        blocks = {block_name(b.iloc[0].to_dict()): b for _, b in own.groupby(KEYS, sort=True)}
        means = {name: mean_map(_maps(block)) for name, block in blocks.items()}
        rows += [
            [str(pair["first"]), str(pair["second"]), _correlation(pair["spearman"])]
            for pair in agreements(means).to_dict("records")
        ]
    return _markdown(["dataset", "dataset", "maps agree by"], rows)


def _maps(block: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return rank_maps(block, dict(zip(block["run_id"], block["stage"], strict=True)))


def _kept(row: Row) -> str:
    return _one_line(fewest_text(row, "d90")) if row["status"] == "defined" else "undefined"


def _drop(row: Row) -> str:
    if row[f"{INFLECTION}seeds_tested"] == 0:
        return "too few counts"
    p_value = f"({p_text(float(str(row[f'{INFLECTION}p_value'])))})"
    if not row[f"{INFLECTION}detected"]:
        levels = levels_off(row, prefix=INFLECTION)
        return f"{levels or 'no inflection'} {p_value}"
    return f"{_one_line(interval_text(row, f'{INFLECTION}drop', power_text))} {p_value}"


def _pair(values: Iterable[object]) -> str:
    return " / ".join(_score(value) for value in values)


def _score(value: object) -> str:
    return _number(value, ".3f")


def _correlation(value: object) -> str:
    return _number(value, "+.2f")


def _number(value: object, form: str) -> str:
    number = float(value) if isinstance(value, int | float) else float("nan")
    if np.isnan(number):
        return "-"
    text = format(number, form)
    return format(0.0, form) if float(text) == 0 else text  # not -0.00


def _one_line(cell: str) -> str:
    return cell.replace("\n", " ")


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (heads, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(heads), *lines[1:]])
