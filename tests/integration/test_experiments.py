"""What `experiments/` rests on: configurations that parse, forked controls, kept records."""

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file

from experiments.runner import keep_records, run_after_dense
from sorakit.cli import parse_run_config
from sorakit.config import RunConfig
from sorakit.records import load_run
from sorakit.sweep.grid import load_sweep
from sorakit.training.run import run
from tests.support.tiny_hub import tiny_run

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("experiments")


@pytest.fixture(scope="module")
def source(root: Path) -> Path:
    return run(tiny_run(root, out_dir="source", levels=(0.02,)), show_progress=False).path


def hold_dense(root: Path, out_dir: str) -> RunConfig:
    sections = {"stage": {"control": "hold_dense"}}
    return tiny_run(root, out_dir=out_dir, levels=(0.02, 0.05), sections=sections)


@pytest.mark.parametrize("file", sorted(EXPERIMENTS.glob("*.yaml")), ids=lambda file: file.name)
def test_configuration_file_parses(file):
    assert parse_run_config(["--config", str(file)]) != RunConfig()


@pytest.mark.parametrize(
    ("names", "count"),
    [
        (["fig2_small"], 3 * 3 * 3),
        (["fig2_small", "roberta_large_glue"], 6 * 3 * 3),
        (["faults"], 3 * 4),
    ],
)
def test_sweep_has_its_points(names, count):
    files = [EXPERIMENTS / "sweeps" / f"{name}.yaml" for name in names]
    assert len(load_sweep(files).points) == count


def test_every_sweep_is_tested():
    files = (EXPERIMENTS / "sweeps").iterdir()  # those of W&B's own sweeps: `test_wandb_sweep.py`
    names = {file.stem for file in files if not file.name.startswith("wandb_")}
    assert names == {"fig2_small", "roberta_large_glue", "faults"}


def test_fork_from_the_dense_stage_is_the_run_it_saves(root, source):
    whole = load_run(run(hold_dense(root, "whole"), show_progress=False).path)
    forked = load_run(run_after_dense(source, hold_dense(root, "forked")))
    pd.testing.assert_frame_equal(whole.stages, forked.stages)
    pd.testing.assert_frame_equal(whole.ranks, forked.ranks)
    for name in ("stages.jsonl", "ranks.jsonl", "examples.parquet"):
        assert (whole.path / name).read_bytes() == (forked.path / name).read_bytes(), name
    last = "adapters/stage_02/adapter_model.safetensors"
    dense = "checkpoints/dense.ckpt"
    assert (source / dense).read_bytes() == (forked.path / dense).read_bytes()
    ours, theirs = load_file(whole.path / last), load_file(forked.path / last)
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)


def test_fork_of_another_dense_stage_is_refused(root, source):
    config = replace(hold_dense(root, "other-seed"), seed=1)
    with pytest.raises(ValueError, match="must have the dense stage of `config`"):
        run_after_dense(source, config)
    assert not (root / "other-seed").exists()


def test_kept_records_hold_no_weights(source, tmp_path):
    keep_records([source], tmp_path)
    kept = load_run(tmp_path / load_run(source).run_id)
    pd.testing.assert_frame_equal(kept.stages, load_run(source).stages)
    assert not [file for file in kept.path.rglob("*") if file.suffix in {".safetensors", ".ckpt"}]


def test_records_of_an_unfinished_run_are_refused(source, tmp_path):
    unfinished = tmp_path / "unfinished"
    shutil.copytree(source, unfinished)
    status = unfinished / "status.json"
    status.write_text(status.read_text().replace('"completed"', '"failed"'))
    with pytest.raises(ValueError, match=r"must be completed runs, got .*unfinished' \(failed\)"):
        keep_records([unfinished], tmp_path / "results")
    assert not (tmp_path / "results").exists()
