"""Every block of docs/extending.md is a file that does what the page says of it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from sorakit.config import MethodConfig, RunConfig
from sorakit.measures import StageView
from sorakit.method.kkt import Residuals
from sorakit.method.optimizer import ProxAdamW
from sorakit.method.prune import count_nonzero_params
from sorakit.variants import ADAPTERS, CONTROLS, GATES, MEASURES, OBJECTIVES
from tests.support.tiny_hub import tiny_run, write_regression

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text("utf-8")
BLOCKS = {
    match[1]: match[2]
    for match in re.finditer(r"```python\n# (\S+\.py)\n(.*?)```", PAGE, flags=re.DOTALL)
}
FAMILIES = (GATES, ADAPTERS, OBJECTIVES, MEASURES, CONTROLS)


def module(folder: str) -> ModuleType:
    """Return the block of a folder as a module."""
    [path] = [path for path in BLOCKS if str(Path(path).parent) == folder]
    made = ModuleType(Path(path).stem)
    made.__file__ = str(ROOT / path)
    exec(compile(BLOCKS[path], path, "exec"), vars(made))  # our own page
    return made


def test_every_kind_of_variant_has_a_block_and_no_block_is_there_already():
    folders = {f"{family.package.replace('.', '/')}" for family in FAMILIES}
    folders |= {"sorakit/tasks", "paper_figs"}
    assert {str(Path(path).parent) for path in BLOCKS} == folders
    assert [path for path in BLOCKS if (ROOT / path).exists()] == []


def test_block_of_a_gate_update_thresholds_at_its_reach():
    rule = module("sorakit/method/gates").VARIANT
    gate = torch.tensor([0.5, -0.2])
    moved = rule.move(gate, torch.tensor([1.0, 0.0]), lr=0.1)
    assert moved.tolist() == pytest.approx([0.4, -0.2])
    assert rule.reach(moved, None).tolist() == pytest.approx([0.4, 0.2])
    assert rule.threshold(moved, 0.3, None).tolist() == pytest.approx([0.4, 0.0])


def test_block_of_an_adapter_is_counted_as_it_is_exported(tiny_bert, tmp_path):
    variant = module("sorakit/adapters").VARIANT
    config = RunConfig(method=MethodConfig(r=2))
    model = variant.build(tiny_bert, config, head=["classifier"])
    variant.export(model, tmp_path, base_model_name_or_path="x", task_type="SEQ_CLS")
    written = load_file(tmp_path / "adapter_model.safetensors")
    elements = sum(value.numel() for name, value in written.items() if ".lora_" in name)
    assert count_nonzero_params(variant.matrices(model)) == elements > 0


def test_block_of_an_objective_has_the_null_loss_of_the_best_constant():
    variant = module("sorakit/objectives").VARIANT
    labels = torch.tensor([0.0, 1.0, 5.0])
    losses = [variant.losses(torch.full((3, 1), c), labels).mean() for c in (0.5, 1.0, 2.0)]
    assert variant.null_loss(labels.tolist()) == pytest.approx(float(min(losses)))


def test_block_of_a_measure_is_the_largest_strength(tiny_bert):
    model = RunConfig().method.adapter.build(tiny_bert, RunConfig(), head=["classifier"])
    matrices = RunConfig().method.adapter.matrices(model)
    with torch.no_grad():
        matrices[1].gate[2] = -0.5  # between factors of norm 1
    stage = StageView(
        model=model,
        matrices=matrices,
        hidden_size=8,
        xi=0.0,
        lambda_=0.0,
        residuals=Residuals(),
        gates_flickering=0,
        gates_revived=0,
        examples=pd.DataFrame(),
    )
    assert module("sorakit/measures").VARIANT.of(stage) == pytest.approx(0.5)


def test_block_of_a_task_is_a_task():
    task = module("sorakit/tasks").load_parity()
    assert (len(task.train), task.validation["label"][:3]) == (200, [0, 1, 0])


def test_block_of_a_control_cuts_what_is_strongest(tiny_bert):
    model = RunConfig().method.adapter.build(tiny_bert, RunConfig(), head=["classifier"])
    matrices = RunConfig().method.adapter.matrices(model)
    with torch.no_grad():
        for matrix in matrices:
            matrix.gate.copy_(torch.arange(1.0, 9.0))
    groups = [{"params": [matrix.gate for matrix in matrices], "xi": 0.0}]
    optimizer = ProxAdamW(groups, matrices=matrices, lr=0.1)
    module("sorakit/controls").VARIANT(seed=0).begin_stage(model, optimizer, target=1)
    [kept] = [matrix.gate for matrix in matrices if matrix.gate.any()]
    assert kept.tolist() == [1.0] + 7 * [0.0]


def test_block_of_a_figure_draws_it(tmp_path):
    [file] = module("paper_figs").main(ROOT / "paper_figs" / "data", tmp_path)
    assert file.read_bytes().startswith(b"%PDF")


_RUNS = """
import sys
from dataclasses import replace
from pathlib import Path
import sorakit.tasks.files as files
from sorakit.records import load_run
from sorakit.training.run import run
from tests.support.tiny_hub import tiny_run
root = Path(sys.argv[1])
gates = {"gates": {"update": "hard_sgd", "averaging": 0.0}}
path = load_run(run(tiny_run(root, out_dir="gates", sections=gates), show_progress=False).path)
assert path.stages["largest_strength"].notna().all()
target = {"xi": {"spacing": "target", "levels": None, "num_stages": 2}}
cut = {**target, "stage": {"control": "strongest_mask", "max_epochs": 2.0}}
path = load_run(run(tiny_run(root, out_dir="cut", sections=cut), show_progress=False).path)
assert path.stages["num_nonzero_params"].is_monotonic_decreasing
rslora = {"method": {"name": "rslora", "gate_init": "auto"}}
run(tiny_run(root, out_dir="rslora", sections=rslora), show_progress=False)
load = files.load_files
files.load_files = lambda config: replace(load(config), objective="absolute_error")
numbers = {"task": {"data_dir": str(root / "numbers"), "metric": "pearson"}}
run(tiny_run(root, out_dir="absolute", sections=numbers), show_progress=False)
"""


@pytest.mark.slow
def test_copy_of_sorakit_knows_of_the_blocks_by_their_files_alone(tmp_path: Path):
    for name in ("sorakit", "tests/support", "analysis", "paper_figs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path, text in BLOCKS.items():
        (tmp_path / path).write_text(text)
    tiny_run(tmp_path)
    write_regression(tmp_path / "numbers")
    environment: dict[str, Any] = {"cwd": tmp_path, "capture_output": True, "text": True}
    command = [sys.executable, "-c", _RUNS, str(tmp_path)]
    done = subprocess.run(command, check=False, **environment)
    assert done.returncode == 0, done.stderr
    shown = subprocess.run(
        [sys.executable, "-m", "sorakit", "run", "--help"], check=True, **environment
    ).stdout
    assert {"hard_sgd", "rslora", "strongest_mask"} <= set(re.findall(r"\w+", shown))
