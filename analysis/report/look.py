"""Look of the page's charts: what tells curves and controls apart, with colour and without."""

from typing import Any

from analysis import style
from analysis.controls import RANDOM_MASK
from analysis.load import FLOOR, HOLD_DENSE, PATH
from analysis.report.series import GAP

COLOURS = {**style.COLOURS, GAP: "#5b4b8a"}
INK = "#1f2328"
MUTED = "#5d656d"
GRID = "#e6e8eb"
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif'

CURVE_SHAPES = {"memorization": "circle", "generalization": "square", GAP: "diamond"}
CURVE_DASHES = {"memorization": [1, 0], "generalization": [7, 3], GAP: [1, 0]}
CURVE_FILLS = {"memorization": COLOURS["memorization"], "generalization": "white", GAP: "white"}

FLOOR_DASHES = {
    "memorization": [1.5, 2.4],
    "generalization": [7.5, 2.4, 1.5, 2.4],
    GAP: [1.5, 2.4],
}
CONTROL_SHAPES = {
    RANDOM_MASK: "diamond",
    "hard_mask_retrain": "triangle-up",
    "hard_mask_no_retrain": "triangle-down",
    "shrink_only": "cross",
    "from_scratch": "triangle-right",
    "random_gradient": "M-1,-1L1,1M-1,1L1,-1",
    "shuffled_labels": "M-1,0L1,0M0,-1L0,1",
    "lora": "M-1,-1L1,-1M0,-1L0,1",
}
CONTROL_DASHES = {
    RANDOM_MASK: [2, 2],
    "hard_mask_retrain": [8, 2, 2, 2],
    "hard_mask_no_retrain": [4, 4],
    "shrink_only": [10, 4],
    "from_scratch": [1, 4],
    "random_gradient": [6, 2, 1, 2, 1, 2],
    "shuffled_labels": [3, 6],
    "lora": [12, 2],
}
OTHER = "other"
"""What rivals without a look of their own share."""
CONTROL_SHAPES[OTHER] = "M-1,-1L0,1L1,-1"
CONTROL_DASHES[OTHER] = [1, 2, 6, 2]
RANK_COLOURS = [
    "#ffffff", "#deebf7", "#c6dbef", "#9ecae1", "#6baed6", "#4292c6", "#2171b5",
    "#08519c", "#08306b",
]  # fmt: skip
"""ColorBrewer's Blues from white: rank 0 to full rank, in equal steps."""
SHOWN_ROLES = [PATH, FLOOR, HOLD_DENSE, RANDOM_MASK]
"""Roles that the page shows before anybody chooses: what no curve is complete without."""

CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": FONT,
    "view": {"stroke": None},
    "axis": {
        "labelColor": MUTED,
        "titleColor": INK,
        "titleFontWeight": "normal",
        "titleFontSize": 12,
        "labelFontSize": 11,
        "domainColor": "#9aa1a8",
        "tickColor": "#9aa1a8",
        "gridColor": GRID,
    },
    "text": {"fill": MUTED, "fontSize": 11},
    "title": {
        "anchor": "start",
        "color": INK,
        "fontSize": 12,
        "fontWeight": "normal",
        "offset": 8,
        "frame": "bounds",
    },
}
"""Vega-Lite configuration of every chart."""
