# pyright: standard
# pyarrow has no type stubs, which strict refuses in every call
"""Reading packed records: the records of many finished runs as a few tables; no torch.

A pack is a folder with one parquet file a table: `runs.parquet` (a row a run: readable name, run
id, what it is, and the text of `config.yaml`, `meta.json` and `status.json`), and
`stages.parquet`, `ranks.parquet`, `timings.parquet`, `steps.parquet` and `examples.parquet`, whose
rows are the lines or rows of the file of that name in a run folder, with the run beside them. One
file a table and not one for all: each is read as it is, `pandas.read_parquet` is enough, and who
wants the curves need not read the ranks. Every run is a row group of its own.

A packed run goes by the path PACK/RUN_ID, where its folder would be, and is read like one
(`sorakit.records.load_run`). Nothing of a record is lost in a pack; adapters and checkpoints are no
records.
"""

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sorakit.records.schema import (
    CONFIG_FILE,
    EXAMPLES_FILE,
    META_FILE,
    RANKS_FILE,
    STAGES_FILE,
    STATUS_FILE,
    STEPS_FILE,
    TIMINGS_FILE,
)

PACK_VERSION = 1
RUNS_TABLE = "runs.parquet"
"""The table that makes a folder a pack."""
TEXTS = {CONFIG_FILE: "config", META_FILE: "meta", STATUS_FILE: "status"}
"""File of a run folder -> column of `RUNS_TABLE` that holds its text."""
TABLES = {
    STAGES_FILE: "stages.parquet",
    RANKS_FILE: "ranks.parquet",
    TIMINGS_FILE: "timings.parquet",
    STEPS_FILE: "steps.parquet",
    EXAMPLES_FILE: "examples.parquet",
}
"""File of a run folder -> table of a pack."""
RUN_COLUMNS = ("run_id", "run")
"""Which run a row of any table is of: its id, by which rows are found, and its readable name."""
ABSENT = "absent"
"""Column with the names of those that the line does not have (older records lack some); null where
it has all."""
JSON_FIELD = {b"sorakit": b"json"}
"""Metadata of a column whose values are JSON, because they are nested or of several types."""
EXAMPLES_COLUMNS = "examples_columns"
"""Column of `RUNS_TABLE`: the columns of the examples of a run; null without examples."""
EXAMPLES_NOTE = "examples_note"
"""Column of `RUNS_TABLE`: what pandas noted in `examples.parquet`, to read it as it was."""
NOTE_KEY = b"pandas"
VERSION_KEY = b"sorakit_pack"


def is_packed(path: Path) -> bool:
    """Return whether `path` is PACK/RUN_ID of a packed run, not a folder of its own."""
    return (
        not path.exists()
        and (path.parent / RUNS_TABLE).is_file()
        and path.name in _runs(path.parent)
    )


def packed_run_ids(root: Path) -> frozenset[str]:
    """Return the ids of all runs in packs at or below `root`; none where it does not exist.

    Raises:
        ValueError: If a pack is of another version, or no pack of this project.
    """
    return frozenset(path.name for path in find_packed_runs(root))


def find_packed_runs(root: Path) -> list[Path]:
    """Return the path PACK/RUN_ID of every run in packs at or below `root`, sorted.

    Args:
        root: Any folder, a pack, or PACK/RUN_ID itself.

    Raises:
        ValueError: If a pack is of another version, or no pack of this project.
    """
    if is_packed(root):
        return [root]
    packs = [Path(folder) for folder, _, files in os.walk(root) if RUNS_TABLE in files]
    return sorted(path for pack in packs for path in packed_in(pack))


def packed_in(pack: Path) -> list[Path]:
    """Return the path PACK/RUN_ID of every run in one pack, sorted; none where it is no pack."""
    if not (pack / RUNS_TABLE).is_file():
        return []
    return sorted(pack / run_id for run_id in _runs(pack))


def packed_text(path: Path, name: str) -> str:
    """Return what a file of `TEXTS` holds of a packed run.

    Args:
        path: PACK/RUN_ID.
        name: The file, for example config.yaml.
    """
    return str(_runs(path.parent)[path.name][TEXTS[name]])


def packed_rows(path: Path, name: str) -> list[dict[str, Any]]:
    """Return the lines of a JSON table of a packed run, as they were written.

    Args:
        path: PACK/RUN_ID.
        name: The file, for example stages.jsonl.
    """
    table = _rows_of(path, name)
    return [] if table is None else table_to_rows(table)


def packed_examples(path: Path, columns: list[str] | None = None) -> pa.Table | None:
    """Return `examples.parquet` of a packed run; None if it has none.

    Args:
        path: PACK/RUN_ID.
        columns: Those to read; all of the run's by default.
    """
    about = _runs(path.parent)[path.name]
    if about[EXAMPLES_COLUMNS] is None:
        return None
    table = _rows_of(path, EXAMPLES_FILE, columns or list(about[EXAMPLES_COLUMNS]))
    assert table is not None, f"the pack {path.parent} lacks examples of {path.name}"
    noted = about[EXAMPLES_NOTE]
    return table.replace_schema_metadata(None if noted is None else {NOTE_KEY: noted.encode()})


def table_to_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Return the lines that a table of a pack was made of."""
    decoded = {
        field.name: [None if text is None else json.loads(text) for text in column.to_pylist()]
        if (field.metadata or {}).get(b"sorakit") == JSON_FIELD[b"sorakit"]
        else column.to_pylist()
        for field, column in zip(table.schema, table.columns, strict=True)
        if field.name not in RUN_COLUMNS
    }
    absent = decoded.pop(ABSENT)
    names = list(decoded)
    rows = [dict(zip(names, values, strict=True)) for values in zip(*decoded.values(), strict=True)]
    for row, lacking in zip(rows, absent, strict=True):
        for name in lacking or ():
            del row[name]
    return rows


def _rows_of(path: Path, name: str, columns: list[str] | None = None) -> pa.Table | None:
    """Return the rows of one run in the table of a file; None if it has none."""
    file = path.parent / TABLES[name]
    group = _row_groups(file, _stamp(file)).get(path.name) if file.is_file() else None
    if group is None:
        return None
    with pq.ParquetFile(file) as opened:
        return opened.read_row_group(group, columns=columns, use_threads=False)


def _runs(pack: Path) -> dict[str, dict[str, Any]]:
    """Return run id -> row of `RUNS_TABLE`."""
    file = pack / RUNS_TABLE
    return _run_rows(file, _stamp(file))


def _stamp(file: Path) -> tuple[int, int]:
    """Return what changes when a file is replaced: what is known of it is kept until then."""
    stat = file.stat()
    return stat.st_mtime_ns, stat.st_ino


@lru_cache(maxsize=64)
def _run_rows(file: Path, _: tuple[int, int]) -> dict[str, dict[str, Any]]:
    try:
        table = pq.read_table(file)
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"`{RUNS_TABLE}` must be a parquet file, got {str(file)!r}: {error}."
        ) from error
    version = (table.schema.metadata or {}).get(VERSION_KEY)
    if version != str(PACK_VERSION).encode():
        found = "no pack of sorakit" if version is None else f"version {version.decode()}"
        raise ValueError(
            f"`{RUNS_TABLE}` must be of pack version {PACK_VERSION}, got {found} in {str(file)!r}."
        )
    return {row["run_id"]: row for row in table.to_pylist()}


@lru_cache(maxsize=256)
def _row_groups(file: Path, _: tuple[int, int]) -> dict[str, int]:
    metadata = pq.read_metadata(file)
    groups = (metadata.row_group(index) for index in range(metadata.num_row_groups))
    return {group.column(0).statistics.min: index for index, group in enumerate(groups)}
