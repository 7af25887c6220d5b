"""Whole runs of every method beside Algorithm 1: stages, counts, resume, and what is exported."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from sorakit.metric_names import GENERALIZATION_SPLIT
from sorakit.options import run_config
from sorakit.records import Run, load_run
from sorakit.schedule.levels import target_counts
from sorakit.tasks import load_task
from sorakit.training.run import run
from sorakit.variants import ADAPTERS
from tests.support.broken_runs import Killed, assert_same_run, kill_at_step
from tests.support.tiny_hub import tiny_run

STEPS = 8
"""Optimizer steps in a pass."""
CUTS = ("lora_magnitude", "lora_random", "lora_svd")
METHODS = tuple(
    name for name in ADAPTERS.names if name not in ("sora", "head_only", "lora", "lora_pattern")
)
HEAD = ["bert.pooler", "classifier"]


def method_run(root: Path, method: str, out_dir: str, **stage: object):
    options = {"allocation_epochs": 1.0, "bottleneck": 4, "virtual_tokens": 2, "dimension": 20}
    return tiny_run(
        root,
        out_dir=out_dir,
        sections={
            "method": {"name": method, "gate_init": "auto", "target_r": 1.5, **options},
            "xi": {"spacing": "target", "levels": None, "num_stages": 2, "first": 1e-2},
            "stage": {"refit": "branch", **stage},
            "refit": {"max_epochs": 1},
        },
    )


class Runs(dict[str, Run]):
    """A run of every method, made when a test first asks for it."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._root = root

    def __missing__(self, method: str) -> Run:
        config = method_run(self._root, method, method)
        self[method] = load_run(run(config, show_progress=False).path)
        return self[method]


@pytest.fixture(scope="module")
def runs(hub: Path) -> Runs:
    return Runs(hub)


def _each(methods: tuple[str, ...], *, quick: tuple[str, ...]) -> list[object]:
    """Return methods as parameters, of which all but those with state of their own are slow."""
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in methods]


@pytest.mark.parametrize("method", _each(METHODS, quick=("adalora", "dylora")))
def test_killed_run_goes_on_bit_for_bit(method, hub, runs, monkeypatch):
    config = method_run(hub, method, f"killed-{method}")
    with monkeypatch.context() as patch:
        kill_at_step(patch, STEPS + 3)  # AdaLoRA: the budget was allocated in the first pass
        with pytest.raises(Killed):
            run(config, show_progress=False)
    run(config, show_progress=False)
    assert_same_run(hub / f"killed-{method}", runs[method].path)


@pytest.mark.parametrize("method", _each(CUTS, quick=("lora_svd",)))
def test_killed_refit_of_a_cut_goes_on_bit_for_bit(method, hub, runs, monkeypatch):
    config = method_run(hub, method, f"killed-refit-{method}")
    with monkeypatch.context() as patch:
        kill_at_step(patch, 2 * STEPS + 1 + STEPS + 3)  # dense, a cut, its refit, the next cut
        with pytest.raises(Killed):
            run(config, show_progress=False)
    run(config, show_progress=False)
    assert_same_run(hub / f"killed-refit-{method}", runs[method].path)


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_exported_adapter_gives_the_recorded_predictions(method, runs):
    done = runs[method]
    config = run_config(done.config)
    stage = int(done.stages["stage"].iloc[-1])
    task = load_task(config.task, seed=0)
    torch.manual_seed(config.seed)
    base = AutoModelForSequenceClassification.from_pretrained(
        config.backbone.name, num_labels=len(task.label_names)
    )
    adapter = config.method.adapter
    folder = done.path / "adapters" / f"stage_{stage:02d}"
    model = adapter.load(base, folder, config, head=HEAD)
    tokenizer = AutoTokenizer.from_pretrained(config.backbone.name)
    inputs = tokenizer(list(task.validation["text"]), padding=True, return_tensors="pt")
    labels = torch.tensor(task.validation["label"])
    chosen = model(**inputs).logits.softmax(1).gather(1, labels[:, None]).squeeze(1)
    examples = done.examples()
    own = examples[(examples["stage"] == stage) & (examples["split"] == GENERALIZATION_SPLIT)]
    recorded = torch.tensor(own.sort_values("index")["probability"].to_numpy())
    torch.testing.assert_close(chosen, recorded, rtol=0, atol=2e-6)


@pytest.mark.parametrize("method", METHODS)
def test_count_is_what_the_file_holds_beside_the_head(method, runs):
    for row in runs[method].stages.itertuples():
        file = runs[method].path / "adapters" / f"stage_{row.stage:02d}"
        state = load_file(file / "adapter_model.safetensors")
        elements = sum(
            value.numel()
            for name, value in state.items()
            if not any(part in name for part in (".pooler.", ".classifier.", "vera_A", "vera_B"))
        )
        assert row.num_nonzero_params == elements


def test_base_weights_move_in_full_tuning_alone(runs):
    name = "base_model.model.bert.encoder.layer.0.output.dense.weight"
    state = load_file(runs["full"].path / "adapters" / "stage_00" / "adapter_model.safetensors")
    base = load_file(Path(runs["full"].config["backbone"]["name"]) / "model.safetensors")
    assert not torch.equal(state[name], base["encoder.layer.0.output.dense.weight"])


def test_adalora_ends_at_its_budget_and_counts_what_is_left(runs):
    stages = runs["adalora"].stages
    ranks = int(runs["adalora"].ranks["nonzero_rank"].sum())
    matrices = len(runs["adalora"].ranks)
    assert stages["num_nonzero_gates"].tolist() == [ranks]
    assert ranks == round(1.5 * matrices)


def test_adalora_reports_the_loss_without_its_penalty(hub):
    """The rows of P and Q begin far from orthonormal: the penalty alone is larger than log 2."""
    config = method_run(hub, "adalora", "adalora-loss")
    done = load_run(run(config, show_progress=False).path)
    assert all(step["train_loss"] < 1.0 for step in done.steps())
    assert done.stages["train_loss"].iloc[0] < 1.0


def test_adalora_with_nothing_to_allocate_trains(hub):
    config = method_run(hub, "adalora", "adalora-whole")
    options = {**vars(config.method), "target_r": float(config.method.r)}
    whole = type(config)(**{**vars(config), "method": type(config.method)(**options)})
    stages = load_run(run(whole, show_progress=False).path).stages
    assert stages["num_nonzero_params"].tolist() == stages["num_adapter_params"].tolist()


def test_dylora_evaluates_every_prefix(runs):
    stages = runs["dylora"].stages
    dense = int(stages["num_adapter_params"].iloc[0])
    assert stages["num_nonzero_params"].tolist() == [dense * b // 4 for b in (4, 3, 2, 1)]
    assert stages["epochs"].iloc[1:].lt(1).all()
    first = runs["dylora"].ranks.groupby("stage")["strengths"].first()
    assert [sum(value > 0 for value in row) for row in first] == [4, 3, 2, 1]


@pytest.mark.parametrize("method", CUTS)
def test_cuts_have_the_budgets_of_a_path_and_a_refit_beside_the_cut_itself(method, runs):
    cut = runs[method].stages
    assert cut["stage"].tolist() == [0, 1, 2]
    dense = int(cut["num_adapter_params"].iloc[0])
    targets = target_counts(dense=dense, smallest=32, num_stages=2)
    over = [int(c) - t for c, t in zip(cut["num_nonzero_params"].iloc[1:], targets, strict=True)]
    assert all(0 <= more < 48 for more in over)  # within the rank that takes it to the target
    assert cut["penalised_generalization"].notna().tolist() == [False, True, True]
    assert cut["refit_stopped_by"].iloc[1:].notna().all()
    assert cut["xi"].tolist() == [0.0, 0.0, 0.0]


def test_cuts_share_one_dense_stage(runs):
    first = [runs[method].stages.iloc[0].drop("stage").to_dict() for method in CUTS]
    keys = ("memorization_loss", "generalization_loss", "num_nonzero_params")
    assert len({tuple(row[key] for key in keys) for row in first}) == 1


@pytest.mark.parametrize("method", METHODS)
def test_method_has_no_controls(method, hub):
    control = "hold_dense"
    with pytest.raises(ValueError, match=rf"`method\.name` is {method}, got '{control}'"):
        method_run(hub, method, "none", control=control)
