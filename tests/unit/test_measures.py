"""Measures of a stage: each is a column of its record, a curve in W&B, and one file."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from peft import PeftModel, get_peft_model

from sorakit.measures import StageView, measure, measures_of
from sorakit.method.kkt import Residuals
from sorakit.method.prune import num_nonzero_params
from sorakit.method.tuner import SoraConfig, adapted_matrices
from sorakit.metric_names import stage_keys
from sorakit.records import STAGES_FILE, load_run
from sorakit.tracking.rows import stage_row
from sorakit.variants import MEASURES
from tests.support.fake_runs import write_run

NAN = float("nan")


def examples_of(*, noise: bool = False) -> pd.DataFrame:
    """Return three training and two validation examples; the first two have a wrong label."""
    noisy = [noise, noise, False, False, False]
    table = pd.DataFrame(
        {
            "split": ["memorization"] * 3 + ["generalization"] * 2,
            "loss": [0.1, 0.3, 0.2, 0.2, 0.4],
            "correct": pd.array([True, False, True, True, False], dtype="boolean"),
            "prediction": [1, 0, 0, 0, 1],
            "is_noisy": noisy,
        }
    )
    return table.assign(clean_label=[0.0, 0.0, 0.0, NAN, NAN]) if noise else table


def view(model, generator, *, target_modules=("query",)) -> StageView:
    """Return a view of a model whose matrices have ranks 3, 1, 3, 1, ..."""
    adapted = get_peft_model(model, SoraConfig(r=4, target_modules=list(target_modules)))
    assert isinstance(adapted, PeftModel)
    matrices = adapted_matrices(adapted)
    with torch.no_grad():
        for index, matrix in enumerate(matrices):
            matrix.lora_B.normal_(generator=generator)
            matrix.gate.normal_(generator=generator)
            matrix.gate[3 - 2 * (index % 2) :] = 0
    return StageView(
        model=adapted,
        matrices=matrices,
        hidden_size=8,
        xi=0.1,
        lambda_=0.2,
        residuals=Residuals(kkt=1.5, kkt_se=0.1, stationarity=0.5),
        gates_flickering=3,
        gates_revived=1,
        examples=examples_of(),
    )


def test_released_count_of_square_matrices_is_exact(tiny_bert, generator):
    stage = view(tiny_bert, generator)
    assert measures_of(stage)["released_count"] == num_nonzero_params(stage.model) == 4 * 2 * 8


def test_released_count_takes_no_notice_of_the_shape(tiny_bert, generator):
    stage = view(tiny_bert, generator, target_modules=["intermediate.dense"])
    assert measures_of(stage)["released_count"] == 4 * 2 * 8
    assert num_nonzero_params(stage.model) == 4 * (8 + 16)


def test_sum_of_strengths_adds_those_of_all_ranks(tiny_bert, generator):
    stage = view(tiny_bert, generator)
    with torch.no_grad():
        expected = sum(
            float(m.gate[i].abs() * m.lora_A[i].norm() * m.lora_B[:, i].norm())
            for m in stage.matrices
            for i in range(4)
        )
    assert measures_of(stage)["sum_of_strengths"] == pytest.approx(expected, rel=1e-6)


def test_residuals_and_changes_of_gates_are_those_of_the_stage(tiny_bert, generator):
    found = measures_of(view(tiny_bert, generator))
    assert {name: found[name] for name in sorted(found) if "gates" in name or "resid" in name} == {
        "gates_flickering": 3,
        "gates_revived": 1,
        "kkt_residual": 1.5,
        "kkt_residual_se": 0.1,
        "stationarity_residual": 0.5,
    }


def test_membership_is_that_of_the_losses(tiny_bert, generator):
    found = measures_of(view(tiny_bert, generator))
    # 0.1 is less than both others, 0.2 ties with one and 0.3 is less than one
    assert found["membership_auc"] == pytest.approx((2 + 1.5 + 1) / 6)
    assert found["membership_tpr"] is None  # two others allow no 1 % of them


def test_membership_is_told_from_what_a_subset_leaves_out(tiny_bert, generator):
    left_out = pd.DataFrame({"split": ["left_out"] * 100, "loss": [5.0] * 100, "is_noisy": False})
    examples = pd.concat([examples_of(), left_out], ignore_index=True)
    found = measures_of(replace(view(tiny_bert, generator), examples=examples))
    assert (found["membership_auc"], found["membership_tpr"]) == (1, 1)


def test_noise_is_fitted_or_returns_and_is_null_without_any(tiny_bert, generator):
    stage = view(tiny_bert, generator)
    found = measures_of(replace(stage, examples=examples_of(noise=True)))
    assert (found["noise_fitted"], found["noise_returned"]) == (0.5, 0.5)
    found = measures_of(stage)
    assert (found["noise_fitted"], found["noise_returned"]) == (None, None)


@pytest.mark.parametrize("name", MEASURES.names)
def test_measure_says_its_unit_and_has_a_name_of_its_own_in_wandb(name):
    assert measure(name).unit
    assert [key for key in stage_keys().values() if key == measure(name).key] == [measure(name).key]
    assert MEASURES.sentence(name).endswith(".")


@pytest.mark.parametrize("name", MEASURES.names)
def test_value_of_a_measure_comes_to_wandb_under_its_name(name, tmp_path: Path):
    line = json.loads((write_run(tmp_path) / STAGES_FILE).read_text().splitlines()[0])
    assert stage_row({**line, name: 7}, dense=line)[measure(name).key] == 7


@pytest.mark.parametrize("name", MEASURES.names)
def test_record_that_is_older_than_a_measure_is_read_with_null(name, tmp_path: Path):
    file = write_run(tmp_path) / STAGES_FILE
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps({**line, name: None}) + "\n" for line in lines))
    nulls = load_run(file.parent).stages
    for line in lines:
        del line[name]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert load_run(file.parent).stages[name].isna().all()
    assert list(nulls.columns.sort_values()) == list(
        load_run(file.parent).stages.columns.sort_values()
    )
