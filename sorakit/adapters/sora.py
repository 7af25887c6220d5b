"""SoRA: LoRA with gates on the matrices that `method.target_modules` names, and Algorithm 1."""

from typing import TYPE_CHECKING, final

from typing_extensions import override

from sorakit.adapters import Adapter, freeze_head
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
        from peft import PeftModel, get_peft_model

        from sorakit.method.targets import are_transposed, resolve_target_modules
        from sorakit.method.tuner import SoraConfig

        method = config.method
        gate_init: GateInit = method.gate_init
        if gate_init == "auto":
            gate_init = config.gates.rule.gate_init or "auto"
        targets = resolve_target_modules(
            model, method.target_modules, exclude=head, exclude_modules=method.exclude_modules
        )
        peft_config = SoraConfig(
            r=method.r,
            lora_alpha=method.lora_alpha,
            lora_dropout=method.lora_dropout,
            target_modules=targets,
            fan_in_fan_out=are_transposed(model, targets),
            modules_to_save=head,
            gate_init=gate_init,
            gate_scale=config.gates.scale,
        )
        adapted = get_peft_model(model, peft_config)
        assert isinstance(adapted, PeftModel)
        if not method.train_head:
            freeze_head(adapted)
        return adapted

    @override
    def matrices(self, model: "peft.PeftModel") -> list["sorakit.method.tuner.AdaptedMatrix"]:
        from sorakit.method.tuner import adapted_matrices

        return adapted_matrices(model)


VARIANT = Sora()
