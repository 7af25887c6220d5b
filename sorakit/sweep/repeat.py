"""A run again, from its own record: `sorakit run RUN_FOLDER`. Free of torch."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import yaml

from sorakit.config import METHOD_VERSION, RunConfig
from sorakit.options import run_config
from sorakit.records import (
    CONFIG_FILE,
    is_complete,
    is_packed,
    is_run_folder,
    load_run,
    read_config,
    read_meta,
    run_id,
    run_path,
)

_SUFFIX = "-again"


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """What `sorakit run RUN_FOLDER` will do.

    Attributes:
        config: What is run, with its run folder.
        action: resumes (the run is not complete, and goes on where it is) or repeats (it is, and
            the same configuration runs once more in a folder of its own).
        original: The run folder that was named.
    """

    config: RunConfig
    action: Literal["resumes", "repeats"]
    original: Path

    def announce(self) -> str:
        """Return what is going to happen, in a sentence."""
        if self.action == "resumes":
            return f"{self.original} is not complete: it goes on where it stopped."
        return f"{self.original} is complete: its configuration runs again in {self._folder}."

    def compare(self) -> str:
        """Return whether the repeated run has the scores and counts of the original."""
        ours, theirs = _stages(self._folder), _stages(self.original)
        if ours == theirs:
            return f"Its {len(ours)} stages are those of {self.original}, bit for bit."
        pairs = zip(ours, theirs, strict=False)
        first = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(theirs)))
        return (
            f"From stage {first} on it differs from {self.original}. Bits are the same only on "
            "equal hardware, with equal versions and threads: compare both meta.json."
        )

    @property
    def _folder(self) -> Path:
        return run_path(self.config)


def repetition(folder: Path, parse: Callable[[list[str]], RunConfig]) -> Repetition:
    """Return what to do with a run folder.

    Args:
        folder: The run folder, or PACK/RUN_ID of a packed run.
        parse: Returns the configuration of some options, followed by those that the user gave.

    Raises:
        ValueError: If it is no run folder, is of another method version, or if the user's options
            make another run of it.
    """
    if not is_run_folder(folder) and not is_packed(folder):
        raise ValueError(
            f"`RUN_FOLDER` must be a run folder (with {CONFIG_FILE}) or a run in a pack, got "
            f"{str(folder)!r}."
        )
    version = read_meta(folder).get("method_version")
    file = folder / CONFIG_FILE
    if version != METHOD_VERSION:
        raise ValueError(
            f"`RUN_FOLDER` must be of method version {METHOD_VERSION} to be repeated, got "
            f"{version} in {str(folder)!r}. This sorakit would give other numbers; "
            f"to run that configuration nevertheless, give `--config {file} --out_dir=null`."
        )
    recorded = read_config(folder)
    config = parse([f"--config={yaml.safe_dump(recorded)}", "--out_dir=null"])
    if run_id(config) != run_id(run_config(recorded)):
        raise ValueError(
            "`RUN_FOLDER` must be repeated as it is, got options that make another run of "
            f"{str(folder)!r}. Give them with `--config {file} --out_dir=null` in its place."
        )
    if not is_complete(folder):
        if config.out_dir is not None:
            raise ValueError(
                f"`--out_dir` must not be given while {str(folder)!r} is not complete, got "
                f"{config.out_dir!r}. The run goes on where it is."
            )
        config = replace(config, out_dir=str(folder))
        return Repetition(config=config, action="resumes", original=folder)
    if config.out_dir is None and not is_packed(folder):
        config = replace(config, out_dir=f"{folder}{_SUFFIX}")
    return Repetition(config=config, action="repeats", original=folder)


def _stages(folder: Path) -> list[str]:
    """Return the stages of a run, a text each in which every digit counts."""
    rows = load_run(folder, with_ranks=False).stages.to_dict("records")
    return [json.dumps(row, sort_keys=True, default=str) for row in rows]
