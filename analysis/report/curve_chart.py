# pyright: standard
# altair types its channels by overloads that strict cannot follow
"""The chart of one dataset's curves, as a Vega-Lite specification over named tables."""

from collections.abc import Mapping
from typing import Any

import altair as alt

from analysis.count_axis import CountAxis
from analysis.curves import SCORES
from analysis.load import FLOOR, HOLD_DENSE, PATH
from analysis.number_text import compact
from analysis.report import look
from analysis.report.series import CURVES, GAP, MEASURES

HEIGHT = 270  # pixels
_SHORT = {"memorization": "mem.", "generalization": "gen.", GAP: "gap"}
_STRIP_ROWS = {curve: HEIGHT + 15 + 17 * row for row, curve in enumerate(SCORES)}
_STRIP_HEIGHT = 44  # pixels between the curves and the axis of counts: where the inflections stand
_IS_SHOWN = (
    "isValid(datum.y) && indexof(curves, datum.curve) >= 0 && indexof(roles, datum.role) >= 0"
)
_INTERVAL_END = (
    "isValid(datum[measure + '_{end}']) ? "
    "{cut}(datum[measure + '_{end}'], limits[measure].{end}) : null"
)
_HAS_INTERVAL = "isValid(datum.y_low)"
# One scale of dashes and one of shapes serve all layers.
_LINE = (
    f"datum.role == '{PATH}' ? datum.curve : "
    f"datum.role == '{FLOOR}' ? 'floor ' + datum.curve : "
    f"indexof({list(look.CONTROL_SHAPES)}, datum.role) >= 0 ? datum.role : '{look.OTHER}'"
)
_DASHES = {
    **look.CURVE_DASHES,
    **{f"floor {curve}": dash for curve, dash in look.FLOOR_DASHES.items()},
    **look.CONTROL_DASHES,
}
_SHAPES = {**look.CURVE_SHAPES, **look.CONTROL_SHAPES}


def curve_chart() -> dict[str, Any]:
    """Return the specification that draws the curves of any dataset.

    It reads the tables points, means, references, drops and breaks, and these parameters: `counts`,
    `limits` and `titles`, see `chart_values`; `measure` (what is drawn, a key of `MEASURES`),
    `curves` and `roles` (what of it is shown). One specification serves all datasets of a page,
    which is most of its size. In the strip below the curves stand the inflections.
    """
    params = [
        alt.param(name="counts", value={}),
        alt.param(name="limits", value={}),
        alt.param(name="titles", value={}),
        alt.param(name="measure", value="raw"),
        alt.param(name="curves", value=CURVES),
        alt.param(name="roles", value=look.SHOWN_ROLES),
    ]
    chart = alt.layer(
        *_reference_layers(),
        *_path_layers(),
        *_control_layers(),
        *_drop_layers(),
        *_break_layers(),
    )
    return (
        chart.add_params(*params)
        .properties(
            width="container",
            height=HEIGHT,
            title=alt.TitleParams(alt.expr("titles[measure]")),
            autosize=alt.AutoSizeParams(type="fit-x", contains="padding"),
        )
        .configure(**look.CONFIG)
        .to_dict()
    )


def chart_values(
    axis: CountAxis, limits: Mapping[str, tuple[float, float]], *, metric: str
) -> dict[str, Any]:
    """Return the parameters that are one dataset's own.

    Args:
        axis: Axis of counts.
        limits: Measure -> how far intervals are drawn.
        metric: Name of the score.
    """
    titles = {
        "raw": metric,
        "percent": f"{metric}, percent of the dense score",
        "gain": "Gain retained: (score - floor) / (dense - floor)",
        "loss": "Loss",
        "gap": f"Gap: memorization - generalization, {metric}",
    }
    assert set(titles) == set(MEASURES)
    zero = [axis.zero] if axis.has_zero else []
    return {
        "titles": titles,
        "limits": {name: {"low": low, "high": high} for name, (low, high) in limits.items()},
        "counts": {
            "domain": [axis.left, axis.right],
            "zero": axis.zero if axis.has_zero else None,
            "ticks": [*zero, *axis.ticks],
            "labels": [*("0" for _ in zero), *map(compact, axis.ticks)],
        },
    }


def _rows(table: str, role: str) -> alt.Chart:
    """Return the rows of a table that are shown, with y and its interval as `measure` says."""
    return (
        alt.Chart(alt.NamedData(table))
        .transform_calculate(
            y="datum[measure]",
            # a wide interval ends at the edge of the chart, which follows the curves
            y_low=_INTERVAL_END.format(end="low", cut="max"),
            y_high=_INTERVAL_END.format(end="high", cut="min"),
            line=_LINE,
            # formatted here: the format of a tooltip makes 0 of what is not known
            interval="isValid(datum[measure + '_low']) ? format(datum[measure + '_low'], '.3~f') + "
            "' to ' + format(datum[measure + '_high'], '.3~f') : 'none, one seed'",
            share="isValid(datum.num_adapter_params) ? "
            "format(datum.num_nonzero_params / datum.num_adapter_params, '.2~%') : '-'",
            **{
                f"{measure}_text": f"isValid(datum.{measure}) ? "
                f"format(datum.{measure}, '.4~g') : '-'"
                for measure in MEASURES
            },
        )
        .transform_filter(_IS_SHOWN)
        .transform_filter(role)
    )


def _placed(rows: alt.Chart) -> alt.Chart:
    count = "datum.num_nonzero_params"
    return rows.transform_calculate(x=f"{count} > 0 ? {count} : counts.zero")


def _reference_layers() -> list[alt.Chart]:
    floor = _rows("references", f"datum.role == '{FLOOR}'")
    held = _rows("references", f"datum.role == '{HOLD_DENSE}'")
    at_right = alt.XValue(alt.expr("width + 10"))
    tooltip = _mean_tooltip(with_count=False)
    return [
        floor.mark_rule(strokeWidth=1.4).encode(
            y=_y(), color=_colour(), strokeDash=_dash(), tooltip=tooltip
        ),
        *(
            # outside, where no curve is; the higher one upwards, for the two floors may be close
            floor.transform_window(
                place="row_number()", sort=[alt.SortField("y", order="descending")]
            )
            .transform_filter(f"datum.place == {place}")
            .mark_text(align="left", dy=dy, text="floor", fontSize=10)
            .encode(x=alt.XValue(alt.expr("width + 18")), y=_y(), color=_colour(), tooltip=tooltip)
            for place, dy in ((1, -5), (2, 6))
        ),
        *(
            floor.transform_filter(f"datum.curve == '{curve}' && {_HAS_INTERVAL}")
            .mark_rule(strokeWidth=1.2)
            .encode(x=alt.XValue(x), y=_y("_low"), y2=_y2(), color=_colour(), tooltip=tooltip)
            for curve, x in zip(CURVES, (4, 9, 4), strict=True)  # side by side
        ),
        held.transform_filter(_HAS_INTERVAL)
        .mark_rule(strokeWidth=1.2)
        .encode(x=at_right, y=_y("_low"), y2=_y2(), color=_colour()),
        held.mark_point(shape="triangle-left", size=70, strokeWidth=1.4, opacity=1).encode(
            x=at_right, y=_y(), color=_colour(), fill=_fill(), tooltip=tooltip
        ),
    ]


def _path_layers() -> list[alt.Chart]:
    role = f"datum.role == '{PATH}'"
    means, points = (_placed(_rows(table, role)) for table in ("means", "points"))
    x = _x()
    return [
        means.transform_filter(_HAS_INTERVAL)
        .mark_area(opacity=0.16)
        .encode(x=x, y=_y("_low"), y2=_y2(), color=_colour()),
        means.mark_line(strokeWidth=2.2).encode(x=x, y=_y(), color=_colour(), strokeDash=_dash()),
        _pointed_at(means, x),
        points.mark_point(size=30, strokeWidth=1.2, opacity=1).encode(
            x=x, y=_y(), color=_colour(), fill=_fill(), shape=_shape(), tooltip=_point_tooltip()
        ),
        *(
            # both curves end at 1 where shares are shown
            means.transform_filter(f"datum.curve == '{curve}'")
            .transform_joinaggregate(dense="max(num_nonzero_params)")
            .transform_filter("datum.num_nonzero_params == datum.dense")
            .mark_text(align="left", dx=7, dy=dy, text=_SHORT[curve], fontSize=11)
            .encode(x=x, y=_y(), color=_colour())
            for curve, dy in zip(CURVES, (-7, 9, 0), strict=True)
        ),
    ]


def _control_layers() -> list[alt.Chart]:
    role = f"indexof({[PATH, FLOOR, HOLD_DENSE]}, datum.role) < 0"
    means, points = (_placed(_rows(table, role)) for table in ("means", "points"))
    x = _x()
    return [
        means.mark_line(strokeWidth=1.3).encode(x=x, y=_y(), color=_colour(), strokeDash=_dash()),
        _pointed_at(means, x),
        points.mark_point(size=26, strokeWidth=1, opacity=0.75).encode(
            x=x, y=_y(), color=_colour(), fill=_fill(), shape=_shape(), tooltip=_point_tooltip()
        ),
    ]


def _pointed_at(means: alt.Chart, x: alt.X) -> alt.Chart:
    """Return what the pointer finds on a line: nothing to see."""
    return means.mark_point(size=90, filled=True, opacity=0).encode(
        x=x, y=_y(), tooltip=_mean_tooltip(with_count=True)
    )


def _drop_layers() -> list[alt.Chart]:
    """Return the strip of inflections: a row a score, a mark with its interval, or why none."""
    drops = alt.Chart(alt.NamedData("drops")).transform_filter(
        "measure != 'gap' && measure != 'loss' && indexof(curves, datum.curve) >= 0"
    )
    found = drops.transform_filter("datum.detected")
    x = _x("drop")
    tooltip = [
        alt.Tooltip("curve:N", title="score"),
        alt.Tooltip("sentence:N", title="inflection"),
    ]
    layers: list[alt.Chart] = [
        found.mark_rule(strokeWidth=1, opacity=0.55).encode(
            x=x,
            y=alt.YValue(0),
            y2=alt.Y2Value(HEIGHT + _STRIP_HEIGHT - 4),
            color=_colour(),
            strokeDash=_dash("curve"),
        )
    ]
    for curve, y in _STRIP_ROWS.items():
        of_row = f"datum.curve == '{curve}'"
        own = found.transform_filter(of_row)
        with_interval = own.transform_filter("isValid(datum.drop_low) && isValid(datum.drop_high)")
        colour = alt.value(look.COLOURS[curve])
        layers += [
            with_interval.mark_rule(strokeWidth=2).encode(
                x=_x("drop_low"),
                x2=alt.X2("drop_high:Q"),
                y=alt.YValue(y),
                color=colour,
                tooltip=tooltip,
            ),
            *(
                with_interval.mark_tick(orient="vertical", thickness=2, size=8).encode(
                    x=_x(field), y=alt.YValue(y), color=colour
                )
                for field in ("drop_low", "drop_high")
            ),
            own.mark_point(
                size=60,
                strokeWidth=1.6,
                opacity=1,
                shape=look.CURVE_SHAPES[curve],
                fill=look.CURVE_FILLS[curve],
            ).encode(x=x, y=alt.YValue(y), color=colour, tooltip=tooltip),
            drops.transform_filter(of_row)
            .mark_text(align="right", fontSize=10, text=f"{_SHORT[curve]} drops")
            .encode(x=alt.XValue(-8), y=alt.YValue(y), color=colour, tooltip=tooltip),
            drops.transform_filter(of_row)
            .transform_filter("!datum.detected")
            .mark_text(align="left", fontSize=11, fontStyle="italic")
            .encode(
                x=alt.XValue(6), y=alt.YValue(y), text="none:N", color=alt.value(look.MUTED),
                tooltip=tooltip,
            ),
        ]  # fmt: skip
    return layers


def _break_layers() -> list[alt.Chart]:
    """Return the strokes that break the axis between 0 and the smallest count."""
    place = alt.Chart(alt.NamedData("breaks"))
    text: dict[str, Any] = {"text": "//", "fontSize": 12, "baseline": "middle"}
    at = {"x": _x(), "y": alt.YValue(HEIGHT + _STRIP_HEIGHT)}
    return [
        place.mark_text(**text, stroke="white", strokeWidth=6).encode(**at),
        place.mark_text(**text).encode(**at),
    ]


def _x(field: str = "x") -> alt.X:
    return alt.X(
        f"{field}:Q",
        # an interval that is wider than the axis ends at its edge
        scale=alt.Scale(type="log", domain=alt.expr("counts.domain"), nice=False, clamp=True),
        axis=alt.Axis(
            values=alt.expr("counts.ticks"),
            labelExpr="counts.labels[indexof(counts.ticks, datum.value)]",
            title="Non-zero adapter parameters",
            offset=_STRIP_HEIGHT,
            grid=False,
            tickSize=5,
        ),
    )


def _y(end: str = "") -> alt.Y:
    return alt.Y(
        f"y{end}:Q",
        scale=alt.Scale(zero=False, nice=True, padding=6),
        axis=alt.Axis(title=None, domain=False, ticks=False, tickCount=6, labelPadding=6),
    )


def _y2() -> alt.Y2:
    return alt.Y2("y_high:Q")


def _colour() -> alt.Color:
    return alt.Color("curve:N", legend=None, scale=_scale(look.COLOURS))


def _fill() -> alt.Fill:
    return alt.Fill("curve:N", legend=None, scale=_scale(look.CURVE_FILLS))


def _dash(field: str = "line") -> alt.StrokeDash:
    return alt.StrokeDash(f"{field}:N", legend=None, scale=_scale(_DASHES))


def _shape() -> alt.Shape:
    return alt.Shape("line:N", legend=None, scale=_scale(_SHAPES))


def _scale(values: dict[str, Any]) -> alt.Scale:
    return alt.Scale(domain=list(values), range=list(values.values()))


def _point_tooltip() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("run_id:N", title="run"),
        alt.Tooltip("role:N", title="schedule"),
        alt.Tooltip("seed:Q", title="seed"),
        alt.Tooltip("stage:Q", title="stage"),
        alt.Tooltip("xi:Q", title="xi", format=".3~g"),
        alt.Tooltip("num_nonzero_params:Q", title="parameters", format=","),
        alt.Tooltip("share:N", title="of the full adapter"),
        alt.Tooltip("curve:N", title="curve"),
        *(alt.Tooltip(f"{measure}_text:N", title=name) for measure, name in MEASURES.items()),
    ]


def _mean_tooltip(*, with_count: bool) -> list[alt.Tooltip]:
    count = [alt.Tooltip("num_nonzero_params:Q", title="parameters", format=",.0f")]
    return [
        alt.Tooltip("role:N", title="schedule"),
        alt.Tooltip("curve:N", title="curve"),
        *(count if with_count else []),
        alt.Tooltip("y:Q", title="mean", format=".4~f"),
        alt.Tooltip("interval:N", title="95 % interval"),
        alt.Tooltip("seeds:Q", title="seeds"),
    ]
