"""Controls: schedules that differ from Algorithm 1 in one thing, and give the same records.

Each is asked by `XiScheduler` at fixed moments. Nothing is stored that a checkpoint would have to
hold: what a control needs follows from the weights at the start of a stage, the seed and the step.
"""

import zlib
from collections.abc import Iterable
from typing import final

import torch
from torch import Tensor, nn
from typing_extensions import override

from sorakit.config import StageControl
from sorakit.method.optimizer import ProxAdamW
from sorakit.method.prox import strongest
from sorakit.method.tuner import AdaptedMatrix, rank_costs


class Control:
    """Algorithm 1 itself; the controls change one of its answers.

    Attributes:
        rises: Whether xi rises after the dense stage.
        trains: Whether sparsifying stages train at all.
        restarts: Whether every stage is trained like a dense stage, from the start.
    """

    rises = True
    trains = True
    restarts = False

    def begin_run(self, model: nn.Module) -> None:
        """Look at the untrained model, before any checkpoint is loaded."""

    def begin_stage(self, model: nn.Module, optimizer: ProxAdamW, *, target: int) -> None:
        """Change the weights at the start of a sparsifying stage; `target` is its count."""

    def before_step(self, optimizer: ProxAdamW, *, step: int) -> None:
        """Change gradients before an optimizer step, the dense stage's included."""

    def after_step(self, optimizer: ProxAdamW) -> None:
        """Change weights after an optimizer step of a sparsifying stage."""


@final
class HoldDense(Control):
    """As many steps, with xi held at its start: is it sparsity, or more training?"""

    rises = False


@final
class ShrinkOnly(Control):
    """Gates lose xi at every step and nothing is trained: what the authors' release does."""

    trains = False


@final
class FromScratch(Control):
    """Every level trained directly at its xi, from the untrained model: does the path matter?"""

    restarts = True

    def __init__(self) -> None:
        self._initial: dict[str, Tensor] = {}

    @override
    def begin_run(self, model: nn.Module) -> None:
        self._initial = {
            name: p.detach().cpu().clone()
            for name, p in model.named_parameters()
            if p.requires_grad
        }

    @override
    def begin_stage(self, model: nn.Module, optimizer: ProxAdamW, *, target: int) -> None:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(self._initial[name])
        optimizer.state.clear()


class Mask(Control):
    """Ranks are cut at the start of a stage and stay cut; the others train with xi at its start."""

    rises = False

    def __init__(self) -> None:
        self._cut: list[Tensor] = []

    @override
    def begin_stage(self, model: nn.Module, optimizer: ProxAdamW, *, target: int) -> None:
        matrices = optimizer.matrices
        importance = self.importance(matrices)
        cut = torch.ones(len(importance), dtype=torch.bool, device=importance.device)
        cut[strongest(importance, rank_costs(matrices), target)] = False
        self._cut = list(cut.split([len(m.gate) for m in matrices]))
        self.after_step(optimizer)

    @override
    @torch.no_grad()
    def after_step(self, optimizer: ProxAdamW) -> None:
        for matrix, cut in zip(optimizer.matrices, self._cut, strict=True):
            matrix.gate[cut] = 0.0

    def importance(self, matrices: Iterable[AdaptedMatrix]) -> Tensor:
        """Return one number a rank, all matrices concatenated; the largest are kept."""
        return torch.cat([matrix.strengths() for matrix in matrices])


@final
class HardMask(Mask):
    """The weakest ranks, by |g||A||B|, are cut.

    Args:
        trains: Whether the others are trained.
    """

    def __init__(self, *, trains: bool) -> None:
        super().__init__()
        self.trains = trains


@final
class RandomMask(Mask):
    """Ranks drawn at random are cut, those of earlier stages among them.

    Args:
        seed: Seed of the draw.
    """

    def __init__(self, *, seed: int) -> None:
        super().__init__()
        self._seed = seed

    @override
    def importance(self, matrices: Iterable[AdaptedMatrix]) -> Tensor:
        gates = torch.cat([matrix.gate.detach() for matrix in matrices])
        generator = torch.Generator().manual_seed(self._seed)
        return torch.rand(len(gates), generator=generator).to(gates)


@final
class RandomGradient(Control):
    """Gates never see the data: Gaussian noise of the same root mean square moves them.

    Args:
        seed: Seed of the noise.
    """

    def __init__(self, *, seed: int) -> None:
        self._seed = seed

    @override
    @torch.no_grad()
    def before_step(self, optimizer: ProxAdamW, *, step: int) -> None:
        gates = [gate for group in optimizer.gate_groups for gate in group["params"]]
        gradients = [gate.grad for gate in gates if gate.grad is not None]
        if not gradients:
            return
        generator = torch.Generator().manual_seed(zlib.crc32(f"noise {self._seed} {step}".encode()))
        size = torch.cat(gradients).square().mean().sqrt()
        for gradient in gradients:
            noise = torch.randn(len(gradient), generator=generator).to(gradient)
            gradient.copy_(noise * size)


def make_control(name: StageControl, *, seed: int) -> Control:
    """Return the control that `stage.control` names; `shuffled_labels` only changes the data."""
    if name == "hold_dense":
        return HoldDense()
    if name == "shrink_only":
        return ShrinkOnly()
    if name == "from_scratch":
        return FromScratch()
    if name in ("hard_mask_no_retrain", "hard_mask_retrain"):
        return HardMask(trains=name == "hard_mask_retrain")
    if name == "random_mask":
        return RandomMask(seed=seed)
    if name == "random_gradient":
        return RandomGradient(seed=seed)
    return Control()
