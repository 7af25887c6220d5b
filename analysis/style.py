# pyright: standard
# matplotlib types its keyword arguments as unknown, which strict refuses in every call
"""Look of every figure: ACL widths, fonts, colours that survive colour blindness, saving."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.figure import Figure

COLUMN_WIDTH = 3.03
"""Inches: one column of an ACL paper."""
TEXT_WIDTH = 6.30
"""Inches: both columns of an ACL paper."""

RC: dict[Any, Any] = {
    **sns.axes_style("ticks"),
    "font.family": "STIXGeneral",  # like Times, and shipped with matplotlib
    "mathtext.fontset": "stix",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.minor.size": 1.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "savefig.bbox": None,  # "tight" would change the width
    "savefig.dpi": 200,
    "pdf.fonttype": 42,  # TrueType: publishers refuse Type 3
    "ps.fonttype": 42,
}

PALETTE: list[str] = sns.color_palette("colorblind").as_hex()
"""Told apart by colour-blind readers."""
COLOURS = {"memorization": PALETTE[0], "generalization": PALETTE[3]}
"""Blue and vermilion."""
MARKERS = {"memorization": "o", "generalization": "s"}
LINES = {"memorization": "-", "generalization": "--"}
FLOOR_LINES = {"memorization": (0, (1, 1.6)), "generalization": (0, (5, 1.6, 1, 1.6))}
MASK_LINE = (0, (2, 1.4))
GREY = "#6e6e6e"

_METADATA: dict[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "Creator": "sorakit"},
    "png": {"Software": "sorakit"},
}


def save(figure: Figure, path: Path, formats: Sequence[str] = ("pdf", "png")) -> list[Path]:
    """Write `figure`, byte-identical when it is drawn again.

    Args:
        figure: A figure made under `RC`.
        path: File name without suffix.
        formats: pdf, png or both.

    Returns:
        The files written.
    """
    files = [path.with_name(f"{path.name}.{suffix}") for suffix in formats]
    with mpl.rc_context(RC):
        for file, suffix in zip(files, formats, strict=True):
            figure.savefig(file, metadata=_METADATA[suffix])
    return files
