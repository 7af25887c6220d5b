"""How a model is adapted: each file is a value of `method.name` and holds its adapter."""

# an adapter takes no notice of what it has no use for
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sorakit.config import RunConfig, XiConfig
from sorakit.variants import ADAPTERS

if TYPE_CHECKING:
    import peft
    import transformers

    import sorakit.adapters._hooks
    import sorakit.method.tuner


class Adapter(ABC):
    """One method of the tables: what it trains, what of that counts, and what it leaves.

    Attributes:
        role: What its runs stand for in tables: path (Algorithm 1), floor, or a name of its own.
        has_gates: Whether the sparsifying stages of Algorithm 1 follow the dense one.
        has_stages: Whether stages of its own follow: what its gates keep is set, not learnt.
        dense_name: Name of its dense stage, where other methods train the same; null is its own.
    """

    role: str
    has_gates: bool = False
    has_stages: bool = False
    dense_name: str | None = None

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

    def matrices(
        self,
        model: "peft.PeftModel",  # noqa: ARG002  # for those that have some
    ) -> list["sorakit.method.tuner.AdaptedMatrix"]:
        """Return the adapted matrices of a built model, whose ranks are recorded; [] for others."""
        return []

    def count(self, model: "peft.PeftModel") -> int:
        """Return the elements of the adapter that are left: those of its file, without the head."""
        from sorakit.method.prune import count_nonzero_params

        return count_nonzero_params(self.matrices(model))

    def count_all(self, model: "peft.PeftModel") -> int:
        """Return the elements of the adapter that are trained, without the head."""
        from sorakit.method.prune import count_adapter_params

        return count_adapter_params(self.matrices(model))

    def levels(self, config: RunConfig) -> XiConfig:
        """Return what says how many stages there are, and their numbers of parameters."""
        return config.xi

    def hooks(self, config: RunConfig) -> "sorakit.adapters._hooks.TrainingHooks":  # noqa: ARG002
        """Return what the method does in a run beside the steps of the optimizer."""
        from sorakit.adapters._hooks import TrainingHooks

        return TrainingHooks()

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

    def load(
        self,
        model: "transformers.PreTrainedModel",
        folder: Path,
        config: RunConfig,  # noqa: ARG002  # for adapters that plain PEFT does not know
        *,
        head: list[str],  # noqa: ARG002
    ) -> "peft.PeftModel":
        """Return `model` with what `export` wrote, in evaluation mode.

        Args:
            model: Base model with a task head, as it was before the run.
            folder: What `export` wrote.
            config: Resolved configuration of the run.
            head: Names of the modules that were trained in full.
        """
        from peft import PeftModel

        return PeftModel.from_pretrained(model, str(folder)).eval()


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
