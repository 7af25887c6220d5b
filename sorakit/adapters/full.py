"""Full fine-tuning: every weight of the base model."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, final

from typing_extensions import override

from sorakit.adapters import with_peft
from sorakit.adapters._peft import PeftAdapter
from sorakit.config import RunConfig

if TYPE_CHECKING:
    import peft
    import transformers


@final
class Full(PeftAdapter):
    """All weights but those of the head are counted; the file holds the whole model."""

    role = "full"

    @override
    def build(
        self, model: "transformers.PreTrainedModel", config: RunConfig, *, head: list[str]
    ) -> "peft.PeftModel":
        from peft import LoraConfig
        from peft.utils.constants import DUMMY_TARGET_MODULES

        peft_config = LoraConfig(target_modules=DUMMY_TARGET_MODULES, modules_to_save=head)
        adapted = with_peft(model, peft_config, config)
        for name, parameter in adapted.named_parameters():
            if ".modules_to_save." not in name:
                parameter.requires_grad_(".original_module." not in name)
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
        """Write the whole model as modules that PEFT puts in the place of those of the base."""
        from peft.utils.constants import DUMMY_TARGET_MODULES
        from safetensors.torch import save_file

        from sorakit.method.tuner import PEFT_PREFIX, base_name

        state = {}
        for name, value in model.state_dict().items():
            if ".original_module." not in name:
                plain = base_name(name).replace(".modules_to_save.default", "")
                state[PEFT_PREFIX + plain] = value.detach().cpu().clone().contiguous()
        parts = sorted({name.removeprefix(PEFT_PREFIX).partition(".")[0] for name in state})
        settings = {
            "peft_type": "LORA",
            "task_type": task_type,
            "base_model_name_or_path": base_model_name_or_path,
            "inference_mode": True,
            "target_modules": DUMMY_TARGET_MODULES,
            "modules_to_save": parts,
        }
        folder.mkdir(parents=True, exist_ok=True)
        save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        text = json.dumps(settings, indent=2, sort_keys=True)
        (folder / "adapter_config.json").write_text(text + "\n", "utf-8")


VARIANT = Full()
