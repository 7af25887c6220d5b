"""Names of datasets in little room: lines end after a separator, not within a word."""

import itertools
import re
from collections.abc import Iterable, Sequence

_PIECES = re.compile(r"[^\s_\-./,:;+]*[\s_\-./,:;+]+|[^\s_\-./,:;+]+")
_WORDS = re.compile(r"\s*\S+\s*")
_INDENT = " " * 4


def pieces(name: str) -> list[str]:
    """Return the parts of a name after which a line may end, each with its separator."""
    return _PIECES.findall(name)


def wrapped(name: str, width: int) -> str:
    """Return a name in lines of at most `width` characters; all of its characters stay.

    A line ends after a word; of a word that is longer than a line, after a dash, underscore, dot or
    slash; a piece without any is cut. Line breaks of the name stay.
    """
    lines: list[str] = []
    for part in name.split("\n"):
        line = ""
        words = _WORDS.findall(part)
        parts = [[word] if len(word.rstrip()) <= width else pieces(word) for word in words]
        for piece in itertools.chain.from_iterable(parts):
            if line and len(line) + len(piece.rstrip()) > width:
                lines.append(line.rstrip())
                line = ""
            while len(piece.rstrip()) > width:
                lines.append(piece[:width])
                piece = piece[width:]
            line += piece
        lines.append(line.rstrip())
    return "\n".join(lines)


def grouped_notes(notes: Iterable[str], names: Iterable[str]) -> list[str]:
    """Return notes with those of one dataset together below its name, which stands there once.

    Args:
        notes: Sentences; those of a dataset begin with its name.
        names: Names of datasets.
    """
    longest_first = sorted(set(names), key=len, reverse=True)
    groups: dict[str, list[str]] = {}
    for note in notes:
        own = (name for name in longest_first if note.startswith((f"{name} ", f"{name}:")))
        groups.setdefault(next(own, note), []).append(note)
    return [own[0] if len(own) == 1 else _group(name, own) for name, own in groups.items()]


def _group(name: str, notes: Sequence[str]) -> str:
    rests = [note.removeprefix(name).lstrip(": ") for note in notes]
    return "\n".join([f"{name}:", *(f"{_INDENT}- {rest}" for rest in rests)])
