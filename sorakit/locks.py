"""File locks that the operating system releases when their holder dies.

`flock`, not a file whose existence is the lock: that one outlives a killed process, and two others
that take it over at once can both believe that they hold it. Host and pid are written into the file
for messages only.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
import warnings
from pathlib import Path

_NOT_SUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
_POLL_SECONDS = 0.1


class FileLock:
    """An exclusive lock between processes, of one machine or of several on a shared file system.

    Args:
        path: Lock file; made when the lock is taken, removed when it is released.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self, *, patience: float = 0.0) -> bool:
        """Take the lock; return whether that was possible within `patience` seconds."""
        last = time.monotonic() + patience
        while not self._try():
            if time.monotonic() >= last:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def release(self) -> None:
        """Give the lock back; nothing happens if it is not held."""
        if self._descriptor is not None:
            # Removed while it is held: who opened it before finds that it is no longer the file.
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None

    def _try(self) -> bool:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError as error:
            if error.errno not in _NOT_SUPPORTED:
                os.close(descriptor)
                raise
            warnings.warn(
                f"The file system of {str(self._path)!r} has no locks; do not write into one run "
                "folder from two processes.",
                stacklevel=4,
            )
        if not _is_file(descriptor, self._path):
            os.close(descriptor)
            return False
        os.ftruncate(descriptor, 0)
        os.write(
            descriptor, json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode()
        )
        self._descriptor = descriptor
        return True


def lock_holder(path: Path) -> str | None:
    """Return "process N on HOST" for the process that holds the lock at `path`, or None."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        with contextlib.suppress(ValueError, KeyError):  # it is being written
            holder = json.loads(path.read_text("utf-8"))
            return f"process {holder['pid']} on {holder['host']}"
        return "another process"
    except OSError:  # no locks on this file system
        return None
    finally:
        os.close(descriptor)
    return None


def _is_file(descriptor: int, path: Path) -> bool:
    """Return whether the open file still stands at `path`."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
