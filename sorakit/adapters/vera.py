"""VeRA: random A and B that all matrices share, and two trained vectors a matrix."""

from typing import TYPE_CHECKING, final

from typing_extensions import override

from sorakit.adapters import target_options, with_peft
from sorakit.adapters._peft import PeftAdapter
from sorakit.config import RunConfig

if TYPE_CHECKING:
    import peft
    import transformers


@final
class Vera(PeftAdapter):
    """PEFT's (arXiv:2310.11454): `out + method.r` elements a matrix.

    The file holds the random factors too, which are not counted: another version of torch may draw
    others from their seed.
    """

    role = "vera"

    @override
    def build(
        self, model: "transformers.PreTrainedModel", config: RunConfig, *, head: list[str]
    ) -> "peft.PeftModel":
        from peft import VeraConfig

        peft_config = VeraConfig(
            r=config.method.r,
            vera_dropout=config.method.lora_dropout,
            projection_prng_key=config.seed,
            **target_options(model, config, head=head),
        )
        return with_peft(model, peft_config, config)


VARIANT = Vera()
