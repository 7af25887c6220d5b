"""The same model, its adapted layers computed by PEFT's own path: an oracle for the fused one."""

import copy
from typing import Any, TypeVar, cast

from peft.tuners import lora
from torch import nn

from sorakit.method.fused import GatedLinear

Model = TypeVar("Model", bound=nn.Module)


def computed_by_peft(model: Model) -> Model:
    """Return a copy in which every `GatedLinear` is PEFT's layer again."""
    other = copy.deepcopy(model)
    for module in other.modules():
        if isinstance(module, GatedLinear):
            cast(Any, module).__class__ = lora.Linear
    return other
