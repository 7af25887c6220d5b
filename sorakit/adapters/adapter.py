"""Bottleneck adapters behind the sublayers of every layer (Houlsby et al. 2019, Pfeiffer 2021)."""

from typing import TYPE_CHECKING, final

from typing_extensions import override

from sorakit.adapters._own import OwnAdapter
from sorakit.config import RunConfig

if TYPE_CHECKING:
    import torch
    import transformers

_PLACES = {"houlsby": ["W_O", "W_F2"], "pfeiffer": ["W_F2"]}


@final
class BottleneckAdapter(OwnAdapter):
    """`method.placement` houlsby: behind attention and FFN; pfeiffer: behind the FFN alone.

    Both before the residual is added; `method.bottleneck` wide. Our own: no library has them for
    today's transformers.
    """

    role = "adapter"

    @override
    def layers(
        self, model: "transformers.PreTrainedModel", config: RunConfig, *, head: list[str]
    ) -> list[str]:
        from sorakit.method.matrix_types import type_names
        from sorakit.method.targets import linear_names

        places = _PLACES[config.method.placement]
        return type_names(linear_names(model, exclude=head), places, method=self.role)

    @override
    def put_in(
        self, model: "torch.nn.Module", names: list[str], config: RunConfig
    ) -> list["torch.nn.Parameter"]:
        from sorakit.method.bottleneck import Bottleneck, wrap

        parameters = []
        for name in names:
            behind = Bottleneck(model.get_submodule(name), config.method.bottleneck)
            wrap(model, name, behind)
            parameters += [*behind.down.parameters(), *behind.up.parameters()]
        return parameters

    @override
    def wrapper(self) -> type["torch.nn.Module"]:
        from sorakit.method.bottleneck import Bottleneck

        return Bottleneck


VARIANT = BottleneckAdapter()
