"""A tiny T5 learns an embedded task whose classes are written, and is exported."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForSeq2SeqLM
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

from sorakit.backbones import EMBEDDED_DIR
from sorakit.config import TaskConfig
from sorakit.metric_names import LABEL
from sorakit.records import Run, load_run
from sorakit.training.build import adapt
from sorakit.training.data import model_inputs
from sorakit.training.export import export_stage
from sorakit.training.run import run
from tests.support.tiny_hub import tiny_run


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    root = tmp_path_factory.mktemp("t5")
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_DIR)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    tokens = {"pad_token_id": tokenizer.pad_token_id, "vocab_size": len(tokenizer)}
    start = {"decoder_start_token_id": tokenizer.pad_token_id}
    model = T5ForConditionalGeneration(T5Config(**sizes, **tokens, **start))
    model.save_pretrained(root / "model")
    tokenizer.save_pretrained(root / "model")
    config = tiny_run(root, levels=(0.05,))
    task = TaskConfig(
        name="pydoc_order", objective="text_to_text", train_examples=64, memorization_examples=64
    )
    return replace(
        config,
        task=replace(task, max_length=32),
        dense=replace(config.dense, max_epochs=8),
        optim=replace(config.optim, lr=1e-2, batch_size=16),
    )


@pytest.fixture(scope="module")
def path(config) -> Run:
    return load_run(run(config, show_progress=False).path)


def test_loss_falls_below_that_of_the_model_as_it_is(path, config):
    assert path.stages["memorization_loss"][0] < 0.8 * adapt(config).null_loss
    assert path.stages["metric"].tolist() == ["token_accuracy"] * len(path.stages)


def test_encoder_and_decoder_stand_apart_in_rank_maps(path):
    dense = path.ranks[path.ranks["stage"] == 0]
    assert not dense.duplicated(["layer", "matrix"]).any()
    towers = dense["matrix"].str.partition(".")[0]
    assert towers.value_counts().to_dict() == {"encoder": 2 * 6, "decoder": 2 * 10}


def test_export_is_loaded_by_plain_peft_and_writes(path, config, tmp_path: Path):
    exported = export_stage(path, 0, tmp_path / "out")
    assert exported.score == pytest.approx(exported.recorded, abs=1e-6)
    model = AutoPeftModelForSeq2SeqLM.from_pretrained(tmp_path / "out").eval()
    data = adapt(config).data
    [batch, *_] = data.val_dataloader()[1]
    with torch.no_grad():
        losses = data.objective.losses(model(**model_inputs(batch)).logits, batch[LABEL])
        ids = model.generate(input_ids=batch["input_ids"], max_new_tokens=3)
    recorded = path.examples()
    recorded = recorded[(recorded["stage"] == 0) & (recorded["split"] == "generalization")]
    found = recorded.set_index("index")["loss"].loc[batch["index"].tolist()]
    assert losses.tolist() == pytest.approx(found.tolist(), rel=1e-4)
    assert ids.shape[0] == len(batch["index"])
    assert "AutoModelForSeq2SeqLM" in (tmp_path / "out" / "README.md").read_text("utf-8")
