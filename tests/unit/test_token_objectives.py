import math
from collections.abc import Collection
from typing import Any

import pytest
import torch
from torch import Tensor

from sorakit.objectives import objective
from sorakit.objectives._tokens import CONTINUATION, IGNORED, PREFIX
from tests.support.tiny_lm import CHAT, tiny_llama, tiny_tokenizer

CAUSAL: Any = objective("causal_lm")
TO_TEXT: Any = objective("text_to_text")
NUM_TOKENS = 32


def logits_for(tokens: list[int], *, wrong: Collection[int] = ()) -> Tensor:
    """Return logits whose largest entry is every token, or another one at the places `wrong`."""
    best = [(token + 1) % NUM_TOKENS if at in wrong else token for at, token in enumerate(tokens)]
    return 4.0 * torch.nn.functional.one_hot(torch.tensor(best), NUM_TOKENS).float()


def columns(tokens: list[int], *, wrong: Collection[int] = (), ignored: int = 0) -> dict:
    """Return the row of an example, the last of whose tokens is the end of the text."""
    labels = torch.tensor([[IGNORED] * ignored + tokens[ignored:]])
    outputs, counts = TO_TEXT.outputs(logits_for(tokens, wrong=wrong)[None], labels)
    return dict(TO_TEXT.columns(outputs, counts))


def by_definition(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return exact memorization and extraction strength of one example, by their definitions.

    The share of tokens that are most likely, and 1 - k / n for the shortest beginning of k tokens
    after which all are. At least 1 / n, as OpenUnlearning's loop over k ends at the last token.
    """
    right = (logits.argmax(dim=1) == labels).tolist()
    n = len(right)
    k = next((k for k in range(n) if all(right[k:])), n - 1)
    return sum(right) / n, 1 - k / n


@pytest.mark.parametrize(
    ("wrong", "accuracy", "strength"),
    [
        (set(), 1.0, 1.0),
        ({0}, 3 / 4, 3 / 4),
        ({1}, 3 / 4, 2 / 4),
        ({0, 2}, 2 / 4, 1 / 4),
        ({3}, 3 / 4, 1 / 4),  # nothing is extracted; OpenUnlearning gives 1 / n as well
        ({0, 1, 2, 3}, 0.0, 1 / 4),
        ({4}, 1.0, 1.0),  # the end of the text is not looked at
    ],
)
def test_scores_of_an_example_computed_by_hand(wrong, accuracy, strength):
    row = columns([5, 6, 7, 8, 3], wrong=wrong)
    assert row["token_accuracy"].tolist() == [pytest.approx(accuracy)]
    assert row["extraction_strength"].tolist() == [pytest.approx(strength)]
    assert row["correct"].tolist() == [accuracy == 1]


def test_scores_are_those_of_their_definitions_on_random_logits():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 9, 3, generator=generator)
    labels = torch.randint(0, 3, (40, 9), generator=generator)
    for row in range(40):  # prompts and padding of any length
        labels[row, : row % 4] = IGNORED
        labels[row, 9 - row % 3 :] = IGNORED
    outputs, counts = CAUSAL.outputs(logits, labels)
    found = CAUSAL.columns(outputs, counts)
    for row in range(40):
        places = [at for at in range(1, 9) if labels[row, at] != IGNORED]
        shifted = torch.tensor([at - 1 for at in places])
        whole = logits[row, shifted], labels[row, torch.tensor(places)]
        accuracy, strength = by_definition(whole[0][:-1], whole[1][:-1])
        assert found["token_accuracy"][row] == pytest.approx(accuracy)
        assert found["extraction_strength"][row] == pytest.approx(strength)
        loss = torch.nn.functional.cross_entropy(*whole)
        assert CAUSAL.losses(logits, labels)[row].item() == pytest.approx(loss.item(), rel=1e-5)
        assert found["probability"][row] == pytest.approx(math.exp(-loss.item()), rel=1e-5)
        assert CAUSAL.output_losses(outputs, counts)[row].item() == pytest.approx(
            loss.item(), rel=1e-5
        )


def test_extraction_counts_tokens_after_the_prefix_up_to_the_first_wrong_one():
    tokens = [4 + at % 20 for at in range(PREFIX + CONTINUATION + 5)] + [3]
    assert columns(tokens)["extraction_length"].tolist() == [CONTINUATION + 5]
    assert columns(tokens, wrong={0, PREFIX - 1})["extraction_length"].tolist() == [
        CONTINUATION + 5
    ]
    assert columns(tokens, wrong={PREFIX + 3, PREFIX + 9})["extraction_length"].tolist() == [3]
    assert columns(tokens, wrong={PREFIX})["extraction_length"].tolist() == [0]
    prompt = [9] * 7
    assert columns([*prompt, *tokens], ignored=7)["extraction_length"].tolist() == [
        CONTINUATION + 5
    ]


def test_rate_is_over_texts_that_are_long_enough():
    texts = {length: [4 + at % 20 for at in range(length)] + [3] for length in (10, 20, 40)}
    rows = [TO_TEXT.outputs(logits_for(t)[None], torch.tensor([t]))[0] for t in texts.values()]
    wrong = logits_for(texts[40], wrong={PREFIX + CONTINUATION - 1})[None]
    rows.append(TO_TEXT.outputs(wrong, torch.tensor([texts[40]]))[0])
    outputs = torch.cat(rows)
    assert TO_TEXT.score("extraction_rate", outputs, outputs[:, 1].long()) == 0.5
    lengths = TO_TEXT.columns(outputs, outputs[:, 1].long())["extraction_length"]
    assert math.isnan(lengths[0])
    assert lengths[1:].tolist() == [4, 24, CONTINUATION - 1]


def test_length_is_that_of_greedy_decoding():
    model: Any = tiny_llama()
    generator = torch.Generator().manual_seed(1)
    lengths = []
    for _ in range(12):
        start = torch.randint(6, NUM_TOKENS, (1, PREFIX + 1), generator=generator)
        text = model.generate(start, max_new_tokens=20, do_sample=False, eos_token_id=None)
        assert isinstance(text, Tensor)
        at = int(torch.randint(PREFIX + 1, text.shape[1] - 1, (1,), generator=generator))
        text[0, at] = (text[0, at] + 1) % NUM_TOKENS  # the text goes on otherwise from here
        greedy = model.generate(
            text[:, : PREFIX + 1], max_new_tokens=20, do_sample=False, eos_token_id=None
        )
        assert isinstance(greedy, Tensor)
        labels = text.clone()
        labels[0, 0] = IGNORED
        with torch.no_grad():
            outputs, counts = CAUSAL.outputs(model(text).logits, labels)
        same = (greedy[0, PREFIX + 1 : -1] == text[0, PREFIX + 1 : -1]).int()
        expected = int(same.cumprod(0).sum())
        assert CAUSAL.columns(outputs, counts)["extraction_length"].tolist() == [expected]
        lengths.append(expected)
    assert len(set(lengths)) > 4


def test_perplexity_and_bits_are_of_all_tokens_together():
    short, long = torch.tensor([[5, 3]]), torch.tensor([[5, 6, 7, 8, 9, 3]])
    outputs = torch.cat(
        [
            TO_TEXT.outputs(torch.zeros(1, 2, NUM_TOKENS), short)[0],
            TO_TEXT.outputs(logits_for(long[0].tolist())[None], long)[0],
        ]
    )
    losses = outputs[:, 0]
    mean = float(losses.sum()) / 8
    assert TO_TEXT.score("perplexity", outputs, outputs[:, 1].long()) == pytest.approx(
        math.exp(mean)
    )
    assert TO_TEXT.score("bits_per_token", outputs, outputs[:, 1].long()) == pytest.approx(
        mean / math.log(2)
    )


def test_text_is_predicted_but_for_its_first_token_and_ends():
    encoded = CAUSAL.encode([["w0 w1", "w2 w3 w4 w5 w6 w7"]], tiny_tokenizer(), max_length=6)
    assert encoded.columns["input_ids"] == [[2, 6, 7, 3], [2, 8, 9, 10, 11, 12]]
    assert encoded.columns["labels"][0] == [IGNORED, 6, 7, 3]
    assert encoded.is_cut == [False, True]


def test_response_alone_is_predicted():
    encoded = CAUSAL.encode([["w0 w1"], ["w2"]], tiny_tokenizer(), max_length=16)
    assert encoded.columns["input_ids"] == [[2, 6, 7, 8, 3]]
    assert encoded.columns["labels"] == [[IGNORED, IGNORED, IGNORED, 8, 3]]


def test_chat_template_writes_the_turns():
    tokenizer = tiny_tokenizer(chat_template=CHAT)
    encoded = CAUSAL.encode([["w0 w1"], ["w2"]], tokenizer, max_length=16)
    assert tokenizer.convert_ids_to_tokens(encoded.columns["input_ids"][0]) == [
        *("<user>", "w0", "w1", "<bot>", "w2", "</s>")
    ]
    assert encoded.columns["labels"] == [[IGNORED] * 4 + [8, 3]]


def test_chat_template_that_rewrites_the_question_is_refused():
    template = "{{ messages | length }} {{ messages[0].content }}"
    with pytest.raises(ValueError, match=r"^`backbone\.name` must have a chat template that beg"):
        CAUSAL.encode([["w0"], ["w1"]], tiny_tokenizer(chat_template=template), max_length=16)


def test_long_prompt_loses_its_beginning_before_the_response_its_end():
    prompt, response = " ".join(f"w{k}" for k in range(12)), "w20 w21 w22"
    encoded = CAUSAL.encode([[prompt], [response]], tiny_tokenizer(), max_length=8)
    assert encoded.columns["input_ids"] == [[14, 15, 16, 17, 26, 27, 28, 3]]
    assert encoded.columns["labels"] == [[IGNORED] * 4 + [26, 27, 28, 3]]
    assert encoded.is_cut == [True]


def test_text_in_which_nothing_is_predicted_is_refused():
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match=r"^`task\.text_column` must hold texts of at least 2 t"):
        CAUSAL.encode([["w0 w1", ""]], tokenizer, max_length=16)


@pytest.mark.parametrize("side", ["right", "left"])
def test_labels_are_padded_with_their_tokens(side):
    tokenizer = tiny_tokenizer()
    encoded = CAUSAL.encode([["w0 w1", "w2"]], tokenizer, max_length=8)
    rows = [
        {**dict(zip(encoded.columns, values, strict=True)), "attention_mask": [1] * len(values[0])}
        for values in zip(*encoded.columns.values(), strict=True)
    ]
    tokenizer.padding_side = side
    batch = CAUSAL.collate(rows, tokenizer)
    is_label = batch["label"] != IGNORED
    assert (batch["label"][is_label] == batch["input_ids"][is_label]).all()
    assert is_label.sum(dim=1).tolist() == [3, 2]


def test_encoder_reads_the_prompt_and_the_response_is_predicted_to_its_end():
    tokenizer = tiny_tokenizer()
    encoded = TO_TEXT.encode([["w0 w1", "w2"], ["w3", "w4 w5"]], tokenizer, max_length=8)
    assert encoded.columns["input_ids"] == [[2, 6, 7], [2, 8]]
    assert encoded.columns["labels"] == [[2, 9, 3], [2, 10, 11, 3]]
    rows = [
        {"input_ids": ids, "labels": labels, "attention_mask": [1] * len(ids)}
        for ids, labels in zip(*encoded.columns.values(), strict=True)
    ]
    batch = TO_TEXT.collate(rows, tokenizer)
    assert batch["label"].tolist() == [[2, 9, 3, IGNORED], [2, 10, 11, 3]]
    assert batch["labels"].tolist() == batch["label"].tolist()


def test_texts_without_responses_are_nothing_for_an_encoder_and_decoder():
    with pytest.raises(ValueError, match=r"^`task\.objective` must be causal_lm for texts without"):
        TO_TEXT.encode([["w0"]], tiny_tokenizer(), max_length=8)
