"""The adapted linear layer as one autograd function: base product and gated low-rank product.

PEFT's LoRA layer computes `W x + b` and `s W_u (g * (W_d x))` (Eq. 9) apart: a cast of the frozen
weight in every step, three casts of the input, and full-size temporaries for the scaled product and
the sum. Here the second product is added into the result of the first, and its backward into the
gradient of the input. Results are those of PEFT's path up to rounding.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from peft.tuners import lora
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from typing_extensions import override

if TYPE_CHECKING:
    from sorakit.method.shared_input import SharedInput

_HALVES = (torch.bfloat16, torch.float16)
_CASTABLE = (torch.float32, *_HALVES)
"""What autocast casts; it leaves float64 as it is."""


class GatedLinearFunction(torch.autograd.Function):
    """`x -> W x + b + s W_u (g * (W_d x))` for one or more layers of one input, and its gradients.

    W and b are frozen. Products are computed in the dtype of `x`, `W` and `b`; gradients of the
    factors and the gate are rounded to it once, and then belong to the dtype of the parameter.
    Layers that share `x` (query, key and value) share its products with their W_d, and add their
    gradients of it in place.
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  # torch declares *args
        ctx: Any,
        x: Float[Tensor, "*b d_in"],
        bases: Sequence[tuple[Tensor, Tensor | None]],
        scalings: Sequence[float],
        *parameters: Tensor,
    ) -> tuple[Tensor, ...]:
        """Return one output, (*b, d_out), of every layer.

        Args:
            ctx: Of autograd.
            x: Input of all layers.
            bases: Frozen weight and bias of every layer, in the dtype of `x`.
            scalings: The factor s of every layer.
            parameters: `lora_A` (r, d_in), `lora_B` (d_out, r) and `gate` (r,) of every layer.
        """
        rows = x.reshape(-1, x.shape[-1])
        factors = [parameters[i : i + 3] for i in range(0, len(parameters), 3)]
        down = _joined([lora_A for lora_A, _, _ in factors]).to(x.dtype)
        hidden = down @ rows.t()  # (r, rows): ranks first is the faster layout of every product
        sizes = [gate.numel() for _, _, gate in factors]
        ups, results = [], []
        layers = zip(bases, scalings, factors, _parted(hidden, sizes), strict=True)
        for (weight, bias), scaling, (_, lora_B, gate), own in layers:
            up = (lora_B * (gate * scaling)).t().to(x.dtype, memory_format=torch.contiguous_format)
            result = F.linear(rows, weight, bias)
            if gate.numel():
                result.addmm_(own.t(), up)
            # Not `view`: autograd refuses to change a view of a custom function in place, as
            # Longformer does with its queries.
            shape = [*x.shape[:-1], result.shape[-1]]
            results.append(torch.ops.aten._unsafe_view(result, shape))
            ups.append(up)
        weights = [weight for weight, _ in bases]
        rest = [tensor for _, lora_B, gate in factors for tensor in (lora_B, gate)]
        ctx.save_for_backward(rows, hidden, down, *ups, *weights, *rest)
        ctx.scalings, ctx.sizes = scalings, sizes
        return tuple(results)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # torch declares *grad_outputs
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of the arguments of `forward` that need one.

        Args:
            ctx: Of `forward`.
            gradients: Of the outputs, (*b, d_out) each.
        """
        count = len(gradients)
        rows, hidden, down, *saved = ctx.saved_tensors
        ups, weights, rest = saved[:count], saved[count : 2 * count], saved[2 * count :]
        for_x, for_parameters = ctx.needs_input_grad[0], ctx.needs_input_grad[3:]
        for_below = for_x or any(for_parameters[::3])
        below = torch.empty_like(hidden)  # gradient of W_d x
        belows, hiddens = _parted(below, ctx.sizes), _parted(hidden, ctx.sizes)
        of_x = None
        found: list[Tensor | None] = [None] * (3 * count)
        for i, gradient in enumerate(gradients):
            flat = gradient.reshape(-1, gradient.shape[-1])
            if for_x:
                of_x = flat @ weights[i] if of_x is None else of_x.addmm_(flat, weights[i])
            if ctx.sizes[i] == 0:
                continue
            if for_below:
                torch.mm(ups[i], flat.t(), out=belows[i])
            lora_B, gate = rest[2 * i : 2 * i + 2]
            if for_parameters[3 * i + 1] or for_parameters[3 * i + 2]:
                # of W_u * (s g)
                product = (hiddens[i] @ flat).t().to(lora_B.dtype)
                if for_parameters[3 * i + 1]:
                    found[3 * i + 1] = product * (gate * ctx.scalings[i])
                if for_parameters[3 * i + 2]:
                    found[3 * i + 2] = (product * lora_B).sum(dim=0) * ctx.scalings[i]
        if any(for_parameters[::3]):
            of_down = (below @ rows).to(rest[0].dtype)
            found[::3] = [p if len(p) else None for p in _parted(of_down, ctx.sizes)]
        if of_x is not None:
            of_x.addmm_(below.t(), down)
            of_x = of_x.view(*gradients[0].shape[:-1], -1)
        return of_x, None, None, *found


class GatedLinear(lora.Linear):
    """PEFT's LoRA layer of an `nn.Linear`, computed by `GatedLinearFunction` where that can be.

    It cannot, and PEFT's own path runs, with an adapter that is disabled, merged, chosen by
    example or not the only active one, with dropout on the input of A, where the base weight is
    trained or not a plain tensor, where hooks or another `forward` stand on the layers inside,
    where dtypes differ without autocast, and while `torch.compile` traces, which fuses by itself.
    """

    _held: tuple[tuple[Any, ...], Tensor, Tensor | None] | None = None
    shared: "SharedInput | None" = None
    """Layers that are called on the same input as this one, if there are any."""

    @override
    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if args or kwargs:
            return super().forward(x, *args, **kwargs)
        if self.shared is not None:
            output = self.shared.output(self, x)
            if output is not None:
                return output
        part = self.part(x)
        return super().forward(x) if part is None else outputs_of(x, [part])[0]

    def part(self, x: Tensor) -> "Part | None":
        """Return what `outputs_of` needs of this layer, or None where PEFT's path must run."""
        adapter = self._fusible_adapter(x)
        if adapter is None:
            return None
        parts: dict[str, Any] = self._modules
        factors = parts["lora_B"]._modules[adapter]._parameters
        down = parts["lora_A"]._modules[adapter]._parameters["weight"]
        base = parts["base_layer"]
        dtype = self._compute_dtype(x, down, factors["raw"], base._parameters["weight"])
        if dtype is None:
            return None
        weight, bias = self._frozen(base, dtype)
        return Part(
            dtype, weight, bias, self.scaling[adapter], down, factors["raw"], factors["gate"]
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
        # Past `nn.Module.__getattr__`, which would be a tenth of a step of few tokens.
        parts: dict[str, Any] = self._modules
        downs, base = parts["lora_A"]._modules, parts["base_layer"]
        acting = [name for name in self.active_adapters if name in downs]
        if len(acting) != 1 or acting[0] in self.lora_variant:
            return None
        adapter = acting[0]
        down, up = downs[adapter], parts["lora_B"]._modules[adapter]
        dropout = parts["lora_dropout"]._modules[adapter]
        if type(base) is not nn.Linear or type(down) is not nn.Linear:
            return None
        weight, bias = base._parameters["weight"], base._parameters["bias"]
        is_plain = (
            type(weight) is nn.Parameter
            and not weight.requires_grad
            and (bias is None or not bias.requires_grad)
            and (type(dropout) is nn.Identity or not dropout.training)
            and type(x) in (Tensor, nn.Parameter)
            and not (_is_hooked(base) or _is_hooked(down) or _is_hooked(up) or _is_hooked(dropout))
        )
        return adapter if is_plain else None

    def _compute_dtype(self, x: Tensor, *others: Tensor) -> torch.dtype | None:
        """Return the dtype of the products, or None where this layer leaves it to PEFT."""
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            is_castable = all(tensor.dtype in _CASTABLE for tensor in (x, *others))
            return torch.get_autocast_dtype(kind) if is_castable else None
        return x.dtype if all(tensor.dtype == x.dtype for tensor in others) else None

    def _frozen(self, base: nn.Linear, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """Return the frozen weight and bias in the dtype of the products; cast once and held."""
        parameters: dict[str, Any] = base._parameters
        weight, bias = parameters["weight"], parameters["bias"]
        if weight.dtype == dtype:
            return weight, bias
        key = (dtype, *_identity(weight), *(() if bias is None else _identity(bias)))
        if self._held is None or self._held[0] != key:
            cast_bias = None if bias is None else bias.detach().to(dtype)
            self._held = (key, weight.detach().to(dtype), cast_bias)
        return self._held[1], self._held[2]


class Part(NamedTuple):
    """What an adapted layer brings to a product.

    Attributes:
        dtype: Of the products.
        weight: Frozen, in this dtype.
        bias: Frozen, in this dtype.
        scaling: The factor s.
        lora_A: Down projection, (r, in).
        lora_B: Ungated up projection, (out, r).
        gate: Gate vector, (r,).
    """

    dtype: torch.dtype
    weight: Tensor
    bias: Tensor | None
    scaling: float
    lora_A: Tensor
    lora_B: Tensor
    gate: Tensor


def outputs_of(x: Tensor, parts: Sequence[Part]) -> tuple[Tensor, ...]:
    """Return the outputs of layers that share their input and the dtype of their products."""
    x = _cast_once(x, parts[0].dtype)
    if not any(part.gate.numel() for part in parts):  # compacted away
        return tuple(F.linear(x, part.weight, part.bias) for part in parts)
    bases = [(part.weight, part.bias) for part in parts]
    parameters = [p for part in parts for p in (part.lora_A, part.lora_B, part.gate)]
    outputs = GatedLinearFunction.apply(x, bases, [part.scaling for part in parts], *parameters)
    return cast(tuple[Tensor, ...], outputs)


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))


def _parted(tensor: Tensor, sizes: Sequence[int]) -> Sequence[Tensor]:
    return [tensor] if len(sizes) == 1 else torch.split_with_sizes(tensor, sizes)


def _identity(tensor: Tensor) -> tuple[Any, ...]:
    version = 0 if tensor.is_inference() else tensor._version
    return tensor.device, tensor.data_ptr(), version


def _is_hooked(module: nn.Module) -> bool:
    state = module.__dict__
    return bool(
        "forward" in state
        or state["_forward_hooks"]
        or state["_forward_pre_hooks"]
        or state["_backward_hooks"]
        or state["_backward_pre_hooks"]
    )


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
