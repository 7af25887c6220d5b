"""The floor of every curve: no adapter, only the task head is trained."""

from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils.constants import DUMMY_TARGET_MODULES
from transformers import PreTrainedModel

from sorakit.config import RunConfig
from sorakit.method.targets import head_modules


def build(model: PreTrainedModel, config: RunConfig) -> PeftModel:
    """Return `model` with nothing but its task head trainable.

    Args:
        model: Base model with a task head; it is changed in place.
        config: `method.train_head` must be true, or nothing would be trained.

    Raises:
        ValueError: If the head is frozen.
    """
    if not config.method.train_head:
        raise ValueError(
            "`method.train_head` must be true when `method.name` is head_only, got False."
        )
    peft_config = LoraConfig(
        target_modules=DUMMY_TARGET_MODULES, modules_to_save=head_modules(model)
    )
    adapted = get_peft_model(model, peft_config)
    assert isinstance(adapted, PeftModel)
    return adapted
