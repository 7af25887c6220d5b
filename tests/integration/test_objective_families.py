"""One step, export and load in plain PEFT, for families of language models and of images.

A handful of them here, all of them where slow tests run; those with a classification head of texts
are in `test_families.py`.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import (
    CONFIG_MAPPING,
    AutoTokenizer,
    BitImageProcessorPil,
    PreTrainedConfig,
)

from sorakit.adapters import adapter
from sorakit.backbones import load_backbone
from sorakit.config import BackboneConfig, MethodConfig, RunConfig, TaskConfig
from sorakit.method.tuner import gates
from sorakit.metric_names import LABEL
from sorakit.objectives import objective
from sorakit.tasks.base import Task
from sorakit.training.compatibility import leave_out_unreached, settle_padding
from sorakit.training.data import TRAIN, AdaptationData, model_inputs
from tests.support.tiny_families import tiny_config
from tests.support.tiny_hub import task_of, write_model
from tests.support.tiny_images import SIDE, write_image_folder

FEW = {"causal_lm": ("gpt2", "qwen2"), "text_to_text": ("bart",), "image_classification": ("vit",)}
# Not here: CodeGen has no sizes this small, LongT5's configuration no token to begin with, and a
# folder of DeiT is read by torchvision's processor alone.
CAUSAL = (
    *("bloom", "falcon", "gemma", "gemma2", "gpt2", "gpt_bigcode", "gpt_neo"),
    *("gpt_neox", "gptj", "granite", "helium", "llama", "mistral", "mixtral", "mpt", "nemotron"),
    *("olmo", "olmo2", "opt", "persimmon", "phi", "phi3", "qwen2", "qwen2_moe", "qwen3"),
    *("smollm3", "stablelm", "starcoder2"),
)
TO_TEXT = ("bart", "bigbird_pegasus", "mbart", "mt5", "mvp", "pegasus", "plbart", "t5")
IMAGES = ("beit", "convnext", "dinov2", "ijepa", "swin", "vit", "vit_msn")
CASES = [
    pytest.param(name, kind, id=kind, marks=() if kind in FEW[name] else pytest.mark.slow)
    for name, kinds in (
        ("causal_lm", CAUSAL),
        ("text_to_text", TO_TEXT),
        ("image_classification", IMAGES),
    )
    for kind in kinds
]
TEXTS = ["the old cat was near a small bird", "a new saw", "the bird was under the old cat"]
OF_IMAGES: dict[str, Any] = {
    "image_size": SIDE,
    "patch_size": 4,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
PYRAMIDS: dict[str, dict[str, Any]] = {
    "convnext": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
    "swin": {"embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 2}
    | {"image_size": SIDE, "patch_size": 2},
}


def image_config(kind: str) -> PreTrainedConfig:
    options = PYRAMIDS.get(kind, OF_IMAGES)
    return CONFIG_MAPPING[kind](**options)


def write(folder: Path, name: str, kind: str) -> Path:
    """Write configuration and tokenizer, or processor, of a family; weights are to be drawn."""
    if name == "image_classification":
        image_config(kind).save_pretrained(folder)
        size = {"height": SIDE, "width": SIDE}
        BitImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size).save_pretrained(folder)
        return folder
    write_model(folder)
    (folder / "model.safetensors").unlink()
    config = tiny_config(kind)
    config.tie_word_embeddings = True
    config.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = "[SEP]"
    tokenizer.save_pretrained(folder)
    return folder


def task(name: str, root: Path) -> Task:
    if name == "image_classification":
        from sorakit.tasks import load_task

        write_image_folder(root / "pictures", num_train=4, num_validation=2)
        return load_task(TaskConfig(name="hub", data_dir=str(root / "pictures")), seed=0)
    found = task_of(TEXTS, TEXTS, names=("a", "b"))
    splits = [found.train, found.validation]
    if name == "text_to_text":
        splits = [split.add_column("text_pair", TEXTS[::-1]) for split in splits]
    return replace(found, train=splits[0], validation=splits[1], label_names=(), objective=name)


def outputs(model: Any, data: AdaptationData, positions: Sequence[int]) -> torch.Tensor:
    batch = data.collate(data.tokens[TRAIN].rows(positions))
    return data.objective.losses(model(**model_inputs(batch)).logits.float(), batch[LABEL])


def test_more_than_forty_families_are_tried():
    assert len(CASES) > 40


@pytest.mark.filterwarnings("ignore:.* layers are not adapted:UserWarning")
@pytest.mark.filterwarnings("ignore:.*fan_in_fan_out.*:UserWarning")
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_family_takes_a_step_and_its_export_is_loaded_by_plain_peft(name, kind, tmp_path):
    folder, goal = write(tmp_path / "model", name, kind), objective(name)
    data_of = task(name, tmp_path)

    def backbone() -> Any:
        torch.manual_seed(0)
        return load_backbone(
            BackboneConfig(name=str(folder), random_init=True),
            objective=goal,
            label_names=data_of.label_names,
        )

    loaded = backbone()
    data = AdaptationData(
        data_of,
        loaded.tokenizer,
        max_length=16,
        memorization_examples=2,
        batch_size=2,
        eval_batch_size=2,
        seed=0,
    )
    if goal.inputs == "texts":
        data.padding = settle_padding(loaded.model, data)
    config = RunConfig(task=TaskConfig(), method=MethodConfig(r=2))
    head = goal.head_modules(loaded.model)
    config, _ = leave_out_unreached(loaded.model, data, config, head=head)
    model = adapter("sora").build(loaded.model, config, head=head)
    for gate in gates(model).values():
        torch.nn.init.ones_(gate)
    trained = [p for p in model.parameters() if p.requires_grad]
    model.eval()
    before = outputs(model, data, [0, 1]).mean()
    before.backward()
    with torch.no_grad():
        for parameter in trained:
            if parameter.grad is not None:
                parameter -= 1e-2 * parameter.grad
    after = outputs(model, data, [0, 1]).detach()
    assert after.mean() != before
    config.method.adapter.export(
        model, tmp_path / "out", base_model_name_or_path=str(folder), task_type=goal.task_type
    )
    plain = PeftModel.from_pretrained(backbone().model, tmp_path / "out").eval()
    torch.testing.assert_close(outputs(plain, data, [0, 1]).detach(), after, rtol=1e-4, atol=1e-4)
