"""Gates trained in float64 by one process, or as one rank of several; run by test_ddp.py."""

import contextlib
import os
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from peft import get_peft_model
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import BertConfig, BertForSequenceClassification

from sorakit.method.optimizer import ProxAdamW
from sorakit.method.tuner import SoraConfig, gates
from tests.support.tiny_bert import TINY_BERT

STEPS = 32
GLOBAL_BATCH = 8
XI_PER_STEP = 0.004


def build() -> nn.Module:
    """Return a gated BERT, the same in every process."""
    torch.manual_seed(0)
    config = BertConfig(**TINY_BERT)
    base = BertForSequenceClassification(config).double()
    return get_peft_model(base, SoraConfig(task_type="SEQ_CLS", r=4, target_modules="all-linear"))


def batches(*, rank: int, world_size: int) -> Iterator[dict[str, Tensor]]:
    """Yield this rank's share of every global batch: every `world_size`-th example.

    Two global batches take turns, few enough to be learnt before the gates die.
    """
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(3, 64, (2, GLOBAL_BATCH, 7), generator=generator)
    labels = torch.randint(0, 3, (2, GLOBAL_BATCH), generator=generator)
    for step in range(STEPS):
        yield {
            "input_ids": tokens[step % 2, rank::world_size],
            "labels": labels[step % 2, rank::world_size],
        }


def train(*, rank: int = 0, world_size: int = 1) -> dict[str, Tensor]:
    """Return the gates of every module after every step, (steps, r), with xi rising by the step.

    With `world_size` > 1 a process group must be there.
    """
    model = build()
    if world_size > 1:
        model = DistributedDataParallel(model)
    vectors = gates(model)
    ours = {id(gate) for gate in vectors.values()}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in ours]
    gate_group = {"params": list(vectors.values()), "lr": 1.0, "xi": 0.0}
    optimizer = ProxAdamW([{"params": others}, gate_group], lr=0.02)
    history: dict[str, list[Tensor]] = {name: [] for name in vectors}
    for step, batch in enumerate(batches(rank=rank, world_size=world_size)):
        optimizer.gate_groups[0]["xi"] = step * XI_PER_STEP
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        for name, gate in vectors.items():
            history[name].append(gate.detach().clone())
    return {name: torch.stack(steps) for name, steps in history.items()}


def main(folder: Path, rank: int, world_size: int) -> None:
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # no name service, no network
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=60),
    )
    with contextlib.ExitStack() as stack:
        stack.callback(dist.destroy_process_group)
        save_file(train(rank=rank, world_size=world_size), folder / f"rank_{rank}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
