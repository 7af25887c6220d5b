"""Which matrices of a model are adapted, and which modules are its head."""

import re
from collections.abc import Collection

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

_LAYER = re.compile(r"(?:^|\.)(\d+)\.(.+)$")


def head_modules(model: PreTrainedModel) -> list[str]:
    """Return the names of the task head's modules: outside the base model, and its pooler.

    A pooler is part of the head because half of the families keep it there (RoBERTa, DeBERTa) and
    because encoders are often published without a trained one.
    """
    base = model.base_model_prefix
    names = [
        name
        for name, module in model.named_children()
        if name != base and any(True for _ in module.parameters())
    ]
    names += [
        name
        for name, module in model.named_modules()
        if name == f"{base}.pooler" and any(True for _ in module.parameters())
    ]
    return names


def linear_names(model: nn.Module, *, exclude: Collection[str] = ()) -> list[str]:
    """Return the names of the linear layers of `model` outside the modules `exclude`."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and not any(name == other or name.startswith(other + ".") for other in exclude)
    ]


def resolve_target_modules(
    model: nn.Module, target_modules: str | list[str], *, exclude: Collection[str] = ()
) -> list[str]:
    """Return the full names of the linear layers that `target_modules` means.

    Args:
        model: The base model, before it is adapted.
        target_modules: all-linear, one regular expression that matches whole names, or a list of
            name endings.
        exclude: Modules whose layers are never adapted: the task head.

    Raises:
        ValueError: If nothing matches; the names that would are listed.
    """
    names = linear_names(model, exclude=exclude)
    if target_modules == "all-linear":
        matches = names
    elif isinstance(target_modules, str):
        try:
            pattern = re.compile(target_modules)
        except re.error as error:
            raise ValueError(
                "`method.target_modules` must be a regular expression, got "
                f"{target_modules!r}: {error}."
            ) from error
        matches = [name for name in names if pattern.fullmatch(name)]
    else:
        matches = [
            name
            for name in names
            if any(name == end or name.endswith("." + end) for end in target_modules)
        ]
    if not matches:
        available = ", ".join(dict.fromkeys(split_layer(name)[1] for name in names))
        raise ValueError(
            f"`method.target_modules` must match a linear layer, got {target_modules!r}. "
            f"Available: {available}."
        )
    return matches


def split_layer(name: str) -> tuple[int | None, str]:
    """Return the layer index in a module name, if any, and the name within that layer."""
    match = _LAYER.search(name)
    return (int(match[1]), match[2]) if match else (None, name)
