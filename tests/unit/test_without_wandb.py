import subprocess
import sys
from pathlib import Path

import pytest

from sorakit.cli import main
from sorakit.config import TrackingConfig
from sorakit.tracking.optional import tracker_of
from tests.support.fake_runs import write_run

ROOT = Path(__file__).parents[2]


@pytest.fixture
def without_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "wandb"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("live", "client", "mirror", "sync", "dashboards", "workspace", "report"):
        monkeypatch.delitem(sys.modules, f"sorakit.tracking.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed


@pytest.mark.parametrize("mode", ["auto", "offline", "online"])
def test_run_without_wandb_goes_on_untracked_and_says_so(mode, without_wandb, tmp_path):
    words = rf"^`tracking.wandb` is off, not {mode}: the package wandb cannot be imported \(.*\)\. "
    with pytest.warns(UserWarning, match=words):
        assert tracker_of(tmp_path, TrackingConfig(wandb=mode)) is None
    assert list(tmp_path.iterdir()) == []


def test_run_that_is_not_tracked_does_not_ask_for_wandb(without_wandb, tmp_path):
    assert tracker_of(tmp_path, TrackingConfig(wandb="off")) is None


def test_sync_without_wandb_is_refused_in_a_sentence(without_wandb, tmp_path, capsys):
    write_run(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["sync", str(tmp_path)])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("sorakit: error: `sorakit sync` needs the package wandb, got none")
    assert error.count("\n") == 1


def test_what_trains_does_not_import_wandb():
    code = "import sys, sorakit.training.run; print('wandb' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "False"
