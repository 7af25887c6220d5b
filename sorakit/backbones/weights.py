"""What a checkpoint supplied, compared with what the model needs; the head is drawn anew."""

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from sorakit.method.targets import base_name

_LEGACY_BUFFERS = re.compile(
    r"(^|\.)(position_ids|token_type_ids|inv_freq|masked_bias|attn\.bias|attention\.bias)$"
)
"""Constants that older versions of transformers wrote beside the weights."""
_MAX_NAMED = 3


def check_weights(
    model: PreTrainedModel, report: Mapping[str, Any], *, name: str, head: Collection[str]
) -> None:
    """Refuse a checkpoint that does not describe the model below its head.

    transformers draws at random what a checkpoint lacks or holds in another size, and drops what
    the model has no place for. That is right for a head (another task's), and for a pooler, without
    which encoders are often published; anywhere else it is another model than the one named.

    Args:
        model: The loaded model.
        report: What transformers reports with `output_loading_info`.
        name: The option that named it.
        head: Modules of the task head, the pooler among them.

    Raises:
        ValueError: If weights outside head and pooler are missing, misfitting or unexpected; the
            first ones are named.
    """
    parameters = {key for key, _ in model.named_parameters()}
    below = {key for key in parameters if not _is_within(key, head)}
    missing = sorted(below & set(report["missing_keys"]))
    misfits = {str(key): (found, wanted) for key, found, wanted in report["mismatched_keys"]}
    misfitting = sorted(below & set(misfits))
    unexpected = sorted(key for key in report["unexpected_keys"] if _is_of_base(key, model))
    faults = []
    if missing:
        faults.append(f"lacks {len(missing)} of {len(below)} ({_some(missing)})")
    if misfitting:
        sizes = [
            f"{key} of {tuple(misfits[key][0])}, not {tuple(misfits[key][1])}" for key in misfitting
        ]
        faults.append(f"holds {len(misfitting)} in another size ({_some(sizes)})")
    if unexpected:
        faults.append(f"holds {len(unexpected)} without a place ({_some(unexpected)})")
    if not faults:
        return
    cure = "Its config.json does not describe its weights."
    strange = {str(key).partition(".")[0] for key in report["unexpected_keys"]}
    if len(missing) == len(below) and len(strange) == 1:
        cure = f"Its weights are saved below {strange.pop()!r}: save the model within."
    raise ValueError(
        f"`backbone.name` must supply every weight below the task head, got {name!r}, which "
        f"{', and '.join(faults)}. {cure}"
    )


def draw_head_anew(
    model: PreTrainedModel, report: Mapping[str, Any], *, head: Collection[str]
) -> None:
    """Draw the head as transformers draws one that no checkpoint has, if any of it was loaded.

    The one rule for a head that is there: its classes are those of another task, even where they
    are as many, so nothing of it is kept. A pooler below the head is kept where it is there.

    Args:
        model: The loaded model; changed in place from torch's global generator.
        report: What transformers reports with `output_loading_info`.
        head: Modules of the task head, the pooler among them.
    """
    if not head:
        return
    base = base_name(model)
    outside = [name for name in head if not name.startswith(f"{base}.")]
    drawn = set(report["missing_keys"]) | {key for key, _, _ in report["mismatched_keys"]}
    keys = {key for key, _ in model.named_parameters() if _is_within(key, outside)}
    if keys <= drawn:
        return
    for name in outside:
        for module in reversed(list(model.get_submodule(name).modules())):  # as transformers goes
            _draw(model, module)


@torch.no_grad()
def _draw(model: PreTrainedModel, module: nn.Module) -> None:
    reset = getattr(module, "reset_parameters", None)
    if callable(reset):
        reset()
    # transformers leaves alone what bears this mark of a loaded weight.
    for part in (module, *module.parameters(recurse=False)):
        vars(part).pop("_is_hf_initialized", None)
    model._init_weights(module)


def weights_fingerprint(model: PreTrainedModel) -> str:
    """Return a hash over the names, shapes and values of the base model's weights."""
    base = model.base_model
    assert isinstance(base, torch.nn.Module)
    digest = hashlib.sha256()
    for name, tensor in sorted(base.state_dict().items()):
        digest.update(name.encode())
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _is_within(key: str, modules: Iterable[str]) -> bool:
    return any(key.startswith(f"{name}.") for name in modules)


def _is_of_base(key: str, model: PreTrainedModel) -> bool:
    """Whether a key of a checkpoint names a place in the base model, its pooler left out.

    A checkpoint of the base alone has the names without the base's own. T5 with its language
    model's head has no base model within.
    """
    base = "" if model.base_model is model else base_name(model)
    inner = key.removeprefix(f"{base}.")
    children = {name for name, _ in model.get_submodule(base).named_children()}
    is_base = inner != key or inner.partition(".")[0] in children
    return is_base and not inner.startswith("pooler.") and _LEGACY_BUFFERS.search(key) is None


def _some(names: Collection[str]) -> str:
    listed = list(names)
    more = len(listed) - _MAX_NAMED
    return ", ".join(listed[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
