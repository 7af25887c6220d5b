"""What a method does in a run beside the steps of the optimizer; most do nothing."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    import sorakit.method.optimizer


class TrainingHooks:
    """Called around every step of one run. What it must remember stands in its `state_dict`.

    Attributes:
        settling_epochs: Passes at the start of the run in which convergence is not judged, because
            the method changes the size of its adapter in them.
        refits: Whether what a stage of the method's own leaves is refitted.
    """

    settling_epochs: float = 0.0
    refits: bool = False

    def begin(self, model: "torch.nn.Module", *, steps_per_epoch: int) -> None:
        """Look at the model and the length of a pass, before the first step or after a resume."""

    def before_step(self, model: "torch.nn.Module", *, step: int) -> None:
        """Change the model before the forward pass of a step of the dense stage.

        Args:
            model: The adapted model.
            step: Optimizer steps taken before.
        """

    def penalty(
        self,
        model: "torch.nn.Module",  # noqa: ARG002  # for those that have one
    ) -> "torch.Tensor | None":
        """Return what is minimised beside the loss, and is in no reported loss; None for nothing.

        It depends on weights only, not on the batch.
        """
        return None

    def after_step(self, model: "torch.nn.Module", *, step: int) -> None:
        """Change the model after a step of the dense stage, while its gradients are there.

        Args:
            model: The adapted model.
            step: Optimizer steps taken, this one included.
        """

    def begin_stage(
        self,
        optimizer: "sorakit.method.optimizer.ProxAdamW",
        *,
        target: int,
    ) -> None:
        """Set what the adapter keeps at the start of a stage of its own.

        Args:
            optimizer: Its `matrices` are the model's.
            target: Parameters that the stage is to keep.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold beside weights and optimizer."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what a checkpoint held; called before `begin`."""
