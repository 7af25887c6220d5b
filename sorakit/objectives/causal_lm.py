"""The next token of a text, or of the response to a prompt: cross entropy in nats."""

from collections.abc import Iterator, Sequence
from typing import Any, final

from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModelForCausalLM,
    PreTrainedTokenizerBase,
)
from typing_extensions import override

from sorakit.objectives._texts import INPUT_IDS, Encoded, ended
from sorakit.objectives._tokens import IGNORED, LABELS, TokenObjective
from sorakit.quoting import quoted


@final
class CausalLm(TokenObjective):
    """A decoder reads a text, or a prompt and its response, and learns what it was to predict.

    Every token of a text but its first is predicted, and of a prompt with a response every token
    of the response. Both end with the tokenizer's end token, unless they are cut. Nothing is
    packed: an example is one text.
    """

    task_type = "CAUSAL_LM"
    model_class = AutoModelForCausalLM
    model_mapping = MODEL_FOR_CAUSAL_LM_MAPPING
    head = "a language model's head"
    encoding = ("causal_lm",)
    shift = 1

    @override
    def encode(
        self,
        texts: Sequence[Sequence[str]],
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
    ) -> Encoded:
        ids, labels, is_cut = [], [], []
        for read, written in _parts(texts, tokenizer):
            given = _room(read, written, max_length)
            whole = given + written
            row = whole[:max_length]
            if len(row) < 2:
                raise ValueError(
                    "`task.text_column` must hold texts of at least 2 tokens, got "
                    f"{quoted(texts[0][len(ids)])}. Take that row out of the data."
                )
            num_read = max(len(given), 1)
            ids.append(row)
            labels.append([IGNORED] * num_read + row[num_read:])
            is_cut.append(len(read) + len(written) > max_length)
        return Encoded(columns={INPUT_IDS: ids, LABELS: labels}, is_cut=is_cut)


def _parts(
    texts: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield what is read and what is written of every example, as token ids."""
    if len(texts) == 1:
        for ids in _ids(tokenizer, texts[0], add_special_tokens=True):
            yield [], ended(ids, tokenizer)
    elif tokenizer.chat_template is not None:
        for prompt, response in zip(*texts, strict=True):
            yield _turns(tokenizer, prompt, response)
    else:
        prompts = _ids(tokenizer, texts[0], add_special_tokens=True)
        responses = _ids(tokenizer, texts[1], add_special_tokens=False)
        end = tokenizer.eos_token_id
        for prompt, response in zip(prompts, responses, strict=True):
            read = prompt[:-1] if prompt and prompt[-1] == end else prompt
            yield read, ended(response, tokenizer)


def _turns(
    tokenizer: PreTrainedTokenizerBase, prompt: str, response: str
) -> tuple[list[int], list[int]]:
    """Return the turn of a user, up to where the answer begins, and the answer to its end.

    Raises:
        ValueError: If the chat template writes the first otherwise when there is an answer.
    """
    user = {"role": "user", "content": prompt}
    answer = {"role": "assistant", "content": response}
    read = str(tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=True))
    whole = str(tokenizer.apply_chat_template([user, answer], tokenize=False))
    if not whole.startswith(read):
        raise ValueError(
            "`backbone.name` must have a chat template that begins a conversation with an answer "
            f"as the one that asks for it, got {quoted(whole[:60])} after {quoted(read[:60])}. "
            "Take `chat_template` out of its tokenizer to train without one."
        )
    parts = _ids(tokenizer, [read, whole[len(read) :]], add_special_tokens=False, is_text=False)
    return parts[0], parts[1]


def _ids(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    add_special_tokens: bool,
    is_text: bool = True,
) -> list[list[int]]:
    encoding: Any = tokenizer(
        list(texts),
        add_special_tokens=add_special_tokens,
        return_attention_mask=False,
        split_special_tokens=is_text,  # </s> in a text is text; a template writes tokens
        verbose=False,
    )
    return [list(ids) for ids in encoding[INPUT_IDS]]


def _room(read: list[int], written: list[int], max_length: int) -> list[int]:
    """Return the end of a prompt that leaves the response its length, or half of the input."""
    room = max(max_length - len(written), max_length // 2)
    return read[max(len(read) - room, 0) :]


VARIANT = CausalLm()
