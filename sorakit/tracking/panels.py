"""The panels of the workspace and of the report, and of which runs a mean is taken.

Means are taken on the grid of `sorakit.curve_grid` alone: W&B puts x values that differ from run to
run into buckets and averages what happens to lie in one.
"""

import importlib
from typing import Any

from sorakit.metric_names import (
    CURVE_COLUMNS,
    CURVE_CONFIG,
    CURVE_LOG10_SHARE,
    CURVE_RUNS,
    GENERALIZATION,
    GENERALIZATION_SPLIT,
    LAST_KKT_RESIDUAL,
    MEMORIZATION,
    NUM_NONZERO_PARAMS,
    OPTIMIZER_STEP,
    PENALISED_GENERALIZATION,
    PENALISED_MEMORIZATION,
    RANKS_TABLE,
    SCORES,
    SHARES,
    SMALLEST_BUDGET,
    TRAIN_LOSS,
    dense_score,
    fewest_params,
    floor_score,
    stage_keys,
)
from sorakit.tracking.mirror import HEATMAP
from sorakit.tracking.rows import RANK_COLUMNS

GROUPING = ("Group", "backbone.name", "method.name")
"""How the table of runs is folded: the dataset (W&B's group), then two keys of the
configuration."""
_EACH_RUN = "ID"
_MAX_RUNS = 100
_MEANS = {
    "memorization": "Memorization",
    "generalization": "Generalization",
    "memorization_gain_retained": "Memorization: gain retained",
    "generalization_gain_retained": "Generalization: gain retained",
    "gap": "Gap: memorization - generalization",
}
"""Column -> title of its panel."""


def workspaces_module() -> Any:
    """Return the module of workspaces: of an extra, which type checkers may not find."""
    return importlib.import_module("wandb_workspaces.workspaces")


def reports_module() -> Any:
    """Return the module of reports and panels, of the same extra."""
    return importlib.import_module("wandb_workspaces.reports.v2")


def mean_panels() -> list[Any]:
    """Return means over seeds with their standard errors, a line a curve, and N beside them."""
    titled = [_mean(title, CURVE_COLUMNS[column]) for column, title in _MEANS.items()]
    counted = _mean("N: seeds that were measured there", CURVE_RUNS, of="sum", band="none")
    return [*titled, counted]


def measured_panels() -> list[Any]:
    """Return the stages as they were measured: a line a run, and no mean."""
    return [
        _measured("Memorization", MEMORIZATION),
        _measured("Generalization", GENERALIZATION),
        _measured("KKT residual", stage_keys()["kkt_residual"]),
    ]


def penalised_panels() -> list[Any]:
    """Return the scores before the refit of a stage, a line a run."""
    return [
        _measured("Memorization, penalised", PENALISED_MEMORIZATION),
        _measured("Generalization, penalised", PENALISED_GENERALIZATION),
    ]


def fewest_panels() -> list[Any]:
    """Return how few parameters keep a share of the dense score, a bar a curve."""
    return [
        _bars(f"{share}: {score}", fewest_params(score, share))
        for score in SCORES
        for share in SHARES
    ]


def rank_panel(*, entity: str) -> Any:
    """Return the heatmap of the ranks at the last stage."""
    return reports_module().CustomChart(
        query={"summaryTable": {"tableKey": RANKS_TABLE}},
        chart_name=f"{entity}/{HEATMAP}",
        chart_fields={column: column for column in RANK_COLUMNS},
        chart_strings={"title": "Ranks at the last stage"},
    )


def run_comparer() -> Any:
    """Return the table of what differs between runs."""
    return reports_module().RunComparer(diff_only=True)


def training_panel() -> Any:
    """Return the training loss, a line a run."""
    wr = reports_module()
    return wr.LinePlot(
        title="Training loss",
        x=OPTIMIZER_STEP,
        y=[TRAIN_LOSS],
        groupby=wr.Metric(_EACH_RUN),
        max_runs_to_show=_MAX_RUNS,
    )


def columns() -> list[str]:
    """Return the columns of the table of runs."""
    keys = [
        *(dense_score(score) for score in SCORES),
        *(floor_score(score) for score in SCORES),
        *(fewest_params(GENERALIZATION_SPLIT, share) for share in SHARES),
        SMALLEST_BUDGET,
        LAST_KKT_RESIDUAL,
    ]
    return ["run:displayName", *(f"summary:{key}" for key in keys)]


def _mean(title: str, key: str, *, of: str = "mean", band: str = "stderr") -> Any:
    wr = reports_module()
    return wr.LinePlot(
        title=title,
        x=CURVE_LOG10_SHARE,
        y=[key],
        title_x="log10 of the share of the full adapter",
        groupby=wr.Config(CURVE_CONFIG),
        groupby_aggfunc=of,
        groupby_rangefunc=band,
        point_visualization_method="sampling",  # all of 31 points; the other takes some
        max_runs_to_show=_MAX_RUNS,
    )


def _measured(title: str, key: str) -> Any:
    wr = reports_module()
    return wr.LinePlot(
        title=title,
        x=NUM_NONZERO_PARAMS,
        y=[key],
        log_x=True,
        title_x="non-zero adapter parameters",
        groupby=wr.Metric(_EACH_RUN),
        point_visualization_method="sampling",
        max_runs_to_show=_MAX_RUNS,
    )


def _bars(title: str, key: str) -> Any:
    wr = reports_module()
    return wr.BarPlot(
        title=title,
        metrics=[key],
        title_x="non-zero adapter parameters",
        groupby=wr.Config(CURVE_CONFIG),
        groupby_aggfunc="mean",
        groupby_rangefunc="stderr",
    )
