from hypothesis import given
from hypothesis import strategies as st

from sorakit.training.batches import batch_stream, length_grouped_batches, steps_per_epoch

lengths = st.lists(st.integers(1, 40), min_size=1, max_size=120)
batch_sizes = st.integers(1, 9)
seeds = st.integers(0, 2**31 - 1)
epochs = st.integers(0, 50)


@given(lengths, batch_sizes, seeds, epochs)
def test_every_example_occurs_once_per_epoch(lengths, batch_size, seed, epoch):
    batches = length_grouped_batches(lengths, batch_size=batch_size, seed=seed, epoch=epoch)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))


@given(lengths, batch_sizes, seeds, epochs)
def test_an_epoch_has_steps_per_epoch_batches(lengths, batch_size, seed, epoch):
    batches = length_grouped_batches(lengths, batch_size=batch_size, seed=seed, epoch=epoch)
    assert len(batches) == steps_per_epoch(len(lengths), batch_size)


@given(lengths, batch_sizes, seeds, epochs)
def test_an_epoch_is_a_function_of_seed_and_epoch(lengths, batch_size, seed, epoch):
    first, second = (
        length_grouped_batches(lengths, batch_size=batch_size, seed=seed, epoch=epoch)
        for _ in range(2)
    )
    assert first == second


@given(lengths, batch_sizes, seeds, st.integers(0, 60), st.integers(0, 60))
def test_stream_is_a_slice_of_the_long_stream(lengths, batch_size, seed, start, count):
    def stream(start: int, count: int) -> list[list[int]]:
        return list(
            batch_stream(lengths, batch_size=batch_size, seed=seed, start=start, count=count)
        )

    assert stream(start, count) == stream(0, start + count)[start:]


@given(lengths, batch_sizes, seeds, st.lists(st.integers(1, 15), min_size=1, max_size=5))
def test_segments_in_a_row_are_the_stream(lengths, batch_size, seed, counts):
    def stream(start: int, count: int) -> list[list[int]]:
        return list(
            batch_stream(lengths, batch_size=batch_size, seed=seed, start=start, count=count)
        )

    pieces, start = [], 0
    for count in counts:
        pieces += stream(start, count)
        start += count
    assert pieces == stream(0, sum(counts))
