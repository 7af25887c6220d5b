"""Which training examples memorization is measured on."""

import numpy as np

MEMORIZATION_SEED = 42


def memorization_indices(num_train: int, count: int) -> list[int]:
    """Return the training examples of the memorization sample, in ascending order.

    They are drawn without replacement with seed 42, whatever the run's seed, so that runs are
    compared on the same examples.

    Args:
        num_train: Number of training examples. Must be >= 0.
        count: Number of examples to draw; all of them, if there are fewer. Must be >= 0.

    Returns:
        Distinct indices into the training split.
    """
    generator = np.random.default_rng(MEMORIZATION_SEED)
    drawn = generator.choice(num_train, size=min(count, num_train), replace=False)
    return np.sort(drawn).tolist()
