# pyright: standard
# pyarrow has no type stubs, which strict refuses in every call
"""Reading what became of every example, of a run folder and of a packed run alike."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sorakit.records.packed import is_packed, packed_examples
from sorakit.records.schema import EXAMPLES_FILE


def read_examples(path: Path) -> pd.DataFrame | None:
    """Return `examples.parquet` with rows of incomplete stages, or None before the first stage."""
    if is_packed(path):
        table = packed_examples(path)
        return None if table is None else table.to_pandas()
    file = path / EXAMPLES_FILE
    return pd.read_parquet(file) if file.exists() else None


def read_examples_table(path: Path, columns: list[str] | None = None) -> pa.Table | None:
    """Return columns of `examples.parquet`, or None before the first stage.

    Args:
        path: Run folder, or PACK/RUN_ID.
        columns: Those to read; all by default.
    """
    if is_packed(path):
        return packed_examples(path, columns)
    file = path / EXAMPLES_FILE
    if not file.exists():
        return None
    with pq.ParquetFile(file) as opened:  # a third of the time of `read_table` on a small file
        return opened.read(columns, use_threads=False)
