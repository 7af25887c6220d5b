"""A Hugging Face `Trainer` trains gates as a user would write it, without sorakit's own loop."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import nn
from torch.optim import AdamW, Optimizer
from transformers import BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

from sorakit.method.optimizer import ProxAdamW, ProxSGD
from sorakit.method.prune import num_adapter_params, num_nonzero_params
from sorakit.method.tuner import SoraConfig, gates

EPOCHS, STEPS_PER_EPOCH = 4, 4
LR, XI = 0.02, 0.08
SMALL_XI = 2**-6  # exact in float32, times the number of steps too


@pytest.fixture
def examples(generator) -> list[dict[str, Any]]:
    tokens = torch.randint(3, 64, (16, 7), generator=generator).tolist()
    labels = torch.randint(0, 3, (16,), generator=generator).tolist()
    return [{"input_ids": t, "labels": y} for t, y in zip(tokens, labels, strict=True)]


def adapt(base: nn.Module) -> PeftModel:
    torch.manual_seed(0)
    config = SoraConfig(task_type="SEQ_CLS", r=4, target_modules="all-linear")
    model = get_peft_model(base, config)  # pyright: ignore[reportArgumentType]  # a PreTrainedModel
    assert isinstance(model, PeftModel)
    return model


def make_trainer(
    model: PeftModel,
    optimizer: Optimizer,
    examples: list[dict[str, Any]],
    folder: Path,
    *,
    callbacks: Sequence[TrainerCallback] = (),
    **options: Any,
) -> Trainer:
    """Return a Trainer that keeps gates out of clipping and of learning-rate schedules."""
    arguments: dict[str, Any] = {
        "max_grad_norm": 0.0,
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": len(examples) // STEPS_PER_EPOCH,
        "num_train_epochs": EPOCHS,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        **options,
    }
    return Trainer(
        model=model,
        args=TrainingArguments(output_dir=str(folder), **arguments),
        train_dataset=examples,  # pyright: ignore[reportArgumentType]  # a list will do
        optimizers=(optimizer, None),
        callbacks=list(callbacks),
    )


def others(model: nn.Module) -> list[nn.Parameter]:
    """Return what trains beside the gates."""
    ours = {id(gate) for gate in gates(model).values()}
    return [p for p in model.parameters() if p.requires_grad and id(p) not in ours]


def prox_adamw(model: nn.Module) -> ProxAdamW:
    gate_group = {"params": list(gates(model).values()), "lr": 1.0, "xi": XI}
    return ProxAdamW([{"params": others(model)}, gate_group], lr=LR)


def prox_of_untrained_factors(model: nn.Module) -> ProxAdamW:
    """Freeze all but the gates: lora_B stays 0, and with it the gradient of every gate."""
    for parameter in others(model):
        parameter.requires_grad_(False)
    return ProxAdamW([{"params": list(gates(model).values()), "lr": 1.0, "xi": SMALL_XI}], lr=LR)


def values(model: nn.Module) -> torch.Tensor:
    return torch.cat([gate.detach() for gate in gates(model).values()])


class StepGates(TrainerCallback):
    """Steps the gates' own optimizer just before the Trainer steps its own."""

    def __init__(self, optimizer: ProxSGD) -> None:
        self.optimizer = optimizer

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.optimizer.step()


class RaiseXi(TrainerCallback):
    """Sets xi at the start of every epoch, and notes what the Trainer's optimizer steps with."""

    def __init__(self, optimizer: ProxAdamW, levels: list[float]) -> None:
        self.optimizer = optimizer
        self.levels = levels
        self.seen: list[float] = []

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for group in self.optimizer.gate_groups:
            group["xi"] = self.levels[round(state.epoch)]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        groups = kwargs["optimizer"].param_groups
        self.seen += [group["xi"] for group in groups if "xi" in group]


def test_trainer_with_prox_adamw_takes_some_gates_to_exactly_0(tiny_bert, examples, tmp_path):
    model = adapt(tiny_bert)
    make_trainer(model, prox_adamw(model), examples, tmp_path).train()
    assert 0 < num_nonzero_params(model) < num_adapter_params(model)


def test_prox_sgd_beside_adamw_takes_the_gates_where_prox_adamw_does(tiny_bert, examples, tmp_path):
    model = adapt(tiny_bert)
    initial = {name: value.clone() for name, value in model.state_dict().items()}
    make_trainer(model, prox_adamw(model), examples, tmp_path).train()
    expected = values(model)
    model.load_state_dict(initial)
    adamw = AdamW(others(model), lr=LR, weight_decay=0.0, fused=True)
    step_gates = StepGates(ProxSGD(gates(model).items(), lr=1.0, xi=XI))
    make_trainer(model, adamw, examples, tmp_path, callbacks=[step_gates]).train()
    assert torch.equal(values(model), expected)


def test_gates_without_signal_move_by_xi_a_step(tiny_bert, examples, tmp_path):
    model = adapt(tiny_bert)
    make_trainer(model, prox_of_untrained_factors(model), examples, tmp_path).train()
    assert values(model).unique().tolist() == [1 - EPOCHS * STEPS_PER_EPOCH * SMALL_XI]


def test_accumulated_batches_move_gates_once(tiny_bert, examples, tmp_path):
    model = adapt(tiny_bert)
    optimizer = prox_of_untrained_factors(model)
    make_trainer(model, optimizer, examples, tmp_path, gradient_accumulation_steps=2).train()
    assert values(model).unique().tolist() == [1 - EPOCHS * STEPS_PER_EPOCH / 2 * SMALL_XI]


def test_xi_set_by_a_callback_holds_in_the_trainers_optimizer(tiny_bert, examples, tmp_path):
    model = adapt(tiny_bert)
    optimizer = prox_adamw(model)
    raise_xi = RaiseXi(optimizer, levels=[0.0, 0.01, 0.02, 0.04])
    make_trainer(model, optimizer, examples, tmp_path, callbacks=[raise_xi]).train()
    assert raise_xi.seen == [xi for xi in raise_xi.levels for _ in range(STEPS_PER_EPOCH)]


# transformers 5.23 calls it activation checkpointing; before, there is only this name
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "options",
    [
        {"bf16": True},
        {
            "gradient_checkpointing": True,
            "gradient_checkpointing_kwargs": {"use_reentrant": False},
        },
        {
            "gradient_checkpointing": True,
            "gradient_checkpointing_kwargs": {"use_reentrant": True},
        },
    ],
    ids=["bf16", "checkpointing", "reentrant_checkpointing"],
)
def test_trainer_prunes_with(options, tiny_bert, examples, tmp_path):
    model = adapt(tiny_bert)
    make_trainer(model, prox_adamw(model), examples, tmp_path, **options).train()
    assert 0 < num_nonzero_params(model) < num_adapter_params(model)


def test_resumed_training_ends_as_unbroken_training(tiny_bert, examples, tmp_path):
    model = adapt(copy.deepcopy(tiny_bert))
    make_trainer(model, prox_adamw(model), examples, tmp_path, save_strategy="epoch").train()
    resumed = adapt(tiny_bert)
    trainer = make_trainer(resumed, prox_adamw(resumed), examples, tmp_path / "resumed")
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-8"))
    assert torch.equal(values(resumed), values(model))


def test_model_saved_by_the_trainer_loads_with_its_gates(tiny_bert, examples, tmp_path):
    model = adapt(tiny_bert)
    trainer = make_trainer(model, prox_adamw(model), examples, tmp_path)
    trainer.train()
    trainer.save_model(str(tmp_path / "adapter"))
    loaded = PeftModel.from_pretrained(
        BertForSequenceClassification(tiny_bert.config), tmp_path / "adapter"
    )
    assert torch.equal(values(loaded), values(model))
