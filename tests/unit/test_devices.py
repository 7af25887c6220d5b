"""Shares of batches, and what names a run on several devices."""

import os
import re
from dataclasses import replace

import pytest
import torch
from lightning.pytorch.utilities import rank_zero_only

from sorakit.config import RunConfig, TrainerConfig
from sorakit.records import dense_key, run_id
from sorakit.sweep.worker import _own_environment
from sorakit.training.devices import (
    device_options,
    from_all_processes,
    global_rank,
    mean_over_processes,
    new_trainer,
    sum_over_processes,
    training_share,
)
from sorakit.training.module import step_seed


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [1, 2, 4, 7])
def test_mean_of_weighted_means_is_the_mean_of_the_batch(size, world_size):
    batch, losses = list(range(10, 10 + size)), torch.rand(20, dtype=torch.float64)
    shares = [training_share(batch, rank=k, world_size=world_size) for k in range(world_size)]
    means = [share.weight * losses[share.rows].mean() for share in shares]
    torch.testing.assert_close(torch.stack(means).mean(), losses[batch].mean())


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_every_example_is_in_one_share(world_size):
    batch = [3, 1, 4, 1 + 4, 9, 2, 6]
    shares = [training_share(batch, rank=k, world_size=world_size) for k in range(world_size)]
    assert sorted(row for share in shares for row in share.rows) == sorted(batch)


def test_a_process_without_an_example_sees_the_first_with_weight_0():
    share = training_share([8], rank=1, world_size=2)
    assert (share.rows, share.weight) == ([8], 0.0)


def test_one_process_has_the_batch_with_weight_1():
    share = training_share([5, 2], rank=0, world_size=1)
    assert (share.rows, share.weight) == ([5, 2], 1.0)


def test_processes_have_dropout_masks_of_their_own():
    assert len({step_seed(0, 7, rank=rank) for rank in range(8)}) == 8


def test_rank_0_has_the_masks_of_a_run_on_one_device():
    assert step_seed(3, 7, rank=0) == step_seed(3, 7)


def test_alone_there_is_nothing_to_agree_on():
    value = torch.tensor([1.0, 2.0])
    assert torch.equal(mean_over_processes(value), value)
    assert sum_over_processes(value) is value
    assert from_all_processes([1, "two"]) == [1, "two"]


def with_trainer(**options: object) -> RunConfig:
    return replace(RunConfig(), trainer=TrainerConfig(**options))  # pyright: ignore[reportArgumentType]  # checked by beartype


def test_name_of_the_default_run_is_that_of_its_method_version():
    # Another name is another experiment: an option that came later needs no mention at its default
    # (`_LATER_OPTIONS`), other numbers another METHOD_VERSION.
    assert run_id(RunConfig()) == "e3bf55b11f10"
    assert dense_key(RunConfig()) == "4f87c2625483"


@pytest.mark.parametrize("name", [run_id, dense_key])
def test_number_of_processes_is_part_of_the_name(name):
    names = {name(with_trainer(devices=devices)) for devices in (1, 2, 4)}
    assert len(names) == 3


@pytest.mark.parametrize("name", [run_id, dense_key])
def test_where_the_processes_are_is_no_part_of_the_name(name):
    assert name(with_trainer(devices=4)) == name(with_trainer(devices=2, num_nodes=2))
    assert name(with_trainer(devices=2)) == name(with_trainer(devices=2, strategy="ddp"))
    assert name(with_trainer()) == name(with_trainer(strategy="ddp"))


@pytest.mark.parametrize("option", ["devices", "num_nodes"])
def test_no_device_is_refused(option):
    with pytest.raises(ValueError, match=rf"^`trainer.{option}` must be >= 1, got 0\.$"):
        with_trainer(**{option: 0})


def test_more_gpus_than_there_are_is_one_sentence():
    config = TrainerConfig(accelerator="gpu", devices=64)
    with pytest.raises(ValueError, match=r"^`trainer.accelerator` must be available, with "):
        new_trainer(config, logger=False)


# Launchers -----------------------------------------------------------------------------------

LAUNCHERS = re.compile(r"^(SLURM|TORCHELASTIC|JSM|LSB|SORAKIT)_|^(LOCAL_|NODE_|GROUP_)?RANK$|WORLD")
BATCH_JOB = {
    "SLURM_JOB_ID": "1",
    "SLURM_JOB_NAME": "job",
    "SLURM_NNODES": "1",
    "SLURM_NODEID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_PROCID": "0",
    "SLURM_NODELIST": "127.0.0.1",
}
TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "1",
    "LOCAL_RANK": "1",
    "RANK": "3",
    "WORLD_SIZE": "4",
    "GROUP_RANK": "1",
}


@pytest.fixture
def launch(monkeypatch):
    """Set the variables of a launcher, and those alone."""

    def set_variables(**variables):
        for name in filter(LAUNCHERS.search, list(os.environ)):
            monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("SORAKIT_LEADER", "")  # restored afterwards, whatever a test sets
        monkeypatch.delenv("SORAKIT_LEADER")

    return set_variables


def environment_of(**options):
    [environment] = device_options(TrainerConfig(accelerator="cpu", **options))["plugins"]
    return environment


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"LOCAL_RANK": "1"},
        {**BATCH_JOB, "SLURM_NTASKS": "1"},
        {**BATCH_JOB, "SLURM_NTASKS": "8", "SLURM_PROCID": "3"},
        {**BATCH_JOB, "SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "4", "SLURM_NNODES": "2"},
        TORCHRUN,
        {"JSM_NAMESPACE_RANK": "2", "JSM_NAMESPACE_LOCAL_RANK": "2", "JSM_NAMESPACE_SIZE": "4"},
    ],
)
def test_run_on_one_device_ignores_launchers(variables, launch, monkeypatch):
    launch(**variables)
    # what Lightning makes of these variables when it is imported
    monkeypatch.setattr(rank_zero_only, "rank", int(variables.get("LOCAL_RANK", 0)))
    trainer = new_trainer(TrainerConfig(accelerator="cpu"), logger=False)
    assert (global_rank(TrainerConfig()), trainer.world_size) == (0, 1)
    assert vars(rank_zero_only)["rank"] == 0


def test_processes_of_torchrun_are_those_of_the_configuration(launch):
    launch(**TORCHRUN)
    environment = environment_of(devices=2, num_nodes=2)
    assert (environment.world_size(), environment.global_rank()) == (4, 3)
    assert environment.creates_processes_externally


def test_in_a_slurm_job_torchrun_is_asked_first(launch):
    launch(**BATCH_JOB, SLURM_NTASKS="1", **TORCHRUN)
    assert environment_of(devices=4).global_rank() == 3


def test_processes_of_srun_are_those_of_the_configuration(launch):
    launch(**{**BATCH_JOB, "SLURM_PROCID": "1"}, SLURM_NTASKS="2", SLURM_NTASKS_PER_NODE="2")
    environment = environment_of(devices=2)
    assert (environment.world_size(), environment.global_rank()) == (2, 1)


def test_lightning_does_not_requeue_a_slurm_job_from_a_checkpoint_of_its_own(launch):
    launch(**BATCH_JOB, SLURM_NTASKS="2", SLURM_NTASKS_PER_NODE="2")
    assert not environment_of(devices=2).auto_requeue


@pytest.mark.parametrize(
    ("variables", "devices", "nodes", "found"),
    [
        ({**BATCH_JOB, "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "4"}, 2, 1, 4),
        ({**BATCH_JOB, "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}, 2, 2, 2),
        ({**BATCH_JOB, "SLURM_NTASKS": "8"}, 2, 1, 8),
        ({**BATCH_JOB, "SLURM_NTASKS": "2"}, 2, 1, 2),  # perhaps one task a node
        ({**BATCH_JOB, "SLURM_NTASKS": "1"}, 2, 2, 1),
        (TORCHRUN, 2, 1, 4),
        (TORCHRUN, 4, 2, 4),
        ({}, 2, 2, 1),
    ],
)
def test_another_number_of_processes_is_refused(variables, devices, nodes, found, launch):
    launch(**variables)
    message = (
        "`trainer.devices` times `trainer.num_nodes` must be the number of processes that were "
        f"launched, got {devices} times {nodes} and {found}. Start the run with `srun "
        f"--nodes={nodes} --ntasks-per-node={devices}` or with torchrun (docs/cluster.md)."
    )
    config = TrainerConfig(accelerator="cpu", devices=devices, num_nodes=nodes)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        global_rank(config)


@pytest.mark.parametrize("variables", [{}, {**BATCH_JOB, "SLURM_NTASKS": "1"}])
def test_run_that_nothing_launched_starts_its_processes_itself(variables, launch):
    launch(**variables)
    assert not environment_of(devices=2).creates_processes_externally
    assert os.environ["SORAKIT_LEADER"] == str(os.getpid())


def test_stray_rank_is_refused_rather_than_waited_for(launch):
    launch(LOCAL_RANK="0")
    message = (
        "`LOCAL_RANK` must not be set where no launcher has started the 2 processes of a run, got "
        "'0'. Unset it, or start the run with srun or torchrun (docs/cluster.md)."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        environment_of(devices=2)


def test_process_that_a_run_has_started_follows_it(launch):
    launch()
    os.environ |= {"LOCAL_RANK": "1", "SORAKIT_LEADER": "12345"}
    assert environment_of(devices=2).creates_processes_externally
    assert global_rank(TrainerConfig(accelerator="cpu", devices=2)) == 1


def test_rank_that_an_earlier_run_has_left_is_no_launcher(launch):
    launch()
    environment_of(devices=2)
    os.environ["LOCAL_RANK"] = "0"  # Lightning, when it started the others
    assert not environment_of(devices=2).creates_processes_externally


def test_worker_of_a_sweep_does_not_take_the_launcher_of_the_sweep_for_its_own(launch):
    launch(**BATCH_JOB, SLURM_NTASKS="8", **TORCHRUN)
    given = _own_environment()
    assert not set(given) & {*TORCHRUN, "SLURM_NTASKS", "SLURM_PROCID"}
    assert given["SLURM_JOB_ID"] == "1"
