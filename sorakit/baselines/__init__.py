"""One file per method of the paper's tables, each with `build(model, config) -> adapted model`."""

from peft import PeftModel
from transformers import PreTrainedModel

from sorakit.baselines import head_only, sora
from sorakit.config import RunConfig

_BUILDERS = {"sora": sora.build, "head_only": head_only.build}


def build_method(model: PreTrainedModel, config: RunConfig) -> PeftModel:
    """Return `model`, changed in place: adapted by the method that `config.method.name` names."""
    return _BUILDERS[config.method.name](model, config)
