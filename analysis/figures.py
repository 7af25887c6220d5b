# pyright: standard
# matplotlib types its keyword arguments as unknown, which strict refuses in every call
"""Figures of a SoRA path: scores against parameters (Fig. 2), ranks by matrix (Fig. 3)."""

import textwrap
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter

from analysis import style
from analysis.count_axis import count_axis
from analysis.curves import (
    SCORES,
    flickering_stages,
    floor_scores,
    hold_dense_scores,
    sparsest_keeping,
)
from analysis.load import DATASET_KEYS, DEFAULT_SETTING, FLOOR, PATH, require_path_run

MAX_COLUMNS = 3
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


def draw_curve(ax: Axes, stages: pd.DataFrame) -> None:
    """Draw memorization and generalization against non-zero parameters, one thin line a path run.

    Counts differ between seeds, so seeds are not averaged. A stage without parameters stands left
    of the break in the axis, at the tick 0. Floors are horizontal lines, the end of a hold_dense
    control an arrow head at the right edge.

    Args:
        ax: Empty axes.
        stages: Stages of one dataset: paths, and where they exist floors and hold_dense controls.

    Raises:
        ValueError: If `stages` holds no path run.
    """
    require_path_run(stages)
    paths = stages[stages["role"] == PATH]
    counts = paths["num_nonzero_params"].to_numpy(dtype=float)
    zero_position = _prepare_axis(ax, counts)
    for _, run in paths.groupby("run_id", sort=True):
        ordered = run.sort_values(["num_nonzero_params", "stage"], ascending=[True, False])
        x = ordered["num_nonzero_params"].to_numpy(dtype=float)
        for score in SCORES:
            y = ordered[score].to_numpy(dtype=float)
            colour = style.COLOURS[score]
            ax.plot(
                np.where(x > 0, x, zero_position),
                y,
                color=colour,
                linestyle=style.LINES[score],
                linewidth=0.9,
                marker=style.MARKERS[score],
                markersize=3.2,
                markerfacecolor=colour if score == "memorization" else "white",
                markeredgewidth=0.8,
                label=score,
                gid=f"path:{score}",
                zorder=3,
            )
    _draw_references(ax, stages, seeds=paths["seed"].unique().tolist())
    _note_flickering(ax, paths)
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    ax.set_xlabel("Non-zero adapter parameters")
    ax.set_ylabel(metric_label(str(paths["metric"].iloc[0])))


def curve_figure(stages: pd.DataFrame) -> Figure:
    """Return one panel a (task, backbone, setting) with a path run, at most three a row."""
    require_path_run(stages)
    panels = [
        (names, group)
        for names, group in stages.groupby(DATASET_KEYS, sort=True)
        if (group["role"] == PATH).any()
    ]
    with mpl.rc_context(style.RC):
        figure, axes = _grid(len(panels), panel_height=1.75, extra_height=0.42)
        titles = _titles([names for names, _ in panels])
        for ax, title, (_, group) in zip(axes, titles, panels, strict=True):
            draw_curve(ax, group)
            ax.set_title(title)
        for ax in axes[1:]:
            if ax.get_ylabel() == axes[0].get_ylabel() and not _is_first_column(ax):
                ax.set_ylabel("")
        _shared_legend(figure, axes)
        figure.draw_without_rendering()  # settles the layout, so that later saves agree
    return figure


def draw_rank_map(ax: Axes, ranks: pd.DataFrame, r: int) -> None:
    """Draw the non-zero rank of every adapted matrix: layers upwards, matrices to the right.

    Adapted matrices outside of layers are named below the map; matrices that a layer does not have
    or that are not adapted stay blank.

    Args:
        ax: Empty axes.
        ranks: Rows of one stage of one run.
        r: Rank before pruning: upper end of the colour scale.
    """
    inside = ranks[ranks["layer"].notna()]
    names = short_matrix_names(inside["matrix"])
    table = (
        inside.assign(column=inside["matrix"].map(names), row=inside["layer"].astype(int))
        .pivot(index="row", columns="column", values="nonzero_rank")
        .reindex(columns=list(names.values()))
        .sort_index()
    )
    values = table.to_numpy(dtype=float)
    scale = Normalize(0, r)
    ax.imshow(values, cmap=COLOUR_MAP, norm=scale, aspect="auto", origin="lower")
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            colour = "white" if scale(value) > 0.55 else style.GREY if value == 0 else "black"
            ax.text(column, row, f"{value:.0f}", color=colour, ha="center", va="center", fontsize=6)
    ax.set_xticks(range(table.shape[1]), list(table.columns))
    ax.set_yticks(range(table.shape[0]), [str(layer) for layer in table.index])
    if max((len(str(name)) for name in table.columns), default=0) > 3:
        ax.tick_params(axis="x", rotation=90)
    ax.tick_params(length=0)
    ax.spines[:].set(visible=True, color="#d9d9d9", linewidth=0.5)
    ax.set_xticks(np.arange(table.shape[1] - 1) + 0.5, minor=True)
    ax.set_yticks(np.arange(table.shape[0] - 1) + 0.5, minor=True)
    ax.grid(which="minor", color="#d9d9d9", linewidth=0.5)
    ax.tick_params(which="minor", length=0)
    outside = ranks[ranks["layer"].isna()]
    listed = ", ".join(
        f"{m}: {n}" for m, n in zip(outside["matrix"], outside["nonzero_rank"], strict=True)
    )
    ax.set_xlabel("Matrix" + (f"\n({textwrap.fill(listed, 34)})" if listed else ""))
    ax.set_ylabel("Layer")


def rank_map_figure(
    ranks: pd.DataFrame, stages: pd.DataFrame, *, retention: float = 0.95
) -> Figure:
    """Return one rank map a dataset, at the sparsest stage that keeps `retention` of dense.

    The score kept is generalization, as measured. The dense stage is shown where no such stage is
    defined (dense score not positive). Of several path runs of a dataset, the first by seed is
    shown and its seed named.

    Args:
        ranks: Rank table.
        stages: Stage table of the same runs.
        retention: Share of the dense generalization to keep, in (0, 1].

    Raises:
        ValueError: If `retention` is out of range or there is no path run.
    """
    if not 0 < retention <= 1:
        raise ValueError(f"`retention` must be in (0, 1], got {retention}.")
    require_path_run(stages)
    paths = stages[stages["role"] == PATH]
    groups = list(paths.groupby(DATASET_KEYS, sort=True))
    r = int(ranks.loc[ranks["run_id"].isin(paths["run_id"]), "r"].max())
    layers = int(ranks["layer"].max()) + 1
    with mpl.rc_context(style.RC):
        height = min(4.5, 1.0 + 0.16 * layers)
        figure, axes = _grid(len(groups), panel_height=height, extra_height=0.15)
        titles = _titles([names for names, _ in groups])
        for ax, title, (_, group) in zip(axes, titles, groups, strict=True):
            first = group.sort_values(["seed", "run_id"]).iloc[0]
            run = group[group["run_id"] == first["run_id"]]
            stage = sparsest_keeping(run, "generalization", retention)
            dense = run[run["stage"] == 0].iloc[0]
            stage = dense if stage is None else stage
            rows = (ranks["run_id"] == first["run_id"]) & (ranks["stage"] == stage["stage"])
            draw_rank_map(ax, ranks[rows], r)
            share = 100 * stage["num_nonzero_params"] / dense["num_nonzero_params"]
            seed = f", seed {first['seed']}" if group["run_id"].nunique() > 1 else ""
            ax.set_title(f"{title}{seed}\n{share:.3g} % of dense, $\\xi$ = {stage['xi']:.3g}")
        for ax in axes[1:]:
            if not _is_first_column(ax):
                ax.set_ylabel("")
        colours = ScalarMappable(Normalize(0, r), COLOUR_MAP)
        bar = figure.colorbar(
            colours, ax=axes[:MAX_COLUMNS], label="Non-zero rank", aspect=11 * height, pad=0.02
        )
        bar.set_ticks(sorted({0, r // 2, r}))
        bar.outline.set_visible(False)
        figure.draw_without_rendering()
    return figure


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


def compact(count: float) -> str:
    """Return a count in three digits: 55.5k."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{suffix}"
    return f"{count:.3g}"


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


def _draw_references(ax: Axes, stages: pd.DataFrame, seeds: Sequence[int]) -> None:
    floors = floor_scores(stages)
    for score in SCORES:
        for value in floors[f"{score}_{FLOOR}"]:
            ax.axhline(
                value,
                color=style.COLOURS[score],
                linestyle=style.FLOOR_LINES[score],
                linewidth=0.7,
                label=f"{score}, floor",
                gid=f"floor:{score}",
                zorder=1,
            )
    for score in SCORES:
        for value in hold_dense_scores(stages)[f"{score}_hold_dense"]:
            ax.plot(
                [0.98],
                [value],
                transform=ax.get_yaxis_transform(),
                linestyle="",
                marker="<",
                markersize=4,
                color=style.COLOURS[score],
                markerfacecolor=style.COLOURS[score] if score == "memorization" else "white",
                markeredgewidth=0.8,
                label=f"{score}, hold_dense",
                gid=f"hold_dense:{score}",
            )
    missing = sorted(set(seeds) - set(floors["seed"]))
    if missing:
        which = "" if floors.empty else f" for seed {', '.join(map(str, missing))}"
        ax.text(
            0.98,
            0.03,
            f"no floor run{which}",
            transform=ax.transAxes,
            ha="right",
            va="bottom",
            fontsize=6,
            color=style.GREY,
        )


def _note_flickering(ax: Axes, paths: pd.DataFrame) -> None:
    """Say how many points are snapshots of gates that had not settled."""
    counts = [flickering_stages(run) for _, run in paths.groupby("run_id")]
    unsettled, total = (sum(column) for column in zip(*counts, strict=True))
    if unsettled:
        ax.text(
            0.5,
            -0.42,  # below the label of the axis
            f"> 5 % of gates flicker in {unsettled} of {total} stages",
            transform=ax.transAxes,
            ha="center",
            va="top",
            fontsize=6,
            color=style.GREY,
            gid="flickering",
        )


def metric_label(metric: str) -> str:
    """Return a metric's name as axes have it."""
    return _METRIC_LABELS.get(metric, metric.capitalize().replace("_", " "))


def _titles(names: Sequence[tuple[Hashable, ...]]) -> list[str]:
    """Return panel titles: the task, then the backbone if there are several, and any setting."""
    several = len({backbone for _, backbone, _ in names}) > 1
    titles: list[str] = []
    for task, backbone, setting in (map(str, name) for name in names):
        title = f"{task}, {backbone.rstrip('/').rsplit('/', 1)[-1]}" if several else task
        titles.append(
            title if setting == DEFAULT_SETTING else f"{title}\n{textwrap.fill(setting, 34)}"
        )
    return titles


def _grid(
    num_panels: int, *, panel_height: float, extra_height: float
) -> tuple[Figure, list[Axes]]:
    columns = min(num_panels, MAX_COLUMNS)
    rows = -(-num_panels // columns)
    width = style.COLUMN_WIDTH if columns == 1 else style.TEXT_WIDTH
    figure = Figure(figsize=(width, rows * panel_height + extra_height))
    axes = [figure.add_subplot(rows, columns, index + 1) for index in range(num_panels)]
    return figure, axes


def _is_first_column(ax: Axes) -> bool:
    place = ax.get_subplotspec()
    return place is None or place.is_first_col()


def _shared_legend(figure: Figure, axes: Sequence[Axes]) -> None:
    entries: dict[str, Line2D] = {}
    for ax in axes:
        for line in ax.get_lines():
            if line.get_gid():
                entries.setdefault(str(line.get_label()), line)
    order = sorted(entries, key=lambda label: SCORES.index(label.split(",")[0]))
    figure.legend(
        [entries[label] for label in order],
        order,
        loc="outside lower center",
        ncols=2,
        handlelength=2.6,
        columnspacing=1.5,
    )
