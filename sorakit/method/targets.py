"""Which matrices of a model are adapted, and which modules are its head."""

import re
from collections.abc import Collection

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from sorakit.method.matrix_types import MATRIX_TYPES, type_names

_LAYER = re.compile(r"(?:^|\.)(\d+)\.(.+)$")
_MAX_LISTED = 16  # names in a message: models of several towers have hundreds


def head_modules(model: PreTrainedModel) -> list[str]:
    """Return the names of the task head's modules: outside the base model, and its pooler.

    A pooler is part of the head because half of the families keep it there (RoBERTa, DeBERTa) and
    because encoders are often published without a trained one.

    Raises:
        ValueError: If the model has no head outside its base model.
    """
    base = base_name(model)
    names = [
        name
        for name, module in model.named_children()
        if name != base.partition(".")[0] and any(True for _ in module.parameters())
    ]
    if not names:
        raise ValueError(
            "`backbone.name` must be a model with a task head outside its base model, got "
            f"{type(model).__name__}, which has none there."
        )
    names += [
        name
        for name, module in model.named_modules()
        if name == f"{base}.pooler" and any(True for _ in module.parameters())
    ]
    return names


def base_name(model: PreTrainedModel) -> str:
    """Return the name of the base model within a model with a task head.

    Raises:
        ValueError: If the model is its own base: it has no task head.
    """
    base = model.base_model
    if base is model:
        raise ValueError(
            "`backbone.name` must be a model with a task head, got "
            f"{type(model).__name__}, which is a base model without one."
        )
    return next(name for name, module in model.named_modules() if module is base)


def linear_names(model: nn.Module, *, exclude: Collection[str] = ()) -> list[str]:
    """Return the names of the linear layers of `model` outside the modules `exclude`.

    Without the layer that makes tokens of the last hidden states, which often shares its weight
    with the embeddings; PEFT's all-linear leaves it out as well.
    """
    outputs = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and module is not outputs
        and not any(name == other or name.startswith(other + ".") for other in exclude)
    ]


def resolve_target_modules(
    model: nn.Module,
    target_modules: str | list[str],
    *,
    exclude: Collection[str] = (),
    exclude_modules: str | list[str] | None = None,
) -> list[str]:
    """Return the full names of the linear layers that `target_modules` means.

    Args:
        model: The base model, before it is adapted.
        target_modules: all-linear, one regular expression that matches whole names, or a list of
            name endings and of the paper's matrix types (`sorakit.method.matrix_types`).
        exclude: Modules whose layers are never adapted: the task head.
        exclude_modules: Layers to leave out of `target_modules`: a regular expression or a list of
            name endings.

    Raises:
        ValueError: If nothing matches; the names that would are listed.
    """
    names = linear_names(model, exclude=exclude)
    matches = names
    if target_modules != "all-linear":
        matches = _matches(names, target_modules, option="target_modules")
    if not matches:
        raise ValueError(
            f"`method.target_modules` must match a linear layer, got {target_modules!r}. "
            f"Available: {_endings(names)}."
        )
    if exclude_modules:
        excluded = _matches(matches, exclude_modules, option="exclude_modules")
        if not excluded:
            raise ValueError(
                "`method.exclude_modules` must match a layer of `method.target_modules`, got "
                f"{exclude_modules!r}. Available: {_endings(matches)}."
            )
        matches = [name for name in matches if name not in set(excluded)]
    if not matches:
        raise ValueError(
            "`method.exclude_modules` must leave a layer of `method.target_modules`, got "
            f"{exclude_modules!r}, which leaves none."
        )
    return matches


def _matches(names: list[str], patterns: str | list[str], *, option: str) -> list[str]:
    """Return the names that a regular expression matches whole, or that a list names.

    Raises:
        ValueError: If the expression is none, or the model has not the matrix types of the list.
    """
    if isinstance(patterns, str):
        try:
            pattern = re.compile(patterns)
        except re.error as error:
            raise ValueError(
                f"`method.{option}` must be a regular expression, got {patterns!r}: {error}."
            ) from error
        return [name for name in names if pattern.fullmatch(name)]
    types = [pattern for pattern in patterns if pattern in MATRIX_TYPES]
    chosen = set(type_names(names, types)) if types else set()
    endings = [pattern for pattern in patterns if pattern not in MATRIX_TYPES]
    return [
        name
        for name in names
        if name in chosen or any(name == e or name.endswith("." + e) for e in endings)
    ]


def _endings(names: list[str]) -> str:
    """Return the names within a layer, each once, at most `_MAX_LISTED` of them."""
    endings = list(dict.fromkeys(split_layer(name)[1] for name in names))
    more = len(endings) - _MAX_LISTED
    return ", ".join(endings[:_MAX_LISTED]) + (f" and {more} more" if more > 0 else "")


def are_transposed(model: nn.Module, names: Collection[str]) -> bool:
    """Whether the layers store their weight transposed (`Conv1D` of GPT-2): PEFT must be told."""
    return any(isinstance(model.get_submodule(name), Conv1D) for name in names)


def layer_names(names: Collection[str]) -> dict[str, tuple[int | None, str]]:
    """Return `split_layer` of the modules of one model, no two of them alike.

    Where two towers have the same names within their layers (encoder and decoder of T5 or BART),
    each name begins with what tells its tower from the others: decoder.layer.0.SelfAttention.q.
    """
    split = {name: split_layer(name) for name in names}
    towers: dict[tuple[int | None, str], set[str]] = {}
    for name, place in split.items():
        towers.setdefault(place, set()).add(_tower(name, place))
    shared = {tower for found in towers.values() if len(found) > 1 for tower in found}
    if not shared:
        return split
    parts = [tower.split(".") for tower in shared]
    at = next(i for i in range(min(map(len, parts))) if len({part[i] for part in parts}) > 1)
    for name, place in split.items():
        tower = _tower(name, place)
        if tower in shared:
            split[name] = (place[0], f"{tower.split('.')[at]}.{place[1]}")
    return split


def _tower(name: str, place: tuple[int | None, str]) -> str:
    """Return what stands before the number of the layer in a name."""
    layer, matrix = place
    return "" if layer is None else name.removesuffix(f"{layer}.{matrix}").rstrip(".")


def split_layer(name: str) -> tuple[int | None, str]:
    """Return the layer index in a module name, if any, and the name within that layer."""
    match = _LAYER.search(name)
    return (int(match[1]), match[2]) if match else (None, name)
