"""Schedules that differ from Algorithm 1 in one thing: each file is a value of `stage.control`.

They give the same records. Nothing is stored that a checkpoint would have to hold: what a control
needs follows from the weights at the start of a stage, the seed and the step.
"""

# a control takes no notice of what it has no use for
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from sorakit.config import XiConfig
from sorakit.variants import CONTROLS

if TYPE_CHECKING:
    import torch

    import sorakit.method.optimizer
    import sorakit.tasks.base


class Control:
    """Algorithm 1 itself; a control changes one of its answers.

    Args:
        seed: Seed of what it draws.

    Attributes:
        rises: Whether xi rises after the dense stage.
        trains: Whether sparsifying stages train at all.
        restarts: Whether every stage is trained like a dense stage, from the start.
        refits: Whether what a stage leaves is refitted although nothing is trained before.
        sets_count: Whether it sets the number of parameters, and not xi.
        is_null_model: Whether it differs from Algorithm 1 from the first step on, so that it has a
            dense stage of its own.
        changes_task: Whether it trains on other data than the task's.
        training_loss: Returns the mean loss, nats, of the model as it is on a fixed sample of
            training examples, in evaluation mode; set before training begins.
    """

    rises: bool = True
    trains: bool = True
    restarts: bool = False
    refits: bool = False
    sets_count: bool = False
    is_null_model: bool = False
    changes_task: bool = False
    training_loss: Callable[[], float]

    def __init__(self, *, seed: int) -> None:
        self._seed = seed

    @classmethod
    def check(cls, name: str, xi: XiConfig) -> None:
        """Refuse thresholds that do not go with this control.

        Raises:
            ValueError: If `xi.spacing` is none of its own.
        """
        if cls.sets_count and xi.spacing != "target":
            raise ValueError(
                f"`xi.spacing` must be target when `stage.control` is {name}, got "
                f"{xi.spacing!r}. A mask sets the number of parameters, not xi."
            )
        if cls.restarts and xi.spacing == "target":
            raise ValueError(
                f"`xi.spacing` must not be target when `stage.control` is {name}, got "
                "'target'. Every level is trained at one xi: give levels."
            )

    def change_task(self, task: "sorakit.tasks.base.Task") -> "sorakit.tasks.base.Task":
        """Return the data to train on."""
        return task

    def begin_run(self, model: "torch.nn.Module") -> None:
        """Look at the untrained model, before any checkpoint is loaded."""

    def begin_stage(
        self,
        model: "torch.nn.Module",
        optimizer: "sorakit.method.optimizer.ProxAdamW",
        *,
        target: int,
    ) -> None:
        """Change the weights at the start of a sparsifying stage; `target` is its count."""

    def before_step(self, optimizer: "sorakit.method.optimizer.ProxAdamW", *, step: int) -> None:
        """Change gradients before a step in which xi acts, the dense stage's included."""

    def after_step(self, optimizer: "sorakit.method.optimizer.ProxAdamW") -> None:
        """Change weights after a step of a sparsifying stage in which xi acts."""


def control_class(name: str) -> type[Control]:
    """Return the control that a value of `stage.control` names.

    Raises:
        ValueError: If there is none of that name.
    """
    return cast(type[Control], CONTROLS.load(name))
