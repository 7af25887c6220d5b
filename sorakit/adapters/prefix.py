"""Prefix tuning: trained keys and values before those of every layer (arXiv:2101.00190)."""

from typing import TYPE_CHECKING, final

from typing_extensions import override

from sorakit.adapters import with_peft
from sorakit.adapters._peft import PeftAdapter, peft_task_type
from sorakit.config import RunConfig

if TYPE_CHECKING:
    import peft
    import transformers


@final
class Prefix(PeftAdapter):
    """PEFT's, without the projection; `method.virtual_tokens` keys and values a layer."""

    role = "prefix"

    @override
    def build(
        self, model: "transformers.PreTrainedModel", config: RunConfig, *, head: list[str]
    ) -> "peft.PeftModel":
        import inspect

        from peft import PrefixTuningConfig

        if "past_key_values" not in inspect.signature(model.base_model.forward).parameters:
            raise ValueError(
                f"`method.name` must be another one than prefix for {type(model).__name__}: its "
                "layers take no keys and values from outside (`past_key_values`)."
            )
        peft_config = PrefixTuningConfig(
            task_type=peft_task_type(model, method=self.role),
            num_virtual_tokens=config.method.virtual_tokens,
            modules_to_save=list(head),
        )
        return with_peft(model, peft_config, config)


VARIANT = Prefix()
