"""The workspace as code: one saved view a project, the same however often it is made."""

import json
from importlib.resources import files
from typing import Any

import wandb

from sorakit.metric_names import NUM_NONZERO_PARAMS
from sorakit.records import PATH
from sorakit.tracking import panels
from sorakit.tracking.mirror import HEATMAP

VIEW = "sorakit"
"""Part of the view's address; fixed, so that the view is found again."""
TITLE = "sorakit: compressibility across datasets"
_HEATMAP_FILE = "rank_heatmap.json"


def save_workspace(*, entity: str, project: str) -> str:
    """Create the project's view and the chart it uses, or replace what they show.

    Returns:
        Address of the view.
    """
    ws = panels.workspaces_module()
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
    ws = panels.workspaces_module()
    shown: list[tuple[str, bool, list[Any]]] = [
        ("Means over seeds, with standard errors and N", True, panels.mean_panels()),
        ("Stages as they were measured: a line a run", False, panels.measured_panels()),
        (
            "Before the refit of a stage: the weights that the penalty left",
            False,
            panels.penalised_panels(),
        ),
        (
            "How few parameters keep 99, 95 and 90 % of the dense score",
            True,
            panels.fewest_panels(),
        ),
        ("Ranks", True, [panels.rank_panel(entity=entity)]),
        ("Runs", True, [panels.run_comparer()]),
        ("Training", False, [panels.training_panel()]),
    ]
    return [
        ws.Section(name=name, is_open=is_open, panels=inside) for name, is_open, inside in shown
    ]


def runset_settings() -> Any:
    """Return the runs that are shown: paths, by dataset, backbone and method, with columns.

    Floors stand in the columns and in gain retained; controls appear when the filter is taken off.
    """
    ws = panels.workspaces_module()
    dataset, *options = panels.GROUPING
    return ws.RunsetSettings(
        groupby=[ws.Metric(dataset), *(ws.Config(option) for option in options)],
        filters=ws.And(ws.Metric("JobType") == PATH),
        pinned_columns=panels.columns(),
    )


def _existing(*, entity: str, project: str) -> Any:
    """Return the view as it is on the server, or a new one under the same address."""
    ws = panels.workspaces_module()
    host = wandb.setup().settings.base_url
    try:
        return ws.Workspace.from_url(f"{host}/{entity}/{project}?nw={VIEW}")
    except ValueError:  # not there
        workspace = ws.Workspace(entity=entity, project=project, name=TITLE)
        workspace._internal_name = f"nw-{VIEW}-v"  # as wandb-workspaces 0.4 names a saved view
        return workspace
