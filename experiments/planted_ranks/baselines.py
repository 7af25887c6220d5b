"""Paths of PEFT's AdaLoRA, and of LoRA pruned after training."""

from collections.abc import Callable, Sequence

import torch
from peft import AdaLoraConfig, LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from experiments.planted_ranks.points import LR, Point, R, base_point, measure
from sorakit.tasks.planted import (
    Examples,
    Planted,
    example_losses,
)

OTHERS = ("adalora", "lora_svd", "lora_magnitude")
LORA_STEPS = 1500
ADALORA_STEPS = 1000
ADALORA_BUDGETS = (12, 8, 6, 5, 4, 3, 2, 1)  # mean rank; the planted mean is 3 (mixed)


def adalora_path(
    planted: Planted,
    train: Examples,
    *,
    make_base: Callable[[], nn.Module],
    seed: int,
    steps: int = ADALORA_STEPS,
    budgets: Sequence[int] = ADALORA_BUDGETS,
) -> list[Point]:
    """Return the path of PEFT's AdaLoRA: one training a budget, and the base as budget 0."""
    points = [_adalora(planted, train, make_base(), b, seed=seed, steps=steps) for b in budgets]
    return [*points, base_point(planted)]


def _adalora(
    planted: Planted, train: Examples, base: nn.Module, budget: int, *, seed: int, steps: int
) -> Point:
    torch.manual_seed(seed)
    config = AdaLoraConfig(
        init_r=R,
        target_r=budget,
        lora_alpha=R,
        tinit=steps // 10,
        tfinal=2 * steps // 5,
        deltaT=10,
        total_step=steps,
        target_modules=list(planted.updates),
    )
    model = get_peft_model(base, config)  # pyright: ignore[reportArgumentType]  # any nn.Module
    vectors = [p for n, p in model.named_parameters() if ("lora_A" in n or "lora_B" in n)]
    eye = torch.eye(R)

    def regularizer() -> Tensor:
        # PEFT adds it to `outputs.loss`, which a regression on tensors does not have.
        gram = [p @ p.T if p.shape[0] == R else p.T @ p for p in vectors]
        norms = [torch.linalg.matrix_norm(g - eye) for g in gram]
        return config.orth_reg_weight * torch.stack(norms).mean()

    def after_step(step: int) -> None:
        model.base_model.update_and_allocate(step)  # pyright: ignore[reportCallIssue]  # AdaLoraModel's

    fit(model, train, steps=steps, regularizer=regularizer, after_step=after_step)
    layers = lora_layers(model)
    return measure(
        model,
        planted,
        level=float(budget),
        gates=[int((layer.lora_E["default"] != 0).sum()) for layer in layers],  # pyright: ignore[reportAttributeAccessIssue]  # AdaLoRA's
        updates=[layer.get_delta_weight("default") for layer in layers],  # pyright: ignore[reportAttributeAccessIssue]
    )


def lora_paths(
    planted: Planted, train: Examples, *, seed: int, steps: int = LORA_STEPS
) -> dict[str, list[Point]]:
    """Return the paths of one trained LoRA pruned by SVD and by magnitude, without retraining.

    One threshold for all matrices: on the singular values of `B A`, or on `|A_i| |B_i|`. Every
    threshold that changes the adapter is a point.
    """
    torch.manual_seed(seed)
    config = LoraConfig(r=R, lora_alpha=R, target_modules=list(planted.updates))
    model = get_peft_model(planted.base, config)  # pyright: ignore[reportArgumentType]  # any nn.Module
    fit(model, train, steps=steps)
    layers = lora_layers(model)
    factors = [
        (
            layer.lora_A["default"].get_parameter("weight"),
            layer.lora_B["default"].get_parameter("weight"),
        )
        for layer in layers
    ]
    trained = [(a.detach().clone(), b.detach().clone()) for a, b in factors]
    decomposed = []
    for a, b in trained:
        u, s, vh = torch.linalg.svd(b @ a)
        decomposed.append((vh[:R], u[:, :R] * s[:R], s[:R]))
    ranked = {
        "lora_svd": decomposed,
        "lora_magnitude": [(a, b, a.norm(dim=1) * b.norm(dim=0)) for a, b in trained],
    }
    paths: dict[str, list[Point]] = {}
    for name, triples in ranked.items():
        strengths = torch.cat([strength for _, _, strength in triples])
        points = []
        for threshold in (0.0, *strengths.sort().values.tolist()):
            keeps = [strength > threshold for _, _, strength in triples]
            with torch.no_grad():
                for (down, up), (a, b, _), keep in zip(factors, triples, keeps, strict=True):
                    down.copy_(a)
                    up.copy_(b * keep)
                updates = [up @ down for down, up in factors]
            gates = [int(keep.sum()) for keep in keeps]
            points.append(measure(model, planted, level=threshold, gates=gates, updates=updates))
        paths[name] = points
    return paths


def lora_layers(model: nn.Module) -> list[LoraLayer]:
    """Return the adapted layers of `model` in order."""
    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def fit(
    model: nn.Module,
    train: Examples,
    *,
    steps: int,
    regularizer: Callable[[], Tensor] | None = None,
    after_step: Callable[[int], None] | None = None,
) -> None:
    """Train in full batches with AdamW; the learning rate falls to a tenth."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LR, weight_decay=0.0)
    for step in range(1, steps + 1):
        optimizer.param_groups[0]["lr"] = LR * (1 - 0.9 * step / steps)
        loss = example_losses(model(train.inputs), train.targets).mean()
        if regularizer is not None:
            loss = loss + regularizer()
        loss.backward()
        optimizer.step()
        if after_step is not None:
            after_step(step)  # before the gradients go: AdaLoRA's importance needs them
        optimizer.zero_grad()
