"""VB-LoRA: every rank is made of pieces from one bank of trained vectors (arXiv:2405.15179)."""

import math
from typing import TYPE_CHECKING, final

from typing_extensions import override

from sorakit.adapters import target_options, with_peft
from sorakit.adapters._peft import PeftAdapter
from sorakit.config import RunConfig

if TYPE_CHECKING:
    import peft
    import transformers

_LONGEST_VECTOR = 256
_NUM_VECTORS = 90  # of the authors' RoBERTa experiments, as PEFT's documentation gives it
_CHOSEN = 2
"""Vectors that are mixed in a piece, PEFT's default."""


@final
class VbLora(PeftAdapter):
    """PEFT's; the file holds the bank and, for every piece, which vectors are in it and how much.

    What is left (`count`) is what that file holds; while training, every piece has a weight for
    every vector of the bank.
    """

    role = "vblora"

    @override
    def build(
        self, model: "transformers.PreTrainedModel", config: RunConfig, *, head: list[str]
    ) -> "peft.PeftModel":
        from peft import VBLoRAConfig

        targets = target_options(model, config, head=head)
        weights = [model.get_parameter(f"{name}.weight") for name in targets["target_modules"]]
        sizes = [size for weight in weights for size in weight.shape]
        length = math.gcd(*sizes)
        while length > _LONGEST_VECTOR:
            length = next(length // k for k in range(2, length + 1) if length % k == 0)
        peft_config = VBLoRAConfig(
            r=config.method.r,
            num_vectors=_NUM_VECTORS,
            vector_length=length,
            topk=_CHOSEN,
            vblora_dropout=config.method.lora_dropout,
            save_only_topk_weights=True,
            **targets,
        )
        return with_peft(model, peft_config, config)

    @override
    def count(self, model: "peft.PeftModel") -> int:
        from sorakit.adapters._peft import trained

        left = 0
        for name, parameter in trained(model):
            if "vblora_logits" in name:  # one index a vector; the weights of a piece add up to 1
                left += parameter.numel() // parameter.shape[-1] * (2 * _CHOSEN - 1)
            else:
                left += parameter.numel()
        return left


VARIANT = VbLora()
