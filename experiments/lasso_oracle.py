"""SoRA with A and B frozen and a squared loss is a Lasso: its path beside scikit-learn's.

`python -m experiments.lasso_oracle` computes both on a design of condition number above 100 and
writes the tables behind `paper_figs/fig_lasso.py`. `tests/integration/test_lasso_oracle.py` asks
the same of a smaller problem.
"""

import argparse
import json
import logging
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import sklearn
import torch
from peft import PeftModel, get_peft_model
from sklearn.linear_model import lasso_path
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from analysis.lasso import LEVELS_FILE, PATH_FILE, SOURCE_FILE, largest_differences
from sorakit.config import (
    METHOD_VERSION,
    DenseConfig,
    GateUpdate,
    RefitConfig,
    StageConfig,
    XiConfig,
)
from sorakit.controls import Control
from sorakit.method.kkt import kkt_residual
from sorakit.method.optimizer import ProxAdamW, ProxSGD
from sorakit.method.tuner import SoraConfig, adapted_matrices, gates
from sorakit.training.xi_scheduler import TRAINER_OPTIONS, StageEnd, XiScheduler

DATA = Path(__file__).parents[1] / "paper_figs" / "data"


@dataclass(frozen=True, kw_only=True)
class LassoConfig:
    """A Lasso to solve, and how long to try.

    A has singular values from 1 to 1/`spread`, few of them small, before its rows are scaled to
    norm 1; columns of B lie within about `angle` radians of one direction. So a few combinations of
    columns of the design almost vanish: gates are told apart by little, yet plain proximal steps
    settle in hundreds, not ten thousands.

    Attributes:
        examples: Rows of the inputs.
        r: Gates, and inputs of the adapted layer.
        true_gates: Gates that the targets are made of.
        noise: Standard deviation of the targets' noise, in those of the signal.
        num_lambdas: Levels, geometric.
        smallest: First level, as a share of the level above which every gate is dead.
        steps: Proximal steps a level.
    """

    examples: int = 100
    r: int = 30
    spread: float = 300.0
    angle: float = 0.02
    true_gates: int = 6
    noise: float = 0.3
    num_lambdas: int = 20
    smallest: float = 0.08
    steps: int = 220
    seed: int = 0


SMALL = LassoConfig()
"""Converges in seconds: the default test."""
LARGE = LassoConfig(true_gates=10, num_lambdas=24, smallest=0.02, steps=1000)
"""The figure: smaller lambdas and more gates in the targets, so more alive and slower to settle."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """Gates when a level ends, with what the model's own gradient says of them."""

    lambda_: float
    gate: np.ndarray
    kkt_residual: float


class _TwoOutputs(nn.Module):
    def __init__(self, d_in: int) -> None:
        super().__init__()
        self.linear = nn.Linear(d_in, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.linear(inputs)


class LassoProblem:
    """An adapted linear layer in float64 whose gates alone are trained, and the Lasso that this is.

    Attributes:
        model: The adapted model; its gates are 0.
        matrix: Its adapted layer.
        batch: All inputs, (n, r), and targets, (n, 2).
        design: Column i is `s B_i (A_i . x)` over examples and outputs, (2 n, r).
        response: Targets without the frozen layer's output, (2 n,).
        lambdas: Levels, ascending.
        step_size: 1 / L, with L the largest eigenvalue of the loss's Hessian.
    """

    def __init__(self, config: LassoConfig) -> None:
        self.config = config
        rng = np.random.default_rng(config.seed)
        r = config.r
        inputs = rng.standard_normal((config.examples, r))
        left, right = (np.linalg.qr(rng.standard_normal((r, r)))[0] for _ in range(2))
        sizes = config.spread ** -(np.linspace(0, 1, r) ** 4)
        lora_A = (left * sizes) @ right.T
        lora_A /= np.linalg.norm(lora_A, axis=1, keepdims=True)
        angles = config.angle * rng.standard_normal(r)
        lora_B = np.stack([np.cos(angles), np.sin(angles)])
        chosen = rng.choice(r, config.true_gates, replace=False)
        true_gate = np.zeros(r)
        true_gate[chosen] = rng.choice([-1, 1], len(chosen)) * rng.uniform(0.5, 2, len(chosen))

        base = _TwoOutputs(r)
        with torch.no_grad():
            for parameter in base.parameters():
                parameter.copy_(torch.from_numpy(rng.standard_normal(parameter.shape)))
        sora = SoraConfig(r=r, lora_alpha=r / 2, target_modules=["linear"], gate_init="zeros")
        self.model: PeftModel = get_peft_model(base, sora).double()
        (self.matrix,) = adapted_matrices(self.model)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name.endswith(".gate"))
        with torch.no_grad():
            self.matrix.lora_A.copy_(torch.from_numpy(lora_A))
            self.matrix.lora_B.copy_(torch.from_numpy(lora_B))
            frozen_output = self.model(torch.from_numpy(inputs)).numpy()

        columns = (inputs @ lora_A.T)[:, None, :] * lora_B
        self.design: np.ndarray = self.matrix.scaling * columns.reshape(-1, r)
        signal = self.design @ true_gate
        noise = config.noise * signal.std() * rng.standard_normal(len(signal))
        self.response: np.ndarray = signal + noise
        targets = frozen_output + self.response.reshape(-1, 2)
        self.batch = (torch.from_numpy(inputs), torch.from_numpy(targets))
        # Mean squared error: gradient -2/N D^T y at gates of 0, Hessian 2/N D^T D.
        scale = 2 / len(self.response)
        top = scale * np.abs(self.design.T @ self.response).max()
        self.lambdas: list[float] = np.geomspace(
            config.smallest * top, 0.95 * top, config.num_lambdas
        ).tolist()
        self.step_size = float(1 / (scale * np.linalg.norm(self.design, ord=2) ** 2))

    @property
    def condition_number(self) -> float:
        """Largest over smallest singular value of the design."""
        return float(np.linalg.cond(self.design))

    def loss(self) -> Tensor:
        """Return the mean squared error over examples and outputs."""
        return squared_loss(self.model, self.batch)

    def level(self, lambda_: float) -> Level:
        """Return the gates as they are now, and their KKT residual at `lambda_`."""
        gate = self.matrix.gate
        with torch.inference_mode(mode=False), torch.enable_grad():  # Lightning is evaluating
            (gradient,) = torch.autograd.grad(self.loss(), gate)
        residual = kkt_residual(gate.detach(), gradient, lambda_=lambda_)
        return Level(lambda_=lambda_, gate=gate.detach().numpy().copy(), kkt_residual=residual)


def squared_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return the mean squared error of a batch."""
    inputs, targets = batch
    return (model(inputs) - targets).square().mean()


class FullBatch(pl.LightningDataModule):
    """One batch with everything in it, as often as `XiScheduler` asks: `SegmentedData`."""

    def __init__(self, batch: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self._batch = batch
        self._count = 1

    @property
    def steps_per_epoch(self) -> int:
        """1: a step sees all examples."""
        return 1

    def set_segment(self, start: int, count: int) -> None:  # noqa: ARG002  # SegmentedData names it
        """Make the next `train_dataloader` give the batch `count` times."""
        self._count = count

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the batch, repeated."""
        return self._loader(self._count)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the batch: XiScheduler ends a stage after validation."""
        return self._loader(1)

    def _loader(self, count: int) -> DataLoader[Any]:
        batches = [self._batch] * count
        return DataLoader(
            batches,  # pyright: ignore[reportArgumentType]  # a list has all that a map-style dataset needs
            batch_size=None,
            collate_fn=_as_it_is,
        )


def _as_it_is(batch: Any) -> Any:
    return batch


class GateRegression(pl.LightningModule):
    """Trains the gates of a problem's model with `ProxAdamW`."""

    def __init__(self, problem: LassoProblem, *, xi: float) -> None:
        super().__init__()
        self.model = problem.model
        self._step_size = problem.step_size
        self._xi = xi

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:  # noqa: ARG002  # Lightning's
        """Return the loss."""
        return squared_loss(self.model, batch)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Do nothing: there are no scores here."""

    def configure_optimizers(self) -> ProxAdamW:
        """Return the optimizer of `sorakit run` with its default gate update."""
        group = {"params": gates(self.model).items(), "lr": self._step_size, "xi": self._xi}
        return ProxAdamW([{**group, "gate_update": "sgd"}], lr=self._step_size)


def scikit_learn_path(problem: LassoProblem, lambdas: Sequence[float]) -> np.ndarray:
    """Return scikit-learn's coefficients, (levels, r), for `loss + lambda |g|_1`.

    It minimises `|y - D g|^2 / (2 N) + alpha |g|_1`, half of ours, hence alpha = lambda / 2.
    """
    alphas = np.array(lambdas) / 2
    order = np.argsort(-alphas)  # it sorts them itself, downwards
    _, coefficients, _ = lasso_path(
        problem.design,
        problem.response,
        alphas=alphas[order],  # pyright: ignore[reportArgumentType]  # untyped; read from a default
        tol=1e-14,
        max_iter=1_000_000,
    )
    path = np.empty((len(lambdas), problem.config.r))
    path[order] = coefficients.T
    return path


def sorakit_path(problem: LassoProblem) -> list[Level]:
    """Return the levels of `ProxAdamW` and `XiScheduler` in a Lightning Trainer, ascending.

    Stage 0 is a single step: the first level is stage 1.
    """
    xis = [problem.step_size * lambda_ for lambda_ in problem.lambdas]
    start = xis[0] / 2
    ends: list[Level] = []

    def record(trainer: pl.Trainer, module: pl.LightningModule, end: StageEnd) -> None:  # noqa: ARG001  # a listener's
        if end.stage > 0:
            ends.append(problem.level(end.chosen.xi / problem.step_size))

    scheduler = XiScheduler(
        xi=XiConfig(start=start, spacing="list", levels=xis, num_stages=len(xis)),
        dense=DenseConfig(max_epochs=1),
        control=Control(seed=0),
        refit=RefitConfig(),
        null_loss=1.0,
        stage=StageConfig(refit="none", epochs=float(problem.config.steps)),
        warmup_epochs=0.0,
        has_gates=True,
        seed=0,
        on_stage_end=[record],
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        callbacks=[scheduler],
        **TRAINER_OPTIONS,
        enable_progress_bar=False,
    )
    trainer.fit(GateRegression(problem, xi=start), datamodule=FullBatch(problem.batch))
    return ends


def plain_path(
    problem: LassoProblem, optimizer: Optimizer, lambdas: Iterable[float], *, steps: int
) -> list[Level]:
    """Return the levels of any gate optimizer in a loop without Lightning, in the given order."""
    ends = []
    for lambda_ in lambdas:
        for group in optimizer.param_groups:
            group["xi"] = group["lr"] * lambda_
        for _ in range(steps):
            optimizer.zero_grad()
            problem.loss().backward()
            optimizer.step()
        ends.append(problem.level(lambda_))
    return ends


def prox_sgd(problem: LassoProblem) -> ProxSGD:
    """Return the optimizer for anybody's training loop."""
    return ProxSGD(gates(problem.model).items(), lr=problem.step_size)


def prox_adamw(problem: LassoProblem, update: GateUpdate, *, lr: float) -> ProxAdamW:
    """Return `ProxAdamW` with another gate update."""
    group: dict[str, Any] = {"params": gates(problem.model).items(), "lr": lr, "xi": 0.0}
    return ProxAdamW([{**group, "gate_update": update}], lr=lr)


def path_table(problem: LassoProblem, ends: Sequence[Level]) -> pd.DataFrame:
    """Return one row a (lambda, coefficient) with both solutions."""
    lambdas = [end.lambda_ for end in ends]
    return pd.DataFrame(
        {
            "lambda": np.repeat(lambdas, problem.config.r),
            "coefficient": np.tile(np.arange(problem.config.r), len(ends)),
            "sorakit": np.concatenate([end.gate for end in ends]),
            "scikit_learn": scikit_learn_path(problem, lambdas).ravel(),
        }
    )


def level_table(ends: Sequence[Level]) -> pd.DataFrame:
    """Return one row a lambda with its KKT residual."""
    rows = [(end.lambda_, end.kkt_residual) for end in ends]
    return pd.DataFrame(rows, columns=["lambda", "kkt_residual"])


def write_tables(problem: LassoProblem, ends: Sequence[Level], out: Path) -> None:
    """Write the frozen tables of the figure and where they come from."""
    out.mkdir(parents=True, exist_ok=True)
    path_table(problem, ends).to_csv(out / PATH_FILE, index=False, lineterminator="\n")
    level_table(ends).to_csv(out / LEVELS_FILE, index=False, lineterminator="\n")
    source = {
        "command": "python -m experiments.lasso_oracle",
        "problem": asdict(problem.config),
        "condition_number": problem.condition_number,
        "step_size": problem.step_size,
        "method_version": METHOD_VERSION,
        "versions": {"scikit-learn": sklearn.__version__, "torch": str(torch.__version__)},
    }
    (out / SOURCE_FILE).write_text(json.dumps(source, indent=2) + "\n", "utf-8")


def main() -> None:
    """Compute the path of the figure's problem and write its tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DATA, help="Folder of the frozen tables.")
    out: Path = parser.parse_args().out
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="The '.*_dataloader' does not have many workers")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
    problem = LassoProblem(LARGE)
    began = time.perf_counter()
    ends = sorakit_path(problem)
    seconds = time.perf_counter() - began
    write_tables(problem, ends, out)
    table = path_table(problem, ends)
    alive = [int((end.gate != 0).sum()) for end in ends]
    print(f"condition number {problem.condition_number:.1f}, {len(ends)} lambdas, {seconds:.0f} s")
    print(f"gates alive {alive}")
    print(f"largest difference from scikit-learn {largest_differences(table).max():.2g}")
    print(f"largest KKT residual {max(end.kkt_residual for end in ends):.2g}")


if __name__ == "__main__":
    main()
