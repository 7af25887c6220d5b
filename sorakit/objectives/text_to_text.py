"""A text from a text by an encoder and a decoder: cross entropy in nats."""

from collections.abc import Mapping, Sequence
from typing import Any, final

from torch import Tensor
from transformers import (
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    AutoModelForSeq2SeqLM,
    PreTrainedTokenizerBase,
)
from typing_extensions import override

from sorakit.metric_names import LABEL
from sorakit.objectives._texts import INPUT_IDS, Encoded, encode_texts, ended, padded_inputs
from sorakit.objectives._tokens import LABELS, TokenObjective, padded_labels


@final
class TextToText(TokenObjective):
    """The encoder reads the prompt, and every token of the response is predicted."""

    task_type = "SEQ_2_SEQ_LM"
    model_class = AutoModelForSeq2SeqLM
    model_mapping = MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
    head = "an encoder, a decoder and a language model's head"
    encoding = ("text_to_text",)
    shift = 0

    @override
    def encode(
        self,
        texts: Sequence[Sequence[str]],
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
    ) -> Encoded:
        if len(texts) == 1:
            raise ValueError(
                "`task.objective` must be causal_lm for texts without a response, got "
                "text_to_text. Name the column of the responses in `task.text_pair_column`."
            )
        read = encode_texts(texts[:1], tokenizer, max_length=max_length)
        written: Any = tokenizer(
            text_target=list(texts[1]),
            truncation=True,
            max_length=max_length,
            split_special_tokens=True,
        )
        return Encoded(
            columns={
                INPUT_IDS: read.columns[INPUT_IDS],
                LABELS: [ended(ids, tokenizer)[:max_length] for ids in written[INPUT_IDS]],
            },
            is_cut=read.is_cut,
        )

    @override
    def collate(
        self,
        rows: Sequence[Mapping[str, Any]],
        tokenizer: PreTrainedTokenizerBase,
        *,
        length: int | None = None,
    ) -> dict[str, Tensor]:
        batch = padded_inputs(rows, tokenizer, length=length)
        longest = max(len(row[LABELS]) for row in rows)
        # The model itself makes of them what its decoder reads: only it knows the first token.
        batch[LABEL] = batch[LABELS] = padded_labels(rows, width=longest)
        return batch


VARIANT = TextToText()
