"""What a few forward passes tell of a model: layers the loss does not reach, the padding side."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

_MAX_BATCHES = 64


def unreached_layers(
    model: PreTrainedModel, batches: Iterable[Mapping[str, Tensor]], *, names: Collection[str]
) -> list[str]:
    """Return those of the layers `names` on whose output the logits do not depend.

    An adapter there would get no gradient: the contact head of ESM-2, the vision tower of Gemma 3,
    the last encoder of CANINE. A zero vector is added to the output of every layer, as an adapter
    adds its own, and the loss is differentiated in it; evaluation mode, so LayerDrop drops nothing.
    Batches are taken until one reaches no further layer: an expert may see no token of the first.

    Args:
        model: Model with a task head; it is left as it was, and so is torch's global generator.
        batches: Inputs of the model, without labels.
        names: Linear layers.
    """
    layers = {name: model.get_submodule(name) for name in names}
    unreached = dict.fromkeys(layers)
    with _undisturbed(model):
        for number, batch in enumerate(batches):
            reached = _reached(model, {name: layers[name] for name in unreached}, batch)
            for name in reached:
                del unreached[name]
            if not unreached or not reached or number + 1 == _MAX_BATCHES:
                break
    return list(unreached)


def logits_of(model: PreTrainedModel | PeftModel, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the logits of a batch in evaluation mode; the model is left as it was."""
    with _undisturbed(model), torch.no_grad():
        return model(**batch).logits


def _reached(
    model: PreTrainedModel, layers: Mapping[str, nn.Module], batch: Mapping[str, Tensor]
) -> list[str]:
    additions: dict[str, Tensor] = {}
    handles = []
    for name, layer in layers.items():

        def add(_module: nn.Module, _inputs: Any, output: Any, name: str = name) -> Any:
            if not isinstance(output, Tensor):  # a router: a linear layer by class, not by output
                return output
            if name not in additions:
                size = (output.shape[-1],)
                additions[name] = output.new_zeros(size, requires_grad=True)
            return output + additions[name]

        handles.append(layer.register_forward_hook(add))
    try:
        with torch.enable_grad():
            logits = model(**batch).logits
            # The plain sum would be flat behind a normalisation.
            if logits.requires_grad:
                logits.float().square().sum().backward()
    finally:
        for handle in handles:
            handle.remove()
    return [name for name, value in additions.items() if value.grad is not None]


@contextmanager
def _undisturbed(model: PreTrainedModel | PeftModel) -> Iterator[None]:
    """Put a model into evaluation mode with frozen weights, and back; global generators too."""
    trained = [p for p in model.parameters() if p.requires_grad]
    was_training = model.training
    with torch.random.fork_rng(devices=[]):
        try:
            model.requires_grad_(False).eval()
            yield
        finally:
            model.train(was_training)
            for parameter in trained:
                parameter.requires_grad_(True)
