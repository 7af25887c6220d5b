"""A random subspace: `method.dimension` numbers move all weights of the target layers."""

from typing import TYPE_CHECKING, final

from typing_extensions import override

from sorakit.adapters._own import OwnAdapter
from sorakit.config import RunConfig

if TYPE_CHECKING:
    import torch
    import transformers


@final
class RandomSubspace(OwnAdapter):
    """Intrinsic dimension (Aghajanyan et al. 2020, arXiv:2012.13255), below one rank.

    The projection is drawn from the run's seed, sparse in the place of their Fastfood transform
    (`sorakit.method.subspace`).
    """

    role = "random_subspace"

    @override
    def layers(
        self, model: "transformers.PreTrainedModel", config: RunConfig, *, head: list[str]
    ) -> list[str]:
        from sorakit.adapters import target_options

        return target_options(model, config, head=head)["target_modules"]

    @override
    def put_in(
        self, model: "torch.nn.Module", names: list[str], config: RunConfig
    ) -> list["torch.nn.Parameter"]:
        from sorakit.method.subspace import into_subspace

        dimension = config.method.dimension
        return [into_subspace(model, names, dimension=dimension, seed=config.seed)]

    @override
    def wrapper(self) -> type["torch.nn.Module"]:
        from sorakit.method.subspace import SubspaceLinear

        return SubspaceLinear


VARIANT = RandomSubspace()
