"""Rows of CSV, TSV, JSON, JSON lines and parquet files: the columns asked for, each with its place.

`datasets` has readers for the same formats, which the task `hub` uses. They are not used here: that
for CSV (pandas) fills short rows up, takes stray quotes and names no line; that for JSON (Arrow)
takes no column with both 1 and "1" and names no line; that for parquet reads the same data, and
copies the file into a cache first.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sorakit.quoting import did_you_mean, listed, quoted

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")

_CHUNK_ROWS = 10_000
_LONGEST_FIELD = 2**31 - 1  # the csv module stops at 131,072 characters, where texts do not
_MOST_WORDS = 4  # of a column's name
_SEPARATORS = (";", "\t", "|")
_JSON_SHAPES = "sorakit reads a list of objects, or one object after the other, each with {columns}"
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Rows that follow one another in a file.

    Attributes:
        columns: Column -> values; those of CSV and TSV files are texts.
        start: Number of the first row, from 0, without a header line.
        lines: Line of the file on which each row begins, from 1; null in parquet.
        file: Name of the file, without its folder.
    """

    columns: dict[str, list[object]]
    start: int
    lines: list[int] | None
    file: str

    def place(self, index: int) -> str:
        """Return where a row of this chunk stands, for a message."""
        line = "" if self.lines is None else f" (line {self.lines[index]})"
        return f"row {self.start + index}{line} of {self.file}"


class MissingColumnError(ValueError):
    """A column that is asked for is not there, or not once.

    Args:
        column: The column.
        names: The columns that are there.
        hint: What may be the matter; empty, or a sentence. Without one, the name that is closest.
        is_twice: Whether it is there more than once.
    """

    def __init__(
        self, column: str, names: Sequence[str], *, hint: str = "", is_twice: bool = False
    ) -> None:
        super().__init__(column)
        self.column = column
        self.names = names
        self.hint = hint or did_you_mean(column, names)
        self.is_twice = is_twice


def read_chunks(file: Path, columns: Sequence[str]) -> Iterator[Chunk]:
    """Yield the rows of a file by the thousand, with no column but those asked for.

    Args:
        file: A file with one of `SUFFIXES`.
        columns: Names of columns, each once.

    Raises:
        MissingColumnError: If one of them is missing, or is there twice.
        ValueError: If the file is malformed; the message is the reason, without the file.
    """
    try:
        _reject_pointer(file)
        match file.suffix.lower():
            case ".parquet":
                yield from _parquet_chunks(file, columns)
            case ".json" | ".jsonl":
                yield from _json_chunks(file, columns)
            case suffix:
                yield from _delimited_chunks(file, columns, is_tsv=suffix == ".tsv")
    except UnicodeDecodeError as error:
        raise ValueError(_wrong_encoding(file)) from error
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error


def _reject_pointer(file: Path) -> None:
    with file.open("rb") as stream:
        if stream.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise ValueError("it is a Git LFS pointer; `git lfs pull` gets the file itself")


def _wrong_encoding(file: Path) -> str:
    with file.open("rb") as stream:
        start = stream.read(4)
        if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
            encoding, found = "UTF-16", "it is UTF-16"
        else:
            stream.seek(0)
            line = next(number for number, line in enumerate(stream, start=1) if not _is_utf8(line))
            encoding, found = "WINDOWS-1252", f"line {line} is not UTF-8 text"
    return (
        f"{found}, and UTF-8 is read here; if its encoding is {encoding}, "
        f"`iconv -f {encoding} -t UTF-8` converts it"
    )


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8-sig")
    except UnicodeDecodeError:
        return False
    return True


# Parquet -------------------------------------------------------------------------------------


def _parquet_chunks(file: Path, columns: Sequence[str]) -> Iterator[Chunk]:
    with pq.ParquetFile(file) as content:
        names = content.schema_arrow.names
        for column in columns:
            if column not in names:
                raise MissingColumnError(column, names)
        start = 0
        for batch in content.iter_batches(batch_size=_CHUNK_ROWS, columns=list(columns)):
            values = {column: batch.column(column).to_pylist() for column in columns}
            yield Chunk(columns=values, start=start, lines=None, file=file.name)
            start += len(batch)


# CSV and TSV ---------------------------------------------------------------------------------


def _delimited_chunks(file: Path, columns: Sequence[str], *, is_tsv: bool) -> Iterator[Chunk]:
    csv.field_size_limit(_LONGEST_FIELD)
    with file.open(encoding="utf-8-sig", newline="") as lines:
        if is_tsv:
            reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        else:
            reader = csv.reader(lines, strict=True)
        records = _records(reader)
        header = next(records, None)
        if header is None:
            return
        names = header[1]
        positions = [_position(column, names) for column in columns]
        rows: list[list[str]] = []
        places: list[int] = []
        start = 0
        for line, row in records:
            if len(row) != len(names):
                raise ValueError(
                    f"row {start + len(rows)} (line {line}) has {len(row)} fields, the header has "
                    f"{len(names)}"
                )
            rows.append(row)
            places.append(line)
            if len(rows) == _CHUNK_ROWS:
                yield _delimited_chunk(rows, places, columns, positions, start, file)
                start += len(rows)
                rows, places = [], []
        if rows:
            yield _delimited_chunk(rows, places, columns, positions, start, file)


def _delimited_chunk(
    rows: list[list[str]],
    places: list[int],
    columns: Sequence[str],
    positions: Sequence[int],
    start: int,
    file: Path,
) -> Chunk:
    values: dict[str, list[object]] = {
        column: [row[position] for row in rows]
        for column, position in zip(columns, positions, strict=True)
    }
    return Chunk(columns=values, start=start, lines=places, file=file.name)


def _records(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a reader that are not blank, each with the line on which it begins."""
    line = 1
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(_quoting_error(str(error), line, reader.line_num)) from error
        if row:
            yield line, row
        line = reader.line_num + 1


def _quoting_error(reason: str, first: int, last: int) -> str:
    where = f"line {first}" if first == last else f"lines {first} to {last}"
    return f'{where}: {reason}; a quote within a quoted field is written twice, not as \\"'


def _position(column: str, names: Sequence[str]) -> int:
    count = names.count(column)
    if count == 1:
        return names.index(column)
    hint = ""
    if len(names) == 1:
        found = next((mark for mark in _SEPARATORS if mark in names[0]), None)
        if found is not None:
            hint = (
                f" The separator seems to be {found!r}: it is a comma in .csv files, "
                "a tab in .tsv files."
            )
    raise MissingColumnError(
        column,
        names,
        hint=hint or _header_hint(names),
        is_twice=count > 1,
    )


def _header_hint(names: Sequence[str]) -> str:
    """Return what is the matter if the first line looks like an example, or ""."""
    is_example = any(not name.strip() or len(name.split()) > _MOST_WORDS for name in names)
    if is_example or any(_is_number(name) for name in names):
        return " The first line seems to be an example; it must be a header: the names of columns."
    return ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# JSON ----------------------------------------------------------------------------------------


def _json_chunks(file: Path, columns: Sequence[str]) -> Iterator[Chunk]:
    values: dict[str, list[object]] = {column: [] for column in columns}
    places: list[int] = []
    start = 0
    for line, record in _json_objects(file.read_text(encoding="utf-8-sig"), columns):
        for column in columns:
            if column not in record:
                raise MissingColumnError(
                    column,
                    list(record),
                    hint=did_you_mean(column, record)
                    or f" That is in line {line}; "
                    + _JSON_SHAPES.format(columns="all columns that are asked for")
                    + ".",
                )
            values[column].append(record[column])
        places.append(line)
        if len(places) == _CHUNK_ROWS:
            yield Chunk(columns=values, start=start, lines=places, file=file.name)
            start += len(places)
            values, places = {column: [] for column in columns}, []
    if places:
        yield Chunk(columns=values, start=start, lines=places, file=file.name)


def _json_objects(content: str, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, object]]]:
    """Yield the objects of a list, or of a file of one object after the other, with their lines."""
    decode = json.JSONDecoder().raw_decode
    position = _skip_blank(content, 0)
    line = 1 + content.count("\n", 0, position)
    is_list = content[position : position + 1] == "["
    if is_list:
        position = _skip_blank(content, position + 1)
    end_mark = "]" if is_list else ""
    while content[position : position + 1] != end_mark:
        try:
            record, end = decode(content, position)
        except json.JSONDecodeError as error:
            raise ValueError(f"line {error.lineno} is not JSON: {error.msg}") from error
        except RecursionError as error:
            raise ValueError(f"line {line} is nested too deeply") from error
        if not isinstance(record, dict):
            raise ValueError(  # noqa: TRY004 - what a user's file holds, not a wrong call
                f"line {line} holds {quoted(record, longest=40)}, no object; "
                + _JSON_SHAPES.format(columns=listed(columns))
            )
        if not any(isinstance(record.get(column), str | int | float) for column in columns):
            _reject_other_shape(record, columns)
        yield line, record
        following = _skip_blank(content, end)
        if is_list and content[following : following + 1] == ",":
            following = _skip_blank(content, following + 1)
        elif is_list and content[following : following + 1] != "]":
            at = 1 + content.count("\n", 0, following)
            raise ValueError(f"line {at}: a comma or the end of the list must follow an object")
        line += content.count("\n", position, following)
        position = following


def _reject_other_shape(record: dict[str, object], columns: Sequence[str]) -> None:
    """Raise if a record holds whole columns, or wraps the list of the records."""
    nested = [name for name, value in record.items() if isinstance(value, dict | list)]
    if nested and all(isinstance(record.get(c, []), dict | list) for c in columns):
        raise ValueError(
            f"it holds whole columns or lists ({listed(nested)}); "
            + _JSON_SHAPES.format(columns=listed(columns))
        )


def _skip_blank(content: str, position: int) -> int:
    while content[position : position + 1].isspace():
        position += 1
    return position
