"""Runs a list of configurations one after the other, and keeps the records of finished ones."""

import multiprocessing
import shutil
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from sorakit.config import RunConfig
from sorakit.options import run_config
from sorakit.records import (
    ADAPTERS_DIR,
    CHECKPOINTS_DIR,
    EXAMPLES_FILE,
    LOCK_FILE,
    LOG_FILE,
    TRACKING_DIR,
    RunWriter,
    check_run_folder,
    dense_config,
    is_complete,
    is_run_folder,
    load_run,
    run_id,
    run_path,
)
from sorakit.training.dense import start_after_dense
from sorakit.training.run import run

RESULTS = Path(__file__).parent / "results"


def below(out: Path, config: RunConfig) -> RunConfig:
    """Return `config` with its run folder below `out`, named by its task and run id."""
    return replace(config, out_dir=str(out / config.task.name / run_id(config)))


def floor_of(path: RunConfig) -> RunConfig:
    """Return the floor of a path: the same run without an adapter."""
    return replace(path, method=replace(path.method, name="head_only"))


def run_all(configs: Iterable[RunConfig], *, workers: int = 1) -> list[Path]:
    """Run every configuration that is not complete yet; return the run folders.

    Args:
        configs: Configurations, in the order in which they are begun.
        workers: Processes; with more than one, give each run `trainer.num_threads` 1 for every
            core, or they take the cores from each other.
    """
    configs = list(configs)
    if workers == 1:
        return [run(config).path for config in configs]
    with _pool(workers) as pool:
        list(pool.map(_run_path, [config for config in configs if not _is_complete(config)]))
    return [run_path(config) for config in configs]


def fork_all(forks: Iterable[tuple[Path, RunConfig]], *, workers: int = 1) -> list[Path]:
    """Run every (source, configuration) as `run_after_dense` does; return the run folders."""
    forks = list(forks)
    if workers == 1:
        return [run_after_dense(source, config) for source, config in forks]
    waiting = [fork for fork in forks if not _is_complete(fork[1])]
    with _pool(workers) as pool:
        list(pool.map(run_after_dense, *zip(*waiting, strict=True)) if waiting else ())
    return [run_path(config) for _, config in forks]


def _pool(workers: int) -> ProcessPoolExecutor:
    # A fresh process a run: a process forked after torch has started threads can hang.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, max_tasks_per_child=1)


def _is_complete(config: RunConfig) -> bool:
    path = run_path(config)
    check_run_folder(path, config)
    return is_complete(path)


def _run_path(config: RunConfig) -> Path:
    return run(config).path


def run_after_dense(source: Path, config: RunConfig) -> Path:
    """Run `config` from the dense stage of a finished run, which is bit for bit its own.

    Args:
        source: Run folder with the checkpoint of its dense stage.
        config: May differ from the source only in what comes after the dense stage
            (`sorakit.records.dense_config`).

    Raises:
        ValueError: If the dense stages are not the same.
    """
    path = run_path(config)
    if not is_run_folder(path):
        loaded = load_run(source)
        if _dense_config(loaded.config) != dense_config(config):
            raise ValueError(
                f"`source` must have the dense stage of `config`, got {str(source)!r}."
            )
        path.mkdir(parents=True)
        writer = RunWriter(path)
        writer.write_config(config)
        writer.write_meta({**loaded.meta, "run_id": run_id(config)})
        start_after_dense(source, path, maker=loaded.run_id)
    return run(config).path


def keep_records(paths: Iterable[Path], results: Path, *, examples: bool = True) -> None:
    """Copy the records of completed runs, without weights, to `results/<run_id>`.

    Args:
        paths: Run folders.
        results: Folder of the copies; what is there stays.
        examples: Copy per-example results too, the largest file of a run.

    Raises:
        ValueError: If a run is not complete.
    """
    for path in paths:
        loaded = load_run(path)
        if loaded.state != "completed":
            raise ValueError(f"`paths` must be completed runs, got {str(path)!r} ({loaded.state}).")
        target = results / loaded.run_id
        if not target.exists():
            left_out = [ADAPTERS_DIR, CHECKPOINTS_DIR, TRACKING_DIR, LOCK_FILE, LOG_FILE, "*.part"]
            left_out += [] if examples else [EXAMPLES_FILE]
            ignore = shutil.ignore_patterns(*left_out)
            shutil.copytree(path, target, ignore=ignore)


def _dense_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return `dense_config` of a configuration that was read from a run folder."""
    return dense_config(run_config(config))
