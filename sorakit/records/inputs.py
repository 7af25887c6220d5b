"""Stamps of what a run was made from, by which a change under the same name is noticed.

An input is a file, or a text that names a version of something that is no file of the user's: a
revision on the Hub, a package. A file is known by size and time of change, and by its content where
these differ: a look costs microseconds a file until something was touched.
"""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

Input = Path | str


def stamps(inputs: Mapping[str, Input]) -> dict[str, Any]:
    """Return what `meta.json` keeps of inputs, by their name.

    Args:
        inputs: Name -> file or version. A name is never an absolute path of the user's machine.
    """
    return {name: _stamp(value) for name, value in inputs.items()}


def changed(recorded: Mapping[str, Any], inputs: Mapping[str, Input]) -> list[str]:
    """Return the names of the inputs that are not what was recorded, sorted.

    Args:
        recorded: What `stamps` gave when the run began.
        inputs: The same inputs as they are now.
    """
    names = sorted(set(recorded) | set(inputs))
    return [name for name in names if not _is_same(recorded.get(name), inputs.get(name))]


def _stamp(value: Input) -> Any:
    if isinstance(value, str):
        return value
    stat = value.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": _content_of(value)}


def _is_same(recorded: Any, value: Input | None) -> bool:
    if not isinstance(value, Path):
        return recorded == value
    if not isinstance(recorded, Mapping):
        return False
    stat = value.stat()
    known: Mapping[Any, Any] = recorded  # pyright: ignore[reportUnknownVariableType]  # JSON
    if known.get("size") != stat.st_size:
        return False
    return known.get("mtime_ns") == stat.st_mtime_ns or known.get("sha256") == _content_of(value)


def _content_of(file: Path) -> str:
    stat = file.stat()
    return _sha256(file.resolve(), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1024)
def _sha256(file: Path, size: int, mtime_ns: int) -> str:  # noqa: ARG001  # key of the cache
    """Return the hash of a file; the points of a sweep share their files."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
