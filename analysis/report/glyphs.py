"""Small drawings of the lines and markers of the charts, for the legend on the page."""

from analysis.load import FLOOR, HOLD_DENSE
from analysis.report import look

_PATHS = {
    "circle": "M9 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0Z",
    "square": "M9.5 -3.5h7v7h-7Z",
    "diamond": "M13 -5L17.5 0L13 5L8.5 0Z",
    "triangle-up": "M13 -5L17.5 3.5H8.5Z",
    "triangle-down": "M13 5L17.5 -3.5H8.5Z",
    "triangle-left": "M8 0L17 -4.5V4.5Z",
    "triangle-right": "M18 0L9 -4.5V4.5Z",
    "cross": "M11.5 -4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3Z",
}


def glyph(name: str) -> str:
    """Return the SVG of a curve, a floor or a control.

    Args:
        name: A curve or a role; roles have no colour of their own.
    """
    if name not in (*look.CURVE_SHAPES, *look.CONTROL_SHAPES, FLOOR, HOLD_DENSE):
        name = look.OTHER
    colour = look.COLOURS.get(name, look.MUTED)
    fill = look.CURVE_FILLS.get(name, "white")
    shape: str | None = look.CURVE_SHAPES.get(name) or look.CONTROL_SHAPES.get(name)
    dash = look.CURVE_DASHES.get(name) or look.CONTROL_DASHES.get(name)
    if name == FLOOR:
        shape, dash = None, look.FLOOR_DASHES["memorization"]
    if name == HOLD_DENSE:
        shape, dash = "triangle-left", None
    parts: list[str] = []
    if dash is not None:
        dashes = "" if dash == [1, 0] else f' stroke-dasharray="{" ".join(map(str, dash))}"'
        parts.append(
            f'<path d="M0 0H26" fill="none" stroke="{colour}" stroke-width="1.8"{dashes}/>'
        )
    if shape is not None and shape not in _PATHS:  # strokes of a control, in half its size
        parts.append(
            f'<path d="{shape}" transform="translate(13 0) scale(4)" fill="none" '
            f'stroke="{colour}" stroke-width="0.4"/>'
        )
    elif shape is not None:
        parts.append(
            f'<path d="{_PATHS[shape]}" fill="{fill}" stroke="{colour}" stroke-width="1.4"/>'
        )
    return (
        '<svg class="glyph" viewBox="-1 -7 28 14" width="28" height="14" aria-hidden="true">'
        f"{''.join(parts)}</svg>"
    )
