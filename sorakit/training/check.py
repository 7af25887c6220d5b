"""What a run would do, told before anything is trained."""

import contextlib
import math
import os
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from sorakit.config import RunConfig
from sorakit.method.tuner import AdaptedMatrix, adapted_matrices
from sorakit.metric_names import GENERALIZATION_SPLIT, LABEL
from sorakit.quoting import cut
from sorakit.records import dataset_label, run_path
from sorakit.records.identity import config_to_dict
from sorakit.tasks.base import Task, column_array
from sorakit.training.build import Fit, build
from sorakit.training.data import TRAIN
from sorakit.training.run import quiet_libraries
from sorakit.training.time_left import evaluation_seconds

_TIMED_STEPS = 5
_MOST_CLASSES = 12
_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What a run is made of and how fast it trains.

    Attributes:
        lines: A name and a text for every fact.
        seconds_a_step: Median of a few timed steps: forward and backward, without the optimizer.
        steps_per_epoch: Optimizer steps in a pass over the training data.
        evaluated_batches: Batches of training size in one evaluation of all splits.
    """

    lines: tuple[tuple[str, str], ...]
    seconds_a_step: float
    steps_per_epoch: int
    evaluated_batches: float

    @property
    def text(self) -> str:
        """A line a fact."""
        width = max(len(name) for name, _ in self.lines)
        return "\n".join(f"{name:{width}}  {text}" for name, text in self.lines)


def preview(config: RunConfig) -> Preview:
    """Return what a run of a configuration is made of; nothing is written.

    Data and model are loaded and checked as for `run`. Time is that of the median of a few
    forward and backward passes on batches of the run, without the optimizer.

    Args:
        config: Resolved configuration.

    Raises:
        ValueError: If the configuration cannot be run.
    """
    quiet_libraries()
    fit = build(config, run_path(config), rank=0, show_progress=False)
    seconds = _seconds_a_step(fit, config)
    num_evaluated = sum(len(fit.data.tokens[split].lengths) for split in fit.data.tokens)
    num_evaluated -= max(0, len(fit.adapted.task.train) - config.task.memorization_examples)
    lines = (
        *_data_lines(fit, config),
        *_cost_lines(fit, config, seconds, num_evaluated=num_evaluated),
    )
    return Preview(
        lines=lines,
        seconds_a_step=seconds,
        steps_per_epoch=fit.data.steps_per_epoch,
        evaluated_batches=num_evaluated / config.optim.batch_size,
    )


def _data_lines(fit: Fit, config: RunConfig) -> Iterator[tuple[str, str]]:
    task, data, meta = fit.adapted.task, fit.data, fit.meta["data"]
    memorization = min(config.task.memorization_examples, len(task.train))
    yield "dataset", f"{dataset_label(config_to_dict(config)['task'])} ({cut(meta['source'], 160)})"
    yield (
        "examples",
        f"{len(task.train):,} to train on ({memorization:,} of them for memorization), "
        f"{len(task.validation):,} held out",
    )
    yield "labels", _labels(task)
    if data.objective.inputs == "images":
        height, width = fit.adapted.interface["image_size"]
        yield "images", f"{height} x {width} pixels"
        yield _repeats(meta)
        return
    lengths = data.tokens[TRAIN].lengths
    yield (
        "lengths",
        f"{np.median(lengths):.0f} tokens in the median, {np.quantile(lengths, 0.95):.0f} at 95 %, "
        f"{lengths.max()} at most",
    )
    cut_texts = meta["longer_than_max_length"]
    held_out = cut_texts[GENERALIZATION_SPLIT]
    yield (
        "cut",
        f"{cut_texts[TRAIN]:,} training texts ({cut_texts[TRAIN] / len(lengths):.1%}) and "
        f"{held_out:,} held-out ones ({held_out / len(task.validation):.1%}) are longer than "
        f"task.max_length ({config.task.max_length})",
    )
    yield _repeats(meta)


def _repeats(meta: Mapping[str, Any]) -> tuple[str, str]:
    return (
        "repeats",
        f"{meta['held_out_in_train']:,} held-out examples are in the training data; "
        f"{meta['repeated_in_train']:,} training examples repeat, "
        f"{meta['other_label_in_train']:,} with another label",
    )


def _labels(task: Task) -> str:
    labels = column_array(task.train, LABEL)
    if task.is_written:
        return "responses that are written" if task.is_pair else "none: texts to be written"
    if not task.label_names:
        return f"numbers from {labels.min():g} to {labels.max():g}, mean {labels.mean():g}"
    counts = np.bincount(labels, minlength=len(task.label_names))
    order = np.argsort(-counts, kind="stable")[:_MOST_CLASSES]
    shares = [f"{cut(task.label_names[i], 30)} {counts[i] / len(labels):.1%}" for i in order]
    more = "" if len(counts) <= _MOST_CLASSES else f", and {len(counts) - _MOST_CLASSES} more"
    return f"{len(counts)} classes: {', '.join(shares)}{more}"


def _cost_lines(
    fit: Fit, config: RunConfig, seconds: float, *, num_evaluated: int
) -> Iterator[tuple[str, str]]:
    matrices = adapted_matrices(fit.module.model)
    yield (
        "adapter",
        f"{fit.meta['model']['num_adapter_params']:,} parameters in {_kinds(matrices)}"
        if matrices
        else f"{config.method.name}, without gates",
    )
    per_pass = fit.data.steps_per_epoch
    a_pass = seconds * per_pass
    yield "steps", f"{per_pass:,} a pass of {config.optim.batch_size} examples each"
    threads = torch.get_num_threads()
    yield (
        "time",
        f"{seconds:.3g} s a step, {_duration(a_pass)} a pass, without evaluations, on {threads} "
        f"{'thread' if threads == 1 else 'threads'}{_busy()}",
    )
    yield (
        "dense stage",
        f"until the training loss has converged, at most {config.dense.max_epochs} passes "
        f"({_duration(a_pass * config.dense.max_epochs)})",
    )
    evaluations = "at the end"
    if config.method.adapter.has_gates:
        has_refit = config.stage.refit != "none"
        evaluations = (
            "before and after the refit of every stage"
            if has_refit
            else "at the end of every stage"
        )
        yield "stages", _stages(config, a_pass)
    evaluation = evaluation_seconds(num_evaluated / config.optim.batch_size, seconds)
    yield (
        "evaluations",
        f"{num_evaluated:,} examples {evaluations}, about {_duration(evaluation)} each time",
    )
    yield "memory", _memory(fit)


def _kinds(matrices: Sequence[AdaptedMatrix]) -> str:
    """Return how many matrices are adapted, and the last two words of their names, each once."""
    kinds = dict.fromkeys(
        ".".join(part for part in matrix.name.split(".")[-2:] if not part.isdigit())
        for matrix in matrices
    )
    shown = list(kinds)[:_MOST_CLASSES]
    more = f", and {len(kinds) - len(shown)} more kinds" if len(kinds) > len(shown) else ""
    return f"{len(matrices)} matrices: {cut(', '.join(shown), 400)}{more}"


def _stages(config: RunConfig, a_pass: float) -> str:
    """Return the sparsifying stages and the most that one takes."""
    guard = config.xi.spacing == "target" or config.stage.until == "stationary"
    passes = config.stage.max_epochs if guard else config.stage.epochs
    refit = ""
    if config.stage.refit != "none":
        refit = f" and {config.refit.max_epochs} of refit"
        passes += config.refit.max_epochs
    compress = config.stage.max_epochs if guard else config.stage.epochs
    return (
        f"{config.xi.num_stages}, each of at most {compress:g} passes in which xi takes "
        f"ranks away{refit} ({_duration(a_pass * passes)})"
    )


def _busy() -> str:
    """Return a warning where other work slows the timed steps down: threads wait for each other."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load <= cores:
        return ""
    return (
        f"; the machine is busy (load {load:.1f} on {cores} cores), so that this may be far too "
        "long: look again when it is quiet, or give --trainer.num_threads 1"
    )


def _seconds_a_step(fit: Fit, config: RunConfig) -> float:
    """Return the median time of forward and backward; weights and random state stay as they are."""
    device = fit.trainer.strategy.root_device
    module = fit.module.to(device)
    module.train()
    dtype = _AUTOCAST.get(config.trainer.precision)
    seconds = []
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        for batch in islice(fit.data.train_dataloader(), _TIMED_STEPS):
            moved = {name: value.to(device) for name, value in batch.items()}
            casts = torch.autocast(device.type, dtype) if dtype else contextlib.nullcontext()
            start = time.perf_counter()
            with casts:
                loss = module.loss(moved)
            loss.backward()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - start)
    module.zero_grad()
    return float(np.median(seconds))


def _memory(fit: Fit) -> str:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if fit.trainer.strategy.root_device.type != "cuda":
        return f"{peak:.2g} GiB at the peak of these steps"
    on_device = torch.cuda.max_memory_allocated() / 2**30
    return f"{on_device:.2g} GiB on the device and {peak:.2g} GiB on the host at the peak"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"
