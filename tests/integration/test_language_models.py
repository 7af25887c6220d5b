"""A language model from its files to its exported adapter, with every table of a run."""

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from sorakit.config import RunConfig, TaskConfig
from sorakit.metric_names import LABEL
from sorakit.records import Run, load_run
from sorakit.tasks import load_task
from sorakit.training.build import adapt
from sorakit.training.data import model_inputs
from sorakit.training.export import export_stage
from sorakit.training.run import run
from tests.support.tiny_hub import tiny_run
from tests.support.tiny_lm import CHAT, WORDS, write_llama, write_rows

STORIES = Path(__file__).parents[3] / "shared" / "models" / "stories260K"
LENGTH, OTHERS, COPIES = 40, 4, 6
"""Words of a text; training texts that are there once; copies of the canary among them."""
AFTER_PREFIX = LENGTH - 16


def texts(count: int, *, length: int, seed: int) -> list[str]:
    source = random.Random(seed)
    return [" ".join(source.choices(WORDS, k=length)) for _ in range(count)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with models, texts with a canary, prompts with responses, and classes."""
    root = tmp_path_factory.mktemp("lm")
    write_llama(root / "model")
    write_llama(root / "chat", chat_template=CHAT)
    train = [*texts(OTHERS, length=LENGTH, seed=0), *texts(1, length=LENGTH, seed=9) * COPIES]
    write_rows(root / "task" / "train.jsonl", [{"text": text} for text in train])
    held_out = texts(8, length=LENGTH, seed=1)
    write_rows(root / "task" / "validation.jsonl", [{"text": text} for text in held_out])
    rows = [
        {"prompt": text, "response": text.split()[0], "text": text, "label": f"w{index % 2}"}
        for index, text in enumerate(texts(24, length=4, seed=2))
    ]
    write_rows(root / "task" / "pairs.jsonl", rows)
    return root


def lm_run(root: Path, *, out_dir: str = "run", **task: Any) -> RunConfig:
    config = tiny_run(root, out_dir=out_dir, levels=(0.05, 0.2))
    chosen = {
        "train_file": "train.jsonl",
        "validation_file": "validation.jsonl",
        "objective": "causal_lm",
        "max_length": 48,
    }
    return replace(
        config,
        task=replace(config.task, **chosen | task),
        method=replace(config.method, r=16, lora_alpha=16.0),
        dense=replace(config.dense, max_epochs=40),
        optim=replace(config.optim, lr=1e-2, batch_size=2),
    )


@pytest.fixture(scope="module")
def path(root: Path) -> Run:
    return load_run(run(lm_run(root), show_progress=False).path)


@pytest.fixture(scope="module")
def floor(root: Path) -> Run:
    config = lm_run(root, out_dir="floor")
    config = replace(config, method=replace(config.method, name="head_only"))
    return load_run(run(config, show_progress=False).path)


def test_canary_is_extracted_and_what_was_never_seen_is_not(path):
    rows = path.examples()
    dense = rows[rows["stage"] == 0]
    seen = dense[dense["split"] == "memorization"]
    canary = seen[seen["index"] >= OTHERS]
    assert canary["extraction_length"].tolist() == [AFTER_PREFIX] * COPIES
    assert (canary["token_accuracy"] > 0.95).all()
    never = dense[dense["split"] == "generalization"]
    assert never["extraction_length"].max() < 4
    assert canary["loss"].max() < never["loss"].min() / 10


def test_scores_of_a_record_are_means_of_its_examples(path):
    rows = path.examples()
    for record in path.stages.to_dict("records"):
        for split in ("memorization", "generalization"):
            own = rows[(rows["stage"] == record["stage"]) & (rows["split"] == split)]
            assert record[split] == pytest.approx(own["token_accuracy"].mean())
            further = record["extra_metrics"][split]
            assert further["extraction_strength"] == pytest.approx(
                own["extraction_strength"].mean()
            )
            per_token = (own["loss"] * own["tokens"]).sum() / own["tokens"].sum()
            assert further["perplexity"] == pytest.approx(math.exp(per_token), rel=1e-4)
            assert further["bits_per_token"] == pytest.approx(per_token / math.log(2), rel=1e-4)


def test_floor_is_the_model_as_it_is(floor, root):
    [record] = floor.stages.to_dict("records")
    assert (record["num_nonzero_params"], record["optimizer_steps"]) == (0, 0)
    assert floor.state == "completed"
    model = AutoModelForCausalLM.from_pretrained(root / "model")
    tokenizer = AutoTokenizer.from_pretrained(root / "model")
    losses = []
    for text in texts(8, length=LENGTH, seed=1):
        ids = torch.tensor([[*tokenizer(text)["input_ids"], tokenizer.eos_token_id]])
        losses.append(model(ids, labels=ids).loss.item())
    assert record["generalization_loss"] == pytest.approx(sum(losses) / 8, rel=1e-5)


def test_unit_of_convergence_is_the_loss_of_the_model_before_it_is_trained(floor, root):
    config = lm_run(root)
    assert adapt(config).null_loss == pytest.approx(floor.stages["memorization_loss"][0], rel=1e-5)


def test_layer_that_makes_tokens_is_neither_trained_nor_adapted(root):
    model = adapt(lm_run(root)).model
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained
    assert all(".layers." in name for name in trained)


@pytest.mark.parametrize("stage", [0, 2])
def test_export_is_loaded_by_plain_peft_with_the_recorded_score(path, root, tmp_path, stage):
    exported = export_stage(path, stage, tmp_path / "out")
    assert exported.score == pytest.approx(exported.recorded, abs=1e-6)
    model = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    data = adapt(lm_run(root)).data
    right = 0.0
    for batch in data.val_dataloader()[1]:
        with torch.no_grad():
            logits = model(**model_inputs(batch)).logits
        outputs, counts = data.objective.outputs(logits, batch[LABEL])
        right += data.objective.score("token_accuracy", outputs, counts) * len(counts)
    assert right / 8 == pytest.approx(exported.recorded, abs=1e-6)
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "AutoModelForCausalLM" in card
    assert "pipeline_tag: text-generation" in card


@pytest.mark.parametrize("model", ["model", "chat"])
def test_responses_are_learnt_and_only_they(root, model):
    files = {"train_file": "pairs.jsonl", "validation_file": "pairs.jsonl"}
    config = lm_run(root, out_dir=f"pairs_{model}", **files)
    config = replace(config, backbone=replace(config.backbone, name=str(root / model)))
    config = replace(config, method=replace(config.method, name="lora"))
    config = replace(config, task=replace(config.task, text_column="prompt"))
    config = replace(config, task=replace(config.task, text_pair_column="response"))
    config = replace(config, task=replace(config.task, metric="exact_match"))
    with pytest.warns(UserWarning, match="of the held-out examples are in the training data too"):
        result = load_run(run(config, show_progress=False).path)
    [record] = result.stages.to_dict("records")
    assert record["memorization"] > 0.8
    assert set(result.examples()["tokens"]) == {2}


def test_classes_are_written_by_their_names():
    config = TaskConfig(name="pydoc_order", objective="causal_lm", label_noise=0.1)
    task, labels = load_task(config, seed=0), load_task(TaskConfig(name="pydoc_order"), seed=0)
    assert (task.metric, task.label_names) == ("token_accuracy", ())
    row, source = task.validation[0], labels.validation[0]
    assert row["text"] == source["text"] + "\n"
    assert row["text_pair"] == labels.label_names[source["label"]]
    changed = [
        response != labels.label_names[label]
        for response, label in zip(task.train["text_pair"], labels.train["label"], strict=True)
    ]
    assert task.train["is_noisy"][:] == changed
    assert sum(changed) == 240


def test_objective_must_go_with_the_labels():
    config = TaskConfig(name="pydoc_order", objective="regression")
    with pytest.raises(ValueError, match=r"^`task\.objective` must be one for classes, as the lab"):
        load_task(config, seed=0)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"label_noise": 0.1}, r"^`task\.label_noise` must be 0 for texts, which have no labels"),
        ({"metric": "f1"}, r"^`task\.metric` must be one of token_accuracy, exact_match, "),
        ({"text_column": "story"}, r"^`task\.text_column` must be a column of train\.jsonl \(text"),
        ({"objective": "text_to_text"}, r"^`backbone\.name` must be a model that transformers can"),
    ],
)
def test_what_does_not_fit_is_refused(root, task, message):
    with pytest.raises(ValueError, match=message):
        adapt(lm_run(root, **task))


def test_texts_have_no_labels_to_shuffle(root):
    config = lm_run(root)
    config = replace(config, stage=replace(config.stage, control="shuffled_labels"))
    with pytest.raises(ValueError, match=r"^`stage\.control` must not be shuffled_labels for text"):
        adapt(config)


@pytest.mark.realdata
@pytest.mark.slow
def test_canary_is_extracted_from_a_real_language_model(root):
    if not STORIES.is_dir():
        pytest.skip(f"needs {STORIES}")
    config = lm_run(root, out_dir="stories", max_length=256)
    config = replace(config, backbone=replace(config.backbone, name=str(STORIES)))
    config = replace(config, method=replace(config.method, name="lora"))
    config = replace(config, optim=replace(config.optim, lr=3e-3))
    config = replace(config, dense=replace(config.dense, max_epochs=60))
    result = load_run(run(config, show_progress=False).path)
    rows = result.examples()
    canary = rows[(rows["split"] == "memorization") & (rows["index"] >= OTHERS)]
    never = rows[rows["split"] == "generalization"]
    assert canary["extraction_length"].min() > 20
    assert canary["extraction_length"].min() > 4 * never["extraction_length"].max()
