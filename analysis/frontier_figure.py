# pyright: standard
# matplotlib types its keyword arguments as unknown, which strict refuses in every call
"""The frontier as a figure: how far rivals are above SoRA, at shares of its full adapter."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from analysis import style
from analysis.curves import SCORES
from analysis.figures import TITLE_WIDTH
from analysis.frontier import NOT_TOLD_APART
from analysis.load import KEYS, PATH
from analysis.long_names import wrapped
from analysis.number_text import percent
from analysis.ranking_table import dataset_names
from analysis.value_axis import value_limits

MAX_COLUMNS = 3
MARKERS = ("D", "^", ">", "o", "s", "v", "P", "X")
_PALETTE = (2, 4, 1, 5, 7, 8, 6, 9)  # of seaborn's colours, but for those of the two scores
_APART = 1.05  # factor between neighbours at one share


def draw_frontier(ax: Axes, rows: pd.DataFrame, rivals: Sequence[str]) -> None:
    """Draw score minus SoRA's, with its interval, of every rival at shares of the full adapter.

    Above 0 a rival is better than SoRA. A filled marker is told apart from SoRA by its interval; an
    open one is not.

    Args:
        ax: Empty axes.
        rows: Rows of `analysis.frontier.frontier` of one dataset and one score.
        rivals: Roles, each with a marker and a colour of its own.
    """
    ax.axhline(0, color=style.GREY, linewidth=0.8, zorder=1, gid=PATH)
    shares = sorted(rows["share"].unique())
    for index, rival in enumerate(rivals):
        own = rows[(rows["role"] == rival) & rows["difference"].notna()].sort_values("share")
        if own.empty:
            continue
        x = own["share"].to_numpy(dtype=float) * _APART ** (index - (len(rivals) - 1) / 2)
        y, high, low = (
            -own[name].to_numpy(dtype=float)
            for name in ("difference", "difference_low", "difference_high")
        )
        look = rival_look(index)
        sns.lineplot(x=x, y=y, color=look["color"], linewidth=0.7, legend=False, ax=ax, zorder=2)
        known = np.isfinite(low)
        ax.vlines(x[known], low[known], high[known], color=look["color"], linewidth=0.8, zorder=2)
        told = (own["verdict"] != NOT_TOLD_APART).to_numpy()
        for is_filled in (True, False):
            face = look["color"] if is_filled else "white"
            at = told == is_filled
            gid = f"{rival}:{'told apart' if is_filled else NOT_TOLD_APART}"
            if at.any():
                ax.plot(
                    x[at], y[at], linestyle="", markersize=3.4, markeredgewidth=0.8,
                    markerfacecolor=face, zorder=3, gid=gid, **look,
                )  # fmt: skip
    low, high = ax.get_ylim()
    least, most = value_limits([0.0, *(-rows["difference"].astype(float))])
    ax.set_ylim(max(low, least), min(high, most))
    ax.set_xscale("log")
    ax.set_xlim(shares[0] / 1.35, shares[-1] * 1.35)
    ax.xaxis.set_major_locator(FixedLocator(shares))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(shares, [percent(share).replace(" ", "") for share in shares])
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))


def rival_look(index: int) -> dict[str, Any]:
    """Return marker and colour of one rival."""
    return {"marker": MARKERS[index], "color": style.PALETTE[_PALETTE[index]]}


def frontier_figure(table: pd.DataFrame) -> Figure:
    """Return a panel a dataset and score: every rival minus SoRA at shares of its full adapter.

    Args:
        table: What `analysis.frontier.frontier` returns.

    Raises:
        ValueError: If no dataset has a rival, or there are more rivals than markers.
    """
    rivals = [str(role) for role in table["role"].drop_duplicates() if role != PATH]
    if not 0 < len(rivals) <= len(MARKERS):
        raise ValueError(
            f"`RUNS` must hold 1 to {len(MARKERS)} kinds of rivals (random_mask, lora, ...), got "
            f"{len(rivals)}."
        )
    names = {key: wrapped(name, TITLE_WIDTH) for key, name in dataset_names(table).items()}
    blocks = [key for key in names if len(set(_rows(table, key)["role"])) > 1]
    columns = min(len(blocks), MAX_COLUMNS)
    rows = -(-len(blocks) // columns) * len(SCORES)
    with mpl.rc_context(style.RC):
        width = style.COLUMN_WIDTH if columns == 1 else style.TEXT_WIDTH
        lines = sum(names[key].count("\n") for key in blocks[::columns])  # beyond one a row
        figure = Figure(figsize=(width, 1.3 * rows + 0.17 * lines + 0.5))
        for place, key in enumerate(blocks):
            for line, score in enumerate(SCORES):
                row = (place // columns) * len(SCORES) + line
                ax = figure.add_subplot(rows, columns, row * columns + place % columns + 1)
                own = _rows(table, key)
                draw_frontier(ax, own[own["score"] == score], rivals)
                if line == 0:
                    ax.set_title(names[key])
                else:
                    ax.set_xlabel("Share of the full adapter")
                if place % columns == 0:
                    ax.set_ylabel(f"{score.capitalize()},\nminus SoRA path")
        _legend(figure, rivals)
        figure.draw_without_rendering()  # settles the layout, so that later saves agree
    return figure


def _rows(table: pd.DataFrame, key: tuple[object, ...]) -> pd.DataFrame:
    return table[(table[KEYS] == list(key)).all(axis=1)]


def _legend(figure: Figure, rivals: Sequence[str]) -> None:
    lines = [
        Line2D([], [], linewidth=0.7, markersize=3.4, **rival_look(index))
        for index, _ in enumerate(rivals)
    ]
    zero = Line2D([], [], color=style.GREY, linewidth=0.8)
    open_one = Line2D(
        [], [], linestyle="", marker="o", markersize=3.4, color=style.GREY, markerfacecolor="white"
    )
    figure.legend(
        [zero, *lines, open_one],
        ["SoRA path", *rivals, NOT_TOLD_APART],
        loc="outside lower center",
        ncols=2 if figure.get_figwidth() < style.TEXT_WIDTH else 4,
    )
