"""What `experiments/` rests on: files that are sweeps, and records that are points of them."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from experiments import RESULTS
from sorakit.cli import parse_run_config
from sorakit.config import RunConfig
from sorakit.records import config_to_dict, find_runs, load_run, read_config
from sorakit.sweep.controls import control_of, is_path, with_steps_of
from sorakit.sweep.grid import load_sweep
from sorakit.sweep.plan import plan_sweep

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
BASES = ("embedded", "embedded_refit", "glue_minilm", "glue_refit")
"""Files of options that sweeps begin with, and `sorakit run` takes."""
HISTORICAL = {"demo": "the demo of method version 3, on all training examples and without a refit"}
"""Folder below `experiments/results` -> why its records are points of no sweep any more."""


def files() -> list[Path]:
    return sorted(EXPERIMENTS.glob("*.yaml"))


@pytest.mark.parametrize("name", BASES)
def test_base_is_a_configuration(name):
    assert parse_run_config(["--config", str(EXPERIMENTS / f"{name}.yaml")]) != RunConfig()


@pytest.mark.parametrize("file", files(), ids=lambda file: file.stem)
def test_file_is_a_sweep_that_says_how_it_is_run(file, tmp_path):
    assert plan_sweep([file], out=tmp_path, threads_per_run=1).jobs
    if file.stem not in BASES and file.stem != "demo":
        assert f"sorakit sweep --config experiments/{file.name} --out runs/" in file.read_text()


@pytest.mark.parametrize(
    ("names", "count"),
    [
        (["demo"], 3 * 2),
        (["controls"], 3 * 5 * 4),
        (["small_curves"], 3 * 5 * 8),
        (["replay"], 1),
        (["embedded_curves"], 3 * 5 * 9),
        (["glue_curves"], 3 * 3 * 8),
        (["table1"], 8 * 5 * (5 + 1)),
        (["table1_others"], 8 * 5 * 3),
        (["table1_small"], 3 * 5 * 14),
        (["table1_rates"], 4 * 11),
        (["table2"], 4 * 5 * 2 * 3),
        (["table2_small"], 3 * 5 * 2),
        (["table3"], 3 * 5 * 5),
        (["table3_small"], 3 * 5 * 5),
        (["table4"], 6 * 3),
        (["table4_small"], 3 * 3 * 4),
        (["sweeps/fig2_small"], 3 * 3 * 3),
        (["sweeps/fig2_small", "sweeps/roberta_large_glue"], 6 * 3 * 3),
        (["sweeps/faults"], 3 * 4),
    ],
)
def test_sweep_has_its_runs(names, count, tmp_path):
    sweep = [EXPERIMENTS / f"{name}.yaml" for name in names]
    assert len(plan_sweep(sweep, out=tmp_path, threads_per_run=1).jobs) == count


def test_every_sweep_is_tested():
    sweeps = (EXPERIMENTS / "sweeps").iterdir()  # those of W&B's own sweeps: `test_wandb_sweep.py`
    names = {file.stem for file in sweeps if not file.name.startswith("wandb_")}
    assert names == {"fig2_small", "roberta_large_glue", "faults"}


# Committed records ---------------------------------------------------------------------------


def committed() -> list[str]:
    """Return the folders below `results` that hold records of runs."""
    return sorted(f.name for f in RESULTS.iterdir() if f.is_dir() and find_runs(f))


@cache
def records(name: str) -> dict[Path, dict[str, Any]]:
    """Return the options of the runs in a folder below `results`."""
    return {path: options(read_config(path)) for path in find_runs(RESULTS / name)}


def options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the dotted options that make an experiment."""
    found = {
        f"{section}.{name}": value
        for section, values in config.items()
        if isinstance(values, dict) and section != "tracking"
        for name, value in values.items()
    }
    del found["trainer.num_threads"]
    if found["stage.control"] == "from_scratch":
        del found["stage.epochs"]  # every level is trained as a dense stage is
    return {**found, "seed": config["seed"]}


def is_point(record: Mapping[str, Any], point: Mapping[str, Any]) -> bool:
    """Return whether a record is of a point; newer options than the record's are not asked."""
    return all(point.get(option) == value for option, value in record.items())


@cache
def points(file: Path) -> list[dict[str, Any]]:
    """Return the options of every run of a sweep whose path, if it needs one, is committed."""
    return [options(config_to_dict(config)) for config in _runs(file)]


def _runs(file: Path) -> Iterator[RunConfig]:
    sweep = load_sweep([file])
    kept = {
        path: record for folder in sweep.records for path, record in records(folder.name).items()
    }
    for point in sweep.points:
        yield point.config
        mine = options(config_to_dict(point.config))
        path = next((path for path, record in kept.items() if is_point(record, mine)), None)
        for rule in sweep.controls if is_path(point.config) else ():
            control = control_of(point.config, rule)
            if not rule.waits_for_path:
                yield control
            elif path is not None:
                yield with_steps_of(control, load_run(path, with_ranks=False).stages)


@pytest.mark.parametrize("name", committed())
def test_committed_records_are_points_of_a_sweep(name):
    if name in HISTORICAL:
        return
    known = [point for file in files() for point in points(file)]
    strange = [
        path.name
        for path, record in records(name).items()
        if not any(is_point(record, point) for point in known)
    ]
    assert strange == [], f"no sweep in experiments/ has these runs of results/{name}"


def test_historical_records_are_there():
    assert set(HISTORICAL) <= set(committed())


def test_record_of_another_configuration_is_noticed():
    known = points(EXPERIMENTS / "controls.yaml")
    record = next(
        record
        for record in records("controls").values()
        if any(is_point(record, point) for point in known)
    )
    assert not any(is_point({**record, "gates.gate_lr": 2.0}, point) for point in known)
