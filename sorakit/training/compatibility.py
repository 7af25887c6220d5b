"""What the tokenizer made of the data against what the model takes, before anything is written."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sorakit.backbones.probe import logits_of, unreached_layers
from sorakit.config import RunConfig
from sorakit.method.shared_input import settle_groups
from sorakit.method.targets import resolve_target_modules
from sorakit.metric_names import GENERALIZATION_SPLIT, LABEL, MEMORIZATION_SPLIT, TEST_SPLIT
from sorakit.objectives.image_classification import PIXELS
from sorakit.tasks.base import Task
from sorakit.training.data import TRAIN, AdaptationData, Batch, Padding, model_inputs

_PLACES = {
    TRAIN: "the training data",
    GENERALIZATION_SPLIT: "the held-out data",
    TEST_SPLIT: "the test data",
}
_FAILURES = (IndexError, RuntimeError, ValueError, TypeError, KeyError, NotImplementedError)
"""Models say in many ways that an input does not fit: an index, a shape, a check of their own."""
_TOLERANCE = 1e-4
"""Difference of logits, as a share of the largest, that is taken for rounding in float32."""
_MAX_UNKNOWN = 0.5
_LOSS_EXAMPLES = 256
_MAX_NAMED = 3
_MAX_CLASSES = 8
_MAX_CLASS_NAME = 40


def settle_padding(model: PreTrainedModel, data: AdaptationData) -> Padding:
    """Choose the padding under which an example's result does not depend on its batch; set it.

    Measured, not looked up: the shortest example alone and beside the longest one. The tokenizer's
    own side is tried first, then the other, then both with every example padded to the same length
    (for models without an attention mask, or with convolutions that see past the end).

    Args:
        model: The backbone.
        data: Its tokenised data; the padding of its batches is set.

    Raises:
        ValueError: If the model fails on the longest example, or no padding will do.
    """
    short, long = data.extreme_rows()
    pair = [_row(data, *short), _row(data, *long)]
    largest = len(pair[1]["input_ids"])
    own = data.padding
    other = Padding(side="left" if own.side == "right" else "right")
    _check_longest(model, data)
    if len(pair[0]["input_ids"]) == largest:  # nothing is ever padded
        return own
    reason = ""
    for padding in (own, other, replace(own, length=largest), replace(other, length=largest)):
        data.padding = padding
        try:
            alone = _results(model, data, pair[:1])
            beside = _results(model, data, pair)[:1]
        except _FAILURES as error:  # CANINE pools four characters into one: a text of three fails
            reason = f"fails on {_place(*short)} ({_first_line(error)})"
            continue
        difference = float((alone - beside).abs().max())
        if difference <= _TOLERANCE * float(alone.abs().max()):
            return padding
        reason = f"moves its logits on {_place(*short)} by {difference:.2g} beside a longer example"
    raise ValueError(
        "`backbone.name` must give an example the same result in every batch, got "
        f"{type(model).__name__}, which {reason}."
    )


def leave_out_unreached(
    model: PreTrainedModel, data: AdaptationData, config: RunConfig, *, head: list[str]
) -> tuple[RunConfig, list[str]]:
    """Return a configuration that adapts no layer without a gradient, and the layers left out.

    Args:
        model: The backbone.
        data: Its tokenised data, whose examples show what is reached.
        config: Resolved configuration.
        head: Modules that are trained in full.

    Raises:
        ValueError: If no layer is left.
    """
    method = config.method
    named = resolve_target_modules(model, method.target_modules, exclude=head)
    targets = resolve_target_modules(
        model, method.target_modules, exclude=head, exclude_modules=method.exclude_modules
    )
    unreached = unreached_layers(model, _probes(data), names=targets)
    if not unreached:
        return config, []
    if len(unreached) == len(targets):
        raise ValueError(
            "`method.target_modules` must name layers that the logits depend on, got "
            f"{method.target_modules!r}, of which they depend on none."
        )
    some = ", ".join(unreached[:_MAX_NAMED]) + (", ..." if len(unreached) > _MAX_NAMED else "")
    warnings.warn(
        f"{len(unreached)} of {len(targets)} layers are not adapted, because the logits do not "
        f"depend on them: {some}. Name them in `method.exclude_modules` to leave them out without "
        "this warning.",
        stacklevel=2,
    )
    adapted = set(targets) - set(unreached)
    excluded = [name for name in named if name not in adapted]
    return replace(config, method=replace(method, exclude_modules=excluded)), unreached


def check_images(model: PreTrainedModel, data: AdaptationData) -> None:
    """Refuse images that the model fails on.

    Args:
        model: The backbone.
        data: Its images; the first of them is looked at, and all have one size.

    Raises:
        ValueError: With the model's reason.
    """
    row = _row(data, TRAIN, 0)
    cause = _failure(model, data, row)
    if cause is not None:
        height, width = row[PIXELS].shape[1:]
        raise ValueError(
            f"`task.image_size` must be a size that {type(model).__name__} takes, got images of "
            f"{height} x {width} pixels: {_first_line(cause)}. Set it, or leave it null to take "
            "that of the backbone's processor."
        ) from cause


def loss_of(model: PreTrainedModel, data: AdaptationData) -> float:
    """Return the mean loss of a model on memorization examples as it is, in evaluation mode.

    The unit of convergence where no constant answer gives one; of at most `_LOSS_EXAMPLES`, which
    a share of it needs no more than.

    Args:
        model: The backbone, before it is adapted.
        data: Its tokenised data, with the padding that was settled.
    """
    losses = [
        data.objective.losses(logits_of(model, model_inputs(batch)).float(), batch[LABEL])
        for batch in data.first_batches(MEMORIZATION_SPLIT, max_examples=_LOSS_EXAMPLES)
    ]
    return float(torch.cat(losses).double().mean())


def settle_inputs(model: PeftModel, data: AdaptationData) -> None:
    """See which adapted layers share an input, so that every step computes the same ones together.

    Otherwise the first step of a run that goes on would round differently from the same step of
    an unbroken one.
    """
    logits_of(model, next(_probes(data)))
    settle_groups(model)


def check_tokens(model: PreTrainedModel, data: AdaptationData, *, name: str) -> None:
    """Refuse token ids and token types that the model has no row for, and texts of no token.

    Args:
        model: The backbone.
        data: Its tokenised data; every split is looked at.
        name: `backbone.name`.

    Raises:
        ValueError: With the split and the row.
    """
    tokenizer = data.tokenizer
    for split, tokens in data.tokens.items():
        if tokens.lengths.min() == 0:
            raise ValueError(
                "`backbone.name` must have a tokenizer that makes a token of every text, got none "
                f"for {_place(split, int(tokens.lengths.argmin()))}. Take that row out of the data."
            )
    num_rows = _num_embeddings(model)
    if num_rows is not None:
        for split, tokens in data.tokens.items():
            for column in ("input_ids", "labels"):
                largest, row = tokens.largest(column) or (0, 0)
                if largest >= num_rows:
                    where = _place(split, row)
                    raise ValueError(_beyond(tokenizer, largest, num_rows, name, where))
        pad = tokenizer.pad_token_id
        assert isinstance(pad, int)
        if pad >= num_rows:
            raise ValueError(_beyond(tokenizer, pad, num_rows, name, "the padding"))
    num_types = getattr(model.config.get_text_config(), "type_vocab_size", None)
    for split, tokens in data.tokens.items():
        largest, row = tokens.largest("token_type_ids") or (0, 0)
        if isinstance(num_types, int) and 0 < num_types <= largest:
            raise ValueError(
                f"`backbone.name` must have an embedding for every token type, got {name!r} with "
                f"{num_types} and token type {largest} in {_place(split, row)}. Its tokenizer is "
                "another model's: take `token_type_ids` out of `model_input_names` in its "
                "tokenizer_config.json."
            )
    _warn_of_unknown(data, name)


def describe_interface(task: Task, data: AdaptationData) -> dict[str, Any]:
    """Return for `meta.json` what a class index means, and how texts become inputs.

    Args:
        task: The task.
        data: Its tokenised data, with the padding that was settled.
    """
    names = list(task.label_names)
    meaning = {
        "objective": task.objective,
        "inputs": data.objective.inputs,
        "labels": data.objective.labels,
        "model_class": data.objective.model_class.__name__,
        "class_names": names,
        "num_labels": max(len(names), 1),
        # F1 of two classes is that of class 1 (`sorakit.training.metrics.score`).
        "positive_class": names[1] if len(names) == 2 else None,
    }
    tokenizer = data.tokenizer
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        pixels = data.tokens[TRAIN].rows([0])[0][PIXELS]
        options = data.tokens[TRAIN].options
        return {**meaning, "image_size": list(pixels.shape[1:]), "image_options": options}
    return {
        **meaning,
        "max_length": data.max_length,
        "longest_input": max(int(tokens.lengths.max()) for tokens in data.tokens.values()),
        "pad_token": str(tokenizer.pad_token),
        "pad_token_id": tokenizer.pad_token_id,
        "padding_side": data.padding.side,
        "padded_to": data.padding.length,
    }


def interface_lines(interface: Mapping[str, Any]) -> list[str]:
    """Return what the terminal shows of `describe_interface` at the start of a run."""
    names = interface["class_names"]
    shown = [f"{index} {name[:_MAX_CLASS_NAME]}" for index, name in enumerate(names[:_MAX_CLASSES])]
    more = f", ... ({len(names)} classes)" if len(names) > _MAX_CLASSES else ""
    positive = interface["positive_class"]
    suffix = "" if positive is None else f" (positive: {positive[:_MAX_CLASS_NAME]})"
    if names:
        classes = f"  classes   {', '.join(shown)}{more}{suffix}"
    else:
        classes = f"  labels    {interface['labels']}"
    if interface.get("inputs") == "images":
        height, width = interface["image_size"]
        return [classes, f"  inputs    images of {height} x {width} pixels"]
    padding = f"{interface['pad_token']} on the {interface['padding_side']}"
    if interface["padded_to"] is not None:
        padding += f", always to {interface['padded_to']} tokens"
    longest, limit = interface["longest_input"], interface["max_length"]
    return [classes, f"  inputs    at most {longest} tokens (limit {limit}), padded with {padding}"]


def _beyond(
    tokenizer: PreTrainedTokenizerBase, token: int, num_rows: int, name: str, place: str
) -> str:
    text = str(tokenizer.convert_ids_to_tokens(token))[:40]
    return (
        f"`backbone.name` must have an embedding for every token, got {name!r} with {num_rows} "
        f"rows and token {token} ({text!r}) in {place}. Enlarge it with "
        f"`resize_token_embeddings({len(tokenizer)})` and save it, or take its own tokenizer."
    )


def _num_embeddings(model: PreTrainedModel) -> int | None:
    """Return the rows of the table that token ids index; None where they are hashed (CANINE)."""
    try:
        table = model.get_input_embeddings()
    except NotImplementedError:
        return None
    return table.num_embeddings if isinstance(table, torch.nn.Embedding) else None


def _warn_of_unknown(data: AdaptationData, name: str) -> None:
    token = data.tokenizer.unk_token_id
    unknown = data.tokens[TRAIN].share_of(token) if isinstance(token, int) else 0.0
    if unknown > _MAX_UNKNOWN:
        warnings.warn(
            f"{unknown:.0%} of the tokens of the training texts are unknown to the tokenizer of "
            f"{name!r}. Is it made for texts like these?",
            stacklevel=2,
        )


def _check_longest(model: PreTrainedModel, data: AdaptationData) -> None:
    """Run the longest example, and refuse one that is longer than what the model has positions for.

    Measured: RoBERTa has two positions less than its configuration says, models with relative
    positions have no limit, whatever theirs says.

    Raises:
        ValueError: If the model fails on it, with the longest input that it takes.
    """
    _, long = data.extreme_rows()
    row = _row(data, *long)
    num_tokens = len(row["input_ids"])
    cause = _failure(model, data, row)
    if cause is None:
        trained = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        if isinstance(trained, int) and 0 < trained < num_tokens:
            warnings.warn(
                f"The longest input ({num_tokens} tokens) is longer than the {trained} positions "
                "that the backbone was trained with. Lower `task.max_length` to cut it.",
                stacklevel=2,
            )
        return
    fits, fails = 0, num_tokens
    while fails - fits > 1:
        middle = (fits + fails) // 2
        if _failure(model, data, _cut(row, middle)) is None:
            fits = middle
        else:
            fails = middle
    where = f"an input of {num_tokens} tokens ({_place(*long)})"
    if fits == 0:
        raise ValueError(
            "`backbone.name` must take what its tokenizer makes of the texts, got "
            f"{type(model).__name__}, which fails on {where}: {_first_line(cause)}"
        ) from cause
    raise ValueError(
        f"`task.max_length` must be <= {fits}, the longest input that the backbone has positions "
        f"for, got {where}. Set it."
    ) from cause


def _failure(
    model: PreTrainedModel, data: AdaptationData, row: Mapping[str, Any]
) -> Exception | None:
    try:
        logits_of(model, _inputs(data, [dict(row)]))
    except _FAILURES as error:
        return error
    return None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


def _cut(row: Mapping[str, Any], length: int) -> dict[str, Any]:
    """Return a row of `length` tokens; the last one, which some models ask for, stays the last."""
    return {
        name: value[: length - 1] + value[-1:] if isinstance(value, list) else value
        for name, value in row.items()
    }


def _probes(data: AdaptationData) -> Iterator[Batch]:
    """Yield pairs of training examples, those of middle length first."""
    order = data.tokens[TRAIN].lengths.argsort(kind="stable")
    num_rows = len(order)
    start = num_rows // 2
    for first in (*range(start, num_rows, 2), *range(0, start, 2)):
        pair = order[first : first + 2]
        yield _inputs(data, [_row(data, TRAIN, int(index)) for index in pair])


def _results(model: PreTrainedModel, data: AdaptationData, rows: list[dict[str, Any]]) -> Tensor:
    """Return what must not depend on other rows: logits, or losses where those are of tokens."""
    batch = data.collate(rows)
    logits = logits_of(model, model_inputs(batch))
    return logits if logits.dim() == 2 else data.objective.losses(logits, batch[LABEL])


def _inputs(data: AdaptationData, rows: list[dict[str, Any]]) -> Batch:
    return model_inputs(data.collate(rows))


def _row(data: AdaptationData, split: str, index: int) -> dict[str, Any]:
    return data.tokens[split].rows([index])[0]


def _place(split: str, row: int) -> str:
    return f"row {row} of {_PLACES[split]}"  # from 0, as tasks count
