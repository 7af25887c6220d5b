"""A run again, from its own record: `sorakit run RUN_FOLDER`. Free of torch."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from sorakit.config import METHOD_VERSION, RunConfig
from sorakit.options import run_config
from sorakit.records import (
    CONFIG_FILE,
    is_complete,
    is_packed,
    is_run_folder,
    read_config,
    read_meta,
    run_id,
    run_path,
)
from sorakit.sweep.verdict import verdict

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
        """Return whether the repeated run has the results of the original."""
        return verdict(self._folder, self.original)

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
    threads = cast(dict[str, Any], read_meta(folder).get("hardware") or {}).get("threads")
    if config.trainer.num_threads is None and threads is not None:  # they decide the last bits
        config = replace(config, trainer=replace(config.trainer, num_threads=threads))
    if config.out_dir is None and not is_packed(folder):
        config = replace(config, out_dir=f"{folder}{_SUFFIX}")
    return Repetition(config=config, action="repeats", original=folder)
