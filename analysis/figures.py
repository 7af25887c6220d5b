# pyright: standard
# matplotlib types its keyword arguments as unknown, which strict refuses in every call
"""Figures of a SoRA path: scores against parameters (Fig. 2), ranks by matrix (Fig. 3)."""

import textwrap
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter

from analysis import style
from analysis.controls import RANDOM_MASK, block_of, lacking
from analysis.count_axis import count_axis
from analysis.curves import (
    SCORES,
    flickering_stages,
    floor_scores,
    hold_dense_scores,
    mean_curve,
    seed_curves,
)
from analysis.doubts import doubts
from analysis.intervals import student_t_interval
from analysis.load import FLOOR, HOLD_DENSE, KEYS, PATH, require_path_run
from analysis.long_names import wrapped
from analysis.number_text import compact, percent
from analysis.ranks import map_of
from analysis.slope_changepoint import ALPHA
from analysis.value_axis import value_limits
from sorakit.records.matching import DEFAULT_SETTING

MAX_COLUMNS = 3
TITLE_WIDTH = 33
"""Characters of a line of a panel's title."""
_LINE = 0.17  # inches of a line of a title
_NOTE_LINE = 0.12  # inches of a line of notes below a panel
_NOTES_IN_PANEL = 4  # lines of notes for which a panel has room; more make it higher
_BELOW_LABEL = 28  # points from an axis to below its label
_BELOW_TICKS = 16  # points from an axis to below the labels of its ticks
Width = Literal["auto", "column", "text"]
"""auto: one column of the page for one panel, both for several. column, text: that width."""
COLOUR_MAP = "Blues"
MATRIX_NAMES = {
    "attention.self.query": "Q",
    "attention.self.key": "K",
    "attention.self.value": "V",
    "attention.output.dense": "O",
    "intermediate.dense": "F1",
    "output.dense": "F2",
    "query": "Q",
    "key": "K",
    "value": "V",
}
"""Matrix of a BERT layer -> its name in the SoRA paper's figures."""

_METRIC_LABELS = {
    "f1": "F1",
    "matthews_correlation": "Matthews correlation",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
}


def draw_curve(
    ax: Axes, stages: pd.DataFrame, drops: pd.DataFrame | None = None, *, remark: str = ""
) -> None:
    """Draw memorization and generalization against non-zero parameters, with floor and controls.

    Several seeds: their mean on a common grid with its 95 % interval, single stages as small marks.
    One seed: its own stages. A stage without parameters stands left of the break in the axis, at
    the tick 0. The floor is a horizontal line, its interval a bar at its left end; the end of
    hold_dense an arrow head at the right edge; random_mask a thin line. Along the lower edge stand
    the slope changepoints with their intervals.

    Args:
        ax: Empty axes.
        stages: Stages of one block (`analysis.controls.block_of`).
        drops: Its rows of `Comparison.dataset_inflections`; without, no changepoint is drawn.
        remark: What else is to be said of the scores, on their axis.

    Raises:
        ValueError: If `stages` holds no path run.
    """
    require_path_run(stages)
    paths = stages[stages["role"] == PATH]
    masked = stages[stages["role"] == RANDOM_MASK]
    drawn = pd.concat([paths, masked])["num_nonzero_params"]
    zero_position = _prepare_axis(ax, drawn.to_numpy(dtype=float))
    for score in SCORES:
        _draw_mask(ax, masked, score, zero_position)
        _draw_path(ax, paths, score, zero_position)
    floors, held = floor_scores(stages), hold_dense_scores(stages)
    _draw_floors(ax, floors)
    _draw_held(ax, held)
    _follow_curves(ax, [*_values(paths), *_values(masked), *_means(floors), *_means(held)])
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    _draw_drops(ax, drops)
    _draw_notes(ax, stages, drops)
    ax.set_xlabel("Non-zero adapter parameters")
    label = metric_label(str(paths["metric"].iloc[0]))
    ax.set_ylabel(f"{label}\n({remark})" if remark else label)


def curve_figure(
    stages: pd.DataFrame,
    drops: pd.DataFrame | None = None,
    *,
    width: Width = "auto",
    remark: str = "",
) -> Figure:
    """Return one panel a dataset and configuration with a path run, by backbone and task.

    Args:
        stages: Stage table.
        drops: `Comparison.dataset_inflections`; without, no changepoint is drawn.
        width: Width of the figure.
        remark: What else is to be said of the scores, on their axis.
    """
    require_path_run(stages)
    blocks = _blocks(stages[stages["role"] == PATH])
    with mpl.rc_context(style.RC):
        titles = _titles(blocks)
        of_blocks = [block_of(stages, names) for names in blocks]
        own_drops = [
            None if drops is None else drops[(drops[KEYS] == list(names)).all(axis=1)]
            for names in blocks
        ]
        notes = max(len(_notes(*pair)) for pair in zip(of_blocks, own_drops, strict=True))
        height = 1.58 + _LINE * _most_lines(titles) + _NOTE_LINE * max(0, notes - _NOTES_IN_PANEL)
        figure, axes = _grid(len(blocks), panel_height=height, extra_height=0.36, width=width)
        for ax, title, block, own in zip(axes, titles, of_blocks, own_drops, strict=True):
            draw_curve(ax, block, own, remark=remark)
            ax.set_title(title)
        labels = [ax.get_ylabel() for ax in axes]
        for ax, label, left in zip(axes[1:], labels[1:], labels, strict=False):
            if label == left and not _is_first_column(ax):
                ax.set_ylabel("")
        _keep_lowest_label(axes)
        _shared_legend(figure, axes)
        figure.draw_without_rendering()  # settles the layout, so that later saves agree
    return figure


def _values(stages: pd.DataFrame) -> list[float]:
    return stages[SCORES].to_numpy(dtype=float).ravel().tolist()


def _means(references: pd.DataFrame) -> list[float]:
    columns = [name for name in references if str(name).startswith(tuple(SCORES))]
    return references[columns].astype(float).mean().tolist()


def _follow_curves(ax: Axes, values: Sequence[float]) -> None:
    """End the y axis where intervals leave the curves far behind."""
    low, high = ax.get_ylim()
    least, most = value_limits(values)
    ax.set_ylim(max(low, least), min(high, most))


def _draw_path(ax: Axes, paths: pd.DataFrame, score: str, zero_position: float) -> None:
    look: dict[str, Any] = {
        "linestyle": style.LINES[score],
        "label": score,
        "gid": f"path:{score}",
        "zorder": 3,
    }
    mark: dict[str, Any] = {
        "color": style.COLOURS[score],
        "marker": style.MARKERS[score],
        "markerfacecolor": style.COLOURS[score] if score == SCORES[0] else "white",
    }
    runs = [run for _, run in paths.groupby("run_id", sort=True)]
    if len(runs) == 1:
        ordered = runs[0].sort_values(["num_nonzero_params", "stage"], ascending=[True, False])
        x = ordered["num_nonzero_params"].to_numpy(dtype=float)
        y = ordered[score].to_numpy(dtype=float)
        at = np.where(x > 0, x, zero_position)
        ax.plot(at, y, linewidth=0.9, markersize=3.2, markeredgewidth=0.8, **mark, **look)
        return
    x, y = paths["num_nonzero_params"].to_numpy(dtype=float), paths[score].to_numpy(dtype=float)
    ax.plot(
        np.where(x > 0, x, zero_position), y, linestyle="", markersize=1.9, markeredgewidth=0.5,
        alpha=0.55, gid=f"stages:{score}", zorder=2, **mark,
    )  # fmt: skip
    _draw_mean(ax, seed_curves(paths, score), score, look)
    without = paths[paths["num_nonzero_params"] == 0].sort_values("stage")
    without = without.drop_duplicates("run_id")
    if len(without) == len(runs):
        _draw_interval(
            ax, zero_position, without[score], gid=f"zero:{score}", markersize=3.2, **mark
        )


def _draw_mean(ax: Axes, curves: pd.DataFrame, score: str, look: dict[str, Any]) -> None:
    """Draw the mean of curves on one grid, and its interval as a band."""
    if curves.empty:
        return
    sns.lineplot(
        curves,
        x="num_nonzero_params",
        y="value",
        estimator="mean",
        errorbar=_interval_ends,
        color=style.COLOURS[score],
        linewidth=1.2,
        err_kws={"alpha": 0.16, "linewidth": 0, "gid": f"band:{score}", "zorder": 1.5},
        legend=False,
        ax=ax,
        **look,
    )


def _interval_ends(values: Iterable[float]) -> tuple[float, float]:
    interval = student_t_interval([float(value) for value in values])
    return interval.low, interval.high


def _draw_mask(ax: Axes, masked: pd.DataFrame, score: str, zero_position: float) -> None:
    runs = [run for _, run in masked.groupby("run_id", sort=True)]
    if not runs:
        return
    if len(runs) == 1:
        ordered = runs[0].sort_values(["num_nonzero_params", "stage"], ascending=[True, False])
        x, y = (ordered[name].to_numpy(dtype=float) for name in ("num_nonzero_params", score))
        every = 1
    else:
        mean = mean_curve(masked, score, num_points=41)
        x, y = (mean[name].to_numpy(dtype=float) for name in ("num_nonzero_params", "mean"))
        every = 8
    ax.plot(
        np.where(x > 0, x, zero_position), y, linewidth=0.7, markevery=every,
        label=RANDOM_MASK, gid=f"{RANDOM_MASK}:{score}", zorder=2.5, **_mask_look(score),
    )  # fmt: skip


def _mask_look(score: str) -> dict[str, Any]:
    return {
        "color": style.COLOURS[score],
        "linestyle": style.MASK_LINE,
        "marker": "D",
        "markersize": 2.6,
        "markeredgewidth": 0.6,
        "markerfacecolor": style.COLOURS[score] if score == SCORES[0] else "white",
    }


def _draw_floors(ax: Axes, floors: pd.DataFrame) -> None:
    for score, at in zip(SCORES, (0.012, 0.03), strict=True):  # side by side
        values = floors[f"{score}_{FLOOR}"]
        if values.empty:
            continue
        ax.axhline(
            values.mean(),
            color=style.COLOURS[score],
            linestyle=style.FLOOR_LINES[score],
            linewidth=0.8,
            label=FLOOR,
            gid=f"floor:{score}",
            zorder=1,
        )
        if len(values) > 1:
            _draw_interval(
                ax, at, values, transform=ax.get_yaxis_transform(), color=style.COLOURS[score],
                marker="", gid=f"interval of floor:{score}",
            )  # fmt: skip


def _draw_held(ax: Axes, held: pd.DataFrame) -> None:
    for score, at in zip(SCORES, (0.985, 0.965), strict=True):
        values = held[f"{score}_{HOLD_DENSE}"]
        if values.empty:
            continue
        _draw_interval(
            ax, at, values, transform=ax.get_yaxis_transform(), markersize=4,
            label=HOLD_DENSE, gid=f"hold_dense:{score}", **_held_look(score),
        )  # fmt: skip


def _held_look(score: str) -> dict[str, Any]:
    return {
        "color": style.COLOURS[score],
        "marker": "<",
        "markerfacecolor": style.COLOURS[score] if score == SCORES[0] else "white",
    }


def _draw_interval(ax: Axes, x: float, values: pd.Series, *, gid: str, **look: Any) -> None:
    """Draw a mean over seeds, and its interval if there are several."""
    interval = student_t_interval(values.astype(float).tolist())
    container: ErrorbarContainer = ax.errorbar(
        [x],
        [interval.mean],
        yerr=[[interval.mean - interval.low], [interval.high - interval.mean]]
        if np.isfinite(interval.low)
        else None,
        linestyle="",
        elinewidth=0.8,
        markeredgewidth=0.8,
        zorder=4,
        **look,
    )
    if container.lines[0] is not None:
        container.lines[0].set_gid(gid)


def _draw_drops(ax: Axes, drops: pd.DataFrame | None) -> None:
    """Draw the slope changepoints in a strip along the lower edge, or say that none was found."""
    if drops is None:
        return
    low, high = ax.get_ylim()
    ax.set_ylim(low - 0.15 * (high - low), high)
    strip = ax.get_xaxis_transform()
    found = drops[drops["detected"].astype(bool)]
    if found.empty and not _levelling(drops):
        tested = (drops["seeds_tested"] > 0).any()
        ax.text(
            0.98,
            0.025,
            "no slope changepoint" if tested else "too few counts for a changepoint",
            transform=ax.transAxes,
            ha="right",
            va="bottom",
            fontsize=6,
            color=style.GREY,
            gid="no changepoint",
        )
    left, right = ax.get_xlim()
    for row in found.to_dict("records"):
        score = str(row["score"])
        y = 0.10 if score == SCORES[0] else 0.04
        ends = [10 ** row[name] for name in ("drop_low", "drop_high")]
        if np.isfinite(ends).all():
            ax.plot(
                np.clip(ends, left, right), [y, y], color=style.COLOURS[score], linewidth=0.9,
                marker="|", markersize=3.5, markeredgewidth=0.9, transform=strip,
                gid=f"changepoint interval:{score}",
            )  # fmt: skip
        ax.plot(
            [10 ** row["drop"]], [y], linestyle="", transform=strip, label="slope changepoint",
            gid=f"changepoint:{score}", zorder=4, **_drop_look(score),
        )  # fmt: skip


def _drop_look(score: str) -> dict[str, Any]:
    return {
        "color": style.COLOURS[score],
        "marker": style.MARKERS[score],
        "markersize": 3.4,
        "markeredgewidth": 0.8,
        "markerfacecolor": style.COLOURS[score] if score == SCORES[0] else "white",
    }


def _levelling(drops: pd.DataFrame) -> list[str]:
    """Say of scores without a drop but with a slope that changes where they level off."""
    return [
        f"{row['score']} levels off below {compact(10 ** row['levelling'])}"
        for row in drops.to_dict("records")
        if not row["detected"] and row["p_value"] <= ALPHA and np.isfinite(row["levelling"])
    ]


def _notes(stages: pd.DataFrame, drops: pd.DataFrame | None) -> list[str]:
    """Return which controls are missing and how many stages had not settled, in short lines."""
    paths = stages[stages["role"] == PATH]
    absent: dict[str, list[str]] = {}
    for role, which in lacking(stages).items():
        absent.setdefault(which, []).append(role)
    lines = [] if drops is None else _levelling(drops)
    lines += [f"no {', '.join(roles)} run{which}" for which, roles in absent.items()]
    lines += [doubt.short for doubt in doubts(paths)]
    counts = [flickering_stages(run) for _, run in paths.groupby("run_id")]
    unsettled, total = (sum(column) for column in zip(*counts, strict=True))
    if unsettled:
        lines.append(f"> 5 % of gates flicker in {unsettled} of {total} stages")
    return [short for line in lines for short in textwrap.wrap(line, 44)]


def _draw_notes(ax: Axes, stages: pd.DataFrame, drops: pd.DataFrame | None) -> None:
    """Say the notes below the axis."""
    lines = _notes(stages, drops)
    if lines:
        ax.annotate(
            "\n".join(lines),
            (0.5, 0),
            xycoords="axes fraction",
            xytext=(0, -_BELOW_LABEL),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=6,
            color=style.GREY,
            gid="notes",
        )


def draw_rank_map(ax: Axes, ranks: pd.DataFrame, r: int) -> None:
    """Draw the non-zero rank of every adapted matrix: layers upwards, matrices to the right.

    Adapted matrices outside of layers are named below the map; matrices that a layer does not have
    or that are not adapted stay blank.

    Args:
        ax: Empty axes.
        ranks: Rows of `analysis.ranks.maps_at` of one block; the mean over its seeds is drawn.
        r: Rank before pruning: upper end of the colour scale.
    """
    inside = ranks[ranks["layer"].notna()]
    names = short_matrix_names(inside["matrix"])
    table = map_of(ranks).rename(columns=names)
    values = table.to_numpy(dtype=float)
    whole = bool((values == np.round(values)).all())
    texts = table.map(lambda value: f"{value:.0f}" if whole or value == 0 else f"{value:.1f}")
    sns.heatmap(
        table, annot=texts, fmt="", cmap=COLOUR_MAP, vmin=0, vmax=r, cbar=False, linewidths=0.5,
        linecolor="#d9d9d9", annot_kws={"fontsize": 6}, xticklabels=True, yticklabels=True, ax=ax,
    )  # fmt: skip
    ax.invert_yaxis()  # layer 0 at the bottom
    names_are_long = max((len(str(name)) for name in table.columns), default=0) > 3
    ax.tick_params(axis="x", rotation=90 if names_are_long else 0)
    ax.tick_params(axis="y", rotation=0)
    ax.tick_params(length=0)
    ax.spines[:].set(visible=True, color="#d9d9d9", linewidth=0.5)
    outside = ranks[ranks["layer"].isna()]
    means = outside.groupby("matrix", sort=False)["nonzero_rank"].mean()
    listed = ", ".join(f"{matrix}: {mean:.3g}" for matrix, mean in means.items())
    ax.set_xlabel("Matrix" + (f"\n({textwrap.fill(listed, 34)})" if listed else ""))
    ax.set_ylabel("Layer")


def rank_map_figure(maps: pd.DataFrame, *, width: Width = "auto") -> Figure:
    """Return one rank map a dataset and configuration, on a common scale: the mean over seeds.

    Args:
        maps: What `analysis.ranks.maps_at` returns: the stages to show.
        width: Width of the figure.
    """
    blocks = _blocks(maps)
    r = int(maps["r"].max())
    layers = int(maps["layer"].max()) + 1
    with mpl.rc_context(style.RC):
        titles = _titles(blocks)
        height = min(4.6, 0.97 + 0.16 * layers + _LINE * _most_lines(titles))
        figure, axes = _grid(len(blocks), panel_height=height, extra_height=0.15, width=width)
        for ax, title, names in zip(axes, titles, blocks, strict=True):
            rows = maps[(maps[KEYS] == list(names)).all(axis=1)]
            draw_rank_map(ax, rows, r)
            ax.set_title(title, pad=22)  # above two lines of the stage
            ax.annotate(
                _stage_title(rows.drop_duplicates("run_id")), (0.5, 1), xytext=(0, 3),
                xycoords="axes fraction", textcoords="offset points", ha="center", va="bottom",
                fontsize=7, linespacing=1.0, gid="stage",
            )  # fmt: skip
        for ax in axes[1:]:
            if not _is_first_column(ax):
                ax.set_ylabel("")
        _keep_lowest_label(axes)
        colours = ScalarMappable(Normalize(0, r), COLOUR_MAP)
        bar = figure.colorbar(
            colours, ax=axes, label="Non-zero rank", aspect=12 * figure.get_figheight(), pad=0.02
        )
        bar.set_ticks(sorted({0, r // 2, r}))
        bar.outline.set_visible(False)
        figure.draw_without_rendering()
    return figure


def _stage_title(stages: pd.DataFrame) -> str:
    """Describe the stages behind one map, a row each: share of all ranks, lambda, seeds."""
    share = float((stages["num_nonzero_params"] / stages["num_adapter_params"]).mean())
    lambdas = stages["lambda"].astype(float)
    low, high = f"{lambdas.min():.2g}", f"{lambdas.max():.2g}"
    seeds = f"seed {stages['seed'].iloc[0]}" if len(stages) == 1 else f"{len(stages)} seeds"
    between = low if low == high else f"{low}\N{EN DASH}{high}"
    return f"{percent(share)} of the full adapter\n$\\lambda$ = {between}, {seeds}"


def short_matrix_names(matrices: Iterable[str]) -> dict[str, str]:
    """Return matrix -> short name, in order of appearance; ambiguous ones keep their name."""
    distinct = list(dict.fromkeys(matrices))
    uses = Counter(MATRIX_NAMES.get(matrix, matrix) for matrix in distinct)
    return {
        matrix: short if uses[short := MATRIX_NAMES.get(matrix, matrix)] == 1 else matrix
        for matrix in distinct
    }


def _prepare_axis(ax: Axes, counts: np.ndarray) -> float:
    """Set up the logarithmic x axis; return where a count of 0 is drawn."""
    axis = count_axis(counts.tolist())
    ax.set_xscale("log")
    ax.set_xlim(axis.left, axis.right)
    labels = [compact(tick) for tick in axis.ticks]
    if axis.has_zero:
        ax.set_xticks([axis.zero, *axis.ticks], ["0", *labels])
        _draw_break(ax, at=axis.zero_break)
    else:
        ax.set_xticks(axis.ticks, labels)
    ax.xaxis.set_minor_locator(FixedLocator(axis.minor))
    ax.xaxis.set_minor_formatter(NullFormatter())
    return axis.zero


def _draw_break(ax: Axes, at: float) -> None:
    """Mark the x axis as broken at `at`: the line is interrupted between two strokes."""
    transform = ax.get_xaxis_transform()
    ax.plot([at], [0], marker="s", color="white", markersize=4, clip_on=False, transform=transform)
    ax.annotate(
        "//",
        (at, 0),
        xycoords=transform,
        ha="center",
        va="center",
        fontsize=7,
        annotation_clip=False,
    )


def metric_label(metric: str) -> str:
    """Return a metric's name as axes have it."""
    return _METRIC_LABELS.get(metric, metric.capitalize().replace("_", " "))


def _blocks(rows: pd.DataFrame) -> list[tuple[Any, ...]]:
    """Return the blocks in some rows, by backbone, then task."""
    names = rows[KEYS].drop_duplicates().itertuples(index=False, name=None)
    return sorted(names, key=lambda name: (name[1], name[0], *name[2:]))


def _titles(names: Sequence[tuple[Hashable, ...]]) -> list[str]:
    """Return panel titles: the task, and what tells it from the other panels."""
    blocks = [tuple(map(str, name)) for name in names]
    several = len({backbone for _, backbone, *_ in blocks}) > 1
    titles: list[str] = []
    for task, backbone, setting, variant in blocks:
        title = f"{task}, {backbone.rstrip('/').rsplit('/', 1)[-1]}" if several else task
        title = wrapped(title, TITLE_WIDTH)
        settings = {other[2] for other in blocks if other[:2] == (task, backbone)}
        parts = [setting] if len(settings) > 1 and setting != DEFAULT_SETTING else []
        details = ", ".join([*parts, *([variant] if variant else [])])
        titles.append(f"{title}\n{wrapped(details, TITLE_WIDTH)}" if details else title)
    return titles


def _most_lines(titles: Sequence[str]) -> int:
    return max(title.count("\n") + 1 for title in titles)


def _grid(
    num_panels: int, *, panel_height: float, extra_height: float, width: Width
) -> tuple[Figure, list[Axes]]:
    one_column = width == "column" or (width == "auto" and num_panels == 1)
    columns = 1 if one_column else 2 if num_panels == 4 else min(num_panels, MAX_COLUMNS)
    rows = -(-num_panels // columns)
    inches = style.COLUMN_WIDTH if one_column else style.TEXT_WIDTH
    figure = Figure(figsize=(inches, rows * panel_height + extra_height))
    axes = [figure.add_subplot(rows, columns, index + 1) for index in range(num_panels)]
    return figure, axes


def _is_first_column(ax: Axes) -> bool:
    place = ax.get_subplotspec()
    return place is None or place.is_first_col()


def _keep_lowest_label(axes: Sequence[Axes]) -> None:
    """Leave the label of the x axis to the lowest panel of each column, where it is the same."""
    places = [ax.get_subplotspec() for ax in axes]
    columns = places[0].get_gridspec().ncols if places[0] is not None else 1
    for ax, below in zip(axes, axes[columns:], strict=False):
        if ax.get_xlabel() == below.get_xlabel():
            ax.set_xlabel("")
            for text in ax.texts:
                if isinstance(text, Annotation) and text.get_gid() == "notes":
                    text.xyann = (0, -_BELOW_TICKS)


def _shared_legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """Put one legend below the panels: the scores, then each role in the looks of both scores."""
    shown = {str(line.get_gid()) for ax in axes for line in ax.get_lines() if line.get_gid()}
    entries: dict[str, Any] = {}
    for score in SCORES:
        if f"path:{score}" in shown:
            mark = {**_drop_look(score), "linestyle": style.LINES[score], "markersize": 3.2}
            entries[score] = Line2D([], [], linewidth=1.2, **mark)
    looks: dict[str, dict[str, dict[str, Any]]] = {
        FLOOR: {
            s: {"color": style.COLOURS[s], "linestyle": style.FLOOR_LINES[s], "linewidth": 0.8}
            for s in SCORES
        },
        HOLD_DENSE: {s: {"linestyle": "", **_held_look(s), "markersize": 4} for s in SCORES},
        RANDOM_MASK: {s: {"linewidth": 0.7, **_mask_look(s)} for s in SCORES},
        "changepoint": {s: {"linestyle": "", **_drop_look(s)} for s in SCORES},
    }
    names = {
        FLOOR: "floor",
        HOLD_DENSE: "hold_dense, end",
        RANDOM_MASK: "random_mask",
        "changepoint": "slope changepoint",
    }
    for role, by_score in looks.items():
        if any(f"{role}:{score}" in shown for score in SCORES):
            lines = tuple(Line2D([], [], **look) for look in by_score.values())
            entries[names[role]] = lines
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside lower center",
        ncols=2 if figure.get_figwidth() < style.TEXT_WIDTH else 3,
        handlelength=3.2,
        columnspacing=1.4,
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0.4)},
    )
