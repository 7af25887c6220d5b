"""Which examples go into which batch: pure functions of (seed, epoch). Free of torch."""

from collections.abc import Iterator, Sequence

import numpy as np

Lengths = Sequence[int] | np.ndarray

_POOL_BATCHES = 16  # examples of this many batches are sorted by length together


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Return the optimizer steps in one pass over the data; the last batch may be smaller."""
    return -(-num_examples // batch_size)


def length_grouped_batches(
    lengths: Lengths, *, batch_size: int, seed: int, epoch: int
) -> list[list[int]]:
    """Return the batches of one epoch: shuffled, and of similar length to save padding.

    Every example occurs once. The result depends on nothing but the arguments, so a resumed run
    needs no loader state.

    Args:
        lengths: Tokens of every example.
        batch_size: Examples per batch.
        seed: Seed of the run.
        epoch: Pass over the data, from 0.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    size = np.asarray(lengths)
    pool = batch_size * _POOL_BATCHES
    batches: list[list[int]] = []
    for begin in range(0, len(order), pool):
        chunk = order[begin : begin + pool]
        chunk = chunk[np.argsort(size[chunk], kind="stable")]
        batches += [chunk[i : i + batch_size].tolist() for i in range(0, len(chunk), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def batch_stream(
    lengths: Lengths, *, batch_size: int, seed: int, start: int, count: int
) -> Iterator[list[int]]:
    """Yield batches `start`, ..., `start + count - 1` of the endless sequence of epochs.

    Args:
        lengths: Tokens of every example.
        batch_size: Examples per batch.
        seed: Seed of the run.
        start: Optimizer steps taken before.
        count: Batches to yield.
    """
    per_epoch = steps_per_epoch(len(lengths), batch_size)
    position, last = start, start + count
    while position < last:
        epoch, offset = divmod(position, per_epoch)
        batches = length_grouped_batches(lengths, batch_size=batch_size, seed=seed, epoch=epoch)
        for batch in batches[offset : offset + last - position]:
            yield batch
            position += 1


def evaluation_batches(lengths: Lengths, batch_size: int) -> list[list[int]]:
    """Return batches of all examples in order of length."""
    order = np.argsort(np.asarray(lengths), kind="stable")
    return [order[i : i + batch_size].tolist() for i in range(0, len(order), batch_size)]
