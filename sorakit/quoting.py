"""What a user wrote, quoted in a message: cut to a length at which the sentence is still read."""

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


def cut(text: str, longest: int = LONGEST_MESSAGE) -> str:
    """Return a text of at most `longest` characters and, if it was longer, three dots."""
    return text if len(text) <= longest else text[: longest - 3] + "..."
