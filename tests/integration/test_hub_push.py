"""`sorakit export --push_to_hub` through the Hub's own client, against a Hub of the tests."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData, constants
from peft import AutoPeftModelForSequenceClassification

from sorakit.cli import main
from sorakit.options import run_config
from sorakit.records import load_run, run_id
from sorakit.training.run import run
from tests.integration.test_export import (
    NAMES,
    code_blocks,
    held_out_texts,
    predictions,
    write_rooms,
)
from tests.support.hub_server import TOKEN, USER, HubServer
from tests.support.tiny_hub import tiny_run, write_model

# huggingface_hub 2.4 on httpx2 sends large files in a way that httpx2 calls old
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

ROOT = Path(__file__).parents[2]
REPO = f"{USER}/rooms-sora"
LEARNS = {"dense": {"max_epochs": 20, "patience": 20}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three classes on a base model that is a folder of this machine."""
    root = tmp_path_factory.mktemp("home-of-the-user")
    write_model(root / "model", dropout=0.0)
    write_rooms(root / "task")
    return run(tiny_run(root, levels=(0.02,), sections=LEARNS), show_progress=False).path


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub to which the client of this process speaks."""
    with HubServer().running() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield running


def export(path: Path, out: Path, *more: str) -> int:
    """Run the command line in this process and return its exit code."""
    with pytest.raises(SystemExit) as stop:
        main(["export", str(path), "--stage=1", f"--out={out}", *more])
    assert isinstance(stop.value.code, int)
    return stop.value.code


def pushed_to(folder: Path, server: HubServer) -> Path:
    """Write the files of the repository as `snapshot_download` does."""
    for name, content in server.repositories[REPO].files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_export_is_pushed_in_one_commit_and_loads_from_there(
    trained, hub, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "adapter"
    assert export(trained, out, f"--push_to_hub={REPO}", "--private", "--with-base=true") == 0
    result = load_run(trained)
    assert capsys.readouterr().out.endswith(f"Pushed to {hub.url}/{REPO}\n")
    repository = hub.repositories[REPO]
    assert repository.visibility == "private"
    assert repository.commits == [f"Stage 1 of sorakit run {result.run_id}"]
    local = {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()}
    assert set(repository.files) == local
    assert not hub.unknown
    same = local - {"README.md", "adapter_config.json"}
    assert all(repository.files[name] == (out / name).read_bytes() for name in same)

    folder = pushed_to(tmp_path / "snapshot", hub)
    monkeypatch.chdir(folder)
    model = AutoPeftModelForSequenceClassification.from_pretrained(".")
    assert model.config.id2label == dict(enumerate(NAMES))
    first, second = code_blocks(folder)
    names: dict[str, Any] = {}
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda repo_id: {REPO: "."}[repo_id])
    exec(first.replace('["a text", "and another one"]', repr(held_out_texts(result))), names)
    assert names["answers"] == [NAMES[index] for index in predictions(result)]
    exec(second, names)


def test_nothing_of_this_machine_is_pushed(trained, hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(trained.parent))
    assert export(trained, tmp_path / "a", f"--push_to_hub={REPO}", "--with-base=true") == 0
    for method, path, body in hub.requests:
        for secret in (str(trained.parent), str(tmp_path), TOKEN):
            assert secret.encode() not in body, (method, path)
    for name, content in hub.repositories[REPO].files.items():
        for secret in (str(trained.parent), str(tmp_path)):
            assert secret.encode() not in content, name
    assert hub.repositories[REPO].visibility == "public"


def test_name_alone_is_below_the_owner_of_the_token(trained, hub, tmp_path):
    more = ("--push_to_hub=rooms-sora", "--with-base=true", "--verify=false")
    assert export(trained, tmp_path / "adapter", *more) == 0
    assert list(hub.repositories) == [REPO]


def test_card_is_one_that_the_hub_reads(trained, hub, tmp_path):
    out = tmp_path / "adapter"
    assert export(trained, out, f"--push_to_hub={REPO}", "--with-base=true") == 0
    card = ModelCard(hub.repositories[REPO].files["README.md"].decode())
    row = load_run(trained).stages.iloc[1]
    assert isinstance(card.data, ModelCardData)
    assert card.data.library_name == "peft"
    assert card.data.eval_results is not None
    [result] = card.data.eval_results
    assert (result.metric_type, result.metric_value) == (
        "accuracy",
        pytest.approx(row["generalization"], abs=1e-6),
    )
    assert result.metric_args is not None
    assert result.metric_args["low"] <= row["generalization"] <= result.metric_args["high"]
    assert "base_model" not in card.data.to_dict(), "no Hub has it"


@pytest.mark.parametrize(
    ("what", "changes", "words"),
    [
        ("token", {}, "needs a token that may write, got 'researcher/rooms-sora' and none. Run"),
        ("offline", {}, "must be able to reach the Hub"),
        ("wrong token", {}, "got one that the Hub refuses (401: "),
        ("name", {}, "must be OWNER/NAME or NAME, of letters, digits"),
        ("exists", {}, "must be a new repository, got 'researcher/rooms-sora', which exists."),
        ("local base", {}, "must be of an adapter whose base model others can load"),
        ("private alone", {}, "`--private` must come with `--push_to_hub`"),
    ],
)
def test_what_cannot_be_pushed_is_refused_before_anything_is_written(
    what, changes, words, trained, hub, tmp_path, monkeypatch, capsys
):
    more = [f"--push_to_hub={REPO}", "--with-base=true"]
    if what == "token":
        monkeypatch.delenv("HF_TOKEN")
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    elif what == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    elif what == "wrong token":
        monkeypatch.setenv("HF_TOKEN", "hf_other")
    elif what == "name":
        more[0] = "--push_to_hub=no name/at all"
    elif what == "exists":
        hub.answer("POST", "/api/repos/create", b'{"name": "rooms-sora"}')
    elif what == "local base":
        more[1] = "--with-base=false"
    elif what == "private alone":
        more = ["--private"]
    before = set(hub.repositories)
    assert export(trained, tmp_path / "adapter", *more) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.startswith("sorakit: error: ")
    assert error.count("\n") == 1
    assert len(error) < 1000
    assert not (tmp_path / "adapter").exists()
    assert set(hub.repositories) == before


def test_hub_that_is_not_there_is_told_in_one_sentence(trained, hub, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    out = tmp_path / "adapter"
    assert export(trained, out, f"--push_to_hub={REPO}", "--with-base=true") == 1
    error = capsys.readouterr().err
    assert error.startswith("sorakit: error: No answer from http://127.0.0.1:1 for ")
    assert error.endswith("Nothing was written.\n")
    assert error.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    "at", ["POST .*/preupload/", "POST .*lfs/objects/batch", "PUT /lfs/", "POST .*/commit/"]
)
def test_nothing_is_half_uploaded(at, trained, hub, tmp_path, capsys):
    hub.refusals[at] = (403, "storage limit reached")
    out = tmp_path / "adapter"
    more = (f"--push_to_hub={REPO}", "--with-base=true", "--verify=false")
    assert export(trained, out, *more) == 2
    error = capsys.readouterr().err
    assert "403: storage limit reached" in error
    assert error.endswith(f"The export is in '{out}', and nothing of it on the Hub.\n")
    assert error.count("\n") == 1
    assert hub.repositories == {}
    assert (out / "README.md").is_file()


def test_repository_that_cannot_be_deleted_again_is_named(trained, hub, tmp_path, capsys):
    hub.refusals = {"POST .*/commit/": (403, "no"), "DELETE": (403, "no")}
    more = (f"--push_to_hub={REPO}", "--with-base=true", "--verify=false")
    assert export(trained, tmp_path / "adapter", *more) == 2
    assert f"on the Hub {REPO} is an empty repository" in capsys.readouterr().err
    assert hub.repositories[REPO].files == {}


def test_configuration_beside_the_adapter_makes_the_same_run(trained, tmp_path):
    assert export(trained, tmp_path / "adapter", "--verify=false") == 0
    written = yaml.safe_load((tmp_path / "adapter" / "sorakit.yaml").read_text())
    assert run_id(run_config(written)) == load_run(trained).run_id


@pytest.mark.slow  # a process that imports everything
def test_command_reads_the_address_of_the_hub_from_its_environment(trained, tmp_path):
    with HubServer().running() as server:
        command = [sys.executable, "-m", "sorakit", "export", str(trained), "--stage=1"]
        command += [f"--out={tmp_path / 'a'}", "--with-base=true", f"--push_to_hub={REPO}"]
        environ = {**os.environ, **server.environment(), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        config = json.loads(server.repositories[REPO].files["adapter_config.json"])
        assert config["base_model_name_or_path"] == "base"
