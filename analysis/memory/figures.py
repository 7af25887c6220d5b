# pyright: standard
# matplotlib types its keyword arguments as unknown, which strict refuses in every call
"""Figures of memorization, example by example: noise, forgetting, bits, membership, subsets."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import style
from analysis.intervals import student_t_interval
from analysis.load import KEYS, PATH
from analysis.memory.noise import CLEAN, CURVES, FITTED, RETURNED, VALIDATION
from sorakit.metric_names import GENERALIZATION_SPLIT, MEMORIZATION_SPLIT

COUNTS = "non-zero parameters"
NOISE_COLOURS = {
    CLEAN: style.PALETTE[0],
    FITTED: style.PALETTE[1],
    RETURNED: style.PALETTE[2],
    VALIDATION: style.PALETTE[3],
}
_PANEL_HEIGHT = 1.9  # inches
_KINDS = {"wrong label": style.PALETTE[1], "once": style.PALETTE[0], "twice": style.PALETTE[4]}


def draw_over_counts(
    ax: Axes, table: pd.DataFrame, *, value: str, colour: str, label: str, line: str = "-"
) -> None:
    """Draw mean and 95 % interval over runs of a value, stage by stage, over parameters.

    The place of a stage is the geometric mean of its counts; stages without parameters are left
    out.

    Args:
        ax: Axes, whose x becomes logarithmic.
        table: Columns `run_id`, `stage`, `num_nonzero_params` and the value.
        value: The column to draw.
        colour: Of line and band.
        label: In the legend.
        line: Style of the line.
    """
    own = table[(table["num_nonzero_params"] > 0) & table[value].notna()]
    rows: list[tuple[float, float, float, float]] = []
    for _, stage in own.groupby("stage", sort=True):
        counts = np.log10(stage["num_nonzero_params"].to_numpy(dtype=float))
        interval = student_t_interval(stage[value].tolist())
        rows.append((10 ** counts.mean(), interval.mean, interval.low, interval.high))
    if not rows:
        return
    x, mean, low, high = np.array(rows).T
    sns.lineplot(
        x=x, y=mean, color=colour, label=label, linestyle=line, marker="o", markersize=3.5,
        linewidth=1.0, estimator=None, sort=False, ax=ax,
    )  # fmt: skip
    known = np.isfinite(low)
    ax.fill_between(x[known], low[known], high[known], color=colour, alpha=0.18, linewidth=0)
    ax.set_xscale("log")
    ax.set_xlabel(COUNTS)


def noise_figure(curves: pd.DataFrame) -> Figure:
    """Return the four curves of every dataset with label noise; floors are short lines at the left.

    Args:
        curves: Rows of `noise_curves`.
    """
    paths = curves[curves["role"] == PATH]
    with mpl.rc_context(style.RC):
        figure, panels = _panels(paths)
        for ax, (names, own) in panels:
            for curve in CURVES:
                draw_over_counts(
                    ax, own[own["curve"] == curve], value="value",
                    colour=NOISE_COLOURS[curve], label=curve,
                    line="--" if curve == VALIDATION else "-",
                )  # fmt: skip
            is_floor = (curves["role"] != PATH) & (curves["task"] == names[0])
            floors = curves[is_floor & (curves["setting"] == names[2])]
            left = ax.get_xlim()[0]
            for curve, rows in floors.groupby("curve"):
                ax.plot(
                    [left, left * 1.35], [rows["value"].mean()] * 2,
                    color=NOISE_COLOURS[str(curve)], linewidth=1.4, gid="floor",
                )  # fmt: skip
            ax.set_ylabel("share right")
            _legend(ax)
    return figure


def forgetting_figure(spectrum: pd.DataFrame) -> Figure:
    """Return the share of what dense has right that is left, by split.

    Args:
        spectrum: Rows of `spectrum`.
    """
    names = {MEMORIZATION_SPLIT: "memorization", GENERALIZATION_SPLIT: "generalization"}
    with mpl.rc_context(style.RC):
        figure, panels = _panels(spectrum)
        for ax, (_, own) in panels:
            for split, look in names.items():
                draw_over_counts(
                    ax, own[own["split"] == split], value="left",
                    colour=style.COLOURS[look], label=look, line=style.LINES[look],
                )  # fmt: skip
            ax.set_ylabel("left of what dense has right")
            _legend(ax)
    return figure


def bits_figure(bits: pd.DataFrame) -> Figure:
    """Return bits a parameter over parameters: of true labels, and of permuted ones.

    Args:
        bits: Rows of `bits_table`.
    """
    paths = bits[bits["num_nonzero_params"] > 0]
    with mpl.rc_context(style.RC):
        figure, panels = _panels(paths)
        for ax, (_, own) in panels:
            for index, (role, rows) in enumerate(own.groupby("role", sort=True)):
                label = "true labels" if role == PATH else str(role).replace("_", " ")
                draw_over_counts(
                    ax, rows, value="unintended_capacity", colour=style.PALETTE[index], label=label
                )
            ax.set_yscale("log")
            ax.set_ylabel("unintended bits a parameter")
            _legend(ax)
    return figure


def membership_figure(membership: pd.DataFrame) -> Figure:
    """Return the AUC of every attack over parameters.

    Args:
        membership: Rows of `membership_table`.
    """
    paths = membership[membership["role"] == PATH].assign(setting=lambda table: table["pool"])
    with mpl.rc_context(style.RC):
        figure, panels = _panels(paths)
        for ax, (_, own) in panels:
            ax.axhline(0.5, color=style.GREY, linewidth=0.8, linestyle=":", gid="chance")
            for index, (attack, rows) in enumerate(own.groupby("attack", sort=False)):
                draw_over_counts(
                    ax, rows, value="auc", colour=style.PALETTE[index], label=str(attack)
                )
            ax.set_ylabel("membership AUC")
            _legend(ax)
    return figure


def counterfactual_figure(memorization: pd.DataFrame) -> Figure:
    """Return how counterfactual memorization is spread, by kind of example and stage.

    Args:
        memorization: Rows of `counterfactual_memorization`.
    """
    table = memorization.assign(
        setting=memorization["pool"],
        kind=np.where(
            memorization["is_noisy"],
            "wrong label",
            np.where(memorization["copies"] > 1, "twice", "once"),
        ),
    )
    with mpl.rc_context(style.RC):
        figure, panels = _panels(table)
        for ax, (_, own) in panels:
            counts = own.groupby("stage")["num_nonzero_params"].first()
            places = own["stage"].map({stage: f"{counts[stage]:,.0f}" for stage in counts.index})
            sns.boxplot(
                own.assign(place=places), x="place", y="memorization", hue="kind",
                hue_order=[kind for kind in _KINDS if kind in set(own["kind"])],
                palette=_KINDS, linewidth=0.6, fliersize=1.2, ax=ax,
            )  # fmt: skip
            ax.axhline(0, color=style.GREY, linewidth=0.8, linestyle=":")
            ax.set_xlabel(COUNTS)
            ax.set_ylabel("counterfactual memorization")
            _legend(ax)
    return figure


def _panels(
    table: pd.DataFrame,
) -> tuple[Figure, list[tuple[Axes, tuple[Sequence[object], pd.DataFrame]]]]:
    """Return a figure with a panel a dataset, two in a row."""
    blocks = list(table.groupby(KEYS, sort=True))
    columns = min(2, len(blocks))
    rows = -(-len(blocks) // columns)
    width = style.COLUMN_WIDTH if columns == 1 else style.TEXT_WIDTH
    figure = Figure(figsize=(width, _PANEL_HEIGHT * rows))
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, (names, _) in zip(grid, blocks, strict=False):
        ax.set_title(str(names[0]))
    for ax in grid[len(blocks) :]:
        ax.set_axis_off()
    return figure, list(zip(grid, blocks, strict=False))


def _legend(ax: Axes) -> None:
    if ax.get_legend_handles_labels()[0]:
        ax.legend(handlelength=1.6, labelspacing=0.3)
