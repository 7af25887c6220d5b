"""Runs in W&B: the real client against a server on the loopback interface, real training.

Everything lies below the home folder of the tests, which must appear in nothing that W&B gets.
"""

import copy
import json
import math
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import wandb
import yaml

from sorakit.cli import main
from sorakit.config import RunConfig, TrackingConfig
from sorakit.curve_grid import LOG10_SHARES
from sorakit.metric_names import CURVE_COLUMNS, CURVE_LOG10_SHARE, stage_keys
from sorakit.records import (
    LOG_FILE,
    RunWriter,
    config_to_dict,
    find_runs,
    load_run,
    read_steps,
    run_id,
    stage_name,
)
from sorakit.tracking import client, live
from sorakit.tracking.rows import STEP_KEYS, find_floor, load_floors
from sorakit.training.run import run
from sorakit.training.xi_scheduler import TRAINER_OPTIONS
from tests.support.broken_runs import files_of
from tests.support.tiny_hub import tiny_run, write_model, write_task
from tests.support.wandb_server import API_KEY, ENTITY, Stored, WandbServer

LEVELS = (0.02, 0.05, 4.0)
DATASETS = ("animals", "birds")
SEEDS = (0, 1)
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the tests of this module work: a home with model, data and runs."""

    home: Path

    @property
    def runs(self) -> Path:
        return self.home / "runs"

    @property
    def grid(self) -> Path:
        """Where the sweep and its floors are."""
        return self.runs / "grid"

    def config(self, name: str, *, dataset: str = "animals", seed: int = 0, **more: Any) -> Any:
        """Return a run; `tracking` replaces the offline default, `sections` are tiny_run's."""
        tracking = more.pop("tracking", TrackingConfig(wandb="offline", log_adapters=True))
        sections = more.pop("sections", {}) | {"task": {"data_dir": str(self.home / dataset)}}
        config = tiny_run(self.home, levels=LEVELS, sections=sections, seed=seed)
        return replace(config, out_dir=str(self.runs / name), tracking=tracking)


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Set variables that the client reads when it starts, in a client of their own."""
    before = dict(os.environ)
    os.environ.update(variables)
    wandb.teardown()
    try:
        yield
    finally:
        wandb.teardown()
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("tracked")
    home = root / "home-of-the-user"
    write_model(home / "model")
    write_task(home / "task")  # tiny_run looks for it
    for dataset in DATASETS:
        write_task(home / dataset)
    return Place(home=home)


@pytest.fixture(scope="module", autouse=True)
def _at_home(place: Place) -> Iterator[None]:
    with chdir(place.home):
        yield


@pytest.fixture(autouse=True)
def _home(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(place.home))
    monkeypatch.delenv("WANDB_MODE")


@pytest.fixture(scope="module")
def server() -> Iterator[WandbServer]:
    with WandbServer().running() as running:
        yield running


@pytest.fixture
def online(server: WandbServer) -> Iterator[None]:
    """The client knows the server and has a key."""
    server.failure = "none"
    with environment(server.environment()):
        yield
    server.failure = "none"


def call(*arguments: str) -> int:
    """Run the command line in this process and return its exit code."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert isinstance(stop.value.code, int)
    return stop.value.code


@pytest.fixture(scope="module")
def sweep(place: Place) -> list[Path]:
    """`sorakit sweep` of two datasets by two seeds, and one floor, offline, without a server."""
    options = config_to_dict(place.config("of the sweep"))
    del options["out_dir"], options["task"]["data_dir"], options["seed"]
    datasets = [str(place.home / dataset) for dataset in DATASETS]
    file = place.home / "sweep.yaml"
    file.write_text(
        yaml.safe_dump({**options, "grid": {"task.data_dir": datasets, "seed": [*SEEDS]}})
    )
    folder = {f"WANDB_{k}_DIR": str(place.home.parent / k) for k in ("CACHE", "CONFIG", "DATA")}
    with environment(
        {"HOME": str(place.home), "PYTHONPATH": str(ROOT), "WANDB_SILENT": "true", **folder}
    ):
        os.environ.pop("WANDB_MODE", None)
        assert call("sweep", f"--config={file}", f"--out={place.grid}", "--workers=2") == 0
        floor = place.config("grid/files/floor", sections={"method": {"name": "head_only"}})
        run(floor, show_progress=False)
    paths = find_runs(place.grid)
    assert {name_of(path) for path in paths} == {
        "floor",
        *(f"{dataset}-{seed}" for dataset in DATASETS for seed in SEEDS),
    }
    return paths


def name_of(path: Path) -> str:
    """Return floor, or dataset and seed of a run of the sweep."""
    config = load_run(path).config
    if config["method"]["name"] == "head_only":
        return "floor"
    return f"{Path(config['task']['data_dir']).name}-{config['seed']}"


def named(paths: list[Path], name: str) -> Path:
    [path] = [path for path in paths if name_of(path) == name]
    return path


def sync(folder: Path) -> int:
    return call("sync", str(folder))


@pytest.fixture(scope="module")
def synced(sweep: list[Path], server: WandbServer, place: Place) -> dict[Path, Stored]:
    """Run folder -> what the server got of it from `sorakit sync`."""
    with environment({**server.environment(), "HOME": str(place.home), "WANDB_SILENT": "true"}):
        assert sync(place.grid) == 0
    return {path: server.runs[load_run(path).run_id] for path in sweep}


def stage_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "stages.jsonl").read_text().splitlines()]


def logged_stages(stored: Stored) -> list[dict[str, Any]]:
    return [row for row in stored.rows() if "stage/number" in row]


def assert_holds_the_run(stored: Stored, path: Path) -> None:
    """Assert that a server holds every line of a run folder, once, in its order."""
    lines = stage_lines(path)
    rows = logged_stages(stored)
    assert len(rows) == len(lines)
    for row, line in zip(rows, lines, strict=True):
        for column, value in line.items():
            if column == "extra_metrics":
                for split, metrics in value.items():
                    assert {name: row[f"{split}/{name}"] for name in metrics} == metrics
            elif value is None:
                assert stage_keys()[column] not in row
            else:
                assert row[stage_keys()[column]] == value, column
        assert row["generalization/gap"] == line["memorization"] - line["generalization"]
    steps = [row for row in stored.rows() if "train/optimizer_step" in row]
    expected = [
        {STEP_KEYS[column]: value for column, value in step.items()} for step in read_steps(path)
    ]
    assert [{key: row[key] for key in STEP_KEYS.values()} for row in steps] == expected
    curve = [row for row in stored.rows() if CURVE_LOG10_SHARE in row]
    assert [row[CURVE_LOG10_SHARE] for row in curve] == grid_of(lines)
    assert len(stored.rows()) == len(lines) + len(expected) + len(curve)
    assert [row["_step"] for row in stored.rows()] == list(range(len(stored.rows())))


def grid_of(lines: list[dict[str, Any]]) -> list[float]:
    """Return the shares of the grid between the least and the largest count of some stages."""
    counts = [line["num_nonzero_params"] for line in lines if line["num_nonzero_params"] > 0]
    if len(lines) < 2 or not counts:
        return []
    dense = max(line["num_adapter_params"] for line in lines)
    low, high = (math.log10(end / dense) for end in (min(counts), max(counts)))
    return [share for share in LOG10_SHARES if low - 1e-9 <= share <= high + 1e-9]


def assert_axes(stored: Stored) -> None:
    """Assert that parameters are the x axis of stages, and optimizer steps that of training."""
    defined = stored.config["_wandb"]["value"]["m"]
    names = {number: entry.get("1") for number, entry in enumerate(defined, start=1)}
    axes = {entry["1"]: names.get(entry.get("5")) for entry in defined if "1" in entry}
    for key in stage_keys().values():
        if key != "gate/num_nonzero_params":
            assert axes[key] == "gate/num_nonzero_params", key
    for key in CURVE_COLUMNS.values():
        assert axes[key] == CURVE_LOG10_SHARE
    for key in ("train/loss", "train/lr", "train/xi"):
        assert axes[key] == "train/optimizer_step"
    logged = {key for row in stored.rows() for key in row if not key.startswith("_")}
    assert logged - set(axes) == set(), "a key that metric_names.py does not know"


def assert_labels(stored: Stored, path: Path) -> None:
    config = load_run(path).config
    method, dataset = config["method"]["name"], Path(config["task"]["data_dir"]).name
    job_type = "floor" if method == "head_only" else "path"
    assert stored.upsert["groupName"] == dataset
    assert stored.upsert["jobType"] == job_type
    assert sorted(stored.upsert["tags"]) == sorted(["model", method, "sgd"])
    assert stored.upsert["displayName"] == f"{dataset}-{job_type}-seed{config['seed']}"


def assert_configuration(stored: Stored, path: Path) -> None:
    """Assert that the configuration is the resolved one, without paths of this machine."""
    sent = {key: value["value"] for key, value in stored.config.items() if key != "_wandb"}
    config = load_run(path).config
    method = "floor" if name_of(path) == "floor" else "sora"
    curve = sent.pop("curve")
    assert re.fullmatch(rf"{stored.upsert['groupName']}, model, {method} \[[0-9a-f]{{6}}\]", curve)
    del config["out_dir"], config["tracking"]
    assert sent == json.loads(json.dumps(config).replace(str(Path.home()), "~"))
    assert sent["backbone"]["name"] == "~/model"


def assert_summary(stored: Stored, path: Path) -> None:
    stages, summary = load_run(path).stages, stored.summary
    for score in ("memorization", "generalization"):
        assert summary[f"run/dense_{score}"] == stages[score][0]
        for name, share in (("d99", 0.99), ("d95", 0.95), ("d90", 0.9)):
            kept = stages[stages[score] >= share * stages[score][0]]
            assert summary[f"run/{score}_{name}"] == kept["num_nonzero_params"].min()
    counts = stages["num_nonzero_params"]
    assert summary["run/smallest_budget"] == counts[counts > 0].min()
    assert summary["run/last_kkt_residual"] == stages["kkt_residual"].iloc[-1]


def assert_media(stored: Stored, path: Path, server: WandbServer) -> None:
    """Assert that every stage has its rank table, heatmap and histogram."""
    records = load_run(path)
    for row in logged_stages(stored):
        ranks = records.ranks[records.ranks["stage"] == row["stage/number"]]
        table = json.loads(server.files[f"{records.run_id}/{row['ranks/map_table']['path']}"])
        assert table["columns"] == ["layer", "matrix", "rank", "strength"]
        expected = [
            [rank.layer, rank.matrix, rank.nonzero_rank, pytest.approx(sum(rank.strengths))]
            for rank in ranks.itertuples()
        ]
        assert table["data"] == expected
        alive = int(ranks["nonzero_rank"].sum())
        histogram = row.get("gate/strengths")
        assert alive == (sum(histogram["values"]) if histogram else 0)
    chart = stored.config["_wandb"]["value"]["visualize"]["ranks/map"]["panel_config"]
    assert chart["panelDefId"] in (f"{ENTITY}/sorakit_rank_heatmap", "sorakit_rank_heatmap")
    assert chart["fieldSettings"]["rank"] == "rank"


def assert_artifacts(path: Path, server: WandbServer) -> None:
    """Assert that the adapter of every stage is there, with the stage as alias."""
    name = f"adapter-{load_run(path).run_id}"
    sent = {}
    for number, artifact in enumerate(server.artifacts, start=1):
        if artifact["input"]["artifactCollectionName"] == name:
            aliases = {alias["alias"] for alias in artifact["input"]["aliases"]}
            (stage,) = [alias for alias in aliases if alias.startswith("stage_")]
            sent[stage] = f"artifacts/artifact-{number}"
    assert sorted(sent) == [stage_name(stage) for stage in range(4)]
    for stage, stored in sent.items():
        weights = path / "adapters" / stage / "adapter_model.safetensors"
        assert server.files[f"{stored}/adapter_model.safetensors"] == weights.read_bytes()
        config = json.loads(server.files[f"{stored}/adapter_config.json"])
        assert config["base_model_name_or_path"] == "~/model"


def assert_mirrors(stored: Stored, path: Path, server: WandbServer) -> None:
    """Assert that a server holds all of a finished run with adapters, and shows it rightly."""
    assert stored.exit_code == 0
    assert_holds_the_run(stored, path)
    assert_axes(stored)
    assert_labels(stored, path)
    assert_configuration(stored, path)
    assert_summary(stored, path)
    assert_media(stored, path, server)
    assert_artifacts(path, server)


def with_gates(synced: dict[Path, Stored]) -> list[tuple[Path, Stored]]:
    return [(path, stored) for path, stored in synced.items() if name_of(path) != "floor"]


# What is sent -------------------------------------------------------------------------------


def test_synced_sweep_is_that_of_the_run_folders(synced, server):
    assert len(with_gates(synced)) == 4
    for path, stored in with_gates(synced):
        assert_mirrors(stored, path, server)
    assert {stored.upsert["groupName"] for stored in synced.values()} == set(DATASETS)


def test_synced_floor_is_that_of_the_run_folder(synced, server):
    [(path, stored)] = [each for each in synced.items() if name_of(each[0]) == "floor"]
    assert stored.exit_code == 0
    assert_holds_the_run(stored, path)
    assert_labels(stored, path)
    assert_configuration(stored, path)
    summary = stored.summary
    assert summary["run/dense_generalization"] == summary["run/floor_generalization"]
    # there are no fewest parameters without any
    assert not [key for key in summary if re.search(r"_d\d\d$|smallest", key)]


def test_chart_of_the_ranks_is_made(synced, server):
    assert {chart["chartName"] for chart in server.charts} == {"sorakit_rank_heatmap"}
    spec = json.loads(server.charts[-1]["spec"])
    assert spec["mark"]["type"] == "rect"


def test_floor_is_in_the_summary_and_in_gain_retained_of_its_own_path_only(synced):
    by_name = {name_of(path): (path, stored) for path, stored in synced.items()}
    path, stored = by_name["animals-0"]
    floor = stage_lines(by_name["floor"][0])[0]
    lines = stage_lines(path)
    for score in ("memorization", "generalization"):
        assert stored.summary[f"run/floor_{score}"] == floor[score]
        gain = lines[0][score] - floor[score]
        rows = logged_stages(stored)
        for row, line in zip(rows, lines, strict=True):
            key = f"{score}/gain_retained"
            assert row.get(key) == ((line[score] - floor[score]) / gain if gain > 0 else None)
    for name in ("animals-1", "birds-0", "birds-1"):
        assert "run/floor_memorization" not in by_name[name][1].summary


def test_workspace_has_the_panels(synced, server):
    [view] = server.views.values()
    spec = json.loads(view["spec"])
    sections = spec["section"]["panelBankConfig"]["sections"]
    panels = [panel for section in sections for panel in section["panels"]]
    lines = {
        panel["config"]["metrics"][0]: panel["config"]
        for panel in panels
        if panel["viewType"] == "Run History Line Plot"
    }
    for key in ("memorization/score", "generalization/score"):
        assert lines[key]["xAxis"] == "gate/num_nonzero_params"
        assert lines[key]["xLogScale"] is True
    bars = {p["config"]["metrics"][0] for p in panels if p["viewType"] == "Bar Chart"}
    assert {"run/generalization_d90", "run/generalization_d99"} <= bars
    [heatmap] = [panel["config"] for panel in panels if panel["viewType"] == "Vega2"]
    assert heatmap["panelDefId"] == f"{ENTITY}/sorakit_rank_heatmap"
    [runs] = spec["section"]["runSets"]
    [only] = runs["filters"]["filters"]
    assert (only["key"]["name"], only["op"], only["value"]) == ("jobType", "=", "path")
    assert runs["runFeed"]["columnPinned"]["summary:run/generalization_d99"] is True


def test_curve_is_one_of_the_seeds_of_one_dataset(synced):
    names = {name_of(path): stored.config["curve"]["value"] for path, stored in synced.items()}
    assert names["animals-0"] == names["animals-1"]
    assert names["birds-0"] == names["birds-1"]
    assert len({names["animals-0"], names["birds-0"], names["floor"]}) == 3


def test_sync_again_sends_nothing_and_makes_no_second_workspace(synced, server, place, online):
    sent, [(id_, view)] = server.operations["UpsertBucket"], server.views.items()
    assert sync(place.grid) == 0
    assert server.operations["UpsertBucket"] == sent
    assert list(server.views) == [id_]
    first, again = json.loads(view["spec"]), json.loads(server.views[id_]["spec"])
    assert without_ids(first) == without_ids(again)


def without_ids(spec: Any) -> Any:
    if isinstance(spec, dict):
        return {k: without_ids(v) for k, v in spec.items() if k not in ("id", "__id__", "runSets")}
    return [without_ids(item) for item in spec] if isinstance(spec, list) else spec


def test_plain_wandb_sync_delivers_an_offline_run_too(synced, server, sweep, place, online):
    path = named(sweep, "birds-1")
    del server.runs[load_run(path).run_id]
    server.artifacts.clear()
    [folder] = (path / "wandb").glob("offline-run-*")
    command = [sys.executable, "-m", "wandb", "sync", "--yes", "-e", ENTITY, str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert_mirrors(server.runs[load_run(path).run_id], path, server)


# Offline, online, killed ---------------------------------------------------------------------


def test_tracking_changes_nothing_in_the_run(sweep, place):
    twin = place.config("untracked", tracking=TrackingConfig(wandb="off"))
    path = run(twin, show_progress=False).path
    assert not (path / "wandb").exists()
    tracked = named(sweep, "animals-0")
    names = {name for name in files_of(tracked) if not name.startswith("wandb/")} - {LOG_FILE}
    assert names == files_of(path)
    for name in ("stages.jsonl", "ranks.jsonl", "steps.jsonl"):
        assert (path / name).read_bytes() == (tracked / name).read_bytes(), name
    pd.testing.assert_frame_equal(load_run(path).examples(), load_run(tracked).examples())
    for name in names:
        if name.endswith(".safetensors"):
            assert (path / name).read_bytes() == (tracked / name).read_bytes()


def test_live_run_is_that_of_the_offline_one(synced, server, sweep, place, online):
    # its run id is that of the offline run with this seed: the server now holds the live one
    twin = named(sweep, "animals-1")
    offline = copy.deepcopy(synced[twin])
    first = len(server.requests)
    path = run(
        place.config("live", seed=1, tracking=TrackingConfig(wandb="online", log_adapters=True)),
        show_progress=False,
    ).path
    stored = server.runs[load_run(path).run_id]
    assert_mirrors(stored, path, server)
    assert not [body for _, _, body in server.requests[first:] if b"runs/live" in body], (
        "its folder is sent"
    )
    assert stage_lines(path) == stage_lines(twin)
    assert [comparable(row) for row in stored.rows()] == [comparable(row) for row in offline.rows()]
    assert comparable(stored.summary) == comparable(offline.summary)
    before = server.operations["UpsertBucket"]
    assert sync(path) == 0
    assert server.operations["UpsertBucket"] == before


def comparable(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row or a summary without clock, folder and the digest that holds the folder."""
    known = {key: value for key, value in row.items() if not key.startswith("_") or key == "_step"}
    known.pop("run/records_digest", None)
    if isinstance(table := known.get("ranks/map_table"), dict):
        known["ranks/map_table"] = table["sha256"]
    return known


CHILD = """
import os, psutil, signal, sys, time, urllib.request
from sorakit.cli import parse_run_config
from sorakit.records import RunWriter
from sorakit.tracking import live
from sorakit.training.checkpoint import ResumePoint
from sorakit.training.run import run

config, what = sys.argv[1:]
live._FINISH_TIMEOUT = 3.0
append_stage, save = RunWriter.append_stage, ResumePoint.on_validation_end

def break_and_append_stage(self, record, **tables):
    failure = {1: "500", 2: "drop"}.get(record.stage)
    if what == "server" and failure:
        url = os.environ["WANDB_BASE_URL"] + "/failure/" + failure
        urllib.request.urlopen(url).close()
    for child in psutil.Process().children(recursive=True):
        if record.stage == 1 and child.name() == what:
            child.kill()
    append_stage(self, record, **tables)

def die_or_save(self, *args):
    if what == "SIGKILL" and self._scheduler.stage == 3:  # stage 2 has ended
        time.sleep(3.0)
        os.kill(os.getpid(), signal.SIGKILL)
    save(self, *args)

RunWriter.append_stage, ResumePoint.on_validation_end = break_and_append_stage, die_or_save
run(parse_run_config(["--config", config]), show_progress=False)
"""


def run_in_a_process(
    config: RunConfig, folder: Path, what: str
) -> subprocess.CompletedProcess[str]:
    """Run in a process of its own and break something after its first stages.

    Args:
        what: SIGKILL (of the process, 3 seconds after stage 2 ended), server (500, then dropped
            connections) or wandb-core.
    """
    folder.mkdir(parents=True)
    RunWriter(folder).write_config(config)
    command = [sys.executable, "-c", CHILD, str(folder / "config.yaml"), what]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environ, check=False, capture_output=True, text=True)


def test_offline_run_that_was_killed_is_rebuilt_and_not_doubled(
    synced, server, place, online, tmp_path
):
    config = place.config("killed", seed=2)
    assert run_in_a_process(config, tmp_path / "c", "SIGKILL").returncode == -signal.SIGKILL
    path = Path(config.out_dir)
    [first] = (path / "wandb").glob("offline-run-*")
    kept = history(first)  # a second would do; 1.2 did here, and 3 are for slow machines
    assert [row["stage/number"] for row in kept if "stage/number" in row] == [0, 1, 2]
    run(config, show_progress=False)
    [second] = (path / "wandb").glob("offline-run-*")
    assert second != first
    rows = history(second)
    assert [row["stage/number"] for row in rows if "stage/number" in row] == [0, 1, 2, 3]
    assert sync(path) == 0
    assert_mirrors(server.runs[run_id(config)], path, server)


def test_a_row_is_on_the_disk_within_a_second():
    assert live._INTERVAL + client.FLUSH_INTERVAL <= 1.0


def history(folder: Path) -> list[dict[str, Any]]:
    """Read the rows of an offline run with W&B's own reader."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    return [record["history"]["item"] for record in records if record["type"] == "history"]


def test_online_run_that_was_killed_goes_on_and_is_not_doubled(server, place, online, tmp_path):
    tracking = TrackingConfig(wandb="online", log_adapters=True)
    config = place.config("killed-online", seed=3, tracking=tracking)
    assert run_in_a_process(config, tmp_path / "c", "SIGKILL").returncode == -signal.SIGKILL
    run(config, show_progress=False)
    assert_mirrors(server.runs[run_id(config)], Path(config.out_dir), server)


def test_nothing_is_logged_in_the_sanity_check(server, place, online, monkeypatch):
    monkeypatch.setitem(TRAINER_OPTIONS, "num_sanity_val_steps", 2)
    config = place.config("sane", seed=4, tracking=TrackingConfig(wandb="online"))
    path = run(config, show_progress=False).path
    stored = server.runs[run_id(config)]
    assert [row["stage/number"] for row in logged_stages(stored)] == [0, 1, 2, 3]
    assert_holds_the_run(stored, path)


# What can go wrong ---------------------------------------------------------------------------


def test_keys_and_home_are_nowhere(synced, server, sweep, place):
    home, key = str(place.home).encode(), API_KEY.encode()
    assert all(path.is_relative_to(place.home) for path in sweep)
    for path, headers, body in server.requests:
        for secret in (home, key):
            assert secret not in path.encode()
            assert secret not in body
            assert secret.decode() not in json.dumps(headers)
    written = [path / "wandb" for path in sweep]
    assert_names_neither_home_nor_key(place, *written, place.home.parent / "CACHE")


def assert_names_neither_home_nor_key(place: Place, *folders: Path) -> None:
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    assert [file for file in files if file.suffix == ".wandb"]
    assert [file for file in files if file.suffix == ".log"]
    for file in files:
        content = file.read_bytes()
        assert str(place.home).encode() not in content, file
        assert API_KEY.encode() not in content, file


def test_live_run_names_neither_home_nor_key(server, place, online):
    path = place.runs / "live"
    if not path.exists():
        pytest.skip("needs the live run")
    assert_names_neither_home_nor_key(place, path / "wandb")


def test_run_below_home_that_is_started_elsewhere_does_not_name_it(place, tmp_path):
    with chdir("/usr"), environment({}):  # from there, relative paths would name it too
        path = run(place.config("from-elsewhere", seed=10), show_progress=False).path
    assert_names_neither_home_nor_key(place, path / "wandb")
    rows = history(next((path / "wandb").glob("offline-run-*")))
    assert [row["stage/number"] for row in rows if "stage/number" in row] == [0, 1, 2, 3]


AT_A_TERMINAL = """
import sys
from sorakit.cli import main
for command in (["run", "--config", sys.argv[1]], ["sync", sys.argv[2], "--workspace=false"]):
    try:
        main(command)
    except SystemExit as stop:
        print("exit", stop.code, flush=True)
"""


def test_nothing_is_asked_at_a_terminal_without_a_key(place, tmp_path):
    config = place.config("terminal", seed=11, tracking=TrackingConfig(wandb="online"))
    RunWriter(tmp_path).write_config(config)
    arguments = [str(tmp_path / "config.yaml"), str(config.out_dir)]
    environ = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    terminal, its = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", AT_A_TERMINAL, *arguments],
        env=environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm"},
        stdin=its,
        stdout=its,
        stderr=its,
    )
    os.close(its)
    try:
        printed = read_until_closed(terminal, seconds=240)
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    assert "is offline, not online: there is no API key" in printed
    assert [line for line in printed.splitlines() if line.startswith("exit ")] == [
        "exit 0",
        "exit 2",
    ], printed
    assert "An API key for https://" in printed


def read_until_closed(terminal: int, *, seconds: float) -> str:
    """Return what is printed on a terminal, until nobody has it open any more."""
    printed, last = b"", time.monotonic() + seconds
    while select.select([terminal], [], [], max(0.0, last - time.monotonic()))[0]:
        try:
            printed += os.read(terminal, 4096)
        except OSError:  # closed
            break
    return printed.decode()


def test_server_that_is_not_there(server, place, monkeypatch):
    config = place.config("absent", seed=12, tracking=TrackingConfig(wandb="online"))
    with (
        environment({**server.environment(), "WANDB_BASE_URL": "http://127.0.0.1:1"}),
        pytest.warns(UserWarning, match=r"^W&B \(online\) failed: .* `sorakit sync` sends it"),
    ):
        path = run(config, show_progress=False).path
    assert load_run(path).state == "completed"
    with environment(server.environment()):
        assert sync(path) == 0
    assert_holds_the_run(server.runs[run_id(config)], path)


@pytest.mark.parametrize("failure", ["500", "drop"])
def test_server_that_fails_from_the_start(failure, server, place, online, monkeypatch):
    monkeypatch.setattr(live, "_ANSWER_TIMEOUT", 2)
    server.failure = failure
    seed = 5 if failure == "500" else 6
    config = place.config(failure, seed=seed, tracking=TrackingConfig(wandb="online"))
    with pytest.warns(UserWarning, match=r"^W&B \(online\) failed: .* `sorakit sync` sends it"):
        path = run(config, show_progress=False).path
    assert load_run(path).state == "completed"
    assert list((path / "wandb").glob("offline-run-*")), "tracked offline instead"
    server.failure = "none"
    assert sync(path) == 0
    assert_holds_the_run(server.runs[run_id(config)], path)


def test_server_that_fails_in_the_middle(server, place, online, tmp_path, monkeypatch):
    monkeypatch.setattr("sorakit.tracking.sync._ANSWER_TIMEOUT", 2)
    config = place.config("later", seed=7, tracking=TrackingConfig(wandb="online"))
    done = run_in_a_process(config, tmp_path / "c", "server")
    assert done.returncode == 0, done.stderr
    assert "W&B (online) failed: " in done.stderr
    path = Path(config.out_dir)
    assert load_run(path).state == "completed"
    stored = server.runs[run_id(config)]
    assert len(logged_stages(stored)) < 4
    assert sync(path) == 1, "still out of order"
    server.failure = "none"
    assert sync(path) == 0
    assert_holds_the_run(stored, path)


@pytest.mark.slow
def test_death_of_wandbs_own_process_does_not_stop_the_run(place, tmp_path):
    config = place.config("orphan", seed=9)
    done = run_in_a_process(config, tmp_path / "c", "wandb-core")
    assert done.returncode == 0, done.stderr
    assert "W&B (offline) failed: " in done.stderr
    assert load_run(Path(config.out_dir)).state == "completed"


def test_without_a_key_auto_is_offline_and_online_says_so(place):
    with environment({}):
        path = run(place.config("auto", tracking=TrackingConfig()), show_progress=False).path
        assert list((path / "wandb").glob("offline-run-*"))
        config = place.config("keyless", tracking=TrackingConfig(wandb="online"))
        with pytest.warns(UserWarning, match=r"is offline, not online: there is no API key"):
            path = run(config, show_progress=False).path
        assert list((path / "wandb").glob("offline-run-*"))


def test_sync_without_a_key_is_refused(sweep, place, capsys):
    with environment({}):
        capsys.readouterr()
        assert sync(place.grid) == 2
    error = capsys.readouterr().err
    assert error.startswith("sorakit: error: An API key for https://")
    assert error.count("\n") == 1


def test_a_later_floor_is_sent_with_its_paths(synced, server, sweep, place, online):
    floors = {"method": {"name": "head_only"}}
    run(place.config("grid/files/floor-1", seed=1, sections=floors), show_progress=False)
    assert sync(place.grid) == 0
    path = named(sweep, "animals-1")
    stored = server.runs[load_run(path).run_id]
    floor = find_floor(load_run(path), load_floors(find_runs(place.grid)))
    assert floor is not None
    assert stored.summary["run/floor_generalization"] == floor["generalization"]
    assert_holds_the_run(stored, path)


def test_resumed_run_has_the_records_of_the_unbroken_one(place):
    # the runs killed above are whole: steps.jsonl was cut back to the checkpoint and went on
    path = place.runs / "killed"
    if not path.exists():
        pytest.skip("needs the killed run")
    twin = place.config("unbroken", seed=2, tracking=TrackingConfig(wandb="off"))
    unbroken = run(twin, show_progress=False).path
    assert (path / "steps.jsonl").read_bytes() == (unbroken / "steps.jsonl").read_bytes()
    assert (path / "stages.jsonl").read_bytes() == (unbroken / "stages.jsonl").read_bytes()
