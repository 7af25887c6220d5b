"""What becomes of the growth of A and B in unit scale, and what does it do to the ranks found?

AdamW lets A and B grow. `carried` (what `gates.scale: unit` does) hands the growth to the gate, so
that the function is unchanged; no threshold is applied to it. `projected` sets A and B back to norm
1 and leaves the gate alone. Both on the planted task (mixed ranks, full batch, proximal SGD), 3
seeds; measured at every stage, on all training examples:

    gates exact, ranks exact   shares of the 10 matrices at the point that the held-out loss chooses
    |dL/dg| / lambda           median over live gates at that point: 1 under a fully applied penalty
    KKT residual               of `min L(g) + lambda |g|_1` at fixed A and B, median over stages
    fixed-point residual       the same with the penalty that the growth leaves, median over stages

One line a run goes to `experiments/results/unit_scale/runs.jsonl`, the table beside it.
"""

import argparse
import json
import logging
import statistics
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from typing_extensions import override

from experiments import RESULTS
from experiments.planted_ranks.points import chosen
from experiments.planted_ranks.runs import make
from experiments.planted_ranks.sora import SORA, Regression, sora_path
from sorakit.method.kkt import kkt_residual, unit_scale_relief
from sorakit.method.optimizer import ProxAdamW
from sorakit.tasks.planted import compress, example_losses, score
from sorakit.training.xi_scheduler import StageEnd, prox_optimizer

FOLDER = RESULTS / "unit_scale"
VARIANT = SORA["sgd_unit"]


class ProjectedProxAdamW(ProxAdamW):
    """Unit scale that drops the growth of A and B instead of handing it to the gate."""

    def __init__(self, *args: Any, unit_scale: bool, **options: Any) -> None:
        assert unit_scale
        super().__init__(*args, unit_scale=False, **options)

    @override
    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take one step; the gate is what the threshold left."""
        loss = super().step(closure)
        for matrix in self.matrices:
            matrix.lora_A.div_(matrix.lora_A.norm(dim=1, keepdim=True))
            matrix.lora_B.div_(matrix.lora_B.norm(dim=0, keepdim=True))
        return loss


OPTIMIZERS = {"carried": ProxAdamW, "projected": ProjectedProxAdamW}


def run(handling: str, seed: int) -> dict[str, Any]:
    """Return what one path found, and its residuals."""
    planted = make("mixed", seed)
    train = compress(planted.train)
    stages: list[dict[str, float]] = []

    def look(trainer: pl.Trainer, module: pl.LightningModule, end: StageEnd) -> None:
        optimizer = prox_optimizer(trainer)
        gates = [matrix.gate for matrix in optimizer.matrices]
        assert isinstance(module, Regression)
        with torch.enable_grad():
            loss = example_losses(module.model(train.inputs), train.targets).mean()
            gradient = torch.cat(torch.autograd.grad(loss, gates))
        gate = torch.cat([gate.detach() for gate in gates])
        lambda_ = end.chosen.xi / VARIANT.gate_lr
        relief = torch.zeros_like(gate)
        if handling == "carried":
            growth = torch.cat([optimizer.growth(matrix) for matrix in optimizer.matrices])
            relief = unit_scale_relief(gate, growth, gate_lr=VARIANT.gate_lr)
        live = gate != 0
        stages.append(
            {
                "lambda": lambda_,
                "live": int(live.sum()),
                "pull": float((gradient[live].abs() / lambda_).median()) if live.any() else 0.0,
                "kkt": kkt_residual(gate, gradient, lambda_=lambda_),
                "fixed_point": kkt_residual(gate, gradient, lambda_=lambda_, relief=relief),
            }
        )

    points = sora_path(
        planted, train, VARIANT, seed=seed, optimizer=OPTIMIZERS[handling], listeners=[look]
    )
    at = chosen(points)
    return {
        "handling": handling,
        "seed": seed,
        "gates": points[at].gates,
        "ranks": points[at].ranks,
        "planted": list(planted.ranks),
        "chosen": at,
        "stages": stages,
    }


def table(runs: list[dict[str, Any]]) -> str:
    """Return the table as Markdown."""
    lines = [
        "| growth of A and B | seeds | gates exact | total gates (planted 30) | numerical rank "
        "exact | abs(dL/dg) / lambda | KKT residual | fixed-point residual |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for handling in OPTIMIZERS:
        records = [record for record in runs if record["handling"] == handling]
        exact = {
            name: statistics.mean(score(r[name], r["planted"]).exact for r in records)
            for name in ("gates", "ranks")
        }
        totals = sorted(sum(record["gates"]) for record in records)
        pull = statistics.median(r["stages"][r["chosen"]]["pull"] for r in records)
        # Stage 0 is the dense one; a stage without a live gate is at rest.
        stages = [s for r in records for s in r["stages"][1:] if s["live"] > 0]
        kkt, fixed = (statistics.median(s[name] for s in stages) for name in ("kkt", "fixed_point"))
        lines.append(
            f"| {handling} | {len(records)} | {exact['gates']:.2f} | {totals[0]} to {totals[-1]} | "
            f"{exact['ranks']:.2f} | {pull:.2f} | {kkt:.2f} | {fixed:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=FOLDER)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")  # Lightning's advice for real trainings
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    path = args.out / "runs.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    runs = (
        [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    )
    done = {(record["handling"], record["seed"]) for record in runs}
    for seed in range(args.seeds):
        for handling in OPTIMIZERS:
            if (handling, seed) in done:
                continue
            record = run(handling, seed)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record, separators=(",", ":")) + "\n")
            runs.append(record)
            print(handling, seed, record["gates"], record["ranks"], record["planted"], flush=True)
    text = table(runs)
    (args.out / "table.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
