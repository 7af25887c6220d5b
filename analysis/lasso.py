# pyright: standard
# matplotlib types its keyword arguments as unknown, which strict refuses in every call
"""The Lasso path of SoRA's gates beside scikit-learn's (`experiments/lasso_oracle.py`)."""

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from analysis import style

PATH_FILE = "lasso_path.csv"
LEVELS_FILE = "lasso_levels.csv"
SOURCE_FILE = "lasso_source.json"

DIFFERENCE_BOUND = 1e-4
"""Coefficients that agree differ by less."""
KKT_BOUND = 1e-6
"""A level whose KKT residual, in lambdas, is below is a solution."""

_SMALLEST = 1e-17
"""Below the rounding of float64 at 1, so only zeros are drawn on the linear rest of the axis."""


def largest_differences(path: pd.DataFrame) -> pd.Series:
    """Return the largest difference of a coefficient between the two solutions, by lambda."""
    return (path["sorakit"] - path["scikit_learn"]).abs().groupby(path["lambda"]).max()


def draw_path(ax: Axes, path: pd.DataFrame) -> None:
    """Draw every coefficient against lambda: scikit-learn as lines, sorakit as rings.

    Args:
        ax: Empty axes.
        path: One row a (lambda, coefficient).
    """
    for coefficient, rows in path.groupby("coefficient", sort=True):
        ordered = rows.sort_values("lambda")
        x = ordered["lambda"].to_numpy(dtype=float)
        first = coefficient == path["coefficient"].min()
        ax.plot(
            x,
            ordered["scikit_learn"].to_numpy(dtype=float),
            color=style.GREY,
            linewidth=0.7,
            label="scikit-learn" if first else None,
            gid=f"scikit_learn:{coefficient}",
            zorder=2,
        )
        ax.plot(
            x,
            ordered["sorakit"].to_numpy(dtype=float),
            color=style.COLOURS["memorization"],
            linestyle="none",
            marker="o",
            markersize=2.6,
            markerfacecolor="none",
            markeredgewidth=0.6,
            label="SoRA" if first else None,
            gid=f"sorakit:{coefficient}",
            zorder=3,
        )
    ax.set_xscale("log")
    ax.set_ylabel("Coefficient (gate)")
    ax.legend(loc="upper right", handlelength=1.4)


def draw_agreement(ax: Axes, path: pd.DataFrame, levels: pd.DataFrame) -> None:
    """Draw the largest difference of a coefficient and the KKT residual of every lambda.

    A line above each is the bound below which it counts as none. The axis is logarithmic down to
    `_SMALLEST` and ends at 0, which a residual in float64 can be.

    Args:
        ax: Empty axes.
        path: One row a (lambda, coefficient).
        levels: One row a lambda, with `kkt_residual`.
    """
    largest = largest_differences(path).sort_index()
    residuals = levels.sort_values("lambda").set_index("lambda")["kkt_residual"]
    left = float(residuals.index.min())
    for name, values, marker, fill, bound, line in (
        ("largest difference", largest, "s", "black", DIFFERENCE_BOUND, "--"),
        ("KKT residual", residuals, "^", "white", KKT_BOUND, ":"),
    ):
        ax.plot(
            values.index.to_numpy(dtype=float),
            values.to_numpy(dtype=float),
            color="black",
            linestyle="none",
            marker=marker,
            markersize=2.8,
            markerfacecolor=fill,
            markeredgewidth=0.6,
            label=name,
            gid=name,
            clip_on=False,  # a residual of 0 stands on the axis
        )
        ax.axhline(bound, color=style.GREY, linestyle=line, linewidth=0.8, gid=f"bound:{name}")
        ax.annotate(
            f"bound, {name}",
            (left, bound),
            xytext=(0, -2),
            textcoords="offset points",
            va="top",
            fontsize=6,
            color=style.GREY,
        )
    ax.set_yscale("symlog", linthresh=_SMALLEST, linscale=0.5)
    ax.set_ylim(0, 10 * DIFFERENCE_BOUND)
    ax.set_yticks([0, 1e-15, 1e-10, 1e-5])
    ax.yaxis.set_minor_locator(NullLocator())
    # Above the panel: among the points its markers would pass for data.
    ax.legend(
        loc="lower center", bbox_to_anchor=(0.5, 0.96), ncols=2, handletextpad=0.2, borderpad=0
    )
    ax.set_xlabel(r"$\lambda = \xi / \eta$")
    ax.set_ylabel("Error")


def lasso_figure(path: pd.DataFrame, levels: pd.DataFrame) -> Figure:
    """Return the path above, and how far both solutions are from each other below."""
    with mpl.rc_context(style.RC):
        figure = Figure(figsize=(style.COLUMN_WIDTH, 3.3))
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1.9, 1])
        draw_path(upper, path)
        draw_agreement(lower, path, levels)
        figure.align_ylabels()
        figure.draw_without_rendering()  # settles the layout, so that later saves agree
    return figure
