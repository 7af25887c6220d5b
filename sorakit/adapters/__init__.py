"""How a model is adapted: each file is a value of `method.name` and holds its adapter."""

# an adapter takes no notice of what it has no use for
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, cast

from sorakit.config import RunConfig
from sorakit.variants import ADAPTERS

if TYPE_CHECKING:
    import peft
    import transformers

    import sorakit.method.tuner


class Adapter(ABC):
    """One method of the tables: what it trains, what of that counts, and what it leaves.

    Attributes:
        role: What its runs stand for in tables: path (Algorithm 1), floor, or a name of its own.
        has_gates: Whether sparsifying stages follow the dense one; without, it is the only stage.
    """

    role: str
    has_gates: bool = False

    def check(self, config: RunConfig) -> None:  # noqa: B027  # most go with all options
        """Refuse options that do not go with this method.

        Raises:
            ValueError: If there is one.
        """

    @abstractmethod
    def build(
        self, model: "transformers.PreTrainedModel", config: RunConfig, *, head: list[str]
    ) -> "peft.PeftModel":
        """Return `model`, changed in place, with all that is trained.

        Args:
            model: Base model with a task head.
            config: Resolved configuration.
            head: Names of the modules that are trained in full.

        Raises:
            ValueError: If the options do not fit the model.
        """

    @abstractmethod
    def matrices(self, model: "peft.PeftModel") -> list["sorakit.method.tuner.AdaptedMatrix"]:
        """Return the adapted matrices of a built model: what is counted, recorded and exported."""

    def export(
        self,
        model: "peft.PeftModel",
        folder: Path,
        *,
        base_model_name_or_path: str,
        task_type: str,
    ) -> None:
        """Write the adapter, pruned, and the trained head as a plain PEFT LoRA.

        Args:
            model: A built model.
            folder: New folder.
            base_model_name_or_path: Name of the base model, for loaders that find it by that.
            task_type: PEFT task type.
        """
        from sorakit.method.prune import export_lora

        export_lora(
            model,
            folder,
            matrices=self.matrices(model),
            base_model_name_or_path=base_model_name_or_path,
            task_type=task_type,
        )


def adapter(method: str) -> Adapter:
    """Return the adapter that a value of `method.name` names.

    Raises:
        ValueError: If there is none of that name.
    """
    return cast(Adapter, ADAPTERS.load(method))


def freeze_head(model: "peft.PeftModel") -> None:
    """Stop training the task head; it is still saved."""
    for name, parameter in model.named_parameters():
        if ".modules_to_save." in name:
            parameter.requires_grad_(False)
