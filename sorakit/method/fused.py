"""The adapted linear layer as one autograd function: base product and gated low-rank product.

PEFT's LoRA layer computes `W x + b` and `s W_u (g * (W_d x))` (Eq. 9) apart: a cast of the frozen
weight in every step, three casts of the input, and full-size temporaries for the scaled product and
the sum. Here the second product is added into the result of the first, and its backward into the
gradient of the input. Results are those of PEFT's path up to rounding.
"""

from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from peft.tuners import lora
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from typing_extensions import override

if TYPE_CHECKING:
    from sorakit.method.tuner import GatedB

_HALVES = (torch.bfloat16, torch.float16)
_CASTABLE = (torch.float32, *_HALVES)
"""What autocast casts; it leaves float64 as it is."""
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class GatedLinearFunction(torch.autograd.Function):
    """`x -> W x + b + s W_u (g * (W_d x))` and its gradients in x, W_d, W_u and g.

    W and b are frozen. Products are computed in the dtype of `x`, `W` and `b`; gradients of the
    factors and the gate are rounded to it once, and then belong to the dtype of the parameter.
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  # torch declares *args
        ctx: Any,
        x: Float[Tensor, "*b d_in"],
        lora_A: Float[Tensor, "r d_in"],
        lora_B: Float[Tensor, "d_out r"],
        gate: Float[Tensor, " r"],
        weight: Float[Tensor, "d_out d_in"],
        bias: Float[Tensor, " d_out"] | None,
        scaling: float,
    ) -> Float[Tensor, "*b d_out"]:
        """Return `W x + b + s W_u (g * (W_d x))`; `x`, `weight` and `bias` have one dtype."""
        rows = x.reshape(-1, x.shape[-1])
        down = lora_A.to(x.dtype)
        up = (lora_B * (gate * scaling)).t().to(x.dtype, memory_format=torch.contiguous_format)
        hidden = down @ rows.t()  # (r, rows): ranks first is the faster layout of every product
        result = F.linear(rows, weight, bias).addmm_(hidden.t(), up)
        ctx.save_for_backward(rows, hidden, down, up, lora_B, gate, weight)
        ctx.scaling = scaling
        # Not `view`: autograd refuses to change a view of a custom function in place, as Longformer
        # does with its queries.
        return torch.ops.aten._unsafe_view(result, [*x.shape[:-1], result.shape[-1]])

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # torch declares *grad_outputs
        ctx: Any, gradient: Float[Tensor, "*b d_out"]
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of the first four arguments of `forward` that need one."""
        rows, hidden, down, up, lora_B, gate, weight = ctx.saved_tensors
        for_x, for_down, for_up, for_gate = ctx.needs_input_grad[:4]
        flat = gradient.reshape(-1, gradient.shape[-1])
        of_x = of_down = of_up = of_gate = None
        if for_x or for_down:
            below = up @ flat.t()  # (r, rows), gradient of W_d x
            if for_down:
                of_down = (below @ rows).to(lora_B.dtype)
            if for_x:
                of_x = (flat @ weight).addmm_(below.t(), down)
                of_x = of_x.view(*gradient.shape[:-1], -1)
        if for_up or for_gate:
            product = (hidden @ flat).t().to(lora_B.dtype)  # gradient of W_u * (s g)
            if for_up:
                of_up = product * (gate * ctx.scaling)
            if for_gate:
                of_gate = (product * lora_B).sum(dim=0) * ctx.scaling
        return of_x, of_down, of_up, of_gate, None, None, None


class GatedLinear(lora.Linear):
    """PEFT's LoRA layer of an `nn.Linear`, computed by `GatedLinearFunction` where that can be.

    It cannot, and PEFT's own path runs, with an adapter that is disabled, merged, chosen by
    example or not the only active one, with dropout on the input of A, where the base weight is
    trained or not a plain tensor, where hooks or another `forward` stand on the layers inside,
    where dtypes differ without autocast, and while `torch.compile` traces, which fuses by itself.
    """

    _held: tuple[tuple[Any, ...], Tensor, Tensor | None] | None = None

    @override
    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        adapter = self._fusible_adapter(x) if not (args or kwargs) else None
        if adapter is None:
            return super().forward(x, *args, **kwargs)
        down = cast(nn.Parameter, self.lora_A[adapter].weight)
        up = cast("GatedB", self.lora_B[adapter])
        base = cast(nn.Linear, self.base_layer)
        dtype = self._compute_dtype(x, down, up.raw, base.weight)
        if dtype is None:
            return super().forward(x)
        weight, bias = self._frozen(base, dtype)
        x = _cast_once(x, dtype)
        if up.gate.numel() == 0:  # compacted away
            return F.linear(x, weight, bias)
        return cast(
            Tensor,
            GatedLinearFunction.apply(
                x, down, up.raw, up.gate, weight, bias, self.scaling[adapter]
            ),
        )

    @override
    def merge(self, *args: Any, **kwargs: Any) -> None:
        self._held = None  # PEFT writes into `weight.data`, which no version counts
        super().merge(*args, **kwargs)

    @override
    def unmerge(self) -> None:
        self._held = None
        super().unmerge()

    @override
    def train(self, mode: bool = True) -> "GatedLinear":
        self._held = None  # whatever has happened to `weight.data` in between
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_held"}

    def _fusible_adapter(self, x: Tensor) -> str | None:
        """Return the one adapter that acts, or None where PEFT's own path must run."""
        if self._disable_adapters or self.merged_adapters or torch.compiler.is_compiling():
            return None
        acting = [name for name in self.active_adapters if name in self.lora_A]
        if len(acting) != 1 or acting[0] in self.lora_variant:
            return None
        adapter = acting[0]
        dropout = self.lora_dropout[adapter]
        drops = not isinstance(dropout, nn.Identity) and dropout.training
        down, up, base = self.lora_A[adapter], self.lora_B[adapter], self.base_layer
        is_plain = (
            type(base) is nn.Linear
            and type(down) is nn.Linear
            and type(base.weight) is nn.Parameter
            and not base.weight.requires_grad
            and (base.bias is None or not base.bias.requires_grad)
            and type(x) in (Tensor, nn.Parameter)
            and not any(_is_hooked(module) for module in (base, down, up, dropout))
        )
        return adapter if is_plain and not drops else None

    def _compute_dtype(self, x: Tensor, *others: Tensor) -> torch.dtype | None:
        """Return the dtype of the products, or None where this layer leaves it to PEFT."""
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            is_castable = all(tensor.dtype in _CASTABLE for tensor in (x, *others))
            return torch.get_autocast_dtype(kind) if is_castable else None
        return x.dtype if all(tensor.dtype == x.dtype for tensor in others) else None

    def _frozen(self, base: nn.Linear, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """Return the frozen weight and bias in the dtype of the products; cast once and held."""
        weight, bias = base.weight, base.bias
        if weight.dtype == dtype:
            return weight, bias
        key = (dtype, *_identity(weight), *(() if bias is None else _identity(bias)))
        if self._held is None or self._held[0] != key:
            cast_bias = None if bias is None else bias.detach().to(dtype)
            self._held = (key, weight.detach().to(dtype), cast_bias)
        return self._held[1], self._held[2]


def _identity(tensor: Tensor) -> tuple[Any, ...]:
    version = 0 if tensor.is_inference() else tensor._version
    return tensor.device, tensor.data_ptr(), version


def _is_hooked(module: nn.Module) -> bool:
    state = module.__dict__
    return "forward" in state or any(state[name] for name in _HOOKS)


def _cast_once(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return `x` in `dtype`; layers that share their input share the cast and its gradient."""
    if x.dtype == dtype:
        return x
    if x.is_inference():
        return x.to(dtype)
    key = (dtype, x._version, x.requires_grad and torch.is_grad_enabled())
    held: tuple[Any, Tensor] | None = getattr(x, "_sorakit_cast", None)
    if held is not None and held[0] == key:
        return held[1]
    cast_x = x.to(dtype)
    x._sorakit_cast = (key, cast_x)  # pyright: ignore[reportAttributeAccessIssue]  # dies with x
    return cast_x
