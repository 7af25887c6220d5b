"""Pre-trained models by name: the embedded encoder, a local folder, or a Hub id."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from sorakit.config import BackboneConfig

EMBEDDED = "embedded"
_EMBEDDED_DIR = Path(__file__).parent / "assets" / "encoder"


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A loaded backbone with a task head.

    Attributes:
        model: Sequence classification model, float32.
        tokenizer: Its tokenizer.
        fingerprint: Hash of the weights.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str


def load_backbone(
    config: BackboneConfig, *, label_names: tuple[str, ...], attention: str | None = None
) -> Backbone:
    """Load a backbone for classification into `label_names`, or for regression if there are none.

    The head is drawn from torch's global generator: seed it before.

    Args:
        config: Name and whether to forget the pre-trained weights.
        label_names: Classes in the order of their index.
        attention: Attention kernel; `None` is the model's own choice.

    Raises:
        ValueError: If the name is neither a folder with a model nor a model on the Hub.
    """
    source = str(_EMBEDDED_DIR) if config.name == EMBEDDED else config.name
    num_labels = max(len(label_names), 1)
    settings: dict[str, Any] = {
        "num_labels": num_labels,
        "problem_type": "single_label_classification" if label_names else "regression",
    }
    if attention is not None:
        settings["attn_implementation"] = attention
    if label_names:
        settings["id2label"] = dict(enumerate(label_names))
        settings["label2id"] = {name: index for index, name in enumerate(label_names)}
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # "newly initialized: classifier" is what we want
    transformers_logging.disable_progress_bar()
    try:
        model_config = AutoConfig.from_pretrained(source, **settings)
        tokenizer = AutoTokenizer.from_pretrained(source)
        if config.random_init:
            model = AutoModelForSequenceClassification.from_config(model_config)
        else:
            # A head for other classes, in a fine-tuned folder, is replaced rather than refused.
            model = AutoModelForSequenceClassification.from_pretrained(
                source, config=model_config, dtype=torch.float32, ignore_mismatched_sizes=True
            )
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            "`backbone.name` must be embedded, a local model folder or a Hub id, got "
            f"{config.name!r}: {reason}"
        ) from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    return Backbone(model=model, tokenizer=tokenizer, fingerprint=weights_fingerprint(model))


def weights_fingerprint(model: PreTrainedModel) -> str:
    """Return a hash over the names, shapes and values of the base model's weights."""
    base = model.base_model
    assert isinstance(base, torch.nn.Module)
    digest = hashlib.sha256()
    for name, tensor in sorted(base.state_dict().items()):
        digest.update(name.encode())
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
