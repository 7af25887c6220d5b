"""Locks: one holder, and none that is dead."""

import errno
import fcntl
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sorakit.locks import FileLock, lock_holder

HOLD = (
    "import sys, time; from pathlib import Path; from sorakit.locks import FileLock\n"
    "lock = FileLock(Path(sys.argv[1])); assert lock.acquire()\n"
    "print('held', flush=True); time.sleep(600)"
)


def hold_elsewhere(path: Path) -> subprocess.Popen[str]:
    """Return a process that holds the lock at `path` until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_lock_has_one_holder(tmp_path):
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.acquire()
    assert not second.acquire()
    first.release()
    assert second.acquire()
    second.release()


def test_holder_is_named(tmp_path):
    lock = FileLock(tmp_path / "lock")
    assert lock_holder(tmp_path / "lock") is None
    assert lock.acquire()
    assert lock_holder(tmp_path / "lock") == f"process {os.getpid()} on {socket.gethostname()}"
    lock.release()
    assert lock_holder(tmp_path / "lock") is None


def test_released_lock_leaves_no_file(tmp_path):
    lock = FileLock(tmp_path / "lock")
    assert lock.acquire()
    lock.release()
    lock.release()
    assert not list(tmp_path.iterdir())


def test_lock_of_a_killed_process_is_free(tmp_path):
    holder = hold_elsewhere(tmp_path / "lock")
    assert lock_holder(tmp_path / "lock") == f"process {holder.pid} on {socket.gethostname()}"
    assert not FileLock(tmp_path / "lock").acquire()
    holder.kill()
    holder.communicate()
    assert (tmp_path / "lock").exists(), "a killed process cannot remove its file"
    assert lock_holder(tmp_path / "lock") is None
    lock = FileLock(tmp_path / "lock")
    assert lock.acquire()
    lock.release()


def test_lock_on_a_file_that_was_removed_meanwhile_is_not_taken(tmp_path, monkeypatch):
    # The holder releases, and so removes the file, between the opening and the locking of another.
    holder, late = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert holder.acquire()
    flock = fcntl.flock

    def release_first(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        holder.release()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", release_first)
    assert not late.acquire()
    assert late.acquire(), "the second look finds a new file"
    late.release()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, 524])
def test_file_system_without_locks_is_warned_of(number, tmp_path, monkeypatch):
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, "no locks here")

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = FileLock(tmp_path / "lock")
    message = (
        f"The file system of {str(tmp_path / 'lock')!r} has no locks; do not write into one run "
        "folder from two processes."
    )
    with pytest.warns(UserWarning, match=f"^{re.escape(message)}$"):
        assert lock.acquire()
    assert lock_holder(tmp_path / "lock") is None, "it cannot be told"
    lock.release()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.EIO, errno.EBADF, errno.EINVAL])
def test_another_failure_says_that_it_was_the_lock(number, tmp_path, monkeypatch):
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, "no such luck")

    monkeypatch.setattr(fcntl, "flock", flock)
    message = (
        f"[Errno {number}] its file system does not lock this file: no such luck: "
        f"{str(tmp_path / 'lock')!r}"
    )
    with pytest.raises(OSError, match=f"^{re.escape(message)}$"):
        FileLock(tmp_path / "lock").acquire()


def test_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=re.escape(str(tmp_path / "file"))):
        FileLock(tmp_path / "file" / "lock").acquire()
