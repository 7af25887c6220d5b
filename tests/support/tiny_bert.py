"""The architecture of the tiny BERT, for fixtures and for processes without fixtures."""

from typing import Any

TINY_BERT: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 32,
    "id2label": {0: "a", 1: "b", 2: "c"},
    # no dropout: it would draw from the global generator in training mode
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
