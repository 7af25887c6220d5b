"""Where sorakit keeps what it would otherwise make anew for every run."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_dir() -> Path:
    """Return `$SORAKIT_CACHE`, or `~/.cache/sorakit`."""
    folder = os.environ.get("SORAKIT_CACHE")
    return Path(folder) if folder else Path.home() / ".cache" / "sorakit"


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give a name to write to, and move it to `path` when all is written: whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
