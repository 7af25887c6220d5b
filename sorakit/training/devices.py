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
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.lsf import LSFEnvironment
from lightning.fabric.plugins.environments.mpi import MPIEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import DDPStrategy, Strategy
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, distributed

from sorakit.config import TrainerConfig

_POLL_SECONDS = 1.0
_LOCAL_RANK = "LOCAL_RANK"
_LEADER = "SORAKIT_LEADER"
"""Environment variable that the processes of a run inherit from the one that started them."""


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
        "plugins": [_environment(config)],
    }


def global_rank(config: TrainerConfig) -> int:
    """Return the rank of this process among those of the run, 0 where it is alone.

    Lightning knows it, whatever has launched the process: Lightning itself, Slurm or torchrun. A
    run on one device asks no launcher.

    Raises:
        ValueError: If the devices are not there, or there are not as many processes as devices.
    """
    if config.num_processes == 1:
        return 0
    return new_trainer(config, logger=False, enable_checkpointing=False).global_rank


def new_trainer(config: TrainerConfig, **options: Any) -> pl.Trainer:
    """Return a Trainer on the devices of a configuration.

    Raises:
        ValueError: If they are not there, or there are not as many processes as devices.
    """
    try:
        trainer = pl.Trainer(precision=config.precision, **device_options(config), **options)
    except MisconfigurationException as error:
        raise ValueError(
            f"`trainer.accelerator` must be available, with `trainer.devices` devices, got "
            f"{config.accelerator!r} and {config.devices}: {error}"
        ) from error
    if config.num_processes == 1:
        # Lightning 2.6 took it from the variables of a launcher, if there were any, when it was
        # imported.
        setattr(rank_zero_only, "rank", 0)  # noqa: B010  # a function's attribute, by Lightning
    return trainer


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


def _environment(config: TrainerConfig) -> ClusterEnvironment:
    """Return how the processes of a run find each other: the launcher's way, or Lightning's own.

    Raises:
        ValueError: If a launcher has started another number of processes than the configuration
            says: each would train and evaluate its share of the examples, with nobody for the rest.
    """
    if config.num_processes == 1:
        return LightningEnvironment()  # alone, whatever launched it
    environment = _launcher(config)
    if environment is None:
        _start_own_processes(config)
        return LightningEnvironment()
    if environment.world_size() != config.num_processes:
        raise _wrong_number(config, environment.world_size())
    return environment


def _launcher(config: TrainerConfig) -> ClusterEnvironment | None:
    """Return what has launched the processes of a run, or null: the run launches them itself."""
    if TorchElasticEnvironment.detect():  # first: in a Slurm job it is torchrun that launches
        return TorchElasticEnvironment()
    if "SLURM_NTASKS" in os.environ and SLURMEnvironment.detect():
        if os.environ["SLURM_NTASKS"] == "1" and config.num_nodes == 1:
            return None  # a job of one task, with all devices of the run
        try:
            # Lightning would requeue the job at SIGUSR1, from a checkpoint of its own.
            return SLURMEnvironment(auto_requeue=False)
        except RuntimeError as error:  # --ntasks without --ntasks-per-node
            raise _wrong_number(config, int(os.environ["SLURM_NTASKS"])) from error
    others = (LSFEnvironment, MPIEnvironment)
    return next((kind() for kind in others if kind.detect()), None)


def _start_own_processes(config: TrainerConfig) -> None:
    """Make sure that Lightning starts the other processes, unless this is one of them.

    It takes LOCAL_RANK for the word of a launcher and waits for the others, forever if there is
    none; its own processes are told apart by what they inherit.
    """
    rank = os.environ.get(_LOCAL_RANK)
    if rank is not None and _LEADER not in os.environ:
        raise ValueError(
            f"`{_LOCAL_RANK}` must not be set where no launcher has started the "
            f"{config.num_processes} processes of a run, got {rank!r}. Unset it, or start the run "
            "with srun or torchrun (docs/cluster.md)."
        )
    if rank is None or rank == "0":  # 0: left by a run that this process or its parent has led
        os.environ.pop(_LOCAL_RANK, None)
        os.environ[_LEADER] = str(os.getpid())
    if config.num_nodes > 1 and "NODE_RANK" not in os.environ:
        raise _wrong_number(config, 1)


def _wrong_number(config: TrainerConfig, found: int) -> ValueError:
    return ValueError(
        "`trainer.devices` times `trainer.num_nodes` must be the number of processes that were "
        f"launched, got {config.devices} times {config.num_nodes} and {found}. Start the run with "
        f"`srun --nodes={config.num_nodes} --ntasks-per-node={config.devices}` or with torchrun "
        "(docs/cluster.md)."
    )
