"""Pre-trained models by name: the embedded encoder, a local folder, or a Hub id."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.image_processing_utils import BaseImageProcessor
from transformers.utils import logging as transformers_logging

from sorakit.backbones.loading import check_text_files, loading
from sorakit.backbones.weights import check_weights, draw_head_anew, weights_fingerprint
from sorakit.config import BackboneConfig

if TYPE_CHECKING:
    import sorakit.objectives

__all__ = ["EMBEDDED", "Backbone", "load_backbone", "weights_fingerprint"]

Processor = PreTrainedTokenizerBase | BaseImageProcessor
"""What makes inputs of examples: a tokenizer, or an image processor."""
EMBEDDED = "embedded"
EMBEDDED_DIR = Path(__file__).parent / "assets" / "encoder"


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A loaded backbone with a task head.

    Attributes:
        model: Model with the head of the objective, float32.
        tokenizer: Its tokenizer, with a pad token; it gives what the model takes. Of a model of
            images, its image processor.
        fingerprint: Hash of the weights.
    """

    model: PreTrainedModel
    tokenizer: Processor
    fingerprint: str

    @property
    def text_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of a model of texts."""
        assert isinstance(self.tokenizer, PreTrainedTokenizerBase)
        return self.tokenizer

    @property
    def hidden_size(self) -> int:
        """Width of the text model, wherever its configuration stands."""
        config = self.model.config.get_text_config()
        if hasattr(config, "hidden_size"):
            return int(config.hidden_size)
        return int(max(config.hidden_sizes))  # of a pyramid of images

    @property
    def num_layers(self) -> int:
        """Layers of the text model; of its decoder, if it has an encoder as well."""
        config = self.model.config.get_text_config()
        if hasattr(config, "num_hidden_layers"):
            return int(config.num_hidden_layers)
        return int(sum(config.depths))


def load_backbone(
    config: BackboneConfig,
    *,
    objective: "sorakit.objectives.Objective",
    label_names: tuple[str, ...],
    attention: str | None = None,
) -> Backbone:
    """Load a backbone with the head of an objective.

    The head is drawn from torch's global generator: seed it before. A head that the folder has is
    replaced, whatever its classes.

    Args:
        config: Name and whether to forget the pre-trained weights.
        objective: What it is to be trained to do.
        label_names: Classes in the order of their index.
        attention: Attention kernel; `None` is the model's own choice.

    Raises:
        ValueError: If there is no such model, a file of it is damaged, its weights are not those of
            its configuration, it has no classification head, or its tokenizer cannot pad.
    """
    source = backbone_source(config.name)
    settings: dict[str, Any] = objective.settings(label_names)
    if attention is not None:
        settings["attn_implementation"] = attention
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # "newly initialized: classifier" is what we want
    transformers_logging.disable_progress_bar()
    try:
        check_text_files(source)
        with loading(source):
            model_config = AutoConfig.from_pretrained(source, trust_remote_code=False, **settings)
        _check_head(model_config, config.name, objective)
        kind = AutoTokenizer if objective.inputs == "texts" else AutoImageProcessor
        with loading(source):
            tokenizer = kind.from_pretrained(source, trust_remote_code=False)
        model = _load_model(source, config, model_config, objective)
    finally:
        transformers_logging.set_verbosity(verbosity)
    if isinstance(tokenizer, PreTrainedTokenizerBase):
        _settle_tokenizer(tokenizer, model, config.name)
    return Backbone(model=model, tokenizer=tokenizer, fingerprint=weights_fingerprint(model))


def backbone_source(name: str) -> str:
    """Return the folder or Hub id that `backbone.name` stands for."""
    return str(EMBEDDED_DIR) if name == EMBEDDED else name


def _check_head(
    model_config: PreTrainedConfig, name: str, objective: "sorakit.objectives.Objective"
) -> None:
    if type(model_config) not in objective.model_mapping:
        raise ValueError(
            f"`backbone.name` must be a model that transformers can put {objective.head} on, "
            f"got {name!r} of type {model_config.model_type!r}."
        )


def _load_model(
    source: str,
    config: BackboneConfig,
    model_config: PreTrainedConfig,
    objective: "sorakit.objectives.Objective",
) -> PreTrainedModel:
    if config.random_init:
        with loading(source):
            model = objective.model_class.from_config(model_config, trust_remote_code=False)
        objective.head_modules(model)
        return model
    with loading(source):
        # Sizes that do not fit are reported rather than raised, and judged by where they are.
        model, report = objective.model_class.from_pretrained(
            source,
            config=model_config,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            trust_remote_code=False,
        )
    head = objective.head_modules(model)
    check_weights(model, report, name=config.name, head=head)
    draw_head_anew(model, report, head=head)
    return model


def _settle_tokenizer(
    tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, name: str
) -> None:
    """Give a tokenizer a pad token, and let it give only what the model takes."""
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ValueError(
                "`backbone.name` must have a tokenizer with a pad token, or an end token to pad "
                f"with, got {name!r} with neither. Set `pad_token` in its tokenizer_config.json."
            )
        tokenizer.pad_token = tokenizer.eos_token
    for part in (model.config, model.config.get_text_config()):
        part.pad_token_id = tokenizer.pad_token_id
    taken = inspect.signature(model.forward).parameters
    tokenizer.model_input_names = [key for key in tokenizer.model_input_names if key in taken]
