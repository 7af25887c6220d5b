"""DyLoRA: one LoRA of which every step trains the first b ranks, so that every prefix is usable."""

import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, final

from typing_extensions import override

from sorakit.adapters._cut_lora import MaskedLora
from sorakit.adapters._hooks import TrainingHooks
from sorakit.config import RunConfig, XiConfig

if TYPE_CHECKING:
    import torch

    import sorakit.method.optimizer
    import sorakit.method.tuner


@final
class _Prefixes(TrainingHooks):
    """Draws b from 1 to r at every step, as Valipour et al. 2022 do (arXiv:2210.07558).

    The update of the first b ranks is scaled by `lora_alpha / b`: gates are `r / b` there, and 0
    beyond. Between steps all ranks are on.

    Args:
        seed: Seed of b; with the step it gives b, so nothing is stored.
    """

    def __init__(self, *, seed: int) -> None:
        self._seed = seed

    @override
    def before_step(self, model: "torch.nn.Module", *, step: int) -> None:
        from sorakit.method.tuner import adapted_matrices

        matrices = adapted_matrices(model)
        draw = zlib.crc32(f"prefix {self._seed} {step}".encode())
        for matrix in matrices:
            _keep_first(matrix, 1 + draw % len(matrix.gate))

    @override
    def after_step(self, model: "torch.nn.Module", *, step: int) -> None:
        from sorakit.method.tuner import adapted_matrices

        for matrix in adapted_matrices(model):
            _keep_first(matrix, len(matrix.gate))

    @override
    def begin_stage(self, optimizer: "sorakit.method.optimizer.ProxAdamW", *, target: int) -> None:
        for matrix in optimizer.matrices:
            _keep_first(matrix, int(matrix.gate.count_nonzero()) - 1)


def _keep_first(matrix: "sorakit.method.tuner.AdaptedMatrix", count: int) -> None:
    gate = matrix.gate.data
    gate.zero_()
    gate[:count] = len(gate) / count


@final
class DyLora(MaskedLora):
    """The dense stage evaluates all r ranks; each of the `r - 1` stages after it one rank less."""

    role = "dylora"

    @override
    def check(self, config: RunConfig) -> None:
        super().check(config)
        if config.method.r < 2:
            raise ValueError(
                f"`method.r` must be >= 2 when `method.name` is dylora, got {config.method.r}. "
                "With one rank it is LoRA."
            )

    @override
    def levels(self, config: RunConfig) -> XiConfig:
        return replace(
            config.xi,
            spacing="target",
            num_stages=config.method.r - 1,
            levels=None,
            end=None,
            budget=None,
        )

    @override
    def hooks(self, config: RunConfig) -> TrainingHooks:
        return _Prefixes(seed=config.seed)


VARIANT = DyLora()
