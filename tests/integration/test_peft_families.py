"""Each model family from adaptation to a plain PEFT adapter, with models of 2 layers, hidden 8."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)

from sorakit.method.fused import GatedLinear
from sorakit.method.optimizer import ProxAdamW
from sorakit.method.prune import export_lora, merge, nonzero_ranks, num_nonzero_params
from sorakit.method.tuner import GatedB, SoraConfig, gates
from tests.support.plain_path import computed_by_peft

LABELS: dict[str, Any] = {"num_labels": 3}
NO_DROPOUT: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
LAYERS: dict[str, Any] = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
TEXT: dict[str, Any] = {"vocab_size": 64, "max_position_embeddings": 32, "pad_token_id": 0}
ENCODER: dict[str, Any] = {**TEXT, **LAYERS, **LABELS, **NO_DROPOUT}
DEBERTA: dict[str, Any] = {
    **ENCODER,
    "relative_attention": True,
    "position_buckets": 4,
    "norm_rel_ebd": "layer_norm",
    "pos_att_type": ["p2c", "c2p"],
    "pooler_hidden_size": 8,
}
DEBERTA_V2: dict[str, Any] = {**DEBERTA, "share_att_key": False, "conv_kernel_size": 3}
DEBERTA_V3: dict[str, Any] = {**DEBERTA, "share_att_key": True, "position_biased_input": False}

FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "bert": lambda: BertForSequenceClassification(BertConfig(**ENCODER)),
    "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(**ENCODER)),
    "deberta_v2": lambda: DebertaV2ForSequenceClassification(DebertaV2Config(**DEBERTA_V2)),
    "deberta_v3": lambda: DebertaV2ForSequenceClassification(DebertaV2Config(**DEBERTA_V3)),
    "electra": lambda: ElectraForSequenceClassification(ElectraConfig(**ENCODER, embedding_size=4)),
    "gpt2": lambda: GPT2ForSequenceClassification(
        GPT2Config(
            vocab_size=64,
            n_embd=8,
            n_layer=2,
            n_head=2,
            n_positions=32,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **LABELS,
        )
    ),
    "llama": lambda: LlamaForSequenceClassification(
        LlamaConfig(**TEXT, **LAYERS, **LABELS, num_key_value_heads=1)
    ),
    "vit": lambda: ViTForImageClassification(
        ViTConfig(**LAYERS, **LABELS, **NO_DROPOUT, image_size=8, patch_size=4)
    ),
}
# Linear layers below the task head; BERT's pooler and ELECTRA's embedding projection are among them
MATRICES = {
    "bert": 13,
    "roberta": 12,
    "deberta_v2": 16,
    "deberta_v3": 12,
    "electra": 13,
    "gpt2": 8,
    "llama": 14,
    "vit": 12,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "gpt2": {"task_type": "SEQ_CLS", "fan_in_fan_out": True},
    # DeBERTa's pooler is drawn with the head, and PEFT knows the classifier only.
    "deberta_v2": {"task_type": "SEQ_CLS", "modules_to_save": ["pooler"]},
    "deberta_v3": {"task_type": "SEQ_CLS", "modules_to_save": ["pooler"]},
    "vit": {"modules_to_save": ["classifier"]},  # PEFT has no task type for images
}


@dataclass(frozen=True, kw_only=True)
class Journey:
    """What was seen on the way: logits at each station, and the models at the last ones."""

    family: str
    base_logits: torch.Tensor
    start_logits: torch.Tensor
    first_gradients: dict[str, torch.Tensor | None]
    second_gradients: dict[str, torch.Tensor | None]
    trained: PeftModel
    trained_logits: torch.Tensor
    folder: Path
    loaded: PeftModel
    loaded_logits: torch.Tensor
    merged: PreTrainedModel
    merged_logits: torch.Tensor


def draw_batch(family: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (8,), generator=generator)
    if family == "vit":
        return {"pixel_values": torch.randn(8, 3, 8, 8, generator=generator), "labels": labels}
    return {"input_ids": torch.randint(3, 64, (8, 7), generator=generator), "labels": labels}


def train(model: PeftModel, batch: dict[str, torch.Tensor]) -> list[dict[str, Any]]:
    """Take 25 steps of ProxAdamW and return the gradients of the gates in the first two."""
    vectors = gates(model)
    ours = {id(gate) for gate in vectors.values()}
    others = [(n, p) for n, p in model.named_parameters() if p.requires_grad and id(p) not in ours]
    optimizer = ProxAdamW(
        [{"params": others}, {"params": list(vectors.items()), "lr": 1.0, "xi": 0.05}], lr=0.02
    )
    seen = []
    for _ in range(25):
        model(**batch).loss.backward()
        if len(seen) < 2:
            seen.append({n: None if g.grad is None else g.grad.clone() for n, g in vectors.items()})
        optimizer.step()
        optimizer.zero_grad()
    return seen


@torch.no_grad()
def logits(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**batch).logits


@pytest.fixture(scope="module", params=FAMILIES)
def journey(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Journey:
    family, folder = request.param, tmp_path_factory.mktemp(request.param)
    batch = draw_batch(family)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        base = FAMILIES[family]().eval()
        untouched = copy.deepcopy(base)
        options = OPTIONS.get(family, {"task_type": "SEQ_CLS"})
        model = get_peft_model(base, SoraConfig(r=4, target_modules="all-linear", **options))
    assert isinstance(model, PeftModel)
    model.eval()
    start_logits = logits(model, batch)
    first, second = train(model, batch)
    trained_logits = logits(model, batch)
    export_lora(model, folder)
    loaded = PeftModel.from_pretrained(copy.deepcopy(untouched), folder).eval()
    merged = merge(copy.deepcopy(model))
    assert isinstance(merged, PreTrainedModel)
    return Journey(
        family=family,
        base_logits=logits(untouched, batch),
        start_logits=start_logits,
        first_gradients=first,
        second_gradients=second,
        trained=model,
        trained_logits=trained_logits,
        folder=folder,
        loaded=loaded,
        loaded_logits=logits(loaded, batch),
        merged=merged,
        merged_logits=logits(merged, batch),
    )


def test_adapter_is_the_identity_at_the_start(journey):
    assert torch.equal(journey.start_logits, journey.base_logits)


def test_all_linear_adapts_every_linear_layer_below_the_head(journey):
    assert len(gates(journey.trained)) == MATRICES[journey.family]


def test_gradient_of_every_gate_is_exactly_0_while_lora_b_is_0(journey):
    gradients = journey.first_gradients.values()
    assert all(g is not None and torch.count_nonzero(g) == 0 for g in gradients)


def test_every_gate_gets_a_gradient(journey):
    gradients = journey.second_gradients.values()
    assert all(g is not None and torch.count_nonzero(g) == g.numel() for g in gradients)


def test_some_gates_die_and_some_live(journey):
    ranks = nonzero_ranks(journey.trained)
    assert 0 < sum(ranks.values()) < 4 * len(ranks)


def test_some_matrices_reach_rank_0(journey):
    assert 0 in nonzero_ranks(journey.trained).values()


def test_count_equals_the_exported_elements(journey):
    state = load_file(journey.folder / "adapter_model.safetensors")
    exported = sum(value.numel() for name, value in state.items() if ".lora_" in name)
    assert num_nonzero_params(journey.trained) == exported


def test_training_changed_the_outputs(journey):
    assert (
        journey.trained_logits - journey.base_logits
    ).abs().max() > 0.1  # 1e4 tolerances of the next two


def test_exported_adapter_is_plain_lora(journey):
    assert type(journey.loaded.peft_config["default"]) is LoraConfig
    assert not any(isinstance(module, GatedB) for module in journey.loaded.modules())


def test_exported_adapter_gives_the_same_outputs_in_plain_peft(journey):
    torch.testing.assert_close(journey.loaded_logits, journey.trained_logits, rtol=1e-5, atol=1e-5)


def test_merge_keeps_the_outputs(journey):
    torch.testing.assert_close(journey.merged_logits, journey.trained_logits, rtol=1e-5, atol=1e-5)


def test_merged_model_has_the_parameters_of_the_base_model(journey):
    names = [name for name, _ in FAMILIES[journey.family]().named_parameters()]
    assert [name for name, _ in journey.merged.named_parameters()] == names


# Gradients ---------------------------------------------------------------------------------------


def gradients(model: PeftModel, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(**batch).loss.backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_gradients_are_those_of_pefts_own_path(dtype, tolerance, journey):
    batch = draw_batch(journey.family)
    if journey.family == "vit":
        batch["pixel_values"] = batch["pixel_values"].to(dtype)
    fused = copy.deepcopy(journey.trained).to(dtype)
    expected = gradients(computed_by_peft(fused), batch)
    found = gradients(fused, batch)
    assert found.keys() == expected.keys()
    for kind in ("lora_A", "lora_B.default.raw", "gate", "modules_to_save"):
        names = [name for name in expected if kind in name]
        exact, ours = (torch.cat([g[n].flatten() for n in names]) for g in (expected, found))
        assert (ours - exact).norm() <= tolerance * exact.norm(), kind


def test_linear_layers_are_fused(journey):
    fused = [m for m in journey.trained.modules() if isinstance(m, GatedLinear)]
    assert len(fused) == (0 if journey.family == "gpt2" else MATRICES[journey.family])
