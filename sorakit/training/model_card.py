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
            *(classes if names else ["One number."]),
            "",
            "## Loading",
            "",
            _where(base, has_base, repository),
            "",
            "```python",
            *_loading(interface, base, has_base, repository),
            "```",
            "",
            "In one step, without the tokenizer:",
            "",
            "```python",
            *_one_step(interface, has_base, repository),
            "```",
            "",
            "## How it was made",
            "",
            *made,
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
        *(["from huggingface_hub import snapshot_download"] if repository is not None else []),
        "from peft import PeftModel",
        "from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer",
        "",
        f"folder = {folder}",
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


def _one_step(interface: Mapping[str, Any], has_base: bool, repository: str | None) -> list[str]:
    first = ["from peft import AutoPeftModelForSequenceClassification", ""]
    if has_base and repository is not None:  # adapter_config.json names base/ from there
        return [
            "from contextlib import chdir",
            "",
            *first,
            "with chdir(folder):",
            '    model = AutoPeftModelForSequenceClassification.from_pretrained(".")',
        ]
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


def is_hub_id(base: str) -> bool:
    """Return whether the name of a base model is one of the Hub, not of a local folder."""
    parts = base.split("/")
    is_id = len(parts) <= 2 and all(parts) and not base.startswith((".", "~"))
    return is_id and base != EMBEDDED and not Path(base).exists()


def _cell(text: str) -> str:
    """Return a text as one cell of a Markdown table."""
    return json.dumps(text, ensure_ascii=False)[1:-1].replace("|", "\\|")
