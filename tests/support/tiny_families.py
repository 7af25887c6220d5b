"""A model folder of every family that transformers can put a classification head on, tiny.

Configurations are the library's own classes with small sizes; weights are drawn. The tokenizer is
that of `tests.support.tiny_hub`, whose 28 words leave room in every embedding.
"""

from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, AutoTokenizer, PreTrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as WITH_HEAD,
)

from tests.support.tiny_hub import write_model

HIDDEN, LAYERS, POSITIONS = 16, 2, 40
NOT_BUILT = {
    "axk1": "has no sizes this small that fit together",
    "cohere_compass_text": "has no sizes this small that fit together",
    "mistral4": "has no sizes this small that fit together",
    "layoutlmv2": "needs detectron2",
    "layoutlmv3": "reads pages, not texts",
    "perceiver": "has its head inside its base model; refused, tests/unit/test_backbone_loading.py",
    "reformer": "takes only lengths that are multiples of its chunks while it trains",
    "zamba": "has no size this small",
    "zamba2": "has no size this small",
}
FAMILIES = tuple(sorted(set(WITH_HEAD) - set(NOT_BUILT)))

_SIZES: dict[str, Any] = {
    **dict.fromkeys(["hidden_size", "n_embd", "d_model", "dim", "emb_dim"], HIDDEN),
    **dict.fromkeys(["embedding_size", "pooler_hidden_size"], HIDDEN),
    **dict.fromkeys(["num_hidden_layers", "n_layer", "n_layers", "num_layers"], LAYERS),
    **dict.fromkeys(["encoder_layers", "decoder_layers", "num_decoder_layers"], LAYERS),
    **dict.fromkeys(["num_attention_heads", "n_head", "n_heads", "num_heads"], 2),
    **dict.fromkeys(["encoder_attention_heads", "decoder_attention_heads"], 2),
    **dict.fromkeys(["intermediate_size", "hidden_dim", "n_inner", "d_ff", "ffn_dim"], 32),
    **dict.fromkeys(["encoder_ffn_dim", "decoder_ffn_dim", "d_inner"], 32),
    **dict.fromkeys(["max_position_embeddings", "n_positions", "n_ctx"], POSITIONS),
    **dict.fromkeys(["max_seq_len", "max_2d_position_embeddings"], POSITIONS),
    **dict.fromkeys(["head_dim", "d_kv", "d_head"], 8),
    **dict.fromkeys(["q_lora_rank", "kv_lora_rank"], 8),
    **dict.fromkeys(["qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"], 8),
    **dict.fromkeys(["num_experts", "num_local_experts", "n_routed_experts"], 4),
    **dict.fromkeys(["moe_intermediate_size", "shared_expert_intermediate_size"], 16),
    **dict.fromkeys(["initializer_range", "init_std"], 0.3),  # large enough to tell words apart
    **dict.fromkeys(["entity_vocab_size", "pronunciation_vocab_size", "shape_vocab_size"], 64),
    "num_key_value_heads": 1,
    "num_experts_per_tok": 2,
    "image_size": 28,
    "patch_size": 14,
    "vocab_size": 64,
    "pad_token_id": 0,  # those of the tokenizer
    "bos_token_id": 2,
    "eos_token_id": 3,
    "decoder_start_token_id": 2,
}
_DROPPED = {
    "falcon": ["head_dim"],
    "funnel": ["num_hidden_layers"],
    "xlnet": ["max_position_embeddings"],
}
_LINEAR_AND_FULL = {"layer_types": ["linear_attention", "full_attention"]}
_CHANGED: dict[str, dict[str, Any]] = {
    "axk2": {"num_key_value_heads": 2},
    "deepseek_v2": {"num_key_value_heads": 2},
    "deepseek_v3": {"num_key_value_heads": 2},
    "diffllama": {"num_key_value_heads": 2},
    "esmc": {"num_key_value_heads": 2},
    "funnel": {"block_sizes": [1, 1]},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 4},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lilt": {"channel_shrink_ratio": 2, "hidden_size": 24},
    "minicpm3": {"num_key_value_heads": 2},
    "t5": {"decoder_start_token_id": 0},
    "qwen3_5_text": _LINEAR_AND_FULL,
    "qwen3_next": _LINEAR_AND_FULL,
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
}


def tiny_config(model_type: str) -> PreTrainedConfig:
    """Return the library's configuration of a family with two layers of width 16."""
    return _tiny(CONFIG_MAPPING[model_type], model_type)


def _tiny(kind: type[PreTrainedConfig], model_type: str) -> PreTrainedConfig:
    default = kind()
    dropped = _DROPPED.get(model_type, [])
    values: dict[str, Any] = {
        name: value
        for name, value in _SIZES.items()
        if name not in dropped
        and hasattr(default, name)
        and not isinstance(getattr(default, name), dict | list | tuple)
    }
    parts: dict[str, Any] = kind.sub_configs  # pyright: ignore[reportAssignmentType]  # a class property
    for name in parts:
        part = getattr(default, name, None)
        if isinstance(part, PreTrainedConfig):
            values[name] = _tiny(type(part), part.model_type).to_dict()
    return kind(**values | _CHANGED.get(model_type, {}))


def write_family(folder: Path, model_type: str) -> Path:
    """Write configuration and tokenizer of a family; the weights are to be drawn."""
    write_model(folder)
    (folder / "model.safetensors").unlink()
    tiny_config(model_type).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.model_max_length = 1024  # so that the model alone limits the length
    tokenizer.save_pretrained(folder)
    return folder
