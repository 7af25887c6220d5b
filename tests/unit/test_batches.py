import pytest

from sorakit.training.batches import (
    batch_stream,
    evaluation_batches,
    length_grouped_batches,
    steps_per_epoch,
)

LENGTHS = [3, 9, 4, 4, 8, 2, 7, 5, 6, 1]


def stream(start: int, count: int) -> list[list[int]]:
    return list(batch_stream(LENGTHS, batch_size=3, seed=5, start=start, count=count))


@pytest.mark.parametrize(
    ("examples", "batch_size", "steps"), [(1, 32, 1), (32, 32, 1), (33, 32, 2), (9, 3, 3)]
)
def test_steps_per_epoch_round_up(examples, batch_size, steps):
    assert steps_per_epoch(examples, batch_size) == steps


def test_batches_group_examples_of_similar_length():
    lengths = list(range(100)) * 2
    batches = length_grouped_batches(lengths, batch_size=20, seed=0, epoch=0)
    assert max(max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in batches) <= 10


def test_epochs_differ():
    first, second = (
        length_grouped_batches(LENGTHS, batch_size=3, seed=0, epoch=epoch) for epoch in (0, 1)
    )
    assert first != second


def test_seeds_differ():
    first, second = (
        length_grouped_batches(LENGTHS, batch_size=3, seed=seed, epoch=0) for seed in (0, 1)
    )
    assert first != second


def test_stream_of_one_epoch_is_that_epoch():
    epoch = length_grouped_batches(LENGTHS, batch_size=3, seed=5, epoch=1)
    assert stream(4, 4) == epoch


def test_stream_crosses_epochs():
    assert stream(2, 5) == stream(0, 4)[2:] + stream(4, 4)[:3]


def test_stream_of_nothing_is_empty():
    assert stream(7, 0) == []


def test_evaluation_batches_are_in_order_of_length():
    batches = evaluation_batches(LENGTHS, 4)
    assert [LENGTHS[i] for batch in batches for i in batch] == sorted(LENGTHS)


def test_evaluation_batches_cover_every_example_once():
    assert sorted(i for batch in evaluation_batches(LENGTHS, 4) for i in batch) == list(range(10))
