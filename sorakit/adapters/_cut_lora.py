"""LoRA that is trained dense and then cut to the numbers of parameters of a path.

Its gates are masks: 1 for a rank that is there, 0 for one that is cut. No gradient and no threshold
moves them.
"""

from abc import abstractmethod
from typing import TYPE_CHECKING

from typing_extensions import override

from sorakit.adapters import Adapter, target_options, with_peft
from sorakit.adapters._hooks import TrainingHooks
from sorakit.config import RunConfig

if TYPE_CHECKING:
    import peft
    import torch
    import transformers

    import sorakit.method.optimizer
    import sorakit.method.tuner


class MaskedLora(Adapter):
    """LoRA whose ranks can be masked: A drawn by Kaiming, B zero, as PEFT's."""

    has_stages = True

    @override
    def check(self, config: RunConfig) -> None:
        refuse_controls(self.role, config)

    @override
    def build(
        self, model: "transformers.PreTrainedModel", config: RunConfig, *, head: list[str]
    ) -> "peft.PeftModel":
        from sorakit.method.tuner import SoraConfig

        method = config.method
        peft_config = SoraConfig(
            r=method.r,
            lora_alpha=method.lora_alpha,
            lora_dropout=method.lora_dropout,
            **target_options(model, config, head=head),
            gate_init="ones",
            gate_scale="free",
        )
        return with_peft(model, peft_config, config)

    @override
    def matrices(self, model: "peft.PeftModel") -> list["sorakit.method.tuner.AdaptedMatrix"]:
        from sorakit.method.tuner import adapted_matrices

        return adapted_matrices(model)


class CutLora(MaskedLora):
    """One dense LoRA, cut by one global threshold stage by stage, each cut followed by a refit."""

    dense_name = "lora_cut"

    @override
    def check(self, config: RunConfig) -> None:
        super().check(config)
        if config.xi.spacing != "target":
            raise ValueError(
                f"`xi.spacing` must be target when `method.name` is {self.role}, got "
                f"{config.xi.spacing!r}. A cut sets the number of parameters, not xi."
            )


class CutHooks(TrainingHooks):
    """Keeps, of all ranks of all matrices, the most important ones that add up to the target.

    Args:
        seed: Seed of what is drawn.
    """

    refits = True

    def __init__(self, *, seed: int) -> None:
        self._seed = seed

    @override
    def begin_stage(self, optimizer: "sorakit.method.optimizer.ProxAdamW", *, target: int) -> None:
        from sorakit.method.cut import cut_ranks_

        cut_ranks_(optimizer.matrices, self.importance(optimizer), target=target)

    @abstractmethod
    def importance(self, optimizer: "sorakit.method.optimizer.ProxAdamW") -> "torch.Tensor":
        """Return one number a rank, (ranks,), all matrices concatenated; the largest are kept."""


def refuse_controls(method: str, config: RunConfig) -> None:
    """Raise where a run of another method than Algorithm 1 names a control of it.

    Raises:
        ValueError: If it does.
    """
    if config.stage.control != "none":
        raise ValueError(
            f"`stage.control` must be none when `method.name` is {method}, got "
            f"{config.stage.control!r}. Controls are those of Algorithm 1."
        )
