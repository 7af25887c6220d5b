"""Every failure of loading a model as one sentence with the file and the cause."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open

_LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"
_READ_BY_TOKENIZERS = frozenset({".bpe", ".json", ".model", ".tiktoken", ".txt", ".vocab"})
_WEIGHTS = frozenset({".bin", ".h5", ".msgpack", ".pt", ".pth", ".safetensors"})
_MAX_REASON = 400
"""Characters of a library's message: some list every model that it knows."""


def check_text_files(source: str) -> None:
    """Refuse a local folder whose configuration or vocabulary is a Git LFS pointer.

    A vocabulary of the pointer's three lines would load, and know no word.

    Raises:
        ValueError: If there is such a file; it is named.
    """
    for file in _files(source, _READ_BY_TOKENIZERS):
        if _is_pointer(file):
            raise ValueError(_sentence(source, _pointer_reason(file)))


@contextmanager
def loading(source: str) -> Iterator[None]:
    """Turn whatever a library raises while it loads `source` into one sentence.

    Raises:
        ValueError: With the file that is damaged, if one is, or else the library's reason.
    """
    try:
        yield
    except MemoryError:
        raise
    # A folder may hold anything, and libraries raise what they like on it: safetensors and pickle
    # errors of their own, ImportError for a package, KeyError for a key, RuntimeError, ...
    except Exception as error:
        reason = _damage(source) or _reason(error)
        raise ValueError(_sentence(source, reason)) from error


def _sentence(source: str, reason: str) -> str:
    return (
        "`backbone.name` must be embedded, a local model folder or a Hub id, got "
        f"{source!r}: {reason}"
    )


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # A missing package is named in the first line, and how to get it in the next.
    text = " ".join(lines) if isinstance(error, ImportError) else (lines or [""])[0]
    if len(text) > _MAX_REASON:
        text = f"{text[:_MAX_REASON]} ..."
    if isinstance(error, OSError | ValueError | ImportError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else f"{type(error).__name__}."


def _damage(source: str) -> str | None:
    """Return what is wrong with a weights file of a local folder, if one is damaged."""
    for file in _files(source, _WEIGHTS):
        if _is_pointer(file):
            return _pointer_reason(file)
        if file.suffix == ".safetensors":
            try:
                with safe_open(file, framework="pt"):
                    pass
            except (SafetensorError, OSError) as error:
                return (
                    f"{file.name} ({file.stat().st_size:,} bytes) is no whole safetensors file "
                    f"({error}). Download it again."
                )
        elif file.stat().st_size == 0:
            return f"{file.name} is empty. Download it again."
    return None


def _pointer_reason(file: Path) -> str:
    return f"{file.name} is a Git LFS pointer, not the file itself. Run `git lfs pull` there."


def _is_pointer(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return stream.read(len(_LFS_POINTER)) == _LFS_POINTER
    except OSError:  # unreadable: what loads it says so
        return False


def _files(source: str, suffixes: frozenset[str]) -> list[Path]:
    if not os.path.isdir(source):  # noqa: PTH112  # Path(source) of a Hub id may be too long a name
        return []
    return sorted(f for f in Path(source).iterdir() if f.suffix in suffixes and f.is_file())
