"""Tables 1 to 4: what a cell says, and what it says where there is no number."""

import numpy as np
import pandas as pd
import pytest

from analysis.method_tables import (
    NOT_MEASURED,
    NOT_RUN,
    TITLES,
    matrices_table,
    methods_table,
    ranks_table,
    times_table,
)


def rows(role: str, *, size: str = "", seeds=(0, 1), counts=(800,), scores=None, **more):
    """Return rows of some runs: score falls with the count, and rises with the seed."""
    found = []
    for seed in seeds:
        for stage, count in enumerate(counts):
            score = 0.5 + 0.05 * np.log10(count) + 0.02 * seed if scores is None else scores[seed]
            found.append(
                {
                    "run_id": f"{role}{size}{seed}",
                    "task": "t",
                    "backbone": "embedded",
                    "split": "official",
                    "seed": seed,
                    "role": role,
                    "size": size,
                    "budget": None,
                    "matrices": "all six",
                    "stage": stage,
                    "num_nonzero_params": count,
                    "num_adapter_params": 1000,
                    "generalization": score,
                    "epochs": 4.0,
                    "cpu_seconds": 8.0,
                    "stopped_by": "converged",
                    **more,
                }
            )
    return pd.DataFrame(found)


def table_of(*parts: pd.DataFrame) -> pd.DataFrame:
    return pd.concat(parts, ignore_index=True)


def cells(table, *names: str) -> list[str]:
    [row] = [row for row in table.rows if tuple(row[: len(names)]) == names]
    return row[len(names) :]


def test_method_with_one_size_has_mean_deviation_and_seeds():
    table = methods_table(rows("bitfit", scores={0: 0.7, 1: 0.8}))
    assert cells(table, "BitFit") == ["800", "0.750 +- 0.071 (2)"]


def test_method_without_sizes_is_read_from_a_frozen_table_as_well():
    frozen = rows("bitfit", scores={0: 0.7, 1: 0.8}).assign(size=float("nan"))
    assert cells(methods_table(frozen), "BitFit") == ["800", "0.750 +- 0.071 (2)"]


def test_every_method_has_a_row_and_says_when_it_was_not_run():
    table = methods_table(rows("bitfit"))
    assert len(table.rows) == len(TITLES)
    assert cells(table, "AdaLoRA") == ["", NOT_RUN]


def test_curve_is_read_off_on_straight_lines_in_log_n():
    table = methods_table(rows("path", counts=(1000, 10), seeds=(0,)))
    assert cells(table, "SoRA, 10 %") == ["100", "0.600 (1)"]


def test_nothing_is_extrapolated():
    table = methods_table(rows("path", counts=(1000, 100), seeds=(0,)))
    assert cells(table, "SoRA, 2 %") == ["20", NOT_MEASURED]


def test_ranks_are_paired_by_seed_at_equal_counts():
    lora = rows("lora", size="r = 1", counts=(100,), scores={0: 0.5, 1: 0.51})
    table = ranks_table(table_of(lora, rows("path", counts=(1000, 10))))
    lora_cell, sora_cell, difference, interval = cells(table, "r = 1", "t", "100")
    assert (lora_cell, sora_cell) == ("0.505 +- 0.007 (2)", "0.610 +- 0.014 (2)")
    assert difference == "+0.105"
    assert interval == "[0.041, 0.169]"  # 0.100 and 0.110: t(1) = 12.7


def test_rank_beyond_what_the_path_reached_says_so():
    lora = rows("lora", size="r = 8", counts=(1000,))
    table = ranks_table(table_of(lora, rows("path", counts=(100, 10))))
    assert cells(table, "r = 8", "t")[2:] == [NOT_MEASURED, NOT_MEASURED, ""]


def test_matrices_are_those_of_the_last_stage_at_a_budget():
    own = rows("path", counts=(1000, 100), seeds=(0,), budget=100, matrices="W_Q, W_V")
    table = matrices_table(table_of(own, rows("path", counts=(1000,))))
    assert cells(table, "W_Q, W_V") == ["100", "0.600 (1)"]
    assert cells(table, "all six") == ["", NOT_RUN]


def test_time_is_that_of_a_pass_and_of_all_stages():
    table = times_table(rows("path", counts=(1000, 100)))
    assert cells(table, "SoRA", "a pass") == ["2"]
    assert table.rows[-1] == ["", "the run", "16"]
    assert cells(table, "LoRA", "a pass") == [NOT_RUN]


@pytest.mark.parametrize("make", [methods_table, ranks_table, matrices_table, times_table])
def test_latex_has_as_many_cells_in_every_row(make):
    lora = rows("lora", size="r = 8", counts=(1000,), task="a_b")
    table = make(table_of(lora, rows("path", counts=(1000, 10))))
    body = [line for line in table.latex().splitlines() if line.endswith(r"\\")]
    assert {line.count("&") for line in body} == {len(table.heads) - 1}
    assert "a_b" not in table.latex().replace(r"a\_b", "")
