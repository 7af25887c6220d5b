"""Plain LoRA with the ranks of `method.rank_pattern`, retrained from the start."""

import re
from typing import TYPE_CHECKING, final

from typing_extensions import override

from sorakit.adapters import Adapter, target_options, with_peft
from sorakit.config import RunConfig
from sorakit.quoting import listed

if TYPE_CHECKING:
    import peft
    import transformers

    import sorakit.method.tuner


@final
class LoraPattern(Adapter):
    """PEFT's LoRA with a rank of its own for every module that a stage has left.

    Every module has the scaling `lora_alpha / r` of a uniform LoRA, whatever its rank, so that the
    two differ in where their ranks are and in nothing else.
    """

    role = "lora_pattern"

    @override
    def check(self, config: RunConfig) -> None:
        if config.stage.control != "none":
            raise ValueError(
                "`stage.control` must be none when `method.name` is lora_pattern, got "
                f"{config.stage.control!r}. It has no sparsifying stages."
            )
        if config.method.rank_pattern is None:
            raise ValueError(
                "`method.rank_pattern` must be set when `method.name` is lora_pattern, got null. "
                "Every stage of a run has one in its folder of adapters."
            )

    @override
    def build(
        self, model: "transformers.PreTrainedModel", config: RunConfig, *, head: list[str]
    ) -> "peft.PeftModel":
        from peft import LoraConfig

        method = config.method
        ranks = method.rank_pattern
        assert isinstance(ranks, dict)
        options = target_options(model, config, head=head)
        unknown = [name for name in ranks if name not in set(options["target_modules"])]
        if unknown:
            raise ValueError(
                "`method.rank_pattern` must name layers of the model that "
                f"`method.target_modules` means, got {listed(unknown)}. Is it of another backbone?"
            )
        # Whole names: a list would also match longer names that end like these.
        options["target_modules"] = "|".join(re.escape(name) for name in ranks)
        scaling = method.lora_alpha / method.r
        peft_config = LoraConfig(
            r=method.r,
            lora_alpha=method.lora_alpha,  # pyright: ignore[reportArgumentType]  # PEFT says int, takes float
            lora_dropout=method.lora_dropout,
            rank_pattern=ranks,
            alpha_pattern={name: scaling * rank for name, rank in ranks.items()},
            **options,
        )
        return with_peft(model, peft_config, config)

    @override
    def matrices(self, model: "peft.PeftModel") -> list["sorakit.method.tuner.AdaptedMatrix"]:
        from sorakit.method.tuner import plain_matrices

        return plain_matrices(model)


VARIANT = LoraPattern()
