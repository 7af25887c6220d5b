"""How a model is adapted: each file is a value of `method.name` and holds its adapter."""

# an adapter takes no notice of what it has no use for
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

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
        task_type: str | None,
    ) -> None:
        """Write the adapter, pruned, and the trained head as a plain PEFT LoRA.

        Args:
            model: A built model.
            folder: New folder.
            base_model_name_or_path: Name of the base model, for loaders that find it by that.
            task_type: PEFT task type; None where it has none.
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


def target_options(
    model: "transformers.PreTrainedModel", config: RunConfig, *, head: list[str]
) -> dict[str, Any]:
    """Return what a PEFT configuration says of the layers that are adapted, and of the head.

    Raises:
        ValueError: If `method.target_modules` means no layer below the head.
    """
    from sorakit.method.targets import are_transposed, resolve_target_modules

    method = config.method
    names = resolve_target_modules(
        model, method.target_modules, exclude=head, exclude_modules=method.exclude_modules
    )
    return {
        "target_modules": names,
        "fan_in_fan_out": are_transposed(model, names),
        "modules_to_save": head or None,
    }


def with_peft(
    model: "transformers.PreTrainedModel", peft_config: "peft.PeftConfig", config: RunConfig
) -> "peft.PeftModel":
    """Return `model` adapted by PEFT; its head is trained if `method.train_head` says so."""
    from peft import PeftModel, get_peft_model

    adapted = get_peft_model(model, peft_config)
    assert isinstance(adapted, PeftModel)
    if not config.method.train_head:
        for name, parameter in adapted.named_parameters():
            if ".modules_to_save." in name:  # not trained, and still saved
                parameter.requires_grad_(False)
    return adapted
