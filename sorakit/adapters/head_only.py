"""The floor of every curve: no adapter, only the task head is trained."""

from typing import TYPE_CHECKING, final

from typing_extensions import override

from sorakit.adapters import Adapter, with_peft
from sorakit.config import RunConfig
from sorakit.records import FLOOR

if TYPE_CHECKING:
    import peft
    import transformers

    import sorakit.method.tuner


@final
class HeadOnly(Adapter):
    """An adapter of nothing beside the trained head."""

    role = FLOOR

    @override
    def check(self, config: RunConfig) -> None:
        if not config.method.train_head:
            raise ValueError(
                "`method.train_head` must be true when `method.name` is head_only, got False."
            )

    @override
    def build(
        self, model: "transformers.PreTrainedModel", config: RunConfig, *, head: list[str]
    ) -> "peft.PeftModel":
        from peft import LoraConfig
        from peft.utils.constants import DUMMY_TARGET_MODULES

        peft_config = LoraConfig(target_modules=DUMMY_TARGET_MODULES, modules_to_save=head or None)
        return with_peft(model, peft_config, config)

    @override
    def matrices(self, model: "peft.PeftModel") -> list["sorakit.method.tuner.AdaptedMatrix"]:
        return []


VARIANT = HeadOnly()
