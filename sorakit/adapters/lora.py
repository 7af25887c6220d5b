"""Plain LoRA of rank `method.r`, trained as a dense stage is and no further."""

from typing import TYPE_CHECKING, final

from typing_extensions import override

from sorakit.adapters import Adapter, target_options, with_peft
from sorakit.config import RunConfig

if TYPE_CHECKING:
    import peft
    import transformers

    import sorakit.method.tuner


@final
class Lora(Adapter):
    """PEFT's LoRA as it is: no gates, A drawn by Kaiming, B zero."""

    role = "lora"

    @override
    def check(self, config: RunConfig) -> None:
        if config.stage.control != "none":
            raise ValueError(
                "`stage.control` must be none when `method.name` is lora, got "
                f"{config.stage.control!r}. It has no sparsifying stages."
            )

    @override
    def build(
        self, model: "transformers.PreTrainedModel", config: RunConfig, *, head: list[str]
    ) -> "peft.PeftModel":
        from peft import LoraConfig

        method = config.method
        peft_config = LoraConfig(
            r=method.r,
            lora_alpha=method.lora_alpha,  # pyright: ignore[reportArgumentType]  # PEFT says int, takes float
            lora_dropout=method.lora_dropout,
            **target_options(model, config, head=head),
        )
        return with_peft(model, peft_config, config)

    @override
    def matrices(self, model: "peft.PeftModel") -> list["sorakit.method.tuner.AdaptedMatrix"]:
        from sorakit.method.tuner import plain_matrices

        return plain_matrices(model)


VARIANT = Lora()
