"""The training steps that `steps.py` races: adapters and their rivals on one backbone and batch."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft import AdaLoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import AutoConfig

from sorakit.backbones import backbone_source, load_backbone
from sorakit.config import BackboneConfig, MethodConfig, RunConfig
from sorakit.method.compaction import Compaction
from sorakit.method.optimizer import ProxAdamW
from sorakit.method.targets import resolve_target_modules
from sorakit.method.tuner import AdaptedMatrix, adapted_matrices
from sorakit.objectives import objective
from sorakit.training.module import AdaptationModule

Batch = dict[str, Tensor]
GOAL = objective("classification")
R = 8
ADALORA_INIT_R = 12
"""AdaLoRA starts with 1.5 times the rank that it ends with, as its authors recommend."""
TOTAL_STEPS = 1000
"""Length of AdaLoRA's schedule, within whose pruning phase all measured steps lie."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where a step is measured.

    Attributes:
        backbone: `backbone.name`.
        examples: Examples of the batch.
        tokens: Tokens of each example.
        precision: bf16-mixed or 32-true.
    """

    backbone: str
    examples: int
    tokens: int
    precision: str

    def within(self, positions: int) -> "Setting":
        """Return the same number of tokens in examples that are no longer than `positions`."""
        tokens = min(self.tokens, positions)
        return replace(self, tokens=tokens, examples=self.examples * self.tokens // tokens)

    def batch(self, vocabulary: int) -> Batch:
        """Return random tokens without padding, and random labels of two classes."""
        generator = torch.Generator().manual_seed(1)
        shape = (self.examples, self.tokens)
        return {
            "input_ids": torch.randint(0, vocabulary, shape, generator=generator),
            "attention_mask": torch.ones(shape, dtype=torch.long),
            "label": torch.randint(0, 2, (self.examples,), generator=generator),
            "index": torch.arange(self.examples),
        }


def positions(backbone: str) -> int:
    """Return the longest example, in tokens, that a backbone takes."""
    return AutoConfig.from_pretrained(backbone_source(backbone)).max_position_embeddings


def floor(setting: Setting) -> Callable[[], None]:
    """Return a step that trains the head but sends gradients down to the first layer.

    No adapter in all layers can be cheaper.
    """
    module = adapted(setting, "head_only")
    base: Any = module.model.get_base_model()

    def require_gradient(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return output if output.requires_grad else output.requires_grad_(True)

    base.base_model.embeddings.register_forward_hook(require_gradient)
    return _step(module, setting)


def head_only(setting: Setting) -> Callable[[], None]:
    """Return a step that trains the head alone."""
    return _step(adapted(setting, "head_only"), setting)


def lora(setting: Setting, *, attention: str | None = None) -> Callable[[], None]:
    """Return a step of PEFT's LoRA, with an attention kernel other than that of a run if given."""
    return _step(adapted(setting, "lora", attention=attention), setting)


def lora_as_documented(setting: Setting) -> Callable[[], None]:
    """Return a step of PEFT's LoRA with `torch.optim.AdamW` as it is by default."""
    module = adapted(setting, "lora")
    trained = [p for p in module.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    base: Any = module.model.get_base_model()
    batch = setting.batch(base.config.vocab_size)

    def step() -> None:
        with autocast(setting):
            loss = module.loss(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def adalora(setting: Setting) -> Callable[[], None]:
    """Return a step of PEFT's AdaLoRA, its regularisation and its allocation included."""
    base = _base(setting)
    head = GOAL.head_modules(base)
    config = AdaLoraConfig(
        init_r=ADALORA_INIT_R,
        target_r=R,
        lora_alpha=2 * R,
        tinit=1,
        tfinal=1,
        deltaT=1,
        total_step=TOTAL_STEPS,
        target_modules=resolve_target_modules(base, "all-linear", exclude=head),
        modules_to_save=head,
    )
    model = get_peft_model(base, config)
    module = _module(model)
    batch = setting.batch(base.config.vocab_size)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    optimizer = module.configure_optimizers()
    taken = 0

    def step() -> None:
        nonlocal taken
        with autocast(setting):
            loss = model(**inputs, labels=batch["label"]).loss  # PEFT adds its regularisation here
        loss.backward()
        module.configure_gradient_clipping(optimizer)
        optimizer.step()
        taken += 1
        model.base_model.update_and_allocate(taken)  # pyright: ignore[reportCallIssue]  # AdaLora's
        optimizer.zero_grad()

    return step


def full(setting: Setting) -> Callable[[], None]:
    """Return a step that trains every weight."""
    module = adapted(setting, "head_only")
    module.model.requires_grad_(True)
    return _step(module, setting)


def sora(
    setting: Setting,
    *,
    zero: float = 0.0,
    upper: bool = False,
    is_refit: bool = False,
    has_prefix: bool = False,
) -> Callable[[], None]:
    """Return a step of SoRA.

    Args:
        setting: Where.
        zero: Share of gates that are zero.
        upper: Live ranks are in the upper half of the matrices.
        is_refit: Dead ranks stay dead, so they are taken out; otherwise they may come back.
        has_prefix: The input of the lowest layer with a live rank is given, as from a cache, and
            nothing below it is computed: exact where nothing random precedes.
    """
    module = adapted(setting, "sora")
    draw_gates(adapted_matrices(module.model), zero, upper=upper)
    step = _step(module, setting, is_refit=is_refit)
    if has_prefix:
        _give_prefix(module, setting)
    return step


def adapted(setting: Setting, method: str, *, attention: str | None = None) -> AdaptationModule:
    """Return the module of a method of the tables, as a run trains it."""
    config = RunConfig(
        backbone=BackboneConfig(name=setting.backbone), method=MethodConfig(name=method, r=R)
    )
    base = _base(setting, attention)
    return _module(config.method.adapter.build(base, config, head=GOAL.head_modules(base)))


def _base(setting: Setting, attention: str | None = None) -> Any:
    torch.manual_seed(0)
    config = BackboneConfig(name=setting.backbone)
    if attention is None and setting.precision == "bf16-mixed":
        attention = "eager"  # as a run does on a CPU: see `sorakit.training.run`
    return load_backbone(config, objective=GOAL, label_names=("a", "b"), attention=attention).model


def _module(model: Any) -> AdaptationModule:
    assert isinstance(model, PeftModel)
    config = RunConfig()
    return AdaptationModule(
        model,
        split_names=(),
        metric="accuracy",
        objective=GOAL,
        optim=config.optim,
        gates=config.gates,
        xi=0.0,
    )


def _step(
    module: AdaptationModule, setting: Setting, *, is_refit: bool = False
) -> Callable[[], None]:
    optimizer: ProxAdamW = module.configure_optimizers()
    for group in optimizer.gate_groups:
        group["lr"] = 0.0  # what is zero stays so, and no other gate joins it
        group["holds_zeros"] = is_refit
    if is_refit:
        Compaction(optimizer)
    base: Any = module.model.get_base_model()
    batch = setting.batch(base.config.vocab_size)

    def step() -> None:
        with autocast(setting):
            loss = module.loss(batch)
        loss.backward()
        module.configure_gradient_clipping(optimizer)
        optimizer.step()
        optimizer.zero_grad()

    return step


class _Given(nn.Module):
    """Stands in for what computes a tensor that is known.

    Args:
        value: It.
    """

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, *_args: Any, **_kwargs: Any) -> Tensor:
        return self.value


@torch.no_grad()
def _give_prefix(module: AdaptationModule, setting: Setting) -> None:
    """Replace everything below the lowest block with a live rank by its output on the batch."""
    base: Any = module.model.get_base_model()
    encoder = base.base_model.encoder
    live = [m.name.split(".") for m in adapted_matrices(module.model) if m.gate.any()]
    numbers = [int(name[name.index("layer") + 1]) for name in live if "layer" in name]
    lowest = min(numbers, default=len(encoder.layer))
    found: list[Tensor] = []
    if lowest < len(encoder.layer):
        handle = encoder.layer[lowest].register_forward_pre_hook(
            lambda _module, inputs: found.append(inputs[0].detach())
        )
        with autocast(setting):
            module(setting.batch(base.config.vocab_size))
        handle.remove()
        encoder.layer = encoder.layer[lowest:]
        base.base_model.embeddings = _Given(found[0])


def autocast(setting: Setting) -> torch.autocast:
    """Return the arithmetic of a setting."""
    return torch.autocast("cpu", torch.bfloat16, enabled=setting.precision == "bf16-mixed")


@torch.no_grad()
def draw_gates(matrices: list[AdaptedMatrix], share: float, *, upper: bool, seed: int = 0) -> None:
    """Draw all gates, and set a random share of them to zero."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [len(matrix.gate) for matrix in matrices]
    total = sum(sizes)
    values = torch.rand(total, generator=generator) * 0.5 + 0.1
    order = torch.randperm(total, generator=generator)
    if upper:
        order = order[order >= total // 2]
    dead = torch.ones(total, dtype=torch.bool)
    dead[order[: max(1, round(total * (1 - share)))]] = False
    if share > 0:
        values[dead] = 0.0
    for matrix, gate in zip(matrices, values.split(sizes), strict=True):
        matrix.gate.copy_(gate)
