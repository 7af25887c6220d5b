"""Training step of SoRA against PEFT's LoRA, and of the attention kernels, in one process.

Rounds are interleaved and shuffled; CPU time is compared, as ratios of medians.

    python -m experiments.benchmarks.training_step [--backbone DIR] [--rounds 15] [--threads 1]
"""

import argparse
import random
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import replace

import torch

from sorakit.backbones import load_backbone
from sorakit.config import BackboneConfig, MethodConfig, RunConfig
from sorakit.objectives import objective
from sorakit.training.module import AdaptationModule

BATCH, TOKENS = 32, 48
WARM_UP = 3


def build(backbone: str, *, method: str, attention: str) -> Callable[[], None]:
    """Return one training step in bf16-mixed of a backbone adapted by `method` (sora or lora)."""
    torch.manual_seed(0)
    config = RunConfig(
        backbone=BackboneConfig(name=backbone), method=MethodConfig(name=method, r=8)
    )
    goal = objective("classification")
    base = load_backbone(
        config.backbone, objective=goal, label_names=("a", "b"), attention=attention
    ).model
    vocabulary = base.config.vocab_size
    module = AdaptationModule(
        config.method.adapter.build(base, config, head=goal.head_modules(base)),
        split_names=(),
        metric="accuracy",
        objective=goal,
        optim=replace(config.optim, weight_decay=0.0),
        gates=config.gates,
        xi=config.xi.start,
    )
    optimizer = module.configure_optimizers()
    batch = {
        "input_ids": torch.randint(0, vocabulary, (BATCH, TOKENS)),
        "attention_mask": torch.ones(BATCH, TOKENS, dtype=torch.long),
        "label": torch.randint(0, 2, (BATCH,)),
        "index": torch.arange(BATCH),
    }

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = module.loss(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def main() -> None:
    """Print medians and ratios to PEFT's LoRA with eager attention."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
    torch.set_num_threads(options.threads)
    variants = [(m, a) for m in ("lora", "sora") for a in ("eager", "sdpa")]
    steps = {v: build(options.backbone, method=v[0], attention=v[1]) for v in variants}
    seconds: dict[tuple[str, str], list[float]] = {v: [] for v in variants}
    for number in range(WARM_UP + options.rounds):
        for variant in random.sample(variants, len(variants)):
            began = time.process_time()
            steps[variant]()
            if number >= WARM_UP:
                seconds[variant].append(time.process_time() - began)
    reference = statistics.median(seconds["lora", "eager"])
    print(f"{options.backbone}, batch {BATCH} x {TOKENS} tokens, bf16, {options.threads} threads")
    for (method, attention), values in seconds.items():
        median = statistics.median(values)
        print(f"{method} {attention:6} {1e3 * median:7.1f} ms  {median / reference:.3f}")


if __name__ == "__main__":
    main()
