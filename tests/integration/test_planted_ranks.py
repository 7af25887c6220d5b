"""SoRA finds the rank that is there: the best variant on a small planted task, a real Trainer."""

from dataclasses import replace

import pytest

from experiments.planted_ranks.baselines import adalora_path, lora_paths
from experiments.planted_ranks.points import Point, append, chosen, load, matrix_rows
from experiments.planted_ranks.sora import SORA, sora_path
from experiments.planted_ranks.table import table
from sorakit.tasks.planted import PlantedConfig, compress, plant

SMALL = PlantedConfig(ranks=(0, 1, 2, 4), d_in=16, d_out=16, num_held_out=4096)
NULL = replace(SMALL, ranks=(0, 0))
# A coarser path than the table's: dense, three levels that noise survives or not, then the signal.
VARIANT = replace(SORA["sgd_unit"], first=0.06, ratio=1.8)


def best_variant(config: PlantedConfig) -> Point:
    planted = plant(config, seed=0)
    points = sora_path(
        planted, compress(planted.train), VARIANT, seed=0, dense_steps=200, stage_steps=100
    )
    return points[chosen(points)]


def test_best_variant_finds_mixed_ranks_exactly():
    point = best_variant(SMALL)
    assert point.gates == [0, 1, 2, 4]
    assert point.ranks == [0, 1, 2, 4]


def test_best_variant_finds_nothing_where_nothing_is_planted():
    assert best_variant(NULL).gates == [0, 0]


def test_path_ends_with_the_last_gate():
    planted = plant(NULL, seed=0)
    points = sora_path(
        planted, compress(planted.train), VARIANT, seed=0, dense_steps=50, stage_steps=50
    )
    assert [sum(point.gates) == 0 for point in points] == [False] * (len(points) - 1) + [True]


def test_pruning_by_singular_values_finds_mixed_ranks_exactly():
    planted = plant(SMALL, seed=0)
    paths = lora_paths(planted, compress(planted.train), seed=0, steps=400)
    svd = paths["lora_svd"]
    assert svd[chosen(svd)].gates == [0, 1, 2, 4]
    assert svd[0].gates == [16] * 4
    assert [sum(path[-1].gates) for path in paths.values()] == [0, 0]


def test_adalora_ends_within_its_budget():
    planted = plant(SMALL, seed=0)
    points = adalora_path(
        planted,
        compress(planted.train),
        make_base=lambda: plant(SMALL, seed=0).base,
        seed=0,
        steps=100,
        budgets=(2,),
    )
    assert sum(points[0].gates) <= 8  # ties prune below the budget
    assert points[1].gates == [0] * 4


def test_rows_of_a_run_are_read_back(tmp_path):
    planted = plant(NULL, seed=0)
    path = lora_paths(planted, compress(planted.train), seed=0, steps=20)["lora_svd"]
    record = {"method": "lora_svd", "teacher": "null", "seed": 0, "planted": [0, 0]}
    append(tmp_path / "paths.jsonl", {**record, "seconds": 1.0, "points": path})
    (read,) = load(tmp_path / "paths.jsonl")
    assert [p.gates for p in read["points"]] == [p.gates for p in path]
    assert matrix_rows([read])["planted_rank"].tolist() == [0, 0]
    assert "| lora_svd | 1 | " in table([read])


@pytest.mark.parametrize("name", sorted(SORA))
def test_only_unit_scale_holds_the_factors_at_norm_one(name):
    planted = plant(NULL, seed=0)
    points = sora_path(
        planted,
        planted.train if SORA[name].batch_size else compress(planted.train),
        SORA[name],
        seed=0,
        dense_steps=50,
        stage_steps=50,
        num_stages=1,
    )
    is_unit = points[-1].largest_product == pytest.approx(1.0, abs=1e-5)
    assert is_unit == (SORA[name].scale == "unit")
