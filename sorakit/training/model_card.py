"""The model card of an exported adapter: what a class index means, and how it is loaded."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from pprint import pformat
from typing import Any

from sorakit.backbones import EMBEDDED


def model_card(
    interface: Mapping[str, Any],
    *,
    base: str,
    has_base: bool,
    header: str,
    facts: Mapping[str, str],
    made: Sequence[str],
    repository: str | None = None,
) -> str:
    """Return README.md of an exported adapter.

    Args:
        interface: Entry `interface` of `meta.json`: classes, pad token, longest input.
        base: Name of the base model, as in adapter_config.json.
        has_base: Whether its weights lie beside the adapter.
        header: The metadata, YAML.
        facts: Further lines of the table: what was trained on, scores.
        made: Lines on how it was made.
        repository: OWNER/NAME on the Hub; None is a folder of this machine.
    """
    names = interface["class_names"]
    rows = {**facts, **_input_facts(interface)}
    classes = ["| index | class |", "|---|---|"]
    classes += [f"| {index} | {_cell(name)} |" for index, name in enumerate(names)]
    return "\n".join(
        [
            "---",
            header.strip(),
            "---",
            "# Adapter",
            "",
            "A plain PEFT LoRA with its task head, pruned by SoRA (arXiv 2311.11696) with sorakit.",
            "Loading it needs `peft` and `transformers`, not sorakit.",
            "",
            "| | |",
            "|---|---|",
            *(f"| {_cell(name)} | {_cell(value)} |" for name, value in rows.items()),
            "",
            "## Classes" if names else "## Output",
            "",
            *(classes if names else [_output(interface)]),
            "",
            "## Loading",
            "",
            _where(base, has_base, repository),
            "",
            "```python",
            *_loading(interface, base, has_base, repository),
            "```",
            "",
            *_in_one_step(interface, has_base, repository),
            "## How it was made",
            "",
            *made,
            "",
        ]
    )


def pipeline_tag(interface: Mapping[str, Any]) -> str:
    """Return what the Hub calls the use of a model."""
    return {
        "AutoModelForCausalLM": "text-generation",
        "AutoModelForSeq2SeqLM": "text2text-generation",
        "AutoModelForImageClassification": "image-classification",
    }.get(_model_class(interface), "text-classification")


def _model_class(interface: Mapping[str, Any]) -> str:
    return interface.get("model_class", "AutoModelForSequenceClassification")


def _is_written(interface: Mapping[str, Any]) -> bool:
    return interface.get("labels") == "texts"


def _has_images(interface: Mapping[str, Any]) -> bool:
    return interface.get("inputs") == "images"


def _output(interface: Mapping[str, Any]) -> str:
    return "A text." if _is_written(interface) else "One number."


def _input_facts(interface: Mapping[str, Any]) -> dict[str, str]:
    if _has_images(interface):
        height, width = interface["image_size"]
        return {
            "labels": str(interface["num_labels"]),
            "images": f"{height} x {width} pixels, as the processor makes them",
        }
    facts = {} if _is_written(interface) else {"labels": str(interface["num_labels"])}
    facts |= {
        "longest input": f"{interface['max_length']} tokens; longer texts are cut",
        "padding": f"{interface['pad_token']} (id {interface['pad_token_id']}), "
        f"on the {interface['padding_side']}",
    }
    if interface["padded_to"] is not None:
        facts["padding"] += f", every text to {interface['padded_to']} tokens"
    if interface["positive_class"] is not None:
        facts["positive class (F1)"] = interface["positive_class"]
    return facts


def _where(base: str, has_base: bool, repository: str | None) -> str:
    if has_base and repository is not None:
        return "The base model lies in `base/` of this repository."
    if has_base:
        return (
            "The base model lies in `base/`, and adapter_config.json names it by the path it was "
            "exported to: after a move, pass the path as in the first lines below."
        )
    if base == EMBEDDED:
        return (
            "The base model is the encoder that comes with sorakit; `sorakit export --with-base "
            "true` writes it beside the adapter. `base/config.json` has its configuration."
        )
    if is_hub_id(base):
        return f"The base model is `{base}` on the Hugging Face Hub."
    return (
        f"The base model is the local folder `{base}` of the machine it was trained on: put the "
        "path of yours in its place. `base/config.json` has its configuration."
    )


def _loading(
    interface: Mapping[str, Any], base: str, has_base: bool, repository: str | None
) -> list[str]:
    folder = '"."  # this folder'
    if repository is not None:
        folder = f'snapshot_download("{repository}")'
    source = 'f"{folder}/base"' if has_base else repr(base)
    kind = _model_class(interface)
    processor = "AutoImageProcessor" if _has_images(interface) else "AutoTokenizer"
    what, head = "class names and pad token", "its head is that of the adapter"
    if _is_written(interface):
        what, head = "its pad token", "as it was published"
    return [
        "import torch",
        *(["from huggingface_hub import snapshot_download"] if repository is not None else []),
        "from peft import PeftModel",
        f"from transformers import {', '.join(sorted(['AutoConfig', kind, processor]))}",
        "",
        f"folder = {folder}",
        f'config = AutoConfig.from_pretrained(f"{{folder}}/base")  # {what}',
        f"base = {kind}.from_pretrained(",
        f"    {source}, config=config, dtype=torch.float32, ignore_mismatched_sizes=True",
        f")  # {head}",
        "model = PeftModel.from_pretrained(base, folder).eval()",
        *_use(interface),
    ]


def _use(interface: Mapping[str, Any]) -> list[str]:
    """Return how the loaded model is asked."""
    classes = "model.config.id2label[int(index)] for index in logits.argmax(dim=1)"
    if _has_images(interface):
        return [
            "processor = AutoImageProcessor.from_pretrained(folder)",
            "",
            "def classify(images):  # of PIL, RGB",
            f'    inputs = processor(images, {_side(interface)}return_tensors="pt")',
            "    with torch.no_grad():",
            "        logits = model(**inputs).logits",
            f"    return [{classes}]",
        ]
    tokenizer = "tokenizer = AutoTokenizer.from_pretrained(folder)"
    if _is_written(interface):
        return [
            tokenizer,
            "",
            'inputs = tokenizer("The beginning", return_tensors="pt")',
            "ids = model.generate(**inputs, max_new_tokens=40, do_sample=False)",
            "answer = tokenizer.decode(ids[0], skip_special_tokens=True)",
        ]
    padding = "True"
    if interface["padded_to"] is not None:
        padding = f'"max_length", max_length={interface["padded_to"]}'
    limit = "" if interface["padded_to"] is not None else f", max_length={interface['max_length']}"
    answer = f"answers = [{classes}]"
    return [
        tokenizer,
        "",
        'texts = ["a text", "and another one"]',
        f"inputs = tokenizer(texts, truncation=True{limit}, padding={padding}, "
        'return_tensors="pt")',
        "with torch.no_grad():",
        "    logits = model(**inputs).logits",
        answer if interface["class_names"] else "answers = logits[:, 0].tolist()",
    ]


def _side(interface: Mapping[str, Any]) -> str:
    """Return what the processor is told of a size that is not its own."""
    options = interface["image_options"]
    return "".join(f"{name}={value!r}, " for name, value in options.items())


def _in_one_step(interface: Mapping[str, Any], has_base: bool, repository: str | None) -> list[str]:
    """Return the section on PEFT's own loaders, which know no images."""
    if _has_images(interface):
        return []
    return [
        "In one step, without the tokenizer:",
        "",
        "```python",
        *_one_step(interface, has_base, repository),
        "```",
        "",
    ]


def _one_step(interface: Mapping[str, Any], has_base: bool, repository: str | None) -> list[str]:
    kind = "AutoPeftModel" + _model_class(interface).removeprefix("AutoModel")
    first = [f"from peft import {kind}", ""]
    if has_base and repository is not None:  # adapter_config.json names base/ from there
        return [
            "from contextlib import chdir",
            "",
            *first,
            "with chdir(folder):",
            f'    model = {kind}.from_pretrained(".")',
        ]
    if has_base or _is_written(interface):
        return [*first, f"model = {kind}.from_pretrained(folder)"]
    names = interface["class_names"]
    values: dict[str, Any] = {"num_labels": interface["num_labels"]}
    if names:
        values["id2label"] = dict(enumerate(names))
        values["label2id"] = {name: index for index, name in enumerate(names)}
    values["pad_token_id"] = interface["pad_token_id"]
    lines = [f"    {name}={pformat(value, width=80)}," for name, value in values.items()]
    return [*first, f"model = {kind}.from_pretrained(", "    folder,", *lines, ")"]


def is_hub_id(base: str) -> bool:
    """Return whether the name of a base model is one of the Hub, not of a local folder."""
    parts = base.split("/")
    is_id = len(parts) <= 2 and all(parts) and not base.startswith((".", "~"))
    return is_id and base != EMBEDDED and not Path(base).exists()


def _cell(text: str) -> str:
    """Return a text as one cell of a Markdown table."""
    return json.dumps(text, ensure_ascii=False)[1:-1].replace("|", "\\|")
