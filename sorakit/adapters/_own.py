"""Adapters that PEFT does not have: modules of sorakit in a model whose head PEFT keeps."""

import json
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import override

from sorakit.adapters import with_peft
from sorakit.adapters._peft import PeftAdapter, trained
from sorakit.config import RunConfig

if TYPE_CHECKING:
    import peft
    import torch
    import transformers

_WEIGHTS = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"


class OwnAdapter(PeftAdapter):
    """Modules put into the base model; their file is read by `load`, which builds them again."""

    @abstractmethod
    def layers(
        self, model: "transformers.PreTrainedModel", config: RunConfig, *, head: list[str]
    ) -> list[str]:
        """Return the names of the layers of the base model that are adapted.

        Raises:
            ValueError: If the options do not fit the model.
        """

    @abstractmethod
    def put_in(
        self, model: "torch.nn.Module", names: list[str], config: RunConfig
    ) -> list["torch.nn.Parameter"]:
        """Adapt some layers of the base model in place, and return what is trained of them."""

    @abstractmethod
    def wrapper(self) -> type["torch.nn.Module"]:
        """Return the class of what stands in the place of an adapted layer."""

    @override
    def build(
        self, model: "transformers.PreTrainedModel", config: RunConfig, *, head: list[str]
    ) -> "peft.PeftModel":
        return self._build(model, self.layers(model, config, head=head), config, head=head)

    def _build(
        self,
        model: "transformers.PreTrainedModel",
        names: list[str],
        config: RunConfig,
        *,
        head: list[str],
    ) -> "peft.PeftModel":
        from peft import LoraConfig
        from peft.utils.constants import DUMMY_TARGET_MODULES

        parameters = self.put_in(model, names, config)
        peft_config = LoraConfig(target_modules=DUMMY_TARGET_MODULES, modules_to_save=head)
        adapted = with_peft(model, peft_config, config)
        for parameter in parameters:
            parameter.requires_grad_(True)
        return adapted

    @override
    def export(
        self,
        model: "peft.PeftModel",
        folder: Path,
        *,
        base_model_name_or_path: str,
        task_type: str | None,
    ) -> None:
        """Write what is trained, by its name in the model; no other program reads it."""
        from safetensors.torch import save_file

        from sorakit.method.tuner import base_name

        wrapper = self.wrapper()
        state = {
            name: parameter.detach().cpu().clone().contiguous()
            for name, parameter in model.named_parameters()
            if ".modules_to_save." in name
        }
        state |= {name: p.detach().cpu().clone().contiguous() for name, p in trained(model)}
        settings = {
            "sorakit_method": self.role,
            "task_type": task_type,
            "base_model_name_or_path": base_model_name_or_path,
            "layers": [
                base_name(name)
                for name, module in model.named_modules()
                if isinstance(module, wrapper)
            ],
        }
        folder.mkdir(parents=True, exist_ok=True)
        save_file(state, folder / _WEIGHTS, metadata={"format": "pt"})
        text = json.dumps(settings, indent=2, sort_keys=True)
        (folder / _CONFIG).write_text(text + "\n", "utf-8")

    @override
    def load(
        self,
        model: "transformers.PreTrainedModel",
        folder: Path,
        config: RunConfig,
        *,
        head: list[str],
    ) -> "peft.PeftModel":
        from safetensors.torch import load_file

        names = json.loads((folder / _CONFIG).read_text("utf-8"))["layers"]
        adapted = self._build(model, names, config, head=head)
        state = load_file(folder / _WEIGHTS)
        missing = set(state) - set(adapted.state_dict())
        if missing:
            raise ValueError(
                f"`RUN` must hold an adapter that fits its configuration, got {len(missing)} "
                f"parameters that the model has not, first {sorted(missing)[0]!r}."
            )
        adapted.load_state_dict(state, strict=False)
        return adapted.eval()
