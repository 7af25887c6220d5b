"""A tiny language model with its tokenizer, drawn anew, and small files of texts: no download."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ["<pad>", "<unk>", "<s>", "</s>", "<user>", "<bot>"]
WORDS = [f"w{number}" for number in range(26)]
CHAT = (
    "{% for message in messages %}{{ '<user> ' if message.role == 'user' else '<bot> ' }}"
    "{{ message.content }}{{ ' </s>' if message.role == 'assistant' else ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}<bot> {% endif %}"
)


def tiny_tokenizer(*, chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """Return a tokenizer of 26 words that begins a text with <s>."""
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]  # a property in Rust
    tokenizer.post_processor = TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]  # as above
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<user>", "<bot>"],
        model_max_length=64,
    )
    if chat_template is not None:
        fast.chat_template = chat_template
    return fast


def tiny_llama(*, seed: int = 0) -> LlamaForCausalLM:
    """Return a Llama of two layers of width 64, its weights drawn."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


def write_llama(folder: Path, *, chat_template: str | None = None) -> Path:
    """Write the model and its tokenizer in the Hub's layout."""
    tiny_llama().save_pretrained(folder)
    tiny_tokenizer(chat_template=chat_template).save_pretrained(folder)
    return folder


def write_rows(file: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    """Write rows as JSON lines."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(dict(row)) + "\n" for row in rows), encoding="utf-8")
    return file
