"""What a user wrote, quoted in a message: cut to a length at which the sentence is still read."""

import difflib
from collections.abc import Iterable

LONGEST_VALUE = 100
"""Characters of a quoted value."""
LONGEST_MESSAGE = 1000
"""Characters of a message."""
_MOST_NAMES = 8
_LONGEST_NAME = 40


def quoted(value: object, *, longest: int = LONGEST_VALUE) -> str:
    """Return a value as in Python, `null` for None; a long one is cut, and its length is told."""
    if value is None:
        return "null"
    if isinstance(value, str) and len(value) > longest:
        return f"{value[:longest]!r}... ({len(value):,} characters)"
    return cut(repr(value), longest)


def listed(names: Iterable[object]) -> str:
    """Return the first few names, and how many there are if that is not all; or "none"."""
    everything = list(names)
    if not everything:
        return "none"
    shown = [cut(str(name), _LONGEST_NAME) for name in everything[:_MOST_NAMES]]
    if len(everything) > _MOST_NAMES:
        shown.append(f"... ({len(everything):,} in all)")
    return ", ".join(shown)


def did_you_mean(name: str, names: Iterable[str], *, prefix: str = "") -> str:
    """Return the question whether the closest of `names` was meant, or "" if none is close.

    Args:
        name: What was written.
        names: What is there.
        prefix: What stands before each name, as in --name.
    """
    by_letters = {_letters(known): known for known in names}
    close = difflib.get_close_matches(_letters(name), by_letters, n=1, cutoff=0.6)
    known = by_letters[close[0]] if close else ""
    return f" Did you mean `{prefix}{cut(known, _LONGEST_NAME)}`?" if close else ""


def _letters(name: str) -> str:
    return name.strip().casefold().replace("-", "_").replace(" ", "_")


def cut(text: str, longest: int = LONGEST_MESSAGE) -> str:
    """Return a text of at most `longest` characters and, if it was longer, three dots."""
    return text if len(text) <= longest else text[: longest - 3] + "..."
