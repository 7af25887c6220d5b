"""One run of a sweep in a process of its own: `python -m sorakit.sweep.worker`.

The request comes on stdin, one line of JSON. The pipe then stays open: when it closes, the sweep
has ended or has been killed, and the run stops as after Ctrl-C. A process a run survives whatever
kills one run, gives back all memory, and is the same under every engine.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sorakit.options import run_config
from sorakit.records import LOG_FILE, FolderInUseError, run_path

DONE = 0
REFUSED = 2
IN_USE = 75
INTERRUPTED = 130
_REQUEST = "SORAKIT_REQUEST"
"""Environment variable with the request, for the other processes of the run."""
_NOT_INHERITED = (
    _REQUEST,
    *("LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "TORCHELASTIC_", "JSM_"),
    *("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"),
)
"""Beginnings of the names of environment variables."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a worker needs to know.

    Attributes:
        config: Nested options of the run, run folder included.
        dense_store: Folder of the dense stages that runs share.
        folder: Working folder of the sweep, to which its paths are relative.
    """

    config: dict[str, Any]
    dense_store: str
    folder: str

    @property
    def path(self) -> Path:
        """Run folder."""
        return Path(self.folder) / run_path(run_config(self.config))


def start_worker(request: Request, *, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a process that runs a request; its output goes to the log in the run folder.

    Args:
        request: The run.
        env: What the environment of the process has beside this one's.

    Raises:
        OSError: If the log cannot be written.
    """
    log = request.path / LOG_FILE
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stream:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        stream.write(f"== {now} {os.uname().nodename}\n".encode())
        stream.flush()
        process = subprocess.Popen(
            [sys.executable, "-m", "sorakit.sweep.worker"],
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=stream,
            cwd=request.folder,
            env={**_own_environment(), **env},
            start_new_session=True,  # Ctrl-C reaches the sweep alone, which then stops its workers
        )
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(asdict(request)).encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        pass  # it died at once; its exit code tells
    return process


def _own_environment() -> dict[str, str]:
    """Return the environment without what a worker would take for its own.

    That is the request of a worker above this one, and what a launcher told the sweep of its rank:
    the sweep is one process whatever launched it, and a run starts its processes itself.
    """
    return {
        name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)
    }


def last_line(log: Path) -> str:
    """Return the last line of a log: what a process said before it ended."""
    if not log.is_file():
        return ""
    lines = log.read_text("utf-8", errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def main() -> int:
    """Run the request on stdin; return the exit code."""
    # In the background of a shell SIGINT is ignored, under Ray it is blocked; both are handed down.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    # The processes of the other devices of a run are this program again, started by Lightning.
    text = os.environ.get(_REQUEST) or sys.stdin.buffer.readline().decode()
    os.environ[_REQUEST] = text
    request = Request(**json.loads(text))
    threading.Thread(target=_stop_with_sweep, daemon=True).start()
    try:
        from sorakit.training.run import run  # torch takes seconds to import

        run(run_config(request.config), dense_store=Path(request.dense_store))
    except FolderInUseError as error:
        sys.stderr.write(f"{error}\n")
        return IN_USE
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return REFUSED
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        return INTERRUPTED
    return DONE


def _stop_with_sweep() -> None:
    # Not through sys.stdin, whose lock the thread would hold when the interpreter ends.
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())
