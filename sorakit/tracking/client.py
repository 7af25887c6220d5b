"""The wandb client as sorakit uses it: no prompt, no endless waiting, nothing of this machine."""

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import wandb
from wandb.sdk.lib import wbauth
from wandb.sdk.lib.service.service_connection import WandbApiFailedError, WandbAttachFailedError
from wandb.sdk.mailbox import HandleAbandonedError, MailboxClosedError
from wandb.sdk.mailbox.mailbox_handle import ServerResponseError

from sorakit.config import TrackingConfig, TrackingMode
from sorakit.metric_names import CURVE_CONFIG
from sorakit.options import one_line
from sorakit.records import TRACKING_DIR, Run
from sorakit.tracking.rows import curve_name, labels, shown_config, without_home

FAILURES = (
    wandb.Error,
    OSError,  # the connection to wandb's own process, the disk, time-outs
    ValueError,  # an answer that is none
    HandleAbandonedError,
    MailboxClosedError,
    ServerResponseError,
    WandbApiFailedError,
    WandbAttachFailedError,
)
"""What the client raises for want of a server, a key, a disk or its own process."""

FLUSH_INTERVAL = 0.5
"""Seconds until wandb writes a row to the disk; its own 15 would be lost to a SIGKILL."""
TARGET_FILE = "target.json"
_STAGING_DIR = "staging"
_DATA_DIR = "WANDB_DATA_DIR"

ClientMode = Literal["off", "offline", "online"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a run is in W&B.

    Attributes:
        run_id: W&B's id: that of the run, or what `wandb agent` has given it.
        project: Project.
        entity: User or team; null is the key's own.
    """

    run_id: str
    project: str
    entity: str | None


def client_mode(wanted: TrackingMode) -> tuple[ClientMode, str | None]:
    """Return how a run is tracked, and why not as `wanted`, if so."""
    if wanted == "auto":
        asked = os.environ.get("WANDB_MODE", "")
        if asked == "disabled":
            return "off", None
        if asked in ("offline", "dryrun"):
            return "offline", None
        wanted = "online" if asked in ("online", "run", "shared") or _has_key() else "offline"
    if wanted == "online" and not _has_key():
        return "offline", "there is no API key (`wandb login` asks for one)"
    return wanted, None


def reason_of(error: BaseException) -> str:
    """Return what an error says, on one line; its type where it says nothing."""
    return one_line(str(error)) or type(error).__name__


def check_server(*, timeout: int) -> wandb.Api:
    """Return the server's interface, once it has answered and taken the key.

    Args:
        timeout: Seconds to wait.

    Raises:
        FAILURES: If it has not.
    """
    return wandb.Api(timeout=timeout)


def require_key() -> None:
    """Raise unless a server can be spoken to.

    Raises:
        ValueError: If there is no API key for the server.
    """
    if not _has_key():
        host = wandb.setup().settings.base_url
        raise ValueError(
            f"An API key for {host} must be known to wandb, got none. "
            "Run `wandb login`, or set WANDB_API_KEY."
        )


def _has_key() -> bool:
    host = wandb.setup().settings.base_url
    try:
        auth = wbauth.authenticate_session(
            host=host, source="sorakit", prompt=False, update_session=False
        )
    except wandb.Error:  # a key that is none
        return False
    return auth is not None


def open_run(
    run: Run,
    target: Target,
    *,
    mode: ClientMode,
    folder: Path,
    init_timeout: float,
    finish_timeout: float,
) -> wandb.Run:
    """Begin a run in W&B, from its first row on: what a server holds of it is written over.

    Args:
        run: The run.
        target: Where it goes.
        mode: offline or online.
        folder: Folder in which wandb makes its folder `wandb`.
        init_timeout: Seconds to wait for the server at the start.
        finish_timeout: Seconds to wait for it at the end.

    Raises:
        FAILURES: If there is no answer.
    """
    shown = labels(run.config)
    settings = wandb.Settings(
        silent=True,
        console="off",
        symlink=False,
        host="",  # wandb's default is the name of this machine
        program="sorakit",
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_disable_stats=True,
        x_save_requirements=False,
        x_transaction_log_flush_interval=FLUSH_INTERVAL,
        init_timeout=init_timeout,
        finish_timeout=finish_timeout,
        finish_timeout_raises=True,
    )
    logging.getLogger("wandb").addFilter(_without_home_in_log)  # its log names its own folder
    tracked = wandb.init(
        mode=mode if mode == "online" else "offline",
        dir=str(path_without_home(folder) or folder),
        id=target.run_id,
        project=target.project,
        entity=target.entity,
        name=shown.name,
        group=shown.group,
        job_type=shown.job_type,
        tags=shown.tags,
        config={**shown_config(run.config), CURVE_CONFIG: curve_name(run)},
        reinit="create_new",
        settings=settings,
    )
    _name_files_without_home(tracked)
    return tracked


def path_without_home(path: Path) -> Path | None:
    """Return a path, absolute or else relative to the working folder, that names no home folder."""
    home, absolute = Path.home(), path.absolute()
    if home == Path(home.anchor) or not absolute.is_relative_to(home):
        return absolute
    relative, names = Path(os.path.relpath(path)), home.parts[1:]
    starts = range(len(relative.parts))
    if any(relative.parts[start : start + len(names)] == names for start in starts):
        return None
    return relative


def _name_files_without_home(tracked: wandb.Run) -> None:
    """Make a run name the files of its artifacts without the home folder.

    wandb 0.31 writes the paths from which it reads them into the file of an offline run, and sends
    them to the server as part of an artifact's manifest.
    """
    log_artifact = tracked.log_artifact

    def log_artifact_without_home(artifact: wandb.Artifact, *args: Any, **kwargs: Any) -> Any:
        for entry in artifact.manifest.entries.values():
            if entry.local_path is not None:
                shown = path_without_home(Path(entry.local_path))
                entry.local_path = entry.local_path if shown is None else str(shown)
        return log_artifact(artifact, *args, **kwargs)

    tracked.log_artifact = log_artifact_without_home  # pyright: ignore[reportAttributeAccessIssue]  # a method


def _without_home_in_log(record: logging.LogRecord) -> bool:
    record.msg, record.args = without_home(record.getMessage()), ()
    return True


def write_target(path: Path, target: Target) -> None:
    """Remember in a run folder where its run is in W&B."""
    folder = path / TRACKING_DIR
    folder.mkdir(exist_ok=True)
    (folder / TARGET_FILE).write_text(json.dumps(vars(target)) + "\n", encoding="utf-8")


def read_target(run: Run, *, project: str | None = None, entity: str | None = None) -> Target:
    """Return where a run is or belongs in W&B; `project` and `entity` override what is known."""
    file = run.path / TRACKING_DIR / TARGET_FILE
    tracking: Mapping[str, Any] = run.config.get("tracking") or {}
    known: dict[str, Any] = {
        "run_id": run.run_id,
        "project": tracking.get("project") or TrackingConfig().project,
        "entity": tracking.get("entity"),
    }
    if file.exists():
        known |= json.loads(file.read_text("utf-8"))
    return Target(
        run_id=known["run_id"],
        project=project or known["project"],
        entity=entity or known["entity"],
    )


@contextlib.contextmanager
def staging_in(folder: Path) -> Iterator[None]:
    """Make wandb stage the files of tables and artifacts in `folder`, not in the user's home."""
    before = os.environ.get(_DATA_DIR)
    os.environ[_DATA_DIR] = str(folder / _STAGING_DIR)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_DATA_DIR]
        else:
            os.environ[_DATA_DIR] = before
