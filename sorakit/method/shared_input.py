"""Adapted layers that are called on one input, computed together: query, key and value.

The first of them that is called computes all of them; the others are given what it left. Whether
they share their input is seen, not assumed: a group whose layers turn out to be called on other
inputs (keys of a cross-attention) falls apart for good, and what was computed for nobody is thrown
away.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sorakit.method.fused import GatedLinear, outputs_of

_FAMILIES = (
    ("query", "key", "value"),
    ("q_proj", "k_proj", "v_proj"),
    ("q_lin", "k_lin", "v_lin"),
    ("q", "k", "v"),
    ("gate_proj", "up_proj"),
    ("wi_0", "wi_1"),
)
"""Names of layers that models call on one input. Others are computed one by one."""


@dataclass(frozen=True, kw_only=True)
class _Waiting:
    """Outputs that were computed for layers not yet called.

    Attributes:
        x: Input that all were computed from.
        mode: What else they depend on.
        outputs: By the place of the layer in its group.
    """

    x: Tensor
    mode: tuple[Any, ...]
    outputs: dict[int, Tensor]


class SharedInput:
    """Adapted layers that are called on one input.

    Args:
        layers: At least two, with the same number of input features.
    """

    def __init__(self, layers: Sequence[GatedLinear]) -> None:
        self.layers = tuple(layers)
        self.holds = True
        self._waiting: _Waiting | None = None

    def output(self, layer: GatedLinear, x: Tensor) -> Tensor | None:
        """Return the output of one of the layers; None where it must be computed alone."""
        place = next((i for i, other in enumerate(self.layers) if other is layer), None)
        if place is None or not self.holds or torch.compiler.is_compiling() or x.is_inference():
            return None  # a replica of DataParallel has other layers
        waiting, mode = self._waiting, _mode(x)  # one reading: other threads may be here
        if waiting is not None:
            if waiting.x is x and waiting.mode == mode and place in waiting.outputs:
                found = waiting.outputs.pop(place)
                if not waiting.outputs:
                    self._waiting = None
                return found
            self._waiting, self.holds = None, False
            return None
        parts = [member.part(x) for member in self.layers]
        fusible = [part for part in parts if part is not None]
        if len(fusible) < len(parts) or len({part.dtype for part in fusible}) > 1:
            return None
        outputs = dict(enumerate(outputs_of(x, fusible)))
        found = outputs.pop(place)
        self._waiting = _Waiting(x=x, mode=mode, outputs=outputs)
        return found

    def settle(self) -> None:
        """Fall apart if, after a whole forward pass, something still waits to be fetched."""
        if self._waiting is not None:
            self._waiting, self.holds = None, False

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_waiting": None}


def group_layers(model: nn.Module) -> None:
    """Let the adapted layers of `model` that may share an input be computed together."""
    siblings: defaultdict[str, dict[str, GatedLinear]] = defaultdict(dict)
    for name, module in model.named_modules():
        if type(module) is GatedLinear:
            parent, _, own = name.rpartition(".")
            siblings[parent][own] = module
    for layers in siblings.values():
        for family in _FAMILIES:
            found = [layers[name] for name in family if name in layers]
            if len(found) > 1 and len({layer.in_features for layer in found}) == 1:
                shared = SharedInput(found)
                for layer in found:
                    layer.shared = shared


def settle_groups(model: nn.Module) -> None:
    """Break up the groups of `model` that its last forward pass showed not to share an input."""
    for module in model.modules():
        if isinstance(module, GatedLinear) and module.shared is not None:
            module.shared.settle()


def _mode(x: Tensor) -> tuple[Any, ...]:
    kind = x.device.type
    return (
        x._version,
        torch.is_grad_enabled(),
        torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind),
    )
