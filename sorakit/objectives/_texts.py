"""Texts as token ids: what an objective makes of them before anything is trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

INPUT_IDS = "input_ids"


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Some examples as integers.

    Attributes:
        columns: Name -> one list an example; `input_ids` among them.
        is_cut: Whether a text did not fit, an example each.
    """

    columns: Mapping[str, Sequence[Sequence[int]]]
    is_cut: Sequence[bool]


def encode_texts(
    texts: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase, *, max_length: int
) -> Encoded:
    """Return texts, or pairs of them, as the tokenizer makes one input of each.

    Args:
        texts: The first texts of the examples, and the second ones where they are pairs.
        tokenizer: Tokenizer of the backbone.
        max_length: Longest input in tokens; longer ones are cut.
    """
    encoding = tokenizer(
        list(texts[0]),
        list(texts[1]) if len(texts) > 1 else None,
        truncation=True,
        max_length=max_length,
        return_attention_mask=False,
        split_special_tokens=True,  # [SEP] in a text is text: BART counts its end tokens
    )
    columns = {name: encoding[name] for name in encoding}
    return Encoded(columns=columns, is_cut=_cut_rows(encoding, texts, tokenizer, max_length))


def ended(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens of a text with the end token behind them, if the tokenizer has one."""
    end: Any = tokenizer.eos_token_id
    return ids if end is None or (ids and ids[-1] == end) else [*ids, int(end)]


def padded_inputs(
    rows: Sequence[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    length: int | None = None,
) -> dict[str, Tensor]:
    """Return what the model takes of some examples, padded on the tokenizer's side.

    Args:
        rows: Outputs of the tokenizer.
        tokenizer: Tokenizer of the backbone.
        length: Tokens that every example is padded to; `None` is the longest of them.
    """
    names = [name for name in tokenizer.model_input_names if name in rows[0]]
    padding = "longest" if length is None else "max_length"
    pad = DataCollatorWithPadding(tokenizer, padding=padding, max_length=length)
    return dict(pad([{name: row[name] for name in names} for row in rows]))


def _cut_rows(
    encoding: Any,
    texts: Sequence[Sequence[str]],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
) -> list[bool]:
    """Return which rows were longer than `max_length`."""
    if encoding.encodings is not None:  # of the Rust tokenizers, which keep what they cut off
        return [bool(row.overflowing) for row in encoding.encodings]
    is_cut = []
    for row, ids in enumerate(encoding[INPUT_IDS]):
        whole = ids
        if len(ids) >= max_length:
            pair = texts[1][row] if len(texts) > 1 else None
            whole = tokenizer(
                texts[0][row], pair, truncation=False, verbose=False, split_special_tokens=True
            )[INPUT_IDS]
        is_cut.append(len(whole) > len(ids))
    return is_cut
