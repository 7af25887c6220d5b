"""SoRA as a PEFT tuner: LoRA with a gate vector inside `lora_B` (Eq. 9).

`z = s * W_u (g * (W_d x))` with `lora_A = W_d` of shape (r, in), `lora_B = W_u` of shape (out, r),
`gate = g` of shape (r,) and `s = lora_alpha / r`, fixed at the initial r. The gate sits in `lora_B`
because PEFT reads `lora_A.weight` in every forward pass, which would compute a gated weight twice.
"""

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from peft import LoraConfig, LoraModel
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners import lora
from peft.tuners.lora import LoraLayer
from peft.utils import register_peft_method
from torch import Tensor, nn
from transformers import PreTrainedModel
from typing_extensions import override

from sorakit.config import GateInit, GateScale, MethodConfig
from sorakit.method.fused import GatedLinear
from sorakit.method.peft_type import sora_peft_type
from sorakit.method.shared_input import group_layers

PEFT_PREFIX = "base_model.model."
"""What PEFT puts before the name of every module of the base model."""
_DEFAULTS = MethodConfig()
_UNSUPPORTED = (
    "use_dora",
    "use_qalora",
    "lora_bias",
    "use_bdlora",
    "kasa_config",
    "velora_config",
    "monteclora_config",
    "arrow_config",
    "alora_invocation_tokens",
    "target_parameters",
    "layer_replication",
    "megatron_config",
    "trainable_token_indices",
)


class GatedB(nn.Module):
    """Stands in for the up projection in `lora_B[adapter]`; column i of its weight is gated.

    `weight[:, i] = g_i * raw[:, i]`, of a linear layer or a 1x1 convolution.

    PEFT only ever calls `lora_B(h)` and reads `lora_B.weight`, so forward, merge and unmerge see
    the gated weight. The parameters are direct children: PEFT renames adapters in state-dict keys
    by position.

    Args:
        raw: Ungated weight, (out, r) or (out, r, 1, ...).
        bias: Bias of the up projection, if any.
        gate: Gate vector, float32 or float64.
    """

    def __init__(
        self, raw: nn.Parameter, *, bias: nn.Parameter | None, gate: Float[Tensor, " r"]
    ) -> None:
        super().__init__()
        self.raw = raw
        self.bias = bias
        self.gate = nn.Parameter(gate)

    @classmethod
    def from_module(
        cls, module: nn.Module, *, gate_init: GateInit, gate_scale: GateScale
    ) -> "GatedB":
        """Wrap the up projection that PEFT made; its weight becomes `raw`."""
        raw = module.weight
        bias = module.bias
        assert isinstance(raw, nn.Parameter)
        assert bias is None or isinstance(bias, nn.Parameter)
        dtype = torch.promote_types(raw.dtype, torch.float32)  # in bfloat16, 1 - 1e-4 is 1
        gate = torch.empty(raw.shape[1], dtype=dtype, device=raw.device)
        if gate_init == "auto":
            gate_init = "zeros" if gate_scale == "unit" else "ones"
        {"ones": nn.init.ones_, "zeros": nn.init.zeros_, "normal": nn.init.normal_}[gate_init](gate)
        return cls(raw, bias=bias, gate=gate)

    @property
    def weight(self) -> Tensor:
        """The gated weight, in the dtype of `raw`."""
        gate = self.gate.view(1, -1, *[1] * (self.raw.dim() - 2))
        return (self.raw * gate).to(self.raw.dtype)

    @property
    def in_features(self) -> int:
        """Rank r."""
        return self.raw.shape[1]

    @property
    def out_features(self) -> int:
        """Output width of the adapted module."""
        return self.raw.shape[0]

    @override
    def forward(self, x: Tensor) -> Tensor:
        dims = self.raw.dim() - 2
        if dims == 0:
            return F.linear(x, self.weight, self.bias)
        return (F.conv1d, F.conv2d, F.conv3d)[dims - 1](x, self.weight, self.bias)


@dataclass
class SoraConfig(LoraConfig):
    """Configuration of SoRA for `peft.get_peft_model`: a `LoraConfig` with gates.

    Args:
        gate_init: Gates at the start: ones, zeros, normal, or auto (1 with free scale, 0 with unit
            scale).
        gate_scale: free, or unit (rows of A and columns of B start at norm 1).
    """

    r: int = field(default=_DEFAULTS.r, metadata={"help": "Rank before pruning."})
    lora_alpha: float = field(  # pyright: ignore[reportIncompatibleVariableOverride]  # PEFT says int, takes float
        default=_DEFAULTS.lora_alpha, metadata={"help": "Scaling numerator."}
    )
    gate_init: GateInit = field(
        default=_DEFAULTS.gate_init, metadata={"help": "ones | zeros | normal | auto"}
    )
    gate_scale: GateScale = field(default="free", metadata={"help": "free | unit"})

    def __post_init__(self) -> None:
        # Before PEFT's own checks, which warn about options that are refused here.
        for name in _UNSUPPORTED:
            value = getattr(self, name, None)
            if value:
                raise ValueError(f"`{name}` must be unset with SoRA, got {value!r}.")
        if self.init_lora_weights not in (True, False, "gaussian", "orthogonal"):
            raise ValueError(
                "`init_lora_weights` must be True, False, 'gaussian' or 'orthogonal' with SoRA, "
                f"got {self.init_lora_weights!r}."
            )
        if self.bias != "none":
            raise ValueError(
                f"`bias` must be 'none' with SoRA, got {self.bias!r}. Trained biases would be "
                "neither counted nor exported."
            )
        super().__post_init__()
        self.peft_type = sora_peft_type()


class SoraModel(LoraModel):
    """PEFT's LoRA with a `GatedB` in the place of every up projection."""

    @staticmethod
    @override
    def _create_new_module(
        lora_config: LoraConfig, adapter_name: str, target: nn.Module, **kwargs: Any
    ) -> nn.Module:
        module = LoraModel._create_new_module(lora_config, adapter_name, target, **kwargs)
        if type(module) is lora.Linear and type(module.get_base_layer()) is nn.Linear:
            module.__class__ = GatedLinear  # PEFT's dispatch is kept: quantised layers come first
        return module

    @override
    def _create_and_replace(
        self,
        lora_config: SoraConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **kwargs: Any,
    ) -> None:
        _refuse_tensor_parallelism(target, current_key)
        super()._create_and_replace(
            lora_config, adapter_name, target, target_name, parent, current_key, **kwargs
        )
        layer = getattr(parent, target_name)
        _refuse_tensor_parallelism(layer.get_base_layer(), current_key)
        is_gated = False
        # nn.MultiheadAttention nests a second LoRA layer for its output projection.
        for module in layer.modules():
            if isinstance(module, LoraLayer) and adapter_name in module.lora_B:
                is_gated = True
                up = module.lora_B[adapter_name]
                if not isinstance(up, GatedB):
                    gated = GatedB.from_module(
                        up, gate_init=lora_config.gate_init, gate_scale=lora_config.gate_scale
                    )
                    gated.requires_grad_(gated.raw.requires_grad)
                    module.lora_B[adapter_name] = gated
                    if lora_config.gate_scale == "unit":
                        down = module.lora_A[adapter_name].weight
                        assert isinstance(down, nn.Parameter)
                        _draw_unit_factors(down, gated.raw)
        if not is_gated:
            raise ValueError(
                f"`target_modules` must name layers with lora_A and lora_B, got {current_key!r} "
                f"({type(target).__name__}). SoRA cannot gate it; leave it out."
            )

    @override
    def inject_adapter(
        self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any
    ) -> None:
        heads = _fresh_heads(model)
        super().inject_adapter(model, adapter_name, *args, **kwargs)
        group_layers(model)
        adapted = [
            name
            for name in self.targeted_module_names
            if any(name == head or name.startswith(f"{head}.") for head in heads)
        ]
        if adapted:
            warnings.warn(
                f"`target_modules` should leave the task head to be trained in full, but names "
                f"{', '.join(adapted)}. A head that was drawn at random stays frozen below its "
                "adapter, and is another one where the adapter is loaded. Set `task_type` (SEQ_CLS "
                "for a sequence classifier) or `modules_to_save`.",
                stacklevel=4,
            )

    @override
    def add_weighted_adapter(self, *args: Any, **kwargs: Any) -> None:
        # LoraModel writes into `lora_B[...].weight.data`, which is lost on a computed weight.
        raise TypeError("SoRA adapters cannot be added up. Use `export_lora`, then PEFT's LoRA.")


@dataclass(frozen=True, kw_only=True)
class AdaptedMatrix:
    """One adapted matrix of a model: views of its parameters, no copies.

    Attributes:
        name: Full name of the adapted module in the base model.
        lora_A: Down projection, (r, in).
        lora_B: Ungated up projection, (out, r).
        gate: Gate vector, (r,).
        scaling: The factor s of Eq. 9.
        fan_in_fan_out: Whether the base weight is stored transposed (Conv1D of GPT-2).
    """

    name: str
    lora_A: nn.Parameter
    lora_B: nn.Parameter
    gate: nn.Parameter
    scaling: float
    fan_in_fan_out: bool = False

    @property
    def params_per_rank(self) -> int:
        """Elements of A and B that one rank holds: in + out for a linear layer."""
        return self.lora_A.shape[1:].numel() + self.lora_B.transpose(0, 1).shape[1:].numel()

    def strengths(self) -> Float[Tensor, " r"]:
        """Return `|g_i| |A_i| |B_i|` per rank, which trading scale between the three leaves."""
        with torch.no_grad():
            rows = self.lora_A.flatten(1).norm(dim=1)
            columns = self.lora_B.transpose(0, 1).flatten(1).norm(dim=1)
            return self.gate.abs() * rows * columns


def base_name(name: str) -> str:
    """Return the name that a module has in the base model, from its name in a PEFT model or not."""
    return name.rpartition(PEFT_PREFIX)[2]


def adapted_matrices(model: nn.Module, adapter_name: str = "default") -> list[AdaptedMatrix]:
    """Return every SoRA matrix of `model` in the order of its modules; none gives [].

    PEFT makes new parameters when it moves or casts an adapter, so call this after the model is in
    place.
    """
    return list(_walk(model, adapter_name))


def plain_matrices(model: nn.Module, adapter_name: str = "default") -> list[AdaptedMatrix]:
    """Return every matrix of a plain LoRA as one whose gate is fixed at 1; none gives []."""
    found = []
    for name, layer in _lora_layers(model, adapter_name):
        up = layer.lora_B[adapter_name].weight
        assert isinstance(up, nn.Parameter)
        gate = nn.Parameter(up.new_ones(up.shape[1]), requires_grad=False)
        found.append(_matrix(name, layer, adapter_name, lora_B=up, gate=gate))
    return found


def gates(model: nn.Module, adapter_name: str = "default") -> dict[str, nn.Parameter]:
    """Return the gate vectors of `model`, (r,) each, by the name of the adapted module."""
    return {matrix.name: matrix.gate for matrix in _walk(model, adapter_name)}


def rank_costs(matrices: Iterable[AdaptedMatrix]) -> Float[Tensor, " ranks"]:
    """Return the elements of A and B that each rank holds, float64, all matrices concatenated."""
    return torch.cat(
        [torch.full_like(m.gate, m.params_per_rank, dtype=torch.float64) for m in matrices]
    ).detach()


def register() -> None:
    """Make `SoraConfig` known to PEFT; importing this module does it."""
    if sora_peft_type() not in PEFT_TYPE_TO_TUNER_MAPPING:
        register_peft_method(
            name="sora", config_cls=SoraConfig, model_cls=SoraModel, prefix="lora_"
        )


def _walk(model: nn.Module, adapter_name: str) -> Iterator[AdaptedMatrix]:
    for name, layer in _lora_layers(model, adapter_name):
        up = layer.lora_B[adapter_name]
        if isinstance(up, GatedB):
            yield _matrix(name, layer, adapter_name, lora_B=up.raw, gate=up.gate)


def _lora_layers(model: nn.Module, adapter_name: str) -> Iterator[tuple[str, LoraLayer]]:
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer) and adapter_name in module.lora_B:
            yield name, module


def _matrix(
    name: str, layer: LoraLayer, adapter_name: str, *, lora_B: nn.Parameter, gate: nn.Parameter
) -> AdaptedMatrix:
    down = layer.lora_A[adapter_name].weight
    assert isinstance(down, nn.Parameter)
    return AdaptedMatrix(
        name=base_name(name),
        lora_A=down,
        lora_B=lora_B,
        gate=gate,
        scaling=float(layer.scaling[adapter_name]),
        fan_in_fan_out=bool(vars(layer).get("fan_in_fan_out", False)),
    )


def _fresh_heads(model: nn.Module) -> list[str]:
    """Return the modules outside the base model, without output embeddings: these are pre-trained.

    Empty for a model without a head, or one that is not of transformers.
    """
    if not isinstance(model, PreTrainedModel) or model.base_model is model:
        return []
    outputs = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_children()
        if name != model.base_model_prefix and module is not outputs
    ]


def _refuse_tensor_parallelism(layer: nn.Module, name: str) -> None:
    # transformers < 5.17 writes its plan to the layer; later ones plan in the model, and PEFT
    # copies the plan to the layer. The hooks that PEFT puts on lora_B are lost with a GatedB.
    plan = getattr(layer, "_hf_tp_plan", None)
    if plan is not None:
        raise ValueError(
            f"`target_modules` must name layers without tensor parallelism, got {name!r} with the "
            f"plan {plan!r}. SoRA's gate is not sharded; use data parallelism."
        )


@torch.no_grad()
def _draw_unit_factors(lora_A: Tensor, lora_B: Tensor) -> None:
    """Draw A and B from N(0, 1) and scale rows of A and columns of B to norm 1, in place."""
    nn.init.normal_(lora_A)
    nn.init.normal_(lora_B)
    lora_A.div_(lora_A.flatten(1).norm(dim=1).view(-1, *[1] * (lora_A.dim() - 1)))
    norms = lora_B.transpose(0, 1).flatten(1).norm(dim=1)
    lora_B.div_(norms.view(1, -1, *[1] * (lora_B.dim() - 2)))


register()
