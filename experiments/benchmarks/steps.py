"""Training steps of SoRA, dense and sparse, against LoRA, AdaLoRA, full fine-tuning and the floor.

All steps of a setting live in one process and take turns in an order that is shuffled every round,
on one thread. Their CPU time is compared, round by round, with that of PEFT's LoRA, so that other
work on the machine changes the ratios least. Peak memory is what a step allocates at once beyond
what there was before it.

    python -m experiments.benchmarks.steps [--backbones embedded DIR] [--shapes 16x64]
        [--precisions bf16-mixed 32-true] [--seconds 20] [--out runs/bench]

writes `steps.json` and `steps.md` into `--out`.
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from experiments.benchmarks.variants import (
    Setting,
    adalora,
    floor,
    full,
    head_only,
    lora,
    lora_as_documented,
    positions,
    sora,
)

MINILM = "../shared/models/all-MiniLM-L6-v2"
REFERENCE = "LoRA"
WARM_UP = 2
MIN_ROUNDS = 5
MAX_ROUNDS = 40

VARIANTS: dict[str, Callable[[Setting], Callable[[], None]]] = {
    "frozen base, gradients to the first layer": floor,
    "head only": head_only,
    REFERENCE: lora,
    "LoRA, torch's AdamW as it is by default": lora_as_documented,
    "LoRA, sdpa": partial(lora, attention="sdpa"),
    "AdaLoRA": adalora,
    "full fine-tuning": full,
    "SoRA, dense": sora,
    "SoRA, 90 % zero, revival open": partial(sora, zero=0.9),
    "SoRA, 50 % zero, refit": partial(sora, zero=0.5, is_refit=True),
    "SoRA, 90 % zero, refit": partial(sora, zero=0.9, is_refit=True),
    "SoRA, 99 % zero, refit": partial(sora, zero=0.99, is_refit=True),
    "SoRA, 99 % zero, live in the upper half, refit": partial(
        sora, zero=0.99, upper=True, is_refit=True
    ),
    "SoRA, 99 % zero, live in the upper half, refit, prefix given": partial(
        sora, zero=0.99, upper=True, is_refit=True, has_prefix=True
    ),
}


@dataclass(frozen=True, kw_only=True)
class Result:
    """One kind of step in one setting.

    Attributes:
        variant: Its name.
        setting: Where.
        rounds: Rounds measured.
        milliseconds: Median CPU time.
        ratio: Median over rounds of the CPU time against that of LoRA in the same round.
        low: First quartile of these ratios.
        high: Third quartile.
        peak_mib: What a step allocates at once, MiB.
        peak_ratio: The same against that of LoRA.
    """

    variant: str
    setting: Setting
    rounds: int
    milliseconds: float
    ratio: float
    low: float
    high: float
    peak_mib: float
    peak_ratio: float


def measure(
    setting: Setting,
    variants: Mapping[str, Callable[[Setting], Callable[[], None]]],
    *,
    seconds: float,
) -> list[Result]:
    """Return the results of all variants in one setting, after about `seconds` of CPU time."""
    steps = {name: make(setting) for name, make in variants.items()}
    for step in steps.values():
        step()  # before memory: optimizer state and held weights are there
    peaks = {name: peak_memory(step) for name, step in steps.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    order = random.Random(0)
    began, rounds = time.process_time(), 0
    while rounds < MIN_ROUNDS or (rounds < MAX_ROUNDS and time.process_time() - began < seconds):
        for name in order.sample(list(steps), len(steps)):
            before = time.process_time()
            steps[name]()
            times[name].append(time.process_time() - before)
        rounds += 1
    return [_result(name, setting, times, peaks) for name in steps]


def _result(
    name: str, setting: Setting, times: Mapping[str, list[float]], peaks: Mapping[str, int]
) -> Result:
    kept = slice(WARM_UP, None)
    own, reference = times[name][kept], times[REFERENCE][kept]
    ratios = sorted(a / b for a, b in zip(own, reference, strict=True))
    low, _, high = statistics.quantiles(ratios, n=4)
    return Result(
        variant=name,
        setting=setting,
        rounds=len(own),
        milliseconds=1e3 * statistics.median(own),
        ratio=statistics.median(ratios),
        low=low,
        high=high,
        peak_mib=peaks[name] / 2**20,
        peak_ratio=peaks[name] / peaks[REFERENCE],
    )


def peak_memory(step: Callable[[], None]) -> int:
    """Return the most bytes that were allocated at once in a step, beyond those before it."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        step()
    events: Any = profile.profiler
    used = peak = 0
    for event in events.kineto_results.events():
        if event.name() == "[memory]":
            used += event.nbytes()
            peak = max(peak, used)
    return peak


def table(results: Sequence[Result]) -> str:
    """Return one Markdown table a setting."""
    parts: list[str] = []
    for setting in dict.fromkeys(result.setting for result in results):
        rows = [result for result in results if result.setting == setting]
        lines = [
            f"### {Path(setting.backbone).name}, {setting.examples} x {setting.tokens} tokens, "
            f"{setting.precision}, {rows[0].rounds} rounds",
            "",
            "| step | CPU, ms | against LoRA | quartiles | peak, MiB | against LoRA |",
            "|---|---|---|---|---|---|",
            *(
                f"| {r.variant} | {r.milliseconds:.1f} | {r.ratio:.3f} | {r.low:.3f} to "
                f"{r.high:.3f} | {r.peak_mib:.0f} | {r.peak_ratio:.2f} |"
                for r in rows
            ),
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def machine() -> dict[str, Any]:
    """Return what the numbers depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text("utf-8") if cpuinfo.exists() else ""
    models = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "cpu": models[0] if models else platform.processor(),
        "bf16 instructions": "avx512_bf16" in text or "amx_bf16" in text,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "commit": commit.stdout.strip(),
        "load": os.getloadavg()[0],
    }


def main() -> None:
    """Measure, and write a JSON file and a Markdown file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbones", nargs="+", default=["embedded", MINILM])
    parser.add_argument("--shapes", nargs="+", default=["2x16", "16x64", "8x256"])
    parser.add_argument("--precisions", nargs="+", default=["bf16-mixed", "32-true"])
    parser.add_argument("--variants", nargs="+", help="those whose name contains one of these")
    parser.add_argument("--seconds", type=float, default=20.0, help="CPU time for a setting")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    variants = {
        name: make
        for name, make in VARIANTS.items()
        if name == REFERENCE or not args.variants or any(part in name for part in args.variants)
    }
    about, results = machine(), list[Result]()
    args.out.mkdir(parents=True, exist_ok=True)
    for backbone in args.backbones:
        if backbone != "embedded" and not Path(backbone).is_dir():
            print(f"skipped: no folder {backbone}", flush=True)
            continue
        for shape in args.shapes:
            examples, tokens = (int(number) for number in shape.split("x"))
            for precision in args.precisions:
                setting = Setting(
                    backbone=backbone, examples=examples, tokens=tokens, precision=precision
                ).within(positions(backbone))
                fresh = measure(setting, variants, seconds=args.seconds)
                results += fresh
                print(table(fresh), flush=True)
                content = {"machine": about, "results": [asdict(result) for result in results]}
                (args.out / "steps.json").write_text(json.dumps(content, indent=2) + "\n", "utf-8")
                lines = [f"{name}: {value}" for name, value in about.items()]
                text = "; ".join(lines) + "\n\n" + table(results)
                (args.out / "steps.md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
