import pandas as pd

from sorakit.retention import sparsest_keeping


def path(*points: tuple[int, float]) -> pd.DataFrame:
    """Return the stages of one run, dense first: one row a (num_nonzero_params, score)."""
    rows = [
        {"stage": stage, "num_nonzero_params": count, "generalization": score}
        for stage, (count, score) in enumerate(points)
    ]
    return pd.DataFrame(rows)


def count_keeping(share: float, stages: pd.DataFrame) -> int:
    stage = sparsest_keeping(stages, "generalization", share)
    assert stage is not None
    return int(stage["num_nonzero_params"])


def test_smallest_count_is_taken_not_the_last_stage_before_a_dip() -> None:
    assert count_keeping(0.99, path((1000, 0.8), (500, 0.76), (100, 0.8), (0, 0.5))) == 100


def test_score_exactly_at_the_share_counts() -> None:
    assert count_keeping(0.9, path((10, 0.8), (5, 0.72))) == 5  # 0.9 * 0.8 is 0.72 on paper only


def test_later_of_equal_counts_is_taken() -> None:
    stage = sparsest_keeping(path((10, 0.8), (5, 0.8), (5, 0.8)), "generalization", 0.5)
    assert stage is not None
    assert stage["stage"] == 2


def test_dense_score_of_zero_keeps_nothing() -> None:
    assert sparsest_keeping(path((10, 0.0), (0, 0.0)), "generalization", 0.9) is None


def test_run_without_a_dense_stage_keeps_nothing() -> None:
    assert sparsest_keeping(path().reindex(columns=["stage"]), "generalization", 0.9) is None
