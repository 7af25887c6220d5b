# pyright: standard
# pyarrow has no type stubs, which strict refuses in every call
"""Packing the records of finished runs; `sorakit.records.packed` says what a pack is."""

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sorakit.records.identity import dataset_label, role_of
from sorakit.records.packed import (
    ABSENT,
    EXAMPLES_COLUMNS,
    EXAMPLES_NOTE,
    JSON_FIELD,
    NOTE_KEY,
    PACK_VERSION,
    RUN_COLUMNS,
    RUNS_TABLE,
    TABLES,
    TEXTS,
    VERSION_KEY,
    find_packed_runs,
    is_packed,
    packed_examples,
    packed_rows,
    packed_text,
)
from sorakit.records.reader import is_complete, parse_config, read_meta, read_rows
from sorakit.records.schema import (
    ADAPTERS_DIR,
    CHECKPOINTS_DIR,
    CONFIG_FILE,
    EXAMPLES_FILE,
    LOCK_FILE,
    LOG_FILE,
    META_FILE,
    STAGES_FILE,
    TRACKING_DIR,
)

NO_RECORDS = (ADAPTERS_DIR, CHECKPOINTS_DIR, LOCK_FILE, LOG_FILE, TRACKING_DIR)
"""What a pack leaves out of a run folder: weights, logs, and what a tracker keeps."""
_SIMPLE = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}


@dataclass(frozen=True, kw_only=True)
class Packed:
    """What `pack_runs` did.

    Attributes:
        added: Folders whose records are in the pack now.
        there: Folders whose records, the same, were in it before.
        left_out: Folder and reason of what was not packed.
    """

    added: list[Path]
    there: list[Path]
    left_out: list[tuple[Path, str]]


@dataclass(frozen=True, kw_only=True)
class _Record:
    """Everything that is recorded of one run."""

    run_id: str
    texts: dict[str, str]
    rows: dict[str, list[dict[str, Any]]]
    examples: pa.Table | None


def pack_runs(folders: Iterable[Path], pack: Path) -> Packed:
    """Add the records of finished runs to a pack, which is made if it does not exist.

    What was written is read back and compared with the records, value by value, before it takes the
    place of what was there. The run folders stay as they are.

    Args:
        folders: Run folders, or PACK/RUN_ID of packed runs.
        pack: Folder of the pack. Other files in it stay.

    Raises:
        ValueError: If a run folder holds files that a pack has no place for, or the pack has other
            records of the same run id.
    """
    records = {path.name: _read(path) for path in find_packed_runs(pack)}
    added: list[Path] = []
    there: list[Path] = []
    left_out: list[tuple[Path, str]] = []
    for folder in folders:
        if not is_complete(folder):
            left_out.append((folder, "not completed"))
            continue
        _check_files(folder)
        record = _read(folder)
        known = records.get(record.run_id)
        if known is None:
            records[record.run_id] = record
            added.append(folder)
        elif difference := first_difference(known, record):
            raise ValueError(
                f"`RUNS` must hold no second result of run {record.run_id}, got {str(folder)!r}, "
                f"whose {difference} is not that in {str(pack)!r}. Pack it elsewhere."
            )
        else:
            there.append(folder)
    if added:
        _write(records, pack)
    return Packed(added=added, there=there, left_out=left_out)


def first_difference(first: _Record, second: _Record) -> str | None:
    """Return the file in which two records differ, or None if they are the same."""
    for name in TEXTS:
        if first.texts[name] != second.texts[name]:
            return name
    for name in first.rows:
        if _lines(first.rows[name]) != _lines(second.rows[name]):
            return name
    if first.examples is None or second.examples is None:
        return None if first.examples is second.examples else EXAMPLES_FILE
    same = first.examples.equals(second.examples, check_metadata=True)
    return None if same else EXAMPLES_FILE


def _lines(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    # 1 and 1.0 are equal, their texts are not
    return [json.dumps(row, sort_keys=True) for row in rows]


def _check_files(folder: Path) -> None:
    if is_packed(folder):
        return
    known = {*TEXTS, *TABLES, *NO_RECORDS}
    unknown = sorted(file.name for file in folder.iterdir() if file.name not in known)
    if unknown:
        raise ValueError(
            f"`RUNS` must hold records only, got {unknown[0]!r} in {str(folder)!r}, for which a "
            "pack has no place. Move it elsewhere."
        )


def _read(path: Path) -> _Record:
    """Return the records in a run folder, or of a packed run."""
    tables = [name for name in TABLES if name != EXAMPLES_FILE]
    if is_packed(path):
        return _Record(
            run_id=path.name,
            texts={name: packed_text(path, name) for name in TEXTS},
            rows={name: packed_rows(path, name) for name in tables},
            examples=_plain(packed_examples(path)),
        )
    examples = path / EXAMPLES_FILE
    return _Record(
        run_id=str(read_meta(path)["run_id"]),
        texts={name: (path / name).read_text("utf-8") for name in TEXTS},
        rows={name: read_rows(path, name) for name in tables},
        examples=_plain(pq.read_table(examples)) if examples.exists() else None,
    )


def _plain(table: pa.Table | None) -> pa.Table | None:
    """Return a table with what pandas noted about it, and no other notes."""
    if table is None:
        return None
    noted = (table.schema.metadata or {}).get(NOTE_KEY)
    return table.replace_schema_metadata(None if noted is None else {NOTE_KEY: noted})


def _write(records: Mapping[str, _Record], pack: Path) -> None:
    pack.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".packing-", dir=pack) as folder:
        new = Path(folder)
        described = [_describe(record) for record in records.values()]
        described.sort(key=lambda row: (row["run"], row["run_id"]))  # neighbours are alike
        runs = pa.Table.from_pylist(described)
        version = {VERSION_KEY: str(PACK_VERSION).encode()}
        pq.write_table(runs.replace_schema_metadata(version), new / RUNS_TABLE, compression="zstd")
        for file, name in TABLES.items():
            of_runs = [(row, records[row["run_id"]]) for row in described]
            if file == EXAMPLES_FILE:
                tables = _with_one_schema([record.examples for _, record in of_runs])
            else:
                tables = _json_tables([record.rows[file] for _, record in of_runs])
            _write_groups([row for row, _ in of_runs], tables, new / name)
        for run_id, record in records.items():
            difference = first_difference(record, _read(new / run_id))
            assert difference is None, f"{difference} of run {run_id} is not the same when packed"
        # last the table that says which runs there are: until then the pack is as it was
        for name in (*TABLES.values(), RUNS_TABLE):
            if (new / name).exists():
                (new / name).replace(pack / name)


def _write_groups(
    runs: Sequence[Mapping[str, Any]], tables: Sequence[pa.Table | None], file: Path
) -> None:
    """Write a table with the rows of each run as a row group; no file where no run has any."""
    parts = [(run, table) for run, table in zip(runs, tables, strict=True) if table is not None]
    named = [_named(table, run) for run, table in parts]
    if not named:
        return
    with pq.ParquetWriter(file, named[0].schema, compression="zstd") as writer:
        for table in named:
            writer.write_table(table, row_group_size=max(len(table), 1))


def _named(table: pa.Table, run: Mapping[str, Any]) -> pa.Table:
    """Return a table with the columns that say which run its rows are of, in front."""
    for name in reversed(RUN_COLUMNS):
        table = table.add_column(0, name, pa.array([run[name]] * len(table), pa.string()))
    return table


def _with_one_schema(tables: Sequence[pa.Table | None]) -> list[pa.Table | None]:
    """Return tables with the columns of all of them, null where a run has none."""
    bare = [None if table is None else table.replace_schema_metadata(None) for table in tables]
    known = [table.schema for table in bare if table is not None]
    if not known:
        return bare
    try:
        empty = pa.unify_schemas(known).empty_table()
    except pa.ArrowTypeError as error:
        raise ValueError(
            f"`RUNS` must have one kind of {EXAMPLES_FILE}, got columns of two types: {error}. "
            "Pack them apart."
        ) from error
    return [
        None if table is None else pa.concat_tables([empty, table], promote_options="default")
        for table in bare
    ]


def _json_tables(parts: Sequence[Sequence[Mapping[str, Any]]]) -> list[pa.Table | None]:
    """Return the lines of every run as a table, all of one schema; None for a run without any."""
    values: dict[str, list[Any]] = {}
    for row in (row for rows in parts for row in rows):
        for name, value in row.items():
            values.setdefault(name, []).append(value)
    types = {name: _type_of(column) for name, column in values.items()}
    fields = [
        pa.field(name, found, metadata=None) if found is not None
        else pa.field(name, pa.string(), metadata=JSON_FIELD)
        for name, found in types.items()
    ]  # fmt: skip
    schema = pa.schema([*fields, pa.field(ABSENT, pa.list_(pa.string()))])
    return [
        pa.Table.from_pylist([_cells(row, types) for row in rows], schema) if rows else None
        for rows in parts
    ]


def _cells(row: Mapping[str, Any], types: Mapping[str, pa.DataType | None]) -> dict[str, Any]:
    cells = {
        name: json.dumps(row[name]) if found is None and row[name] is not None else row[name]
        for name, found in types.items()
        if name in row
    }
    return {**cells, ABSENT: [name for name in types if name not in row] or None}


def _type_of(values: Sequence[Any]) -> pa.DataType | None:
    """Return the type of a column; None where it has to be JSON."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) == 1:
        (kind,) = kinds
        if kind in _SIMPLE:
            return _SIMPLE[kind]
        inner = {type(item) for value in values if kind is list for item in value or ()}
        if inner == {float}:
            return pa.list_(pa.float64())
    return pa.string() if not kinds else None


def _about_examples(table: pa.Table | None) -> dict[str, Any]:
    if table is None:
        return {EXAMPLES_COLUMNS: None, EXAMPLES_NOTE: None}
    noted = (table.schema.metadata or {}).get(NOTE_KEY)
    note = None if noted is None else noted.decode()
    return {EXAMPLES_COLUMNS: table.column_names, EXAMPLES_NOTE: note}


def _describe(record: _Record) -> dict[str, Any]:
    """Return the row of `RUNS_TABLE` of one run."""
    config = parse_config(record.texts[CONFIG_FILE])
    meta = json.loads(record.texts[META_FILE])
    role = role_of(config["method"]["name"], config["stage"]["control"])
    task = dataset_label(config["task"])
    return {
        "run_id": record.run_id,
        "run": f"{task}-{role}-seed{config['seed']}",
        "task": task,
        "backbone": str(config["backbone"]["name"]),
        "role": role,
        "seed": int(config["seed"]),
        "method_version": int(meta["method_version"]),
        "num_stages": len(record.rows[STAGES_FILE]),
        **{column: record.texts[name] for name, column in TEXTS.items()},
        **_about_examples(record.examples),
    }
