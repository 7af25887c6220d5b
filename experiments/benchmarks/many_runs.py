"""Do several runs over one frozen base cost less than the same runs one by one?

The batches of K runs (seeds, controls, a grid of ranks) go through the base as one batch; the
low-rank products are batched matrix products, one a run, so that no run sees another's gradients.
Races one joint step of K runs against K steps of their own, in turn, in CPU time on one thread;
the optimizer is the same fused AdamW on both sides.

    python -m experiments.benchmarks.many_runs [--runs 1 2 4 8] [--shapes 2x16 16x64] [--seconds 15]
"""

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from experiments.benchmarks.variants import GOAL, Setting, adapted, autocast, draw_gates
from sorakit.method.fused import GatedLinear
from sorakit.method.tuner import GatedB, adapted_matrices
from sorakit.metric_names import LABEL
from sorakit.training.data import model_inputs
from sorakit.training.module import AdaptationModule


class JointLinearFunction(torch.autograd.Function):
    """`x_k -> W x_k + b + s U_k (g_k * (D_k x_k))` of K runs that share W and b."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  # torch declares *args
        ctx: Any,
        x: Tensor,
        down: Tensor,
        up: Tensor,
        gate: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        scaling: float,
    ) -> Tensor:
        """Return (runs * b, t, d_out) of x (runs * b, t, d_in), runs one after the other."""
        runs = len(gate)
        rows = x.reshape(runs, -1, x.shape[-1])
        low, high = down.to(x.dtype), (up * (gate * scaling).unsqueeze(2)).to(x.dtype)
        hidden = torch.bmm(rows, low.transpose(1, 2))  # (runs, rows, r)
        result = F.linear(rows, weight, bias).baddbmm_(hidden, high)
        ctx.save_for_backward(rows, hidden, low, high, up, gate, weight)
        ctx.scaling = scaling
        return torch.ops.aten._unsafe_view(result, [*x.shape[:-1], result.shape[-1]])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]  # torch declares *grad_outputs
        """Return the gradients of x, D, U (ranks first) and g."""
        rows, hidden, low, high, up, gate, weight = ctx.saved_tensors
        flat = gradient.reshape(len(gate), -1, gradient.shape[-1])
        below = torch.bmm(flat, high.transpose(1, 2))
        of_down = torch.bmm(below.transpose(1, 2), rows).to(up.dtype)
        product = torch.bmm(hidden.transpose(1, 2), flat).to(up.dtype)
        of_gate = (product * up).sum(dim=2) * ctx.scaling
        of_up = product * (gate * ctx.scaling).unsqueeze(2)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = (flat @ weight).baddbmm_(below, low).view(*gradient.shape[:-1], -1)
        return of_x, of_down, of_up, of_gate, None, None, None


class JointLinear(nn.Module):
    """The adapted layers of several runs in one place of their common base.

    Args:
        layers: The same layer of every run; the base of the first one serves all.
    """

    def __init__(self, layers: Sequence[GatedLinear]) -> None:
        super().__init__()
        self.base = layers[0].base_layer
        self.scaling = layers[0].scaling["default"]
        ups = [cast(GatedB, layer.lora_B["default"]) for layer in layers]
        downs = [cast(Tensor, layer.lora_A["default"].weight) for layer in layers]
        self.down = nn.Parameter(torch.stack([down.detach() for down in downs]))
        self.up = nn.Parameter(torch.stack([up.raw.detach().t() for up in ups]).contiguous())
        self.gate = nn.Parameter(torch.stack([up.gate.detach() for up in ups]))
        self._held: dict[torch.dtype, tuple[Tensor, Tensor | None]] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of all runs, whose inputs follow each other in `x`."""
        is_half = torch.is_autocast_enabled("cpu")
        x = x.to(torch.get_autocast_dtype("cpu")) if is_half else x
        if x.dtype not in self._held:
            base = cast(nn.Linear, self.base)
            bias = base.bias
            self._held[x.dtype] = (base.weight.detach().to(x.dtype), bias.detach().to(x.dtype))
        weight, bias = self._held[x.dtype]
        joint = JointLinearFunction.apply(
            x, self.down, self.up, self.gate, weight, bias, self.scaling
        )
        return cast(Tensor, joint)


class JointHead(nn.Module):
    """The task heads of several runs."""

    def __init__(self, heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of all runs, whose inputs follow each other in `x`."""
        pieces = zip(self.heads, x.chunk(len(self.heads)), strict=True)
        return torch.cat([head(piece) for head, piece in pieces])


def join(modules: Sequence[AdaptationModule]) -> nn.Module:
    """Return one model of several runs, on the base of the first; its parameters are copies."""
    models = [cast(nn.Module, module.model) for module in modules]
    joint = models[0]
    names = [name for name, layer in joint.named_modules() if isinstance(layer, GatedLinear)]
    heads = [name for name, layer in joint.named_modules() if hasattr(layer, "modules_to_save")]
    heads = [name for name in heads if name.rpartition(".")[2] in GOAL.head_modules(_base(joint))]
    for name in names:
        layers = [cast(GatedLinear, model.get_submodule(name)) for model in models]
        joint.set_submodule(name, JointLinear(layers))
    for name in heads:
        joint.set_submodule(name, JointHead([model.get_submodule(name) for model in models]))
    return joint


def joint_loss(model: nn.Module, batches: Sequence[dict[str, Tensor]]) -> Tensor:
    """Return the sum of the mean losses of all runs, each on a batch of its own, of one shape."""
    whole = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    losses = GOAL.losses(model(**model_inputs(whole)).logits.float(), whole[LABEL])
    return losses.view(len(batches), -1).mean(dim=1).sum()


def runs_of(setting: Setting, count: int) -> list[AdaptationModule]:
    """Return runs that differ in their gates."""
    modules = [adapted(setting, "sora") for _ in range(count)]
    for seed, module in enumerate(modules):
        draw_gates(adapted_matrices(module.model), 0.0, upper=False, seed=seed)
    return modules


def _base(model: nn.Module) -> Any:
    return cast(Any, model).get_base_model()


def race(setting: Setting, count: int, *, seconds: float) -> str:
    """Return one line about a joint step of `count` runs."""
    separate = runs_of(setting, count)
    joint = join(runs_of(setting, count))
    batch = setting.batch(_base(separate[0].model).config.vocab_size)

    def step(loss: Any, optimizer: torch.optim.Optimizer) -> float:
        began = time.process_time()
        with autocast(setting):
            value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.process_time() - began

    def adamw(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)

    optimizers = [adamw(module) for module in separate]
    together = adamw(joint)
    ratios: list[float] = []
    began = time.process_time()
    while len(ratios) < 5 or time.process_time() - began < seconds:
        alone = sum(
            step(lambda module=module: module.loss(batch), optimizer)
            for module, optimizer in zip(separate, optimizers, strict=True)
        )
        ratios.append(step(lambda: joint_loss(joint, [batch] * count), together) / alone)
    low, middle, high = statistics.quantiles(ratios[2:], n=4)
    name = os.path.basename(setting.backbone)  # noqa: PTH119  # also the name of no path
    return (
        f"| {name} {setting.examples} x {setting.tokens} {setting.precision} | {count} | "
        f"{middle:.2f} [{low:.2f}, {high:.2f}] |"
    )


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--shapes", nargs="+", default=["2x16", "16x64"])
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--seconds", type=float, default=15.0, help="CPU time for a row")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    print("| setting | runs | joint step against separate steps, CPU |\n|---|---|---|")
    for shape in args.shapes:
        examples, tokens = (int(number) for number in shape.split("x"))
        setting = Setting(
            backbone=args.backbone, examples=examples, tokens=tokens, precision=args.precision
        )
        for count in args.runs:
            print(race(setting, count, seconds=args.seconds), flush=True)


if __name__ == "__main__":
    main()
