"""BitFit: every bias of the base model, and nothing else (arXiv:2106.10199)."""

from typing import TYPE_CHECKING, final

from typing_extensions import override

from sorakit.adapters import with_peft
from sorakit.adapters._peft import PeftAdapter
from sorakit.config import RunConfig

if TYPE_CHECKING:
    import peft
    import torch
    import transformers


@final
class BitFit(PeftAdapter):
    """PEFT's LoRA of no layer, with `bias="all"`; plain PEFT loads it."""

    role = "bitfit"

    @override
    def build(
        self, model: "transformers.PreTrainedModel", config: RunConfig, *, head: list[str]
    ) -> "peft.PeftModel":
        from peft import LoraConfig
        from peft.utils.constants import DUMMY_TARGET_MODULES

        peft_config = LoraConfig(
            target_modules=DUMMY_TARGET_MODULES, bias="all", modules_to_save=head
        )
        adapted = with_peft(model, peft_config, config)
        for name, parameter in adapted.named_parameters():
            if ".original_module." in name:  # of the head, whose copy is trained instead
                parameter.requires_grad_(False)
        return adapted

    @override
    def state(self, model: "peft.PeftModel") -> dict[str, "torch.Tensor"]:
        # PEFT writes whatever has "bias" in its name: those of the head three times.
        return {
            name.replace(".modules_to_save.default", ""): parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad or ".modules_to_save." in name
        }


VARIANT = BitFit()
