"""File locks that the operating system releases when their holder dies.

`filelock` takes and releases them: `flock` on Linux and macOS, never its fallback to a file whose
existence is the lock, which outlives a killed process. Two things it has no words for are here: a
file that is removed when its lock is released and names its holder, for messages only; and a look
at who holds a lock, which neither makes the file nor keeps anybody out meanwhile.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import warnings
from pathlib import Path

import filelock

_ENOTSUPP = 524
"""What the kernel of Linux says of file systems without locks (autofs, some NFS); no name in C."""
_NOT_SUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, _ENOTSUPP}
_POLL_SECONDS = 0.1


class FileLock:
    """An exclusive lock between processes, of one machine or of several on a shared file system.

    Args:
        path: Lock file; made when the lock is taken, removed when it is released.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = filelock.FileLock(path, fallback_to_soft=False, thread_local=False)
        self._is_held = False

    def acquire(self, *, patience: float = 0.0) -> bool:
        """Take the lock; return whether that was possible within `patience` seconds.

        On a file system without locks it counts as taken, with a warning.

        Raises:
            OSError: If the file cannot be made, or cannot be locked.
        """
        assert not self._is_held
        try:
            self._lock.acquire(timeout=patience, poll_interval=_POLL_SECONDS)
        except filelock.Timeout:
            return False
        except OSError as error:
            if error.errno not in _NOT_SUPPORTED:
                if error.filename is not None:
                    raise
                reason = f"its file system does not lock this file: {error.strerror}"
                raise OSError(error.errno, reason, str(self._path)) from error
            warnings.warn(
                f"The file system of {str(self._path)!r} has no locks; do not write into one run "
                "folder from two processes.",
                stacklevel=2,
            )
        self._is_held = True
        holder = {"host": socket.gethostname(), "pid": os.getpid()}
        self._path.write_text(json.dumps(holder), encoding="utf-8")
        return True

    def release(self) -> None:
        """Give the lock back; nothing happens if it is not held."""
        if self._is_held:
            # Removed while it is held: who opened it before finds that it is no longer the file.
            self._path.unlink(missing_ok=True)
            self._lock.release()
            self._is_held = False


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
