"""Saves workspace and report of every project that runs were sent to."""

from collections.abc import Callable, Iterable

from sorakit.tracking.client import FAILURES, reason_of
from sorakit.tracking.panels import workspaces_module
from sorakit.tracking.report import save_report
from sorakit.tracking.workspace import save_workspace


def require_workspaces() -> None:
    """Raise unless wandb-workspaces is installed.

    Raises:
        ValueError: If it is not.
    """
    try:
        workspaces_module()
    except ImportError as error:
        raise ValueError(
            "`--workspace` must be false without the package wandb-workspaces, got true. "
            "Install it: pip install -c constraints.txt -e '.[wandb-workspaces]'."
        ) from error


def save_dashboards(
    projects: Iterable[tuple[str, str]], *, say: Callable[[str], None]
) -> list[str]:
    """Save workspace and report of every (entity, project); return the names of what failed."""
    failed: list[str] = []
    for entity, project in sorted(projects):
        for what, save in (("dashboard", save_workspace), ("report", save_report)):
            name = f"the {what} of {entity}/{project}"
            try:
                say(f"{what.capitalize()}: {save(entity=entity, project=project)}")
            except FAILURES as error:
                say(f"{name} could not be saved: {reason_of(error)}")
                failed.append(name)
    return failed
