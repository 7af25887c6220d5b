"""A dense stage that runs share: equal to their own, bit for bit, whoever dies meanwhile."""

import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sorakit.config import RunConfig
from sorakit.records import dense_key, load_run, run_id
from sorakit.training.dense import MAKER_FILE, SharedDenseStage
from sorakit.training.run import run
from tests.support.broken_runs import Killed, assert_same_run, kill_at_step
from tests.support.tiny_hub import tiny_run

TARGET = {"spacing": "target", "levels": None, "num_stages": 2, "first": 0.03, "ratio": 2.0}
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "levels": {"xi": {"levels": [0.03, 0.3], "num_stages": 2}, "stage": {"epochs": 0.5}},
    "hold_dense": {"stage": {"control": "hold_dense"}},
    "target": {"xi": TARGET},
    "random_mask": {"xi": TARGET, "stage": {"control": "random_mask"}},
    "from_scratch": {"stage": {"control": "from_scratch"}},
}


def variant(hub: Path, out_dir: str, sections: Mapping[str, Mapping[str, Any]]) -> RunConfig:
    return tiny_run(hub, out_dir=out_dir, levels=(0.02, 0.05), sections=sections)


def meta(path: Path) -> dict[str, Any]:
    return json.loads((path / "meta.json").read_text())


@pytest.fixture(scope="module")
def store(hub: Path) -> Path:
    """A folder of dense stages with the one that a run has left there."""
    config = variant(hub, "maker", {})
    run(config, show_progress=False, dense_store=hub / "store")
    return hub / "store"


def test_artifact_is_named_by_the_configuration_and_holds_the_maker(hub, store):
    [artifact] = store.iterdir()
    config = variant(hub, "maker", {})
    assert artifact.name.startswith(dense_key(config))
    assert json.loads((artifact / MAKER_FILE).read_text())["run_id"] == run_id(config)


@pytest.mark.parametrize("name", VARIANTS)
def test_run_from_the_shared_dense_stage_is_the_run_it_saves(name, hub, store):
    alone = run(variant(hub, f"alone-{name}", VARIANTS[name]), show_progress=False).path
    config = variant(hub, f"shared-{name}", VARIANTS[name])
    shared = run(config, show_progress=False, dense_store=store).path
    assert meta(shared)["dense_stage_of"] == run_id(variant(hub, "maker", {}))
    assert "dense_stage_of" not in meta(alone)
    assert_same_run(shared, alone)
    assert len(list(store.iterdir())) == 1


def test_another_dense_stage_is_not_taken(hub, store, tmp_path):
    other = variant(hub, "other-lr", {"optim": {"lr": 4e-3}, "dense": {"max_epochs": 1}})
    path = run(other, show_progress=False, dense_store=store).path
    assert "dense_stage_of" not in meta(path)


def test_maker_that_dies_before_it_publishes_does_so_when_it_goes_on(hub, monkeypatch, tmp_path):
    config = variant(hub, "dies", {})
    with monkeypatch.context() as patch:
        patch.setattr(SharedDenseStage, "publish", die)
        with pytest.raises(Killed):
            run(config, show_progress=False, dense_store=tmp_path / "store")
    assert not [p for p in (tmp_path / "store").iterdir() if p.is_dir()]
    run(config, show_progress=False, dense_store=tmp_path / "store")
    assert_same_run(hub / "dies", hub / "maker")
    [artifact] = (tmp_path / "store").iterdir()
    assert (artifact / MAKER_FILE).is_file()


def test_run_that_dies_while_it_takes_the_dense_stage_goes_on(hub, store, monkeypatch):
    config = variant(hub, "dies-taking", {})
    with monkeypatch.context() as patch:
        patch.setattr("sorakit.training.dense.checkpoint_name", die)
        with pytest.raises(Killed):
            run(config, show_progress=False, dense_store=store)
    run(config, show_progress=False, dense_store=store)
    assert_same_run(hub / "dies-taking", hub / "maker")


def test_run_killed_in_its_own_dense_stage_takes_the_shared_one(hub, store, monkeypatch):
    config = variant(hub, "late", {})
    with monkeypatch.context() as patch:
        kill_at_step(patch, 12)
        with pytest.raises(Killed):
            run(config, show_progress=False)
    run(config, show_progress=False, dense_store=store)
    assert_same_run(hub / "late", hub / "maker")
    assert meta(hub / "late")["dense_stage_of"] == run_id(config)


def test_who_waits_becomes_the_maker_when_the_maker_dies(tmp_path):
    dense = SharedDenseStage(tmp_path, name="stage")
    program = (
        "import sys, time; from pathlib import Path; from sorakit.locks import FileLock\n"
        "lock = FileLock(Path(sys.argv[1])); assert lock.acquire()\n"
        "print('held', flush=True); time.sleep(600)"
    )
    maker = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "stage.lock")],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert maker.stdout is not None
    assert maker.stdout.readline() == "held\n"
    claims: list[bool] = []
    waiter = threading.Thread(target=lambda: claims.append(dense.claim()))
    waiter.start()
    waiter.join(timeout=0.5)
    assert waiter.is_alive()
    maker.kill()
    maker.communicate()
    waiter.join()
    assert claims == [True]
    dense.release()


def test_who_waits_takes_what_the_maker_publishes(hub, store, tmp_path):
    first = SharedDenseStage(tmp_path, name="stage")
    second = SharedDenseStage(tmp_path, name="stage")
    assert first.claim()
    claims: list[bool] = []
    waiter = threading.Thread(target=lambda: claims.append(second.claim()))
    waiter.start()
    first.publish(hub / "maker", run_id="0123")
    waiter.join()
    assert claims == [False]
    assert second.maker == "0123"
    assert load_run(hub / "maker").state == "completed"


def die(*_: Any, **__: Any) -> None:
    raise Killed
