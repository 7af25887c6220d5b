"""SoRA: LoRA with gates on the matrices that `method.target_modules` names."""

from peft import PeftModel, get_peft_model
from transformers import PreTrainedModel

from sorakit.config import GateInit, RunConfig
from sorakit.method.gates import gate_rule
from sorakit.method.targets import head_modules, resolve_target_modules
from sorakit.method.tuner import SoraConfig


def build(model: PreTrainedModel, config: RunConfig) -> PeftModel:
    """Return `model` with gated adapters below its task head.

    Args:
        model: Base model with a task head; it is changed in place.
        config: Its `method` and `gates` sections are used.

    Raises:
        ValueError: If `method.target_modules` matches nothing.
    """
    method = config.method
    head = head_modules(model)
    gate_init: GateInit = method.gate_init
    if gate_init == "auto":
        gate_init = gate_rule(config.gates.update).gate_init or "auto"
    peft_config = SoraConfig(
        r=method.r,
        lora_alpha=method.lora_alpha,
        lora_dropout=method.lora_dropout,
        target_modules=resolve_target_modules(
            model,
            method.target_modules,
            exclude=head,
            exclude_modules=method.exclude_modules,
        ),
        modules_to_save=head,
        gate_init=gate_init,
        gate_scale=config.gates.scale,
    )
    adapted = get_peft_model(model, peft_config)
    assert isinstance(adapted, PeftModel)
    if not method.train_head:
        freeze_head(adapted)
    return adapted


def freeze_head(model: PeftModel) -> None:
    """Stop training the task head; it is still saved."""
    for name, parameter in model.named_parameters():
        if ".modules_to_save." in name:
            parameter.requires_grad_(False)
