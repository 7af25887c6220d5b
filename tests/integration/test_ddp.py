"""Data-parallel training: two gloo processes with an adapted BERT in DistributedDataParallel."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support import ddp_training

ROOT = Path(__file__).resolve().parents[2]
WORLD_SIZE = 2
Gates = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[Gates]:
    """The gates of every rank after every step, by module."""
    folder = tmp_path_factory.mktemp("ddp")
    command = [sys.executable, "-m", "tests.support.ddp_training", str(folder)]
    processes = [
        subprocess.Popen(
            [*command, str(rank), str(WORLD_SIZE)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(WORLD_SIZE)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [load_file(folder / f"rank_{rank}.safetensors") for rank in range(WORLD_SIZE)]


@pytest.fixture(scope="module")
def alone() -> Gates:
    """The gates of one process that sees every global batch whole."""
    with torch.random.fork_rng(devices=[]):
        return ddp_training.train()


def test_every_rank_has_the_same_gates_bit_for_bit_after_every_step(ranks):
    first, second = ({n: h.view(torch.int64) for n, h in gates.items()} for gates in ranks)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_ranks_see_different_examples():
    shares = [
        [batch["input_ids"] for batch in ddp_training.batches(rank=rank, world_size=WORLD_SIZE)]
        for rank in range(WORLD_SIZE)
    ]
    assert not any(map(torch.equal, *shares))


def test_some_gates_die_and_some_live(ranks):
    last = torch.cat([history[-1] for history in ranks[0].values()])
    assert 0 < torch.count_nonzero(last) < last.numel()


def test_a_matrix_of_rank_0_stays_in_the_graph(ranks):
    # DDP without find_unused_parameters hangs or raises as soon as one gate leaves it
    dead = [(history == 0).all(dim=1) for history in ranks[0].values()]
    assert any(is_dead[:-1].any() for is_dead in dead)


def test_training_passes_through_many_counts(ranks):
    counts = torch.stack([history.count_nonzero(dim=1) for history in ranks[0].values()]).sum(dim=0)
    assert len(set(counts.tolist())) >= 8


def test_the_same_gates_are_0_as_in_one_process_after_every_step(ranks, alone):
    assert ranks[0].keys() == alone.keys()
    assert all(torch.equal(ranks[0][name] == 0, alone[name] == 0) for name in alone)


def test_gates_are_those_of_one_process_up_to_rounding(ranks, alone):
    for name, history in alone.items():
        torch.testing.assert_close(ranks[0][name], history, rtol=1e-8, atol=1e-10)
