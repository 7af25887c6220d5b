import copy
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
)

from sorakit.method.prune import (
    export_lora,
    fold,
    merge,
    nonzero_ranks,
    num_adapter_params,
    num_nonzero_params,
)
from sorakit.method.tuner import SoraConfig, adapted_matrices

LABELS: dict[str, Any] = {"num_labels": 3}
LINEAR = [
    "query",
    "key",
    "value",
    "attention.output.dense",
    "intermediate.dense",
    "layer.0.output.dense",
    "layer.1.output.dense",
]


class Clash(nn.Module):
    """Modules named `enc.0` and `sub.enc.0`: the first name is a dotted suffix of the second."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.ModuleList([nn.Linear(4, 6), nn.Linear(6, 4)])
        self.sub = nn.Module()
        self.sub.enc = nn.ModuleList([nn.Linear(4, 4)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.enc[1](torch.tanh(self.enc[0](self.sub.get_submodule("enc.0")(x))))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


def tiny_gpt2() -> GPT2ForSequenceClassification:
    config = GPT2Config(
        vocab_size=64, n_embd=8, n_layer=2, n_head=2, n_positions=32, pad_token_id=0, **LABELS
    )
    torch.manual_seed(0)
    return GPT2ForSequenceClassification(config)


def adapt(model: nn.Module, **options: Any) -> Any:
    return get_peft_model(
        model,  # pyright: ignore[reportArgumentType]  # any module will do
        SoraConfig(**{"r": 4, "target_modules": LINEAR, **options}),
    )


def set_ranks(model: nn.Module, ranks: list[int], generator: torch.Generator) -> None:
    """Draw A, B and gates of both signs; matrix k keeps the last `ranks[k % len(ranks)]` gates."""
    with torch.no_grad():
        for index, matrix in enumerate(adapted_matrices(model)):
            for parameter in (matrix.lora_A, matrix.lora_B, matrix.gate):
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
            matrix.gate[: matrix.gate.numel() - ranks[index % len(ranks)]] = 0


def read(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    config = json.loads((folder / "adapter_config.json").read_text())
    return config, load_file(folder / "adapter_model.safetensors")


def lora_elements(state: dict[str, torch.Tensor]) -> int:
    return sum(value.numel() for name, value in state.items() if ".lora_" in name)


@torch.no_grad()
def outputs(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    result = model.eval()(inputs)
    return result if isinstance(result, torch.Tensor) else result.logits


# Counting ------------------------------------------------------------------------------------


def test_dense_adapter_counts_every_element(tiny_bert):
    # 8 square matrices (8 + 8) and 4 of 8 x 16, rank 4
    assert num_nonzero_params(adapt(tiny_bert)) == 4 * (8 * 16 + 4 * 24)


def test_count_is_of_non_zero_gates(tiny_bert, generator):
    model = adapt(tiny_bert, target_modules=["intermediate.dense"])
    set_ranks(model, [3, 1], generator)
    assert num_nonzero_params(model) == 4 * 24


def test_count_ignores_the_head(tiny_bert, generator):
    model = adapt(tiny_bert, target_modules=["query"], modules_to_save=["classifier"])
    set_ranks(model, [0], generator)
    assert num_nonzero_params(model) == 0


def test_nonzero_ranks_are_named_by_module(tiny_bert, generator):
    model = adapt(tiny_bert, target_modules=["query"])
    set_ranks(model, [2, 0], generator)
    assert nonzero_ranks(model) == {
        "bert.encoder.layer.0.attention.self.query": 2,
        "bert.encoder.layer.1.attention.self.query": 0,
    }


def test_adapter_params_do_not_depend_on_gates(tiny_bert, generator):
    model = adapt(tiny_bert, target_modules=["query"])
    set_ranks(model, [0], generator)
    assert num_adapter_params(model) == 2 * 4 * 16


# Folding -------------------------------------------------------------------------------------


def test_fold_keeps_the_update(tiny_bert, generator):
    model = adapt(tiny_bert, lora_alpha=6.0)
    set_ranks(model, [3], generator)
    for matrix in adapted_matrices(model):
        lora_A, lora_B = fold(matrix)
        with torch.no_grad():
            expected = matrix.scaling * (matrix.lora_B * matrix.gate) @ matrix.lora_A
        torch.testing.assert_close(lora_B @ lora_A, expected, rtol=1e-5, atol=1e-5)


def test_fold_drops_zero_gates(tiny_bert, generator):
    model = adapt(tiny_bert, target_modules=["intermediate.dense"])
    set_ranks(model, [3], generator)
    lora_A, lora_B = fold(adapted_matrices(model)[0])
    assert (lora_A.shape, lora_B.shape) == ((3, 8), (16, 3))


def test_fold_of_a_tiny_gate_neither_underflows_nor_overflows_16_bits(tiny_bert, generator):
    model = adapt(tiny_bert, target_modules=["query"])
    set_ranks(model, [4], generator)
    matrix = adapted_matrices(model)[0]
    with torch.no_grad():
        matrix.gate.fill_(1e-8)  # float16 has nothing between 0 and 6e-8
    for factor in fold(matrix):
        assert torch.count_nonzero(factor.half()) == factor.numel()


def test_merge_keeps_the_function(tiny_bert, generator):
    inputs = torch.randint(0, 64, (3, 7), generator=generator)
    model = adapt(tiny_bert)
    set_ranks(model, [3, 0], generator)
    before = outputs(model, inputs)
    torch.testing.assert_close(outputs(merge(model), inputs), before, rtol=1e-4, atol=1e-5)


def test_merge_leaves_no_trace_of_peft(tiny_bert):
    names = set(dict(tiny_bert.named_parameters()))
    assert set(dict(merge(adapt(tiny_bert)).named_parameters())) == names


def test_merge_without_an_adapter_is_refused(tiny_bert):
    message = "`model` must have a SoRA adapter named 'default', got none."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        merge(tiny_bert)


def test_merge_of_tied_weights_is_refused():
    model = adapt(Tied(), target_modules=["first"])
    message = (
        "`second` must not share its weight with `first` to be merged: the adapter would change "
        "both. Leave it out of `target_modules`."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        merge(model)


def test_merge_of_a_model_that_peft_does_not_wrap_is_refused(tiny_bert):
    tiny_bert.add_adapter(SoraConfig(r=4, target_modules=["query"]))
    message = (
        "`model` must be a PeftModel to be merged, got BertForSequenceClassification. "
        "Pass what `get_peft_model` returned."
    )
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        merge(tiny_bert)


def test_merge_of_an_adapter_that_is_not_active_takes_its_head(tiny_bert, generator):
    inputs = torch.randint(0, 64, (3, 7), generator=generator)
    model = adapt(tiny_bert, modules_to_save=["classifier"])
    peft_config = SoraConfig(r=2, target_modules=["key"], modules_to_save=["classifier"])
    model.add_adapter("second", peft_config)
    with torch.no_grad():
        model.base_model.model.classifier.modules_to_save["second"].weight.add_(1)
    model.set_adapter("second")
    before = outputs(model, inputs)
    model.set_adapter("default")
    merged = merge(model, "second")
    torch.testing.assert_close(outputs(merged, inputs), before, rtol=1e-4, atol=1e-5)


# Exporting -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [[4], [3, 0, 1], [0]])
def test_count_equals_the_exported_elements(ranks, tiny_bert, generator, tmp_path):
    model = adapt(tiny_bert, modules_to_save=["classifier"])
    set_ranks(model, ranks, generator)
    export_lora(model, tmp_path)
    assert lora_elements(read(tmp_path)[1]) == num_nonzero_params(model)


def test_modules_of_rank_0_are_left_out(tiny_bert, generator, tmp_path):
    model = adapt(tiny_bert, target_modules=["query"])
    set_ranks(model, [2, 0], generator)
    export_lora(model, tmp_path)
    config, state = read(tmp_path)
    prefix = "base_model.model.bert.encoder.layer.0.attention.self.query"
    assert set(state) == {f"{prefix}.lora_A.weight", f"{prefix}.lora_B.weight"}
    assert config["target_modules"] == ["bert.encoder.layer.0.attention.self.query"]


def test_alpha_equals_the_rank_everywhere(tiny_bert, generator, tmp_path):
    model = adapt(tiny_bert)
    set_ranks(model, [3, 1, 3], generator)
    export_lora(model, tmp_path)
    config, _ = read(tmp_path)
    assert config["r"] == config["lora_alpha"] == 3
    assert config["rank_pattern"] == config["alpha_pattern"]
    assert set(config["rank_pattern"].values()) == {1}


def test_uniform_rank_needs_no_pattern(tiny_bert, generator, tmp_path):
    model = adapt(tiny_bert)
    set_ranks(model, [3, 1, 0], generator)
    export_lora(model, tmp_path, uniform_rank=True)
    config, state = read(tmp_path)
    assert config["rank_pattern"] == {}
    assert {v.shape[0] for k, v in state.items() if "lora_A" in k} == {3}


def test_trained_head_is_saved_beside(tiny_bert, tmp_path):
    model = adapt(tiny_bert, modules_to_save=["classifier"])
    export_lora(model, tmp_path)
    config, state = read(tmp_path)
    assert config["modules_to_save"] == ["classifier"]
    assert {k for k in state if ".lora_" not in k} == {
        "base_model.model.classifier.weight",
        "base_model.model.classifier.bias",
    }


def test_head_only_model_exports_its_head(tiny_bert, tmp_path):
    peft_config = LoraConfig(target_modules="dummy-target-modules", modules_to_save=["classifier"])
    export_lora(get_peft_model(tiny_bert, peft_config), tmp_path)
    assert lora_elements(read(tmp_path)[1]) == 0


def test_base_model_and_task_type_are_written(tiny_bert, tmp_path):
    export_lora(
        adapt(tiny_bert), tmp_path, base_model_name_or_path="some/bert", task_type="SEQ_CLS"
    )
    config, _ = read(tmp_path)
    assert (config["base_model_name_or_path"], config["task_type"]) == ("some/bert", "SEQ_CLS")


def test_wrapped_model_exports_the_same_adapter(tiny_bert, generator, tmp_path):
    model = adapt(tiny_bert, modules_to_save=["classifier"])
    set_ranks(model, [3, 0, 1], generator)
    export_lora(model, tmp_path / "bare")
    export_lora(nn.ModuleDict({"module": model}), tmp_path / "wrapped")  # names as under DDP
    (config, state), (other_config, other) = read(tmp_path / "bare"), read(tmp_path / "wrapped")
    assert other_config == config
    assert other.keys() == state.keys()
    assert all(torch.equal(other[name], state[name]) for name in state)


def test_merged_model_exports_the_same_adapter(tiny_bert, generator, tmp_path):
    model = adapt(tiny_bert)
    set_ranks(model, [3, 0, 1], generator)
    export_lora(model, tmp_path / "bare")
    model.merge_adapter()
    export_lora(model, tmp_path / "merged")
    state, other = read(tmp_path / "bare")[1], read(tmp_path / "merged")[1]
    assert other.keys() == state.keys()
    assert all(torch.equal(other[name], state[name]) for name in state)


def test_adapter_that_is_not_active_exports_itself_and_its_head(tiny_bert, generator, tmp_path):
    inputs = torch.randint(0, 64, (3, 7), generator=generator)
    base = copy.deepcopy(tiny_bert)
    model = adapt(tiny_bert, modules_to_save=["classifier"])
    peft_config = SoraConfig(r=2, target_modules=["key"], modules_to_save=["classifier"])
    model.add_adapter("second", peft_config)
    with torch.no_grad():
        model.base_model.model.classifier.modules_to_save["second"].weight.add_(1)
        for matrix in adapted_matrices(model, "second"):
            matrix.lora_B.copy_(torch.randn(matrix.lora_B.shape, generator=generator))
    export_lora(model, tmp_path, adapter_name="second")
    model.set_adapter("second")
    loaded = PeftModel.from_pretrained(base, tmp_path)
    torch.testing.assert_close(
        outputs(loaded, inputs), outputs(model, inputs), rtol=1e-5, atol=1e-5
    )


def test_null_keys_are_left_out(tiny_bert, tmp_path):
    export_lora(adapt(tiny_bert), tmp_path)
    assert None not in read(tmp_path)[0].values()


def test_tied_weights_are_refused(tmp_path):
    model = adapt(Tied(), target_modules=["first"])
    message = (
        "`second` must not share its weight with `first` to be exported: the adapter would change "
        "one of the two. Leave it out of `target_modules`."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        export_lora(model, tmp_path)


def test_tied_weights_elsewhere_are_no_matter(tmp_path):
    model = nn.Sequential(Tied(), nn.Linear(4, 4))
    export_lora(adapt(model, target_modules=["1"]), tmp_path)
    assert read(tmp_path)[0]["target_modules"] == ["1"]


def test_convolution_is_refused(tmp_path):
    model = adapt(nn.Sequential(nn.Conv2d(2, 2, 3)), target_modules=["0"])
    message = "`0` must be a linear layer to be exported, got factors with 4 dimensions."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        export_lora(model, tmp_path)


def test_tied_language_model_head_is_refused(tmp_path):
    config = GPT2Config(
        vocab_size=64, n_embd=8, n_layer=1, n_head=2, n_positions=32, bos_token_id=0, eos_token_id=0
    )
    with pytest.warns(UserWarning, match=r"^Model has `tie_word_embeddings=True`"):
        model = adapt(GPT2LMHeadModel(config), target_modules=["lm_head"])
    message = (
        "`lm_head` must not share its weight with `transformer.wte` to be exported: the adapter "
        "would change one of the two. Leave it out of `target_modules`."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        export_lora(model, tmp_path)


def test_multihead_attention_is_refused(tmp_path):
    # plain PEFT would give its projections in and out one rank for both
    attention = nn.ModuleDict({"attn": nn.MultiheadAttention(8, 2)})
    message = (
        "`attn` must be a linear layer to be exported, got a MultiheadAttention. "
        "Use `merge`, or leave it out of `target_modules`."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        export_lora(adapt(attention, target_modules=["attn"]), tmp_path)


def test_nothing_is_written_for_a_refused_model(tmp_path):
    with pytest.raises(ValueError, match="share its weight"):
        export_lora(adapt(Tied(), target_modules=["first"]), tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


# Loading without sorakit ---------------------------------------------------------------------

CLASH_SOURCE = """
class Clash(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.ModuleList([nn.Linear(4, 6), nn.Linear(6, 4)])
        self.sub = nn.Module()
        self.sub.enc = nn.ModuleList([nn.Linear(4, 4)])
    def forward(self, x):
        return self.enc[1](torch.tanh(self.enc[0](self.sub.enc[0](x))))
"""

LOADER = (
    """
import json, sys, warnings
from pathlib import Path
import torch
from torch import nn
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForSequenceClassification
from transformers import GPT2Config, GPT2ForSequenceClassification
"""
    + CLASH_SOURCE
    + """
root = Path(sys.argv[1])
results = {}
for case in sorted(root.iterdir()):
    spec = json.loads((case / "spec.json").read_text())
    if spec["kind"] == "bert":
        base = BertForSequenceClassification(BertConfig.from_pretrained(case / "base"))
    elif spec["kind"] == "gpt2":
        base = GPT2ForSequenceClassification(GPT2Config.from_pretrained(case / "base"))
    else:
        base = Clash()
    base.load_state_dict(load_file(case / "base.safetensors"))
    inputs = load_file(case / "inputs.safetensors")["inputs"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(base, case / "adapter").eval()
    messages = [str(w.message) for w in caught]
    messages = [m for m in messages if "adapter keys" in m or "pattern" in m or "fan_in" in m]
    with torch.no_grad():
        out = model(inputs)
    out = out if isinstance(out, torch.Tensor) else out.logits
    save_file({"out": out.contiguous()}, case / "out.safetensors")
    (case / "warnings.json").write_text(json.dumps(messages))
ours = sorted(name for name in sys.modules if name.startswith("sorakit"))
(root / "modules.json").write_text(json.dumps(ours))
"""
)

CASES: dict[str, dict[str, Any]] = {
    "some_rank_0": {"kind": "bert", "ranks": [3, 0, 1, 4]},
    "nothing_pruned": {"kind": "bert", "ranks": [4]},
    # PEFT condenses lists of 20 targets or more into endings
    "many_targets": {"kind": "bert", "layers": 5, "ranks": [3, 4, 4, 0, 1]},
    "all_zero": {"kind": "bert", "ranks": [0], "head": True},
    "all_zero_without_head": {"kind": "bert", "ranks": [0]},
    "trained_head": {"kind": "bert", "ranks": [2, 1], "head": True},
    "rank_stabilised": {"kind": "bert", "ranks": [2, 1], "options": {"use_rslora": True}},
    "uniform_rank": {"kind": "bert", "ranks": [3, 0, 1], "uniform": True},
    "uniform_rank_all_zero": {"kind": "bert", "ranks": [0], "uniform": True},
    "gpt2": {
        "kind": "gpt2",
        "ranks": [3, 0, 1],
        "options": {"target_modules": ["c_attn", "c_fc", "c_proj"], "fan_in_fan_out": True},
    },
    "clash": {"kind": "clash", "ranks": [2], "options": {"target_modules": r"enc\.0"}},
    "clash_of_both": {"kind": "clash", "ranks": [2, 1], "options": {"target_modules": ["0", "1"]}},
    "clash_rank_0": {
        "kind": "clash",
        "ranks": [3, 1, 0],
        "options": {"target_modules": ["0", "1"]},
    },
}


def build(kind: str, *, layers: int = 2) -> nn.Module:
    torch.manual_seed(1)
    if kind == "gpt2":
        return tiny_gpt2()
    if kind == "clash":
        return Clash()
    config = BertConfig(
        vocab_size=64,
        hidden_size=8,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
        **LABELS,
    )
    return BertForSequenceClassification(config)


@pytest.fixture(scope="module")
def loaded_without_sorakit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export every case here; load all of them with plain PEFT in one process without sorakit."""
    root = tmp_path_factory.mktemp("exported")
    generator = torch.Generator().manual_seed(0)
    for name, case in CASES.items():
        folder = root / name
        (folder / "base").mkdir(parents=True)
        kind = case["kind"]
        base = build(kind, layers=case.get("layers", 2))
        if kind != "clash":
            base.config.save_pretrained(folder / "base")  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]  # a PreTrainedModel
        state = {key: value.clone() for key, value in base.state_dict().items()}
        save_file(state, folder / "base.safetensors")
        options = dict(case.get("options", {}))
        if case.get("head"):
            options["modules_to_save"] = ["classifier"]
        model = adapt(base, **options)
        set_ranks(model, case["ranks"], generator)
        if case.get("head"):
            with torch.no_grad():
                model.base_model.model.classifier.modules_to_save["default"].weight.add_(0.5)
        inputs = (
            torch.randn(5, 4, generator=generator)
            if kind == "clash"
            else torch.randint(1, 64, (3, 7), generator=generator)
        )
        save_file({"inputs": inputs}, folder / "inputs.safetensors")
        save_file({"out": outputs(model, inputs)}, folder / "expected.safetensors")
        export_lora(model, folder / "adapter", uniform_rank=case.get("uniform", False))
        (folder / "spec.json").write_text(json.dumps({"kind": kind}))
    done = subprocess.run(
        [sys.executable, "-c", LOADER, str(root)],
        cwd=root.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return root


def test_loading_process_never_imports_sorakit(loaded_without_sorakit):
    assert json.loads((loaded_without_sorakit / "modules.json").read_text()) == []


@pytest.mark.parametrize("case", CASES)
def test_exported_adapter_gives_the_same_outputs_in_plain_peft(case, loaded_without_sorakit):
    folder = loaded_without_sorakit / case
    expected = load_file(folder / "expected.safetensors")["out"]
    actual = load_file(folder / "out.safetensors")["out"]
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_exported_adapter_loads_without_warnings(case, loaded_without_sorakit):
    assert json.loads((loaded_without_sorakit / case / "warnings.json").read_text()) == []


def test_exported_adapter_can_be_trained_further(tiny_bert, generator, tmp_path):
    base = copy.deepcopy(tiny_bert)
    model = adapt(tiny_bert)
    set_ranks(model, [2, 0], generator)
    export_lora(model, tmp_path)
    loaded = PeftModel.from_pretrained(base, tmp_path, is_trainable=True)
    trainable = sum(p.numel() for p in loaded.parameters() if p.requires_grad)
    assert trainable == num_nonzero_params(model)
