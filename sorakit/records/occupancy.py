"""Who writes into a run folder, and who may."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sorakit.config import RunConfig
from sorakit.locks import lock_holder
from sorakit.records.identity import run_id
from sorakit.records.reader import is_run_folder, read_meta, read_status
from sorakit.records.schema import CONFIG_FILE, LOCK_FILE, LOG_FILE, META_FILE


def is_alive(status: Mapping[str, Any]) -> bool:
    """Return whether the process of a running run still exists, as far as this host can tell."""
    if status["state"] != "running" or status["pid"] is None:
        return False
    if status["host"] != socket.gethostname():
        return True
    try:
        os.kill(int(status["pid"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class FolderInUseError(ValueError):
    """Another process is writing into the run folder."""


def find_writer(path: Path) -> str | None:
    """Return "process N on HOST" for the other process that writes into a run folder, or None.

    The lock tells, on every machine that sees the folder. The status tells only of this host, and
    where there is no lock: a run of an older sorakit, or a file system without locks.
    """
    holder = lock_holder(path / LOCK_FILE)
    if holder is not None:
        return holder
    status = read_status(path)
    is_here = status["host"] == socket.gethostname()
    if is_here and status["pid"] != os.getpid() and is_alive(status):
        return f"process {status['pid']} on {status['host']}"
    return None


def check_run_folder(path: Path, config: RunConfig) -> None:
    """Raise unless a run of `config` may write into `path`. Nothing is written.

    Raises:
        FolderInUseError: If another process is writing into it.
        ValueError: If the folder cannot be written, or holds another run or foreign files.
    """
    check_run_content(path, config)
    writer = find_writer(path)
    if writer is not None:
        raise FolderInUseError(
            f"`out_dir` must not be in use, got {str(path)!r}, which {writer} is writing."
        )


def check_run_content(path: Path, config: RunConfig) -> None:
    """Raise unless `path` is a place for a run of `config`, or holds that run.

    Raises:
        ValueError: If the folder cannot be written, or holds another run or foreign files.
    """
    existing = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(
            f"`out_dir` must be a folder that can be written, got {str(path)!r} ({existing} "
            "cannot)."
        )
    if not is_run_folder(path):
        # A process killed before meta.json was written leaves these.
        own = {CONFIG_FILE, CONFIG_FILE + ".part", META_FILE + ".part", LOG_FILE, LOCK_FILE}
        if path.exists() and any(file.name not in own for file in path.iterdir()):
            raise ValueError(
                f"`out_dir` must be empty, new or a run folder, got {str(path)!r}, which holds "
                "other files."
            )
        return
    found = str(read_meta(path)["run_id"])
    if found != run_id(config):
        raise ValueError(
            f"`out_dir` must hold no other configuration, got {str(path)!r} with run {found}, "
            f"not {run_id(config)}. "
            "Choose another folder, or the configuration in its config.yaml."
        )
