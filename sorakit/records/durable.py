"""Files of a run folder that survive a killed process: whole lines, whole files.

Lines are flushed to the disk and a torn last line is ignored; whole files are replaced atomically.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pandas as pd

from sorakit.quoting import quoted


def dump_line(row: Mapping[str, Any]) -> str:
    """Return a row as one line of JSON.

    Raises:
        ValueError: If a number is not finite.
    """
    return json.dumps(row, allow_nan=False) + "\n"


def append_lines(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append rows to a file of lines and flush them to the disk."""
    _drop_torn_line(file)
    with file.open("a", encoding="utf-8") as stream:
        stream.write("".join(dump_line(row) for row in rows))
        stream.flush()
        os.fsync(stream.fileno())


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Return the complete lines of a file; none where it does not exist.

    Raises:
        ValueError: If a complete line is damaged.
    """
    if not file.exists():
        return []
    lines = file.read_text("utf-8", errors="replace").split("\n")
    complete = lines[:-1]  # the last element is empty, or a torn line
    # Many lines at once: a quarter less time than one by one.
    try:
        return cast(list[dict[str, Any]], json.loads(f"[{','.join(complete)}]"))
    except ValueError as error:
        raise damaged(file, "a JSON object in every line", f"one with {error}") from error


def parse_object(text: str, file: Path) -> dict[str, Any]:
    """Return the JSON object that the text of a file holds.

    Raises:
        ValueError: If it holds something else.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise damaged(file, "a JSON object", quoted(text)) from error
    if not isinstance(content, dict):
        raise damaged(file, "a JSON object", quoted(text))
    return cast(dict[str, Any], content)


def replace_text(file: Path, text: str) -> None:
    """Write a whole file, encoded as UTF-8: afterwards it is the old one or the new one."""
    replace_bytes(file, text.encode())


def replace_bytes(file: Path, content: bytes) -> None:
    """Write a whole file: afterwards it is the old one or the new one."""
    part = file.with_name(file.name + ".part")
    with part.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(file)


def replace_parquet(file: Path, table: pd.DataFrame) -> None:
    """Write a table as a whole parquet file: afterwards it is the old one or the new one."""
    part = file.with_name(file.name + ".part")
    table.to_parquet(part, index=False)
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    part.replace(file)


def _drop_torn_line(file: Path) -> None:
    """Remove what a killed process left of a line, or the next line would be glued to it."""
    if not file.exists():
        return
    content = file.read_bytes()
    if content and not content.endswith(b"\n"):
        replace_bytes(file, content[: content.rfind(b"\n") + 1])


def damaged(file: Path, wanted: str, found: str) -> ValueError:
    """Return the error that says of a file what it must hold, and what was found."""
    return ValueError(
        f"`{file.name}` must hold {wanted}, got {found} in {str(file)!r}. Another program has "
        "changed it; put back a copy, or remove the run folder and run it again."
    )
