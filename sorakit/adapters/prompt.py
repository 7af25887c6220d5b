"""Prompt tuning: trained embeddings before every input (arXiv:2104.08691)."""

from typing import TYPE_CHECKING, final

from typing_extensions import override

from sorakit.adapters import with_peft
from sorakit.adapters._peft import PeftAdapter, peft_task_type
from sorakit.config import RunConfig

if TYPE_CHECKING:
    import peft
    import transformers


@final
class Prompt(PeftAdapter):
    """PEFT's, drawn at random; `method.virtual_tokens` embeddings."""

    role = "prompt"

    @override
    def build(
        self, model: "transformers.PreTrainedModel", config: RunConfig, *, head: list[str]
    ) -> "peft.PeftModel":
        from peft import PromptTuningConfig

        peft_config = PromptTuningConfig(
            task_type=peft_task_type(model, method=self.role),
            num_virtual_tokens=config.method.virtual_tokens,
            modules_to_save=list(head),
        )
        return with_peft(model, peft_config, config)


VARIANT = Prompt()
