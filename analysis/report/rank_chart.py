# pyright: standard
# altair types its channels by overloads that strict cannot follow
"""Rank maps of one dataset at every stage: the table behind them, and their chart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from analysis.curves import SCORES
from analysis.figures import short_matrix_names
from analysis.number_text import percent
from analysis.ranks import agreements, depth_trend, depth_trend_interval
from analysis.report import look
from analysis.slope_changepoint import FloatArray

_CELL = (46, 24)  # pixels


@dataclass(frozen=True, kw_only=True)
class MapSeries:
    """Rank maps along one path, or the mean of several.

    Attributes:
        label: Which runs.
        ranks: Non-zero ranks, `(stages, layers, matrices)`; NaN where nothing is adapted.
        captions: A line a stage: threshold, count, scores.
        remarks: A line a stage: trend over layers, and agreement between seeds.
        outside: A line a stage: adapted matrices outside of layers; empty if there are none.
    """

    label: str
    ranks: FloatArray
    captions: list[str]
    remarks: list[str]
    outside: list[str]


@dataclass(frozen=True, kw_only=True)
class RankMaps:
    """Rank maps of one dataset.

    Attributes:
        layers: Layers, rising.
        matrices: Short names of the matrices of a layer.
        series: The mean first, where there are several paths; then each path.
    """

    layers: list[int]
    matrices: list[str]
    series: list[MapSeries]


def rank_chart(*, layers: Sequence[int], matrices: Sequence[str], r: int) -> dict[str, Any]:
    """Return the specification of a map over the table cells (layer, matrix, rank).

    Args:
        layers: Layers, rising; drawn upwards.
        matrices: Names of the matrices, to the right.
        r: Rank before pruning: end of the colour scale, one for all maps of the page.
    """
    narrow = max(map(len, matrices), default=0) <= 4
    base = alt.Chart(alt.NamedData("cells")).transform_calculate(name="format(datum.rank, '.2~r')")
    base = base.encode(
        x=alt.X(
            "matrix:N",
            scale=alt.Scale(domain=list(matrices)),
            axis=alt.Axis(
                title=None, labelAngle=0 if narrow else -60, domain=False, ticks=False,
                labelPadding=6, labelLimit=120,
            ),
        ),
        y=alt.Y(
            "layer:O",
            scale=alt.Scale(domain=list(reversed(layers))),
            axis=alt.Axis(
                title="layer", titleAngle=0, titleAlign="right", titleAnchor="end",
                titleX=-6, titleY=-8, domain=False, ticks=False, labelPadding=6,
            ),
        ),
        tooltip=[
            alt.Tooltip("layer:O"),
            alt.Tooltip("matrix:N"),
            alt.Tooltip("name:N", title="non-zero rank"),
        ],
    )  # fmt: skip
    cells = base.mark_rect(stroke="#d9dde1", strokeWidth=1).encode(
        color=alt.Color(
            "rank:Q",
            legend=None,
            scale=alt.Scale(
                # Vega-Lite has one colour for each part of the domain
                domain=np.linspace(0, r, len(look.RANK_COLOURS)).tolist(),
                range=look.RANK_COLOURS,
                clamp=True,
            ),
        )
    )
    text = base.mark_text(fontSize=11).encode(text="name:N")
    dark = text.transform_filter(f"datum.rank > {0.55 * r}").encode(color=alt.value("white"))
    light = text.transform_filter(f"datum.rank <= {0.55 * r}").encode(color=alt.value(look.INK))
    return (
        alt.layer(cells, dark, light)
        .properties(width=alt.Step(_CELL[0]), height=alt.Step(_CELL[1]))
        .configure(**look.CONFIG)
        .to_dict()
    )


def rank_map_series(ranks: pd.DataFrame, stages: pd.DataFrame) -> RankMaps:
    """Return the rank maps of one dataset at every stage.

    The mean of several paths goes as far as the shortest of them, stage by stage.

    Args:
        ranks: Rank rows of its paths.
        stages: Stage rows of the same runs.
    """
    inside = ranks[ranks["layer"].notna()]
    names = short_matrix_names(inside["matrix"])
    layers = sorted({int(layer) for layer in inside["layer"]})
    columns = pd.MultiIndex.from_product([layers, list(names)])
    order = stages.drop_duplicates("run_id").sort_values(["seed", "run_id"])
    one_a_seed = not order["seed"].duplicated().any()
    each: list[MapSeries] = []
    for row in order.to_dict("records"):
        run = stages[stages["run_id"] == row["run_id"]].sort_values("stage")
        of_run = inside[inside["run_id"] == row["run_id"]]
        table = of_run.assign(layer=of_run["layer"].astype(int)).pivot(
            index="stage", columns=["layer", "matrix"], values="nonzero_rank"
        )
        values = table.reindex(index=run["stage"], columns=columns).to_numpy(dtype=float)
        maps = values.reshape(len(run), len(layers), len(names))
        rest = ranks[(ranks["run_id"] == row["run_id"]) & ranks["layer"].isna()]
        each.append(
            MapSeries(
                label=f"seed {row['seed']}" if one_a_seed else f"run {row['run_id']}",
                ranks=maps,
                captions=[_caption(run[run["stage"] == stage]) for stage in run["stage"]],
                remarks=[_trend([_frame(stage_map, layers)]) for stage_map in maps],
                outside=[_outside(rest[rest["stage"] == stage]) for stage in run["stage"]],
            )
        )
    if len(each) > 1:
        each.insert(0, _mean(each, stages, layers))
    return RankMaps(layers=layers, matrices=list(names.values()), series=each)


def _mean(each: list[MapSeries], stages: pd.DataFrame, layers: list[int]) -> MapSeries:
    length = min(len(one.ranks) for one in each)
    stacked = np.stack([one.ranks[:length] for one in each])
    return MapSeries(
        label=f"mean of {len(each)} paths",
        ranks=stacked.mean(axis=0),
        captions=[_caption(stages[stages["stage"] == stage]) for stage in range(length)],
        remarks=[
            _trend([_frame(stage_map, layers) for stage_map in stacked[:, stage]])
            for stage in range(length)
        ],
        outside=[""] * length,
    )


def _frame(values: FloatArray, layers: list[int]) -> pd.DataFrame:
    return pd.DataFrame(values, index=layers)


def _caption(rows: pd.DataFrame) -> str:
    """Describe one stage, or the mean of that stage over several paths."""
    about = "" if len(rows) == 1 else "about "
    count = rows["num_nonzero_params"].mean()
    share = count / rows["num_adapter_params"].mean()
    xis = rows["xi"].astype(float)
    low, high = f"{xis.min():.2g}", f"{xis.max():.2g}"
    scores = ", ".join(f"{score} {rows[score].mean():.3f}" for score in SCORES)
    return (
        f"ξ = {low if low == high else f'{low} to {high}'} · {about}{count:,.0f} parameters "
        f"({percent(share)} of the full adapter) · {scores}"
    )


def _trend(maps: list[pd.DataFrame]) -> str:
    if len(maps) == 1:
        trend = depth_trend(maps[0])
        return (
            "no trend over layers can be computed"
            if np.isnan(trend)
            else f"rank by depth: Spearman {trend:+.2f}"
        )
    named = {str(index): table for index, table in enumerate(maps)}
    interval = depth_trend_interval(named)
    parts: list[str] = []
    if np.isnan(interval.mean):
        parts.append("no trend over layers can be computed")
    else:
        ends = "" if np.isnan(interval.low) else (
            f" [{max(-1.0, interval.low):+.2f}, {min(1.0, interval.high):+.2f}]"
        )  # fmt: skip
        parts.append(f"rank by depth: Spearman {interval.mean:+.2f}{ends}")
    pairs = agreements(named)["spearman"].dropna()
    if len(pairs):
        parts.append(f"maps of two seeds agree by {pairs.mean():.2f} (Spearman, mean of pairs)")
    return "; ".join(parts)


def _outside(rows: pd.DataFrame) -> str:
    listed = ", ".join(
        f"{matrix} {rank} of {r}"
        for matrix, rank, r in zip(rows["matrix"], rows["nonzero_rank"], rows["r"], strict=True)
    )
    return f"outside of layers: {listed}" if listed else ""
