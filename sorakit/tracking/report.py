"""The report as code: one a project, in words and panels, the same however often it is made."""

from typing import Any

import wandb

from sorakit.records import PATH
from sorakit.tracking import panels

TITLE = "sorakit: how few adapter parameters does a dataset need?"
"""Fixed: the report is found again by it."""
_QUESTION = (
    "Every run adapts one model to one dataset, densely first, and then with fewer and fewer "
    "parameters. Memorization is the score on training examples, generalization the score on "
    "held-out ones."
)
_MEANS = (
    "A line is the mean over the seeds of one curve: same dataset, backbone, method and options. "
    "Every run was read at the same shares of its full adapter, all ranks of it, on straight lines "
    "between its stages, and nowhere outside of what was measured. The band is one standard error, "
    "and the last panel counts the seeds. `python -m analysis curves RUNS` prints the same means."
)
_GAIN = (
    "Gain retained is (score - floor) / (dense - floor): 1 is the dense adapter, 0 is the same "
    "head without one. It is there for runs whose floor was sent with them."
)
_CONTROLS = (
    "The same panels for what the paths are compared with, for example as many ranks drawn at "
    "random."
)
_FEWEST = (
    "The fewest parameters of a measured stage that keep 99, 95 and 90 % of the dense score: the "
    "mean over seeds and its standard error."
)


def save_report(*, entity: str, project: str) -> str:
    """Create the project's report, or replace what it shows.

    Returns:
        Address of the report.
    """
    report = panels.reports_module().Report(
        entity=entity,
        project=project,
        title=TITLE,
        description="Made by `sorakit sync`, which writes over changes.",
        width="fluid",
        blocks=blocks(entity=entity, project=project),
    )
    existing = _existing_id(entity=entity, project=project)
    if existing is not None:
        report.id = existing
    return report.save().url


def blocks(*, entity: str, project: str) -> list[Any]:
    """Return what the report says and shows, from the question to the single runs."""
    wr = panels.reports_module()

    def grid(filters: str, name: str, shown: list[Any]) -> Any:
        dataset, *options = panels.GROUPING
        runs = wr.Runset(
            entity=entity,
            project=project,
            name=name,
            filters=filters,
            groupby=[f"run.{dataset}", *(f"config.{option}" for option in options)],
            pinned_columns=panels.columns(),
        )
        return wr.PanelGrid(runsets=[runs], panels=shown)

    paths = f"Metric('JobType') = '{PATH}'"
    others = f"Metric('JobType') != '{PATH}'"
    return [
        wr.P(_QUESTION),
        wr.H2("What is kept with fewer parameters"),
        wr.P(_MEANS),
        wr.P(_GAIN),
        grid(paths, "paths", panels.mean_panels()),
        wr.H2("How few parameters are enough"),
        wr.P(_FEWEST),
        grid(paths, "paths", panels.fewest_panels()),
        wr.H2("Controls"),
        wr.P(_CONTROLS),
        grid(others, "floors and controls", panels.mean_panels()),
        wr.H2("Single runs"),
        grid(
            paths,
            "paths",
            [*panels.measured_panels(), panels.rank_panel(entity=entity), panels.run_comparer()],
        ),
    ]


def _existing_id(*, entity: str, project: str) -> str | None:
    """Return the id of the report that was made before; None before the first."""
    found = wandb.Api().reports(f"{entity}/{project}")
    return next((str(report.id) for report in found if report.display_name == TITLE), None)
