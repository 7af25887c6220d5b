"""W&B's own sweeps call `sorakit run`: files as they are, and one sweep from end to end."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from sorakit.cli import parse_run_config
from sorakit.config import RunConfig
from sorakit.records import load_run
from tests.integration.test_cli import options
from tests.support.wandb_server import ENTITY, WandbServer

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "experiments" / "sweeps").glob("wandb_*.yaml"))


def arguments(file: Path, *, last: bool) -> list[str]:
    """Return what `wandb agent` appends to `sorakit run` for a point of a sweep."""
    sweep = yaml.safe_load(file.read_text("utf-8"))
    added = create_sweep_command_args({"args": point(sweep, last=last)})["args"]
    program, command = sweep["command"][0], sweep["command"][1:]
    assert program == "${env}"
    assert command[:2] == ["sorakit", "run"]
    return [word for part in command[2:] for word in (added if part == "${args}" else [part])]


def point(sweep: dict[str, Any], *, last: bool) -> dict[str, Any]:
    """Return the first or last values of a sweep, as the server tells them to an agent."""
    specs = sweep["parameters"].items()
    return {name: {"value": value(spec, last=last)} for name, spec in specs}


def value(spec: dict[str, Any], *, last: bool) -> Any:
    if "value" in spec:
        return spec["value"]
    if "values" in spec:
        return spec["values"][-1 if last else 0]
    return spec["max" if last else "min"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
@pytest.mark.parametrize("last", [False, True])
def test_points_of_a_sweep_file_parse(file, last, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert parse_run_config(arguments(file, last=last)) != RunConfig()


def test_there_are_sweep_files():
    assert len(FILES) >= 2


@pytest.mark.parametrize(
    ("written", "path", "expected"),
    [
        ("--xi.first=0.1", ("xi", "first"), 0.1),
        ("--xi.first=1e-1", ("xi", "first"), 0.1),
        ("--xi.end=null", ("xi", "end"), None),
        ("--xi.end=None", ("xi", "end"), None),
        ("--xi.budget=None", ("xi", "budget"), None),
        ("--xi.levels=None", ("xi", "levels"), None),
        ("--gates.averaging=None", ("gates", "averaging"), None),
        ("--trainer.num_threads=None", ("trainer", "num_threads"), None),
        ("--task.data_dir=None", ("task", "data_dir"), None),  # and not a folder of that name
        ("--out_dir=None", ("out_dir",), None),
        ("--tracking.project=None", ("tracking", "project"), "None"),  # takes text only
        ("--method.target_modules=[a,b]", ("method", "target_modules"), ["a", "b"]),
        ("--method.target_modules=['a', 'b']", ("method", "target_modules"), ["a", "b"]),
        ("--method.target_modules=all-linear", ("method", "target_modules"), "all-linear"),
        ("--tracking.log_adapters=True", ("tracking", "log_adapters"), True),
        ("--tracking.log_adapters=false", ("tracking", "log_adapters"), False),
        ("--method.train_head=False", ("method", "train_head"), False),
        ("--tracking.wandb=off", ("tracking", "wandb"), "off"),
        ("--tracking.wandb=False", ("tracking", "mode"), "off"),
        ("--gates.gate_lr=3e-05", ("gates", "gate_lr"), 3e-05),
        ("--seed=3", ("seed",), 3),
    ],
)
def test_argument_of_an_agent_parses(written, path, expected):
    found: Any = parse_run_config([written])
    for name in path:
        found = getattr(found, name)
    assert found == expected


def test_tracking_off_in_a_file_is_off(tmp_path):
    (tmp_path / "run.yaml").write_text("tracking:\n  wandb: off\n")
    assert parse_run_config([f"--config={tmp_path / 'run.yaml'}"]).tracking.mode == "off"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_wandb_sweep_takes_the_file_as_it_is(file):
    with WandbServer().running() as server:
        done = subprocess.run(
            [sys.executable, "-m", "wandb", "sweep", str(file)],
            env={**os.environ, **server.environment(), "WANDB_SILENT": "false"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    [(sweep_id, stored)] = server.sweeps.items()
    assert yaml.safe_load(stored["config"]) == yaml.safe_load(file.read_text("utf-8"))
    assert stored["projectName"] == "sorakit"
    assert f"wandb agent {ENTITY}/sorakit/{sweep_id}" in done.stderr


def agents_environment(server: WandbServer, programs: Path) -> dict[str, str]:
    """Return the environment of an agent that finds `sorakit` in the folder `programs`."""
    return {
        **os.environ,
        **server.environment(),
        "PYTHONPATH": str(ROOT),
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
    }


PARSER = """#!{python}
import json, os, sys
from sorakit.cli import parse_run_config
from sorakit.records import config_to_dict
assert sys.argv[1] == "run"
config = config_to_dict(parse_run_config(sys.argv[2:]))
with open(os.environ["PARSED"], "a") as stream:
    stream.write(json.dumps(config) + "\\n")
"""


@pytest.mark.slow  # the agent looks every five seconds
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_agent_calls_sorakit_as_the_file_says(file, tmp_path):
    # a `sorakit` that goes no further than the configuration
    program = tmp_path / "sorakit"
    program.write_text(PARSER.format(python=sys.executable))
    program.chmod(0o755)
    sweep = yaml.safe_load(file.read_text("utf-8"))
    points = [point(sweep, last=last) for last in (False, True)]
    with WandbServer().running() as server:
        environ = agents_environment(server, tmp_path) | {"PARSED": str(tmp_path / "parsed")}
        wandb_cli = [sys.executable, "-m", "wandb"]
        subprocess.run([*wandb_cli, "sweep", str(file)], env=environ, check=True, timeout=120)
        [sweep_id] = server.sweeps
        server.jobs = [
            {"type": "run", "run_id": f"given{number}", "program": "", "args": args}
            for number, args in enumerate(points)
        ]
        agent = [*wandb_cli, "agent", "--count", "2", f"{ENTITY}/sorakit/{sweep_id}"]
        subprocess.run(agent, env=environ, cwd=ROOT, check=True, timeout=200)
    parsed = [json.loads(line) for line in (tmp_path / "parsed").read_text().splitlines()]
    assert len(parsed) == 2
    for config, args in zip(parsed, points, strict=True):
        assert config["dense"]["max_epochs"] == 7  # of experiments/embedded.yaml
        for name, given in args.items():
            section, _, key = name.rpartition(".")
            assert (config[section] if section else config)[key] == given["value"], name


@pytest.mark.slow  # the agent looks every five seconds
def test_sweep_and_agent_run_sorakit(hub, tmp_path):
    sweep = {
        "project": "searches",
        "method": "grid",
        "command": ["${env}", "sorakit", *options(hub, tmp_path / "run"), "${args}"],
        "parameters": {
            "xi.first": {"values": [0.01, 0.02]},
            "xi.end": {"values": [None]},
            "seed": {"values": [4, 5]},
        },
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    wandb_cli = [sys.executable, "-m", "wandb"]
    with WandbServer().running() as server:
        environ = agents_environment(server, Path(sys.executable).parent)
        made = [*wandb_cli, "sweep", str(tmp_path / "sweep.yaml")]
        subprocess.run(made, env=environ, check=True, capture_output=True, timeout=120)
        [(sweep_id, stored)] = server.sweeps.items()
        assert yaml.safe_load(stored["config"])["parameters"] == sweep["parameters"]
        args = {"xi.first": {"value": 0.01}, "xi.end": {"value": None}, "seed": {"value": 5}}
        server.jobs = [
            {"type": "run", "run_id": "given1", "program": "", "args": args},
            {"type": "exit"},
        ]
        agent = [*wandb_cli, "agent", "--count", "1", f"researcher/searches/{sweep_id}"]
        done = subprocess.run(
            agent, env=environ, check=True, capture_output=True, text=True, timeout=200
        )
        assert (tmp_path / "run").exists(), done.stderr + done.stdout
        run = load_run(tmp_path / "run")
        assert run.state == "completed", done.stderr
        assert run.config["seed"] == 5
        [(id_, tracked)] = server.runs.items()
        assert id_ == "given1"
        assert tracked.upsert["sweep"] == sweep_id
        assert tracked.upsert["project"] == "searches"
        rows = [row for row in tracked.rows() if "stage/number" in row]
        assert len(rows) == len(run.stages)
        sent = server.operations["UpsertBucket"]
        synced = [sys.executable, "-c", "from sorakit.cli import main; main()"]
        command = [*synced, "sync", str(tmp_path / "run"), "--workspace=false"]
        subprocess.run(command, env=environ, check=True, timeout=120)
        assert server.operations["UpsertBucket"] == sent, "sync does not know the agent's run"
