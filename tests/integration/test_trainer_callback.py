"""Algorithm 1 in a Hugging Face `Trainer` is the Lightning path, step for step."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pandas.testing import assert_frame_equal
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from transformers import BertForSequenceClassification, Trainer, TrainingArguments

from analysis.load import load_runs
from sorakit.config import DenseConfig, RefitConfig, RunConfig, StageConfig, XiConfig
from sorakit.method.prune import count_nonzero_params
from sorakit.method.tuner import plain_matrices
from sorakit.metric_names import INDEX, LABEL
from sorakit.records import Run, load_run
from sorakit.training.build import Adapted, adapt
from sorakit.training.run import run
from sorakit.training.trainer_callback import SoraTrainerCallback
from tests.support.tiny_hub import tiny_run

SAME = [
    *("stage", "xi", "applied_xi", "lambda", "num_nonzero_params", "num_adapter_params"),
    *("num_nonzero_gates", "metric", "memorization", "generalization", "epochs"),
    *("memorization_percent", "generalization_percent", "optimizer_steps", "stopped_by"),
    *("refit_epochs", "refit_stopped_by", "penalised_memorization", "penalised_generalization"),
    *("gates_flickering", "gates_revived"),
]
LOSSES = ["train_loss", "memorization_loss", "generalization_loss", "penalised_memorization_loss"]


def renamed(batch: dict[str, Any]) -> dict[str, Any]:
    """Return a batch of sorakit as a Trainer takes it."""
    kept = {name: value for name, value in batch.items() if name not in (INDEX, LABEL)}
    return {**kept, "labels": batch[LABEL]}


class Batches(torch.utils.data.Dataset[dict[str, Any]]):
    """Batches that are made already, in their order."""

    def __init__(self, batches: Any) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return renamed(self._batches[index])


class SameBatches(Trainer):
    """A Trainer on the batches of sorakit's data module."""

    def __init__(self, adapted: Adapted, steps: int, **options: Any) -> None:
        super().__init__(model=adapted.model, **options)
        adapted.data.set_segment(0, steps)
        self._train: Any = adapted.data.train_dataloader().dataset
        names = adapted.data.split_names
        loaders = adapted.data.val_dataloader()
        self._eval = {n: loader.dataset for n, loader in zip(names, loaders, strict=True)}

    def get_train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Batches(self._train), batch_size=None, generator=torch.Generator())

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        batches = Batches(self._eval[eval_dataset])
        return DataLoader(batches, batch_size=None, generator=torch.Generator())


def accuracy(predictions: Any) -> dict[str, float]:
    logits, labels = predictions
    return {"accuracy": float(np.mean(logits.argmax(-1) == labels))}


def arguments(folder: Path, **options: Any) -> TrainingArguments:
    chosen: dict[str, Any] = {
        "max_grad_norm": 0.0,
        "lr_scheduler_type": "constant",
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "num_train_epochs": 1,
        **options,
    }
    return TrainingArguments(output_dir=str(folder), **chosen)


def in_a_trainer(config: RunConfig, out_dir: Path) -> Run:
    """Run a configuration in a Trainer, on the model and batches of the Lightning path."""
    adapted = adapt(config)
    null_loss = adapted.objective.null_loss(adapted.task.train[LABEL][:])
    assert null_loss is not None
    callback = SoraTrainerCallback(
        out_dir=out_dir,
        dataset="task",
        null_loss=null_loss,
        xi=config.xi,
        dense=config.dense,
        stage=config.stage,
        refit=config.refit,
        optim=config.optim,
        gates=config.gates,
        seed=config.seed,
        steps_per_epoch=adapted.data.steps_per_epoch,
    )
    steps = int(callback.max_epochs * adapted.data.steps_per_epoch) + 1
    trainer = SameBatches(
        adapted,
        steps,
        args=arguments(out_dir.parent / "trainer"),
        eval_dataset={name: [0] for name in adapted.data.split_names},
        compute_metrics=accuracy,
        optimizers=(callback.optimizer(adapted.model), None),
        callbacks=[callback],
    )
    trainer.train()
    return load_run(out_dir)


TARGETS = XiConfig(spacing="target", num_stages=3, first=5e-3)
LEVELS = XiConfig(spacing="list", levels=[0.02, 0.05, 4.0], num_stages=3)
CASES = {
    "targets_refitted": (TARGETS, StageConfig(refit="continue", max_epochs=3.0)),
    "targets_branched": (TARGETS, StageConfig(refit="branch", max_epochs=3.0)),
    "levels_until_no_gate_is_left": (LEVELS, StageConfig(refit="none", epochs=0.75)),
}


@pytest.mark.parametrize("case", CASES)
def test_trainer_runs_algorithm_1_as_lightning_does(case, hub, tmp_path):
    xi, stage = CASES[case]
    config = replace(tiny_run(hub), xi=xi, stage=stage, dense=DenseConfig(max_epochs=4, patience=2))
    config = replace(config, refit=RefitConfig(max_epochs=3, patience=1))
    run(replace(config, out_dir=str(tmp_path / "lightning")), show_progress=False)
    expected = load_run(tmp_path / "lightning")
    found = in_a_trainer(config, tmp_path / "run")
    assert_frame_equal(found.stages[SAME], expected.stages[SAME], check_dtype=False)
    for name in LOSSES:
        ours, theirs = (r.stages[name].astype(float).to_numpy() for r in (found, expected))
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert found.ranks["nonzero_rank"].tolist() == expected.ranks["nonzero_rank"].tolist()
    assert found.state == "completed"
    for folder in sorted((expected.path / "adapters").iterdir()):
        name = "adapter_model.safetensors"
        ours, theirs = (
            load_file(found.path / "adapters" / folder.name / name),
            load_file(folder / name),
        )
        assert set(ours) == set(theirs)
        for key, value in theirs.items():
            assert torch.equal(ours[key], value), (folder.name, key)


def model_of(hub: Path) -> Any:
    adapted = adapt(tiny_run(hub))
    return adapted.model


def refused(callback: SoraTrainerCallback, model: Any, folder: Path, **options: Any) -> str:
    """Return the message with which training is refused; nothing has been written then."""
    ids = torch.arange(5, 11)
    rows = [{"input_ids": ids, "labels": k % 2} for k in range(8)]
    chosen = {"num_train_epochs": int(callback.max_epochs), **options}
    trainer = Trainer(
        model=model,
        args=arguments(folder / "trainer", **chosen),
        train_dataset=rows,  # pyright: ignore[reportArgumentType]  # a list will do
        optimizers=(callback.optimizer(model), None),
        callbacks=[callback],
    )
    with pytest.raises(ValueError, match=r"^`") as caught:
        trainer.train()
    assert not (folder / "run").exists()
    return str(caught.value)


def callback_in(folder: Path, **options: Any) -> SoraTrainerCallback:
    short: dict[str, Any] = {
        "dense": DenseConfig(max_epochs=1),
        "xi": XiConfig(num_stages=1),
        "stage": StageConfig(refit="none", max_epochs=1.0),
    }
    return SoraTrainerCallback(
        out_dir=folder / "run", dataset="words", null_loss=0.7, **{**short, **options}
    )


@pytest.mark.parametrize(
    ("option", "value", "start"),
    [
        ("max_grad_norm", 1.0, "`max_grad_norm` of TrainingArguments must be 0.0, got 1.0:"),
        ("lr_scheduler_type", "linear", "`lr_scheduler_type` of TrainingArguments must be const"),
        ("gradient_accumulation_steps", 2, "`gradient_accumulation_steps` of TrainingArguments"),
        ("save_strategy", "epoch", "`save_strategy` of TrainingArguments must be no, got epoch"),
        ("num_train_epochs", 1, "`num_train_epochs` must give at least 3 steps, got 1."),
    ],
)
def test_arguments_that_make_another_run_are_refused(option, value, start, hub, tmp_path):
    message = refused(callback_in(tmp_path), model_of(hub), tmp_path, **{option: value})
    assert message.startswith(start)


def test_trainer_with_another_optimizer_is_refused(hub, tmp_path):
    callback, other, model = callback_in(tmp_path), callback_in(tmp_path), model_of(hub)
    callback.optimizer = lambda model: other.optimizer(model)  # pyright: ignore[reportAttributeAccessIssue]  # a user's mistake
    message = refused(callback, model, tmp_path)
    assert message.startswith(
        "`optimizers` of the Trainer must be (callback.optimizer(model), None)"
    )


def test_options_that_need_sorakits_own_data_are_refused(tmp_path):
    for stage, name in (
        (StageConfig(control="hold_dense"), "control"),
        (StageConfig(until="stationary"), "until"),
    ):
        with pytest.raises(ValueError, match=rf"^`stage\.{name}` must be .* in a Trainer, got"):
            callback_in(tmp_path, stage=stage, xi=LEVELS)
    with pytest.raises(ValueError, match=r"^`null_loss` must be > 0, got 0\.0\.$"):
        SoraTrainerCallback(out_dir=tmp_path, dataset="words", null_loss=0.0)


def test_model_without_gates_is_refused(tiny_bert, tmp_path):
    model = get_peft_model(tiny_bert, LoraConfig(r=2, target_modules=["query"]))
    with pytest.raises(ValueError, match=r"^`model` must be adapted with SoraConfig, got a model"):
        callback_in(tmp_path).optimizer(model)  # pyright: ignore[reportArgumentType]  # a PeftModel


@pytest.mark.filterwarnings("ignore:.*pin_memory.*")  # torch's, on a machine without a GPU
def test_python_of_the_page_works(tiny_bert, generator, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "trainer.md").read_text("utf-8")
    training, ranks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    short = "dense=DenseConfig(max_epochs=1), refit=RefitConfig(max_epochs=1), xi=XiConfig("
    short += "num_stages=1), stage=StageConfig(max_epochs=1.0),"
    training = training.replace('dataset="reviews",', f'dataset="reviews", {short}')
    tokens = torch.randint(3, 64, (16, 7), generator=generator).tolist()
    rows = [{"input_ids": row, "labels": k % 3} for k, row in enumerate(tokens)]
    names: dict[str, Any] = {
        **{"base": tiny_bert, "train_dataset": rows, "train_sample": rows, "held_out": rows[:8]},
        **{kind.__name__: kind for kind in (DenseConfig, RefitConfig, StageConfig, XiConfig)},
    }
    exec(training, names)
    run = load_run("runs/reviews/trainer")
    assert run.stages["stage"].tolist() == [0, 1]
    assert run.state == "completed"
    exec(ranks, names)
    lora = get_peft_model(BertForSequenceClassification(tiny_bert.config), names["config"])
    [count] = run.stages.loc[run.stages["stage"] == 1, "num_nonzero_params"]
    assert count_nonzero_params(plain_matrices(lora)) == count
    assert load_runs([Path("runs")]).stages["task"].unique().tolist() == ["reviews"]
