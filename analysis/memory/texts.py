"""The texts that `sorakit texts` wrote, for tables of single examples."""

from pathlib import Path

import pandas as pd

_COLUMNS = ["split", "index", "label", "text"]


def read_texts(file: Path) -> pd.DataFrame:
    """Return the texts of a run's examples.

    Args:
        file: What `sorakit texts` wrote.

    Raises:
        ValueError: If the file is no such table.
    """
    if not file.is_file():
        raise ValueError(f"`--texts` must be a file, got {str(file)!r}. `sorakit texts` writes it.")
    table = pd.read_csv(file, dtype={"text": str, "label": str}, keep_default_na=False)
    missing = [name for name in _COLUMNS if name not in table]
    if missing:
        raise ValueError(
            f"`--texts` must have the columns {', '.join(_COLUMNS)}, got {str(file)!r} without "
            f"{', '.join(missing)}. `sorakit texts` writes it."
        )
    return table[_COLUMNS]
