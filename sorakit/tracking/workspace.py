"""The dashboard as code: one saved view a project, the same however often it is made."""

import importlib
import json
from collections.abc import Callable, Iterable
from importlib.resources import files
from typing import Any

import wandb

from sorakit.metric_names import (
    GAP,
    GENERALIZATION,
    GENERALIZATION_GAIN,
    GENERALIZATION_SPLIT,
    LAST_KKT_RESIDUAL,
    MEMORIZATION,
    MEMORIZATION_GAIN,
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
from sorakit.records import PATH
from sorakit.tracking.client import FAILURES, reason_of
from sorakit.tracking.mirror import HEATMAP
from sorakit.tracking.rows import RANK_COLUMNS

VIEW = "sorakit"
"""Part of the view's address; fixed, so that the view is found again."""
TITLE = "sorakit: compressibility across datasets"
_DATASET = "Group"
_HEATMAP_FILE = "rank_heatmap.json"


def require_workspaces() -> None:
    """Raise unless wandb-workspaces is installed.

    Raises:
        ValueError: If it is not.
    """
    try:
        _workspaces()
    except ImportError as error:
        raise ValueError(
            "`--workspace` must be false without the package wandb-workspaces, got true. "
            "Install it: pip install -c constraints.txt -e '.[wandb-workspaces]'."
        ) from error


def save_workspaces(
    projects: Iterable[tuple[str, str]], *, say: Callable[[str], None]
) -> list[str]:
    """Save the view of every (entity, project); return the names of those that failed."""
    failed: list[str] = []
    for entity, project in sorted(projects):
        name = f"the dashboard of {entity}/{project}"
        try:
            say(f"Dashboard: {save_workspace(entity=entity, project=project)}")
        except FAILURES as error:
            say(f"{name} could not be saved: {reason_of(error)}")
            failed.append(name)
    return failed


def save_workspace(*, entity: str, project: str) -> str:
    """Create the project's view and the chart it uses, or replace what they show.

    Returns:
        Address of the view.
    """
    ws = _workspaces()
    api = wandb.Api()
    api.create_custom_chart(
        entity=entity,
        name=HEATMAP,
        display_name="SoRA ranks",
        spec_type="vega2",
        access="private",
        spec=heatmap_spec(),
    )
    workspace = _existing(entity=entity, project=project)
    workspace.name = TITLE
    workspace.sections = sections(entity=entity)
    workspace.settings = ws.WorkspaceSettings(x_axis=NUM_NONZERO_PARAMS, max_runs=100)
    workspace.runset_settings = runset_settings()
    return workspace.save().url


def heatmap_spec() -> dict[str, object]:
    """Return the Vega-Lite specification of the rank heatmap."""
    return json.loads(files("sorakit.tracking").joinpath(_HEATMAP_FILE).read_text("utf-8"))


def sections(*, entity: str) -> list[Any]:
    """Return the sections of the view."""
    ws, wr = _workspaces(), _reports()
    return [
        ws.Section(
            name="Curves: mean and standard deviation over seeds",
            is_open=True,
            panels=[
                _curve("Memorization", MEMORIZATION),
                _curve("Generalization", GENERALIZATION),
                _curve("Memorization: gain retained", MEMORIZATION_GAIN),
                _curve("Generalization: gain retained", GENERALIZATION_GAIN),
                _curve("Gap: memorization - generalization", GAP),
                _curve("KKT residual", stage_keys()["kkt_residual"]),
            ],
        ),
        ws.Section(
            name="Before the refit of a stage: the weights that the penalty left",
            is_open=False,
            panels=[
                _curve("Memorization, penalised", PENALISED_MEMORIZATION),
                _curve("Generalization, penalised", PENALISED_GENERALIZATION),
            ],
        ),
        ws.Section(
            name="How few parameters keep 99, 95 and 90 % of the dense score",
            is_open=True,
            panels=[
                _bars(f"{share}: {score}", fewest_params(score, share))
                for score in SCORES
                for share in SHARES
            ],
        ),
        ws.Section(
            name="Ranks",
            is_open=True,
            panels=[
                wr.CustomChart(
                    query={"summaryTable": {"tableKey": RANKS_TABLE}},
                    chart_name=f"{entity}/{HEATMAP}",
                    chart_fields={column: column for column in RANK_COLUMNS},
                    chart_strings={"title": "Ranks at the last stage"},
                )
            ],
        ),
        ws.Section(
            name="Runs",
            is_open=True,
            panels=[wr.RunComparer(diff_only=True)],
        ),
        ws.Section(
            name="Training",
            panels=[wr.LinePlot(title="Training loss", x=OPTIMIZER_STEP, y=[TRAIN_LOSS])],
        ),
    ]


def runset_settings() -> Any:
    """Return the runs that are shown, paths, by dataset, and the columns of their table.

    Floors stand in the columns and in gain retained; controls appear when the filter is taken off.
    """
    ws = _workspaces()
    columns = [
        *(dense_score(score) for score in SCORES),
        *(floor_score(score) for score in SCORES),
        *(fewest_params(GENERALIZATION_SPLIT, share) for share in SHARES),
        SMALLEST_BUDGET,
        LAST_KKT_RESIDUAL,
    ]
    return ws.RunsetSettings(
        groupby=[ws.Metric(_DATASET)],
        filters=ws.And(ws.Metric("JobType") == PATH),
        pinned_columns=["run:displayName", *(f"summary:{column}" for column in columns)],
    )


def _curve(title: str, key: str) -> Any:
    wr = _reports()
    return wr.LinePlot(
        title=title,
        x=NUM_NONZERO_PARAMS,
        y=[key],
        log_x=True,
        title_x="non-zero adapter parameters",
        groupby=_DATASET,
        groupby_aggfunc="mean",
        groupby_rangefunc="stddev",
        max_runs_to_show=100,
    )


def _bars(title: str, key: str) -> Any:
    wr = _reports()
    return wr.BarPlot(
        title=title,
        metrics=[key],
        title_x="non-zero adapter parameters",
        groupby=_DATASET,
        groupby_aggfunc="mean",
        groupby_rangefunc="stddev",
    )


def _existing(*, entity: str, project: str) -> Any:
    """Return the view as it is on the server, or a new one under the same address."""
    ws = _workspaces()
    host = wandb.setup().settings.base_url
    try:
        return ws.Workspace.from_url(f"{host}/{entity}/{project}?nw={VIEW}")
    except ValueError:  # not there
        workspace = ws.Workspace(entity=entity, project=project, name=TITLE)
        workspace._internal_name = f"nw-{VIEW}-v"  # as wandb-workspaces 0.4 names a saved view
        return workspace


def _workspaces() -> Any:
    """Return the module of an extra, which type checkers may not find."""
    return importlib.import_module("wandb_workspaces.workspaces")


def _reports() -> Any:
    """Return the module of the panels."""
    return importlib.import_module("wandb_workspaces.reports.v2")
