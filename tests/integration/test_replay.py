"""`sorakit run RUN_FOLDER` gives the results again, bit for bit: of any kind of run, and of records
that are committed."""

from pathlib import Path
from typing import Any

import pytest
import torch

from sorakit.cli import main
from sorakit.options import run_config
from sorakit.records import load_run
from sorakit.training.inputs import input_stamps
from sorakit.training.module import AdaptationModule
from sorakit.training.provenance import _hardware
from sorakit.training.run import run
from tests.support.tiny_hub import tiny_run

RESULTS = Path(__file__).parents[2] / "experiments" / "results"
MADE_ON = {"cpu": "AMD EPYC, 26, 2", "instructions": "AVX512"}
"""Of the committed floor, which is older than these keys of `meta.json`."""


def replay(path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Repeat a run through the command line; return the verdict."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["run", str(path), f"--out_dir={out}"])
    assert stop.value.code == 0
    return capsys.readouterr().out.splitlines()[-1]


KINDS: dict[str, dict[str, dict[str, Any]]] = {
    "refit": {"stage": {"refit": "branch"}},
    "random_mask": {
        "stage": {"control": "random_mask"},
        "xi": {"spacing": "target", "levels": None, "num_stages": 2, "first": 0.02},
    },
    "hold_dense": {"stage": {"control": "hold_dense"}},
    "lora": {"method": {"name": "lora", "gate_init": "auto"}},
    "head_only": {"method": {"name": "head_only", "gate_init": "auto"}},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_run_is_replayed_bit_for_bit(kind, tmp_path, capsys):
    config = tiny_run(tmp_path, sections=KINDS[kind])
    path = run(config, show_progress=False).path
    found = replay(path, tmp_path / "again", capsys)
    assert f" of {path}, bit for bit, with ranks and examples." in found


def test_run_that_was_stopped_and_resumed_is_replayed_bit_for_bit(tmp_path, capsys, monkeypatch):
    config = tiny_run(tmp_path, levels=(0.02,))
    step, taken = AdaptationModule.training_step, 0

    def stop_in_the_middle(self: AdaptationModule, batch: Any, batch_idx: int) -> Any:
        nonlocal taken
        taken += 1
        if taken == 13:
            raise KeyboardInterrupt
        return step(self, batch, batch_idx)

    monkeypatch.setattr(AdaptationModule, "training_step", stop_in_the_middle)
    with pytest.raises(KeyboardInterrupt):
        run(config, show_progress=False)
    path = run(config, show_progress=False).path
    assert taken > 13
    found = replay(path, tmp_path / "again", capsys)
    assert found == f"Its 2 stages are those of {path}, bit for bit, with ranks and examples."


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("run_id", "about"),
    [
        ("small_curves/f116114fec01", "1 stage is that"),
        ("replay/86f4963c9a28", "4 stages are those"),
    ],
    ids=["floor", "path"],
)
def test_committed_record_is_replayed_bit_for_bit(run_id, about, tmp_path, capsys, monkeypatch):
    path = RESULTS / run_id
    require_the_machine_of(path)
    monkeypatch.delenv("OMP_NUM_THREADS")  # the record says how many threads
    found = replay(path, tmp_path / "again", capsys)
    assert found.startswith(f"Its {about} of {path}, bit for bit, with ranks and examples.")


def require_the_machine_of(path: Path) -> None:
    """Skip the test where a record would get other last bits, saying what differs."""
    record = load_run(path)
    made = {**MADE_ON, **record.meta["hardware"], "torch": record.meta["versions"]["torch"]}
    here = {**_hardware(), "torch": torch.__version__}
    for name in ("machine", "cpu", "instructions", "gpu", "torch"):
        if here[name] != made[name]:
            pytest.skip(
                f"needs {name} {made[name]!r}, on which the record was made: {here[name]!r}"
            )
    config = run_config(record.config)
    if input_stamps(config)["data"] != record.meta["inputs"]["data"]:
        pytest.skip("needs the packages of whose docstrings the data of the record were made")
