"""Shares of batches, and what names a run on several devices."""

from dataclasses import replace

import pytest
import torch

from sorakit.config import RunConfig, TrainerConfig
from sorakit.records import dense_key, run_id
from sorakit.training.devices import (
    device_options,
    from_all_processes,
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


def test_one_device_has_the_name_that_it_had_before_there_could_be_several():
    assert run_id(RunConfig()) == "0618464e11bf"
    assert dense_key(RunConfig()) == "65f2e22e1804"


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


def test_lightning_does_not_requeue_a_slurm_job_from_a_checkpoint_of_its_own(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    [environment] = device_options(TrainerConfig())["plugins"]
    assert not environment.auto_requeue


def test_outside_of_slurm_nothing_is_plugged_in(monkeypatch):
    monkeypatch.delenv("SLURM_NTASKS", raising=False)
    assert device_options(TrainerConfig())["plugins"] is None
