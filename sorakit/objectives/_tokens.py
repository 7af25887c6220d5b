"""What objectives that write texts have in common: the loss and the scores of labelled tokens.

Scores are those of OpenUnlearning (github.com/locuslab/open-unlearning): `token_accuracy` is its
exact memorization, `extraction_strength` its extraction strength, `probability` its probability.
All come from one forward pass over the text itself. As long as the most likely token is the text's
own, greedy decoding goes on as the text does; so where the first token that is not lies says how
far a greedy continuation of the text's beginning repeats it, without decoding anything.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from typing_extensions import override

from sorakit.config import TaskMetric
from sorakit.metric_names import LABEL
from sorakit.objectives import Columns, Objective
from sorakit.objectives._texts import INPUT_IDS, padded_inputs

LABELS = "labels"
"""Column of token ids to be predicted, one a token of the text; `IGNORED` where there is none."""
IGNORED = -100
PREFIX = 16
"""Predicted tokens that the extraction test gives: k."""
CONTINUATION = 16
"""Tokens that a greedy continuation must get right to be an extraction: n."""

# Columns of what evaluation keeps of an example.
_LOSS, _TOKENS, _COMPARED, _RIGHT, _STRENGTH, _CONTINUED = range(6)


class TokenObjective(Objective):
    """The loss of an example is the mean cross entropy of its labelled tokens, in nats.

    Every example counts the same, however long. Scores leave the last labelled token out, which is
    the end of the text, as OpenUnlearning does; the loss does not.

    Attributes:
        shift: Positions between a logit and the token it predicts.
    """

    labels = "texts"
    metrics = ("token_accuracy", "exact_match", "extraction_strength", "extraction_rate")
    further_metrics = (
        "exact_match",
        "extraction_strength",
        "extraction_rate",
        "extraction_length",
        "perplexity",
        "bits_per_token",
    )
    shift: int

    @override
    def settings(self, label_names: Sequence[str]) -> dict[str, Any]:
        assert not label_names, label_names
        return {}

    @override
    def head_modules(self, model: PreTrainedModel) -> list[str]:
        """Return none: the layer that makes tokens is pre-trained, and stays as it is."""
        return []

    @override
    def collate(
        self,
        rows: Sequence[Mapping[str, Any]],
        tokenizer: PreTrainedTokenizerBase,
        *,
        length: int | None = None,
    ) -> dict[str, Tensor]:
        batch = padded_inputs(rows, tokenizer, length=length)
        width, side = batch[INPUT_IDS].shape[1], str(tokenizer.padding_side)
        batch[LABEL] = padded_labels(rows, width=width, side=side)
        return batch

    @override
    def losses(
        self, logits: Float[Tensor, "b t tokens"], labels: Int[Tensor, "b t"]
    ) -> Float[Tensor, " b"]:
        logits, labels = self._aligned(logits, labels)
        return _sums(logits, labels) / _counts(labels)

    @override
    def outputs(
        self, logits: Float[Tensor, "b t tokens"], labels: Int[Tensor, "b t"]
    ) -> tuple[Float[Tensor, "b 6"], Int[Tensor, " b"]]:
        """Return six numbers an example, and its number of labelled tokens.

        Summed loss; labelled tokens; those that are compared; those of them that are the most
        likely ones; extraction strength; compared tokens after the prefix up to the first that is
        not the most likely one.
        """
        logits, labels = self._aligned(logits, labels)
        count = _counts(labels)
        is_label = labels != IGNORED
        position = is_label.cumsum(dim=1)  # from 1
        is_compared = is_label & (position < count[:, None])
        is_wrong = is_compared & (logits.argmax(dim=2) != labels)
        compared = count - 1
        last_wrong = position.where(is_wrong, 0).amax(dim=1)
        # Its loop ends at the last token, whether that is right or not.
        start = last_wrong.minimum(compared - 1)
        strength = 1 - start / compared.clamp(min=1)
        after = is_wrong & (position > PREFIX)
        end = position.where(after, compared[:, None] + 1).amin(dim=1)
        columns = {
            _LOSS: _sums(logits, labels),
            _TOKENS: count,
            _COMPARED: compared,
            _RIGHT: compared - is_wrong.sum(dim=1),
            _STRENGTH: strength.where(compared > 0, 0.0),
            _CONTINUED: (end - 1 - PREFIX).clamp(min=0),
        }
        stacked = torch.stack([columns[place].float() for place in range(6)], dim=1)
        return stacked, count

    @override
    def output_losses(
        self, outputs: Float[Tensor, "b 6"], labels: Int[Tensor, " b"]
    ) -> Float[Tensor, " b"]:
        return outputs[:, _LOSS] / outputs[:, _TOKENS]

    @override
    def score(
        self, metric: TaskMetric, outputs: Float[Tensor, "b 6"], labels: Int[Tensor, " b"]
    ) -> float:
        """Return a score of a split: a mean over the examples for which it is defined, 0 for none.

        `perplexity` and `bits_per_token` are of all tokens of the split together.
        """
        kept = outputs.double()
        if metric in ("perplexity", "bits_per_token"):
            loss = float(kept[:, _LOSS].sum() / kept[:, _TOKENS].sum())
            return math.exp(loss) if metric == "perplexity" else loss / math.log(2)
        values = self._by_example(outputs)[metric]
        return float(values.nanmean().nan_to_num())

    @override
    def columns(self, outputs: Float[Tensor, "b 6"], labels: Int[Tensor, " b"]) -> Columns:
        """Return what is said of every example; null where it has too few tokens.

        `correct`: every token is the most likely one. `probability`: exp(-loss). `tokens`:
        labelled ones. `token_accuracy`, `extraction_strength`, `extraction_length`: as the scores.
        """
        by_example = self._by_example(outputs)
        match = by_example["exact_match"]
        shown = ("token_accuracy", "extraction_strength", "extraction_length")
        return {
            "correct": pd.array(
                [None if math.isnan(value) else value == 1 for value in match.tolist()],
                dtype="boolean",
            ),
            "margin": float("nan"),
            "prediction": float("nan"),
            "probability": self.output_losses(outputs, labels).neg().exp().numpy(),
            "tokens": outputs[:, _TOKENS].int().numpy(),
            **{name: by_example[name].float().numpy() for name in shown},
        }

    def _by_example(self, outputs: Float[Tensor, "b 6"]) -> dict[str, Tensor]:
        """Return scores of every example, float64, NaN where it has too few tokens for them."""
        kept = outputs.double()
        compared = kept[:, _COMPARED]
        nothing = torch.full_like(compared, math.nan)
        continued, left = kept[:, _CONTINUED], compared - PREFIX
        return {
            "token_accuracy": kept[:, _RIGHT] / compared.where(compared > 0, nothing),
            "exact_match": (kept[:, _RIGHT] == compared).double().where(compared > 0, nothing),
            "extraction_strength": kept[:, _STRENGTH].where(compared > 0, nothing),
            "extraction_length": continued.where(left > 0, nothing),
            "extraction_rate": (continued >= CONTINUATION)
            .double()
            .where(left >= CONTINUATION, nothing),
        }

    def _aligned(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if self.shift == 0:
            return logits, labels
        return logits[:, : -self.shift], labels[:, self.shift :]


def padded_labels(
    rows: Sequence[Mapping[str, Any]], *, width: int, side: str = "right"
) -> Int[Tensor, "b t"]:
    """Return the labels of rows with `IGNORED` up to a width, on a side: right or left."""
    labels = torch.full((len(rows), width), IGNORED)
    for index, row in enumerate(rows):
        own = torch.tensor(row[LABELS])
        start = width - len(own) if side == "left" else 0
        labels[index, start : start + len(own)] = own
    return labels


def _sums(logits: Float[Tensor, "b t tokens"], labels: Int[Tensor, "b t"]) -> Float[Tensor, " b"]:
    losses = F.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return losses.view(labels.shape).sum(dim=1)


def _counts(labels: Int[Tensor, "b t"]) -> Int[Tensor, " b"]:
    return (labels != IGNORED).sum(dim=1)
