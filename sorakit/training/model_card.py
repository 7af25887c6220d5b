"""The model card of an exported adapter: what a class index means, and how it is loaded."""

import json
from collections.abc import Mapping
from pprint import pformat
from typing import Any


def model_card(
    interface: Mapping[str, Any], *, base: str, has_base: bool, facts: Mapping[str, str]
) -> str:
    """Return README.md of an exported adapter.

    Args:
        interface: Entry `interface` of `meta.json`: classes, pad token, longest input.
        base: Name of the base model, as in adapter_config.json.
        has_base: Whether its weights lie beside the adapter.
        facts: Further lines of the table: what was trained on, scores.
    """
    names = interface["class_names"]
    header = ["library_name: peft", "pipeline_tag: text-classification", "tags: [sora, lora]"]
    if not has_base and _is_hub_id(base):
        header.insert(0, f"base_model: {base}")
    rows = {**facts, **_input_facts(interface)}
    classes = ["| index | class |", "|---|---|"]
    classes += [f"| {index} | {_cell(name)} |" for index, name in enumerate(names)]
    return "\n".join(
        [
            "---",
            *header,
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
            *(classes if names else ["One number."]),
            "",
            "## Loading",
            "",
            _where(base, has_base),
            "",
            "```python",
            *_loading(interface, base, has_base),
            "```",
            "",
            "In one step, without the tokenizer:",
            "",
            "```python",
            *_one_step(interface, has_base),
            "```",
            "",
        ]
    )


def _input_facts(interface: Mapping[str, Any]) -> dict[str, str]:
    facts = {
        "labels": str(interface["num_labels"]),
        "longest input": f"{interface['max_length']} tokens; longer texts are cut",
        "padding": f"{interface['pad_token']} (id {interface['pad_token_id']}), "
        f"on the {interface['padding_side']}",
    }
    if interface["padded_to"] is not None:
        facts["padding"] += f", every text to {interface['padded_to']} tokens"
    if interface["positive_class"] is not None:
        facts["positive class (F1)"] = interface["positive_class"]
    return facts


def _where(base: str, has_base: bool) -> str:
    if has_base:
        return (
            "The base model lies in `base/`, and adapter_config.json names it by the path it was "
            "exported to: after a move, pass the path as in the first lines below."
        )
    if _is_hub_id(base):
        return f"The base model is `{base}` on the Hugging Face Hub."
    return (
        f"The base model is the local folder `{base}` of the machine it was trained on: put the "
        "path of yours in its place. `base/config.json` has its configuration."
    )


def _loading(interface: Mapping[str, Any], base: str, has_base: bool) -> list[str]:
    padding = "True"
    if interface["padded_to"] is not None:
        padding = f'"max_length", max_length={interface["padded_to"]}'
    limit = "" if interface["padded_to"] is not None else f", max_length={interface['max_length']}"
    source = 'f"{folder}/base"' if has_base else repr(base)
    last = "model.config.id2label[int(index)] for index in logits.argmax(dim=1)"
    answer = (
        f"answers = [{last}]" if interface["class_names"] else "answers = logits[:, 0].tolist()"
    )
    return [
        "import torch",
        "from peft import PeftModel",
        "from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer",
        "",
        'folder = "."  # this folder',
        'config = AutoConfig.from_pretrained(f"{folder}/base")  # class names and pad token',
        "base = AutoModelForSequenceClassification.from_pretrained(",
        f"    {source}, config=config, dtype=torch.float32, ignore_mismatched_sizes=True",
        ")  # its head is that of the adapter",
        "model = PeftModel.from_pretrained(base, folder).eval()",
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        "",
        'texts = ["a text", "and another one"]',
        f"inputs = tokenizer(texts, truncation=True{limit}, padding={padding}, "
        'return_tensors="pt")',
        "with torch.no_grad():",
        "    logits = model(**inputs).logits",
        answer,
    ]


def _one_step(interface: Mapping[str, Any], has_base: bool) -> list[str]:
    first = ["from peft import AutoPeftModelForSequenceClassification", ""]
    if has_base:
        return [*first, "model = AutoPeftModelForSequenceClassification.from_pretrained(folder)"]
    names = interface["class_names"]
    values: dict[str, Any] = {"num_labels": interface["num_labels"]}
    if names:
        values["id2label"] = dict(enumerate(names))
        values["label2id"] = {name: index for index, name in enumerate(names)}
    values["pad_token_id"] = interface["pad_token_id"]
    lines = [f"    {name}={pformat(value, width=80)}," for name, value in values.items()]
    return [
        *first,
        "model = AutoPeftModelForSequenceClassification.from_pretrained(",
        "    folder,",
        *lines,
        ")",
    ]


def _is_hub_id(base: str) -> bool:
    parts = base.split("/")
    return len(parts) <= 2 and all(parts) and not base.startswith((".", "~"))


def _cell(text: str) -> str:
    """Return a text as one cell of a Markdown table."""
    return json.dumps(text, ensure_ascii=False)[1:-1].replace("|", "\\|")
