"""The six matrix types of a transformer layer, by the names that families of models give them."""

from collections.abc import Collection, Sequence

MATRIX_TYPES = ("W_Q", "W_K", "W_V", "W_O", "W_F1", "W_F2")
"""As the tables of the paper name them: queries, keys, values, output, and the two of the FFN."""

_FAMILIES: tuple[tuple[str, ...], ...] = (
    (  # BERT, RoBERTa, XLM-RoBERTa, ELECTRA, CamemBERT
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    ),
    (  # DeBERTa-v2 and -v3
        "attention.self.query_proj",
        "attention.self.key_proj",
        "attention.self.value_proj",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    ),
    (  # MPNet
        "attention.attn.q",
        "attention.attn.k",
        "attention.attn.v",
        "attention.attn.o",
        "intermediate.dense",
        "output.dense",
    ),
    (  # DistilBERT
        "attention.q_lin",
        "attention.k_lin",
        "attention.v_lin",
        "attention.out_lin",
        "ffn.lin1",
        "ffn.lin2",
    ),
    (  # Llama, Mistral, Qwen2, Gemma, ...: W_F1 without the gate of the FFN
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    ),
    (  # DINOv2
        "attention.q_proj",
        "attention.k_proj",
        "attention.v_proj",
        "attention.o_proj",
        "mlp.fc1",
        "mlp.fc2",
    ),
    (  # T5: without the attention of the decoder to the encoder
        "SelfAttention.q",
        "SelfAttention.k",
        "SelfAttention.v",
        "SelfAttention.o",
        "DenseReluDense.wi",
        "DenseReluDense.wo",
    ),
)
"""Endings of module names, in the order of `MATRIX_TYPES`."""


def type_names(
    names: Collection[str], types: Sequence[str], *, method: str | None = None
) -> list[str]:
    """Return those of a model's linear layers that are of some of the six types.

    Args:
        names: Full names of linear layers.
        types: Some of `MATRIX_TYPES`.
        method: `method.name`, where it and not `method.target_modules` wants them.

    Raises:
        ValueError: If the layers are of no known family.
    """
    for family in _FAMILIES:
        found = {
            kind: _ending_in(names, ending)
            for kind, ending in zip(MATRIX_TYPES, family, strict=True)
        }
        # `output.dense` is the end of `attention.output.dense` too.
        found["W_F2"] -= found["W_O"]
        if all(found.values()):
            wanted = set().union(*(found[kind] for kind in types))
            return [name for name in names if name in wanted]
    unknown = "its layers are not named as those of BERT, RoBERTa, DeBERTa, MPNet or DistilBERT."
    if method is not None:
        raise ValueError(f"`method.name` must not be {method} for this model: {unknown}")
    raise ValueError(
        "`method.target_modules` must be all-linear, a regular expression or name endings for this "
        f"model, got {', '.join(types)}: {unknown}"
    )


def _ending_in(names: Collection[str], ending: str) -> set[str]:
    return {name for name in names if name.endswith(f".{ending}")}
