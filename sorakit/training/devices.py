"""Several devices a run: which process this is, its share of the batches, and what all agree on.

Every process of a run trains on a share of each batch and evaluates a share of the evaluation
batches, without padding: scores are those of one device. The process of rank 0 alone writes.
"""

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch import Tensor, distributed

from sorakit.config import TrainerConfig

_POLL_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one process sees of a batch.

    Attributes:
        rows: Positions of the examples.
        weight: Factor of their mean loss, by which the mean over the processes is the mean over the
            batch.
    """

    rows: list[int]
    weight: float = 1.0


def training_share(batch: Sequence[int], *, rank: int, world_size: int) -> Share:
    """Return the share of a batch that the process `rank` trains on.

    A process that a short batch leaves without an example sees the first one, with weight 0:
    gradients are averaged over all processes.
    """
    rows = list(batch[rank::world_size])
    if not rows:
        return Share(rows=[batch[0]], weight=0.0)
    return Share(rows=rows, weight=len(rows) * world_size / len(batch))


def device_options(config: TrainerConfig) -> dict[str, Any]:
    """Return what a Trainer is told of devices."""
    return {
        "accelerator": config.accelerator,
        "devices": config.devices,
        "num_nodes": config.num_nodes,
        "strategy": _strategy(config),
        # Every process has batches of its own already.
        "use_distributed_sampler": False,
        # Lightning would requeue the job at SIGUSR1, from a checkpoint of its own.
        "plugins": [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else None,
    }


def global_rank(config: TrainerConfig) -> int:
    """Return the rank of this process among those of the run, 0 where it is alone.

    Lightning knows it, whatever has launched the process: Lightning itself, Slurm or torchrun.

    Raises:
        ValueError: If the devices are not there.
    """
    if config.num_processes == 1:
        return 0
    return new_trainer(config, logger=False, enable_checkpointing=False).global_rank


def new_trainer(config: TrainerConfig, **options: Any) -> pl.Trainer:
    """Return a Trainer on the devices of a configuration.

    Raises:
        ValueError: If they are not there.
    """
    try:
        return pl.Trainer(precision=config.precision, **device_options(config), **options)
    except MisconfigurationException as error:
        raise ValueError(
            f"`trainer.accelerator` must be available, with `trainer.devices` devices, got "
            f"{config.accelerator!r} and {config.devices}: {error}"
        ) from error


def join(trainer: pl.Trainer) -> None:
    """Wait until every process of a run has come here, where another program launched them.

    Lightning launches the others in `Trainer.fit`, when rank 0 has prepared the run folder. Where
    Slurm or torchrun has, all start at once, and those of rank > 0 wait here for that.
    """
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if trainer.world_size == 1 or environment is None or distributed.is_initialized():
        return
    if environment.creates_processes_externally:
        trainer.strategy.setup_environment()


def end_with_parent() -> None:
    """End this process when the one that launched it is gone, in whatever collective it waits."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def num_processes() -> int:
    """Return how many processes train together, 1 before they have met."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def mean_over_processes(value: Tensor) -> Tensor:
    """Return the mean of a tensor over all processes; every one of them must call this."""
    return sum_over_processes(value) / num_processes()


def sum_over_processes(value: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes; every one of them must call this."""
    if num_processes() == 1:
        return value
    total = value.clone()
    distributed.all_reduce(total)
    return total


def from_all_processes(parts: list[Any]) -> list[Any]:
    """Return the lists of all processes as one, in the order of ranks; they may differ in length.

    Tensors in them must be on the CPU: the processes have different devices.
    """
    if num_processes() == 1:
        return parts
    gathered: list[list[Any]] = [[] for _ in range(num_processes())]
    distributed.all_gather_object(gathered, parts)
    return [part for one in gathered for part in one]


def _strategy(config: TrainerConfig) -> Strategy | str:
    if config.num_processes == 1:
        return "auto"
    # Then evaluation has no collective: processes evaluate different numbers of batches. The
    # buffers of these models are constants.
    return DDPStrategy(forward_sync_buffers=False)
