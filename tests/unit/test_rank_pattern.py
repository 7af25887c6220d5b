"""The ranks that a stage leaves as a file, and plain LoRA with these ranks."""

import json
import re

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from sorakit.adapters import adapter
from sorakit.config import MethodConfig, RunConfig, StageConfig
from sorakit.method.prune import (
    count_nonzero_params,
    export_lora,
    nonzero_ranks,
    num_nonzero_params,
)
from sorakit.method.tuner import SoraConfig, adapted_matrices, plain_matrices
from sorakit.options import flatten, run_config
from sorakit.rank_pattern import rank_pattern_text
from sorakit.records import config_to_dict, run_id


class Nested(nn.Module):
    """The name of one layer is the end of that of another."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.Linear(4, 6)
        self.sub = nn.ModuleDict({"enc": nn.Linear(6, 4)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.sub["enc"](self.enc(x))


def pruned(base: nn.Module, ranks: list[int], **options) -> nn.Module:
    """Return `base` adapted, its k-th matrix with `ranks[k % len(ranks)]` of 4 gates."""
    config = SoraConfig(r=4, gate_init="ones", **options)
    model = get_peft_model(base, config)  # pyright: ignore[reportArgumentType]  # any module will do
    with torch.no_grad():
        for index, matrix in enumerate(adapted_matrices(model)):
            matrix.gate[ranks[index % len(ranks)] :] = 0
    return model


def test_plain_lora_of_the_file_has_the_parameters_of_the_stage(tiny_bert, tmp_path):
    base_state = tiny_bert.config
    model = pruned(tiny_bert, [3, 0, 1], target_modules="all-linear", task_type="SEQ_CLS")
    export_lora(model, tmp_path)
    ranks = json.loads((tmp_path / "rank_pattern.json").read_text())
    assert ranks == {name: rank for name, rank in nonzero_ranks(model).items() if rank}
    base = type(tiny_bert)(base_state)
    lora = get_peft_model(base, LoraConfig(r=1, rank_pattern=ranks, target_modules=list(ranks)))
    assert count_nonzero_params(plain_matrices(lora)) == num_nonzero_params(model)


@pytest.mark.parametrize(("ranks", "params"), [([3, 1], 40), ([1, 3], 40), ([0, 2], 20)])
def test_longer_names_come_first_as_peft_takes_the_first_that_fits(ranks, params, tmp_path):
    model = pruned(Nested(), ranks, target_modules=["enc"])
    export_lora(model, tmp_path)
    pattern = json.loads((tmp_path / "rank_pattern.json").read_text())
    target = "|".join(re.escape(name) for name in pattern)
    config = LoraConfig(r=1, rank_pattern=pattern, target_modules=target)
    lora = get_peft_model(Nested(), config)  # pyright: ignore[reportArgumentType]  # as above
    found = {m.name: m.gate.numel() for m in plain_matrices(lora)}
    assert found == pattern
    assert count_nonzero_params(plain_matrices(lora)) == num_nonzero_params(model) == params


def test_adapter_without_a_rank_leaves_an_empty_pattern(tmp_path):
    export_lora(pruned(Nested(), [0], target_modules=["enc"]), tmp_path)
    assert (tmp_path / "rank_pattern.json").read_text() == "{}\n"


def test_padded_adapter_keeps_the_ranks_before_the_padding(tmp_path):
    export_lora(pruned(Nested(), [3, 1], target_modules=["enc"]), tmp_path, uniform_rank=True)
    assert json.loads((tmp_path / "rank_pattern.json").read_text()) == {"sub.enc": 1, "enc": 3}


RANKS = {"bert.encoder.layer.0.attention.self.query": 3, "bert.encoder.layer.1.output.dense": 1}


def method(**options) -> MethodConfig:
    return MethodConfig(**{"name": "lora_pattern", "rank_pattern": RANKS, **options})


def test_lora_pattern_has_these_ranks_and_the_scaling_of_a_uniform_lora(tiny_bert):
    config = RunConfig(method=method(r=8, lora_alpha=16.0))
    model = adapter("lora_pattern").build(tiny_bert, config, head=["classifier"])
    matrices = adapter("lora_pattern").matrices(model)
    assert {matrix.name: matrix.gate.numel() for matrix in matrices} == RANKS
    assert {matrix.scaling for matrix in matrices} == {16 / 8}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert any("classifier" in name for name in trained)


def test_layer_that_is_not_there_is_refused(tiny_bert):
    config = RunConfig(method=method(rank_pattern={"roberta.layer.query": 1}))
    message = r"^`method\.rank_pattern` must name layers .* got roberta\.layer\.query\. Is it of"
    with pytest.raises(ValueError, match=message):
        adapter("lora_pattern").build(tiny_bert, config, head=["classifier"])


def test_content_of_the_file_is_in_the_configuration_and_names_the_run(tmp_path):
    file = tmp_path / "rank_pattern.json"
    file.write_text(rank_pattern_text({**RANKS, "other": 0}))
    named = RunConfig(method=method(rank_pattern=str(file)))
    assert named == RunConfig(method=method())
    assert run_id(named) == run_id(RunConfig(method=method()))
    other = RunConfig(method=method(rank_pattern={**RANKS, next(iter(RANKS)): 2}))
    assert run_id(named) != run_id(other)
    assert run_config(config_to_dict(named)) == named


def test_mapping_of_an_option_is_one_value():
    assert flatten({"method": {"rank_pattern": RANKS, "r": 2}}) == {
        "method.rank_pattern": RANKS,
        "method.r": 2,
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "must be JSON"),
        ("[1]", "must hold module names and ranks >= 1, got"),
        ('{"a": 0}', "must hold module names and ranks >= 1, got"),
        ('{"a": 1.5}', "must hold module names and ranks >= 1, got"),
        ("{}", "A stage without a rank is the floor"),
        (None, "must be a file that can be read"),
    ],
)
def test_wrong_file_is_refused(text, words, tmp_path):
    file = tmp_path / "rank_pattern.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ValueError, match=rf"^`method\.rank_pattern` .*{words}"):
        method(rank_pattern=str(file))


def test_pattern_and_method_go_together():
    with pytest.raises(ValueError, match=r"^`method\.rank_pattern` must be null unless"):
        method(name="lora")
    with pytest.raises(ValueError, match=r"^`method\.rank_pattern` must be set when"):
        RunConfig(method=method(rank_pattern=None))
    with pytest.raises(ValueError, match=r"^`stage\.control` must be none when"):
        RunConfig(method=method(), stage=StageConfig(control="hold_dense"))
