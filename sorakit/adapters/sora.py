"""SoRA: LoRA with gates on the matrices that `method.target_modules` names, and Algorithm 1."""

from typing import TYPE_CHECKING, final

from typing_extensions import override

from sorakit.adapters import Adapter, target_options, with_peft
from sorakit.config import GateInit, RunConfig
from sorakit.records import PATH

if TYPE_CHECKING:
    import peft
    import transformers

    import sorakit.method.tuner


@final
class Sora(Adapter):
    """Gated adapters below the task head."""

    role = PATH
    has_gates = True

    @override
    def build(
        self, model: "transformers.PreTrainedModel", config: RunConfig, *, head: list[str]
    ) -> "peft.PeftModel":
        from sorakit.method.tuner import SoraConfig

        method = config.method
        gate_init: GateInit = method.gate_init
        if gate_init == "auto":
            gate_init = config.gates.rule.gate_init or "auto"
        peft_config = SoraConfig(
            r=method.r,
            lora_alpha=method.lora_alpha,
            lora_dropout=method.lora_dropout,
            **target_options(model, config, head=head),
            gate_init=gate_init,
            gate_scale=config.gates.scale,
        )
        return with_peft(model, peft_config, config)

    @override
    def matrices(self, model: "peft.PeftModel") -> list["sorakit.method.tuner.AdaptedMatrix"]:
        from sorakit.method.tuner import adapted_matrices

        return adapted_matrices(model)


VARIANT = Sora()
