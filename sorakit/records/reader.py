"""Reading a run folder, of a run that goes on or was killed as well; and a packed run alike.

A torn last line and rows of incomplete stages are ignored. Columns that this release does not know
are read like the others: a newer record does an older reader no harm.
"""

import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast, get_args

import pandas as pd
import yaml

from sorakit.quoting import quoted
from sorakit.records.durable import damaged, parse_object, read_lines
from sorakit.records.examples import read_examples
from sorakit.records.packed import (
    find_packed_runs,
    is_packed,
    packed_rows,
    packed_text,
)
from sorakit.records.schema import (
    CONFIG_FILE,
    META_FILE,
    RANKS_FILE,
    SCHEMA_VERSION,
    STAGES_FILE,
    STATUS_FILE,
    STEPS_FILE,
    TIMINGS_FILE,
    RankRecord,
    State,
    measure_columns,
    stage_columns,
)

# Seven times faster where PyYAML was built with libyaml, as its wheels are; safe as well.
YAML_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run folder, read.

    Attributes:
        path: The folder; PACK/RUN_ID of a packed run.
        config: Resolved configuration.
        meta: Versions, fingerprints, hardware.
        status: State, error, host and pid.
        stages: One row a complete stage, columns as in `StageRecord` (`lambda_` is `lambda`).
        ranks: One row a (stage, module), columns as in `RankRecord`.
        timings: One row a stage.
    """

    path: Path
    config: dict[str, Any]
    meta: dict[str, Any]
    status: dict[str, Any]
    stages: pd.DataFrame
    ranks: pd.DataFrame
    timings: pd.DataFrame

    @property
    def run_id(self) -> str:
        """Hash of the configuration, as written when the run started."""
        return str(self.meta["run_id"])

    @property
    def state(self) -> str:
        """running, completed, failed or interrupted; running also when its process is gone."""
        return str(self.status["state"])

    def steps(self) -> list[dict[str, Any]]:
        """Read `steps.jsonl`; empty in older records."""
        return read_steps(self.path)

    def examples(self) -> pd.DataFrame:
        """Read `examples.parquet`: one row a (stage, split, example) of the complete stages."""
        table = read_examples(self.path)
        if table is None:
            return pd.DataFrame()
        complete = table["stage"].isin(self.stages["stage"])
        return table[complete].reset_index(drop=True)


def is_run_folder(path: Path) -> bool:
    """Return whether `path` holds a run."""
    return (path / CONFIG_FILE).is_file() and (path / META_FILE).is_file()


def find_runs(root: Path) -> list[Path]:
    """Return the run folders at or below `root`, and the paths of packed runs, sorted.

    Raises:
        ValueError: If `root` does not exist, or a pack below it cannot be read.
    """
    if is_packed(root):
        return [root]
    if not root.is_dir():
        raise ValueError(f"`RUNS` must be an existing folder, got {str(root)!r}.")
    # Not rglob: it fails when a folder goes away meanwhile, as in a sweep that is running.
    folders = [Path(folder) for folder, _, files in os.walk(root) if META_FILE in files]
    runs = [folder for folder in folders if is_run_folder(folder)]
    return sorted([*runs, *find_packed_runs(root)])


def load_run(path: Path | str, *, with_ranks: bool = True) -> Run:
    """Read a run folder; tolerate a torn last line and rows of an incomplete stage.

    Args:
        path: The run folder, or PACK/RUN_ID of a packed run (`sorakit.records.packed`).
        with_ranks: Read `ranks.jsonl`, the largest of the text files; without, `ranks` is empty.

    Raises:
        ValueError: If the folder holds no run, or one of another schema version.
    """
    folder = Path(path)
    if not is_run_folder(folder) and not is_packed(folder):
        raise ValueError(
            f"`RUN` must be a run folder (with {CONFIG_FILE} and {META_FILE}), got {str(folder)!r}."
        )
    meta = read_meta(folder)
    stages = _read_table(folder, STAGES_FILE, [*stage_columns(), *measure_columns()])
    complete = set(stages["stage"])
    rank_columns = [field.name for field in fields(RankRecord)]
    ranks = (
        _read_table(folder, RANKS_FILE, rank_columns)
        if with_ranks
        else pd.DataFrame(columns=pd.Index(rank_columns))
    )
    timings = _read_table(folder, TIMINGS_FILE, ["stage"])
    return Run(
        path=folder,
        config=read_config(folder),
        meta=meta,
        status=read_status(folder),
        stages=stages,
        ranks=ranks[ranks["stage"].isin(complete)].reset_index(drop=True),
        timings=timings[timings["stage"].isin(complete)].reset_index(drop=True),
    )


def read_meta(path: Path) -> dict[str, Any]:
    """Return `meta.json` of a run folder.

    Raises:
        ValueError: If it is of another schema version, or damaged.
    """
    meta = parse_object(_read_text(path, META_FILE), path / META_FILE)
    version = meta.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"`schema_version` must be {SCHEMA_VERSION}, got {version!r} in "
            f"{str(path / META_FILE)!r}. "
            "Read this run with the sorakit version named in its meta.json."
        )
    return meta


def read_config(path: Path) -> dict[str, Any]:
    """Return the resolved configuration in a run folder.

    Raises:
        ValueError: If the file is damaged.
    """
    text = _read_text(path, CONFIG_FILE)
    try:
        return parse_config(text)
    except ValueError as error:
        raise damaged(path / CONFIG_FILE, "the options of a run", quoted(text)) from error


def parse_config(text: str) -> dict[str, Any]:
    """Return the resolved configuration that the text of a `config.yaml` holds.

    Raises:
        ValueError: If it holds none.
    """
    try:
        content = yaml.load(text, Loader=YAML_LOADER)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    if not isinstance(content, dict):
        raise ValueError(f"`{CONFIG_FILE}` must hold options, got {quoted(text)}.")  # noqa: TRY004  # what a user wrote
    return cast(dict[str, Any], content)


def read_timings(path: Path) -> list[dict[str, Any]]:
    """Return the lines of `timings.jsonl`; a torn last line is left out."""
    return read_rows(path, TIMINGS_FILE)


def read_dense_stage(path: Path) -> dict[str, Any] | None:
    """Return the first line of `stages.jsonl`, or None before it stands there."""
    rows = read_rows(path, STAGES_FILE)
    return rows[0] if rows else None


def read_last_stage(path: Path) -> dict[str, Any] | None:
    """Return the last complete line of `stages.jsonl`, or None before the first."""
    rows = read_rows(path, STAGES_FILE)
    return rows[-1] if rows else None


def read_steps(path: Path) -> list[dict[str, Any]]:
    """Return the lines of `steps.jsonl`, keys as in `StepRecord`; a torn last line is left out."""
    return read_rows(path, STEPS_FILE)


def read_status(path: Path) -> dict[str, Any]:
    """Return `status.json`; a run killed before it wrote one is running without a process.

    Raises:
        ValueError: If it holds no state of a run.
    """
    unknown = {"state": "running", "error": None, "host": None, "pid": None}
    if not (path / STATUS_FILE).exists() and not is_packed(path):
        return unknown
    text = _read_text(path, STATUS_FILE)
    try:
        status = {**unknown, **json.loads(text)}
    except (ValueError, TypeError):  # no JSON, or no object
        status = {**unknown, "state": None}
    if status["state"] not in get_args(State) or not isinstance(status["pid"], int | None):
        raise ValueError(
            f"`{STATUS_FILE}` must hold state ({', '.join(get_args(State))}), error, host and pid "
            f"of a run, got {quoted(text)} in {str(path / STATUS_FILE)!r}. Delete it if no process "
            "makes the run: the same command then goes on with it."
        )
    return status


def is_complete(path: Path) -> bool:
    """Return whether `path` is of a run that came to its end: its folder, or PACK/RUN_ID."""
    is_run = is_run_folder(path) or is_packed(path)
    return is_run and read_status(path)["state"] == "completed"


def read_rows(path: Path, name: str) -> list[dict[str, Any]]:
    """Return the complete lines of a JSON table of a run; none where it has no such table.

    Args:
        path: Run folder, or PACK/RUN_ID.
        name: The file, for example stages.jsonl.
    """
    return packed_rows(path, name) if is_packed(path) else read_lines(path / name)


def _read_text(path: Path, name: str) -> str:
    if is_packed(path):
        return packed_text(path, name)
    return (path / name).read_text("utf-8", errors="replace")


def _read_table(path: Path, name: str, columns: list[str]) -> pd.DataFrame:
    rows = read_rows(path, name)
    if not rows:
        return pd.DataFrame(columns=pd.Index(columns))
    table = pd.DataFrame(rows)
    for column in columns:  # of a newer release
        if column not in table:
            table[column] = None
    return table
