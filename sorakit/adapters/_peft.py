"""Methods of PEFT whose adapter has no ranks: counted by elements, written in PEFT's own form."""

from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import override

from sorakit.adapters import Adapter
from sorakit.adapters._cut_lora import refuse_controls
from sorakit.config import RunConfig

if TYPE_CHECKING:
    import peft
    import torch
    import transformers

_HEAD = ".modules_to_save."
"""In the name of every parameter of a module that is trained in full beside the adapter."""


class PeftAdapter(Adapter):
    """An adapter of PEFT's, trained in one dense stage."""

    @override
    def check(self, config: RunConfig) -> None:
        refuse_controls(self.role, config)

    @override
    def count(self, model: "peft.PeftModel") -> int:
        return self.count_all(model)

    @override
    def count_all(self, model: "peft.PeftModel") -> int:
        return sum(parameter.numel() for _, parameter in trained(model))

    @override
    def export(
        self,
        model: "peft.PeftModel",
        folder: Path,
        *,
        base_model_name_or_path: str,
        task_type: str | None,
    ) -> None:
        from safetensors.torch import save_file

        config = model.peft_config["default"]
        config.base_model_name_or_path = base_model_name_or_path
        config.task_type = task_type
        was_training, config.inference_mode = config.inference_mode, True
        folder.mkdir(parents=True, exist_ok=True)
        config.save_pretrained(str(folder))
        config.inference_mode = was_training
        state = self.state(model)
        tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})

    def state(self, model: "peft.PeftModel") -> dict[str, "torch.Tensor"]:
        """Return what the file of the adapter holds, by PEFT's names."""
        from peft import get_peft_model_state_dict

        return get_peft_model_state_dict(model, save_embedding_layers=False)


def trained(model: "torch.nn.Module") -> list[tuple[str, "torch.nn.Parameter"]]:
    """Return the parameters that are trained beside the head, by name."""
    return [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and _HEAD not in name
    ]


def peft_task_type(model: "transformers.PreTrainedModel", *, method: str) -> str:
    """Return PEFT's task type of a model: prompts are put before its inputs by a class of that.

    Raises:
        ValueError: If PEFT has no such class for it.
    """
    kinds = {"ForSequenceClassification": "SEQ_CLS", "ForCausalLM": "CAUSAL_LM"}
    for ending, task_type in kinds.items():
        if type(model).__name__.endswith(ending):
            return task_type
    raise ValueError(
        f"`method.name` must be another one than {method} for {type(model).__name__}: PEFT puts "
        f"prompts before the inputs of {' and '.join(kinds)} only."
    )
