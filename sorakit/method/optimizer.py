"""Optimizers whose gate groups take a proximal step (SoRA Eq. 10 and its variants).

State that changes the mathematics stands in `param_groups` (`xi`, `gate_update`, `averaging`,
`least`, `holds_zeros`) or in the state of a gate (the running average of its gradient; in unit
scale that of the growth it takes over from A and B; `skipped`, the steps in a row that left it
out), so that a checkpoint of the optimizer holds it.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer
from typing_extensions import override

from sorakit.config import GateUpdate
from sorakit.method.gates import gate_rule
from sorakit.method.prox import largest_threshold
from sorakit.method.rank_scale import decay_live_ranks_, to_unit_scale_
from sorakit.method.tuner import AdaptedMatrix, rank_costs

# Loops over parameters in C++, for which there are no public names.
_add_ = torch._foreach_add_  # pyright: ignore[reportPrivateImportUsage]
_copy_ = torch._foreach_copy_  # pyright: ignore[reportPrivateImportUsage]
_divided = torch._foreach_div  # pyright: ignore[reportPrivateImportUsage]
_lerp_ = torch._foreach_lerp_  # pyright: ignore[reportPrivateImportUsage]

GROWTH_AVERAGING = 0.99  # weight of the past: growth is noise of single steps around a small mean
MAX_SKIPPED_STEPS = 32
"""Steps in a row that may leave a gate out: LayerDrop of 0.5 does so once in 4e9 cases."""


@torch.no_grad()
def gate_step_(
    gates: Sequence[Tensor],
    *,
    update: GateUpdate,
    lr: float,
    xi: float,
    gradients: Sequence[Tensor] = (),
    metric: Sequence[Tensor] = (),
    costs: Tensor | None = None,
    least: int = 0,
) -> float:
    """Take one proximal step on all gates at once, in place, by the rule of an update.

    A rule that AdamW passes over moves the gates and thresholds them (sgd: Eq. 10); the others
    only threshold what AdamW has already moved.

    Args:
        gates: Gate vectors.
        update: Name of the rule.
        lr: Step size eta, in gate units per unit of gradient.
        xi: Threshold in gate units per step.
        gradients: dL/dg of every gate, or a running average of it, if the rule moves the gates.
        metric: `sqrt(v_hat) + eps` of every gate, if the rule needs AdamW's metric.
        costs: What each entry of the concatenated gates counts; needed with `least`.
        least: What the survivors must count together: `xi` is lowered for this step where it would
            prune more. 0 leaves `xi` as it is.

    Returns:
        The threshold that was applied.
    """
    rule = gate_rule(update)
    flat = torch.cat([gate.detach() for gate in gates])
    divisor = torch.cat(list(metric)) if rule.needs_metric else None
    if not rule.moved_by_adamw:
        flat = rule.move(flat, torch.cat(list(gradients)), lr=lr)
    if least > 0:
        assert costs is not None
        xi = min(xi, largest_threshold(rule.reach(flat, divisor), costs, least))
    flat = rule.threshold(flat, xi, divisor)
    _copy_(list(gates), list(flat.split([gate.numel() for gate in gates])))
    return xi


class ProxSGD(Optimizer):
    """Proximal SGD on gates (Eq. 10), for any training loop.

    Other parameters need an optimizer of their own.

    Args:
        params: Gates, float32 or float64, best as (name, parameter) pairs.
        lr: Step size eta. Must be > 0.
        xi: Threshold in gate units per step; lambda = xi / lr. Change it through `param_groups`.
        averaging: Weight of the past in a running average of the gradient, in [0, 1).
    """

    def __init__(
        self, params: Iterable[Any], *, lr: float, xi: float = 0.0, averaging: float = 0.0
    ) -> None:
        if not lr > 0:
            raise ValueError(f"`lr` must be > 0, got {lr}.")
        super().__init__(params, {"lr": lr, "xi": xi, "averaging": averaging})
        for group in self.param_groups:
            _check_gates(group)

    @override
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; `closure` recomputes the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            _fill_gradients(group)
            _warn_of_schedule(group)
            gradients = _averaged_gradients(self, group)
            gate_step_(
                group["params"],
                update="sgd",
                lr=group["lr"],
                xi=group["xi"],
                gradients=gradients,
            )
        return loss


class ProxAdamW(AdamW):
    """AdamW, except that groups with an `xi` are gates and follow their `gate_update`.

    One optimizer, because Lightning's automatic optimization (accumulation, clipping, AMP) takes
    only one.

    Args:
        params: Parameter groups. A group with the key `xi` holds gates; it may set `gate_update`
            (default sgd), `averaging` (default 0, see `ProxSGD`), `eps` (default that of the
            update), `least`: non-zero parameters that a step must leave, for which it applies less
            than its `xi` (default 0), and `holds_zeros`: gates that are zero stay zero (default
            False). A step writes `applied_xi`, the threshold that it applied.
        matrices: Adapted matrices of the gates. Needed for unit scale, `rank_weight_decay` and
            `least`.
        lr: Learning rate of the groups that set none.
        rank_weight_decay: Decoupled weight decay of A and B, applied to the rows and columns of
            live gates only, with the learning rate of the group that holds them. Give their group
            `weight_decay` 0.
        unit_scale: Keep rows of A and columns of B at norm 1; the gate carries their size, the
            function is unchanged.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        matrices: Sequence[AdaptedMatrix] = (),
        lr: float,
        rank_weight_decay: float = 0.0,
        unit_scale: bool = False,
    ) -> None:
        groups = [_with_rule(group) if "xi" in group else group for group in params]
        super().__init__(groups, lr=lr, weight_decay=0.0)
        for group in self.param_groups:
            # One kernel for all. Not by the argument of AdamW: with that, GradScaler leaves it to
            # the kernel to unscale gradients, which never sees those of gates on SGD.
            group["fused"] = all(p.device.type in ("cpu", "cuda") for p in group["params"])
        self.matrices = tuple(matrices)
        self._rank_weight_decay = rank_weight_decay
        self._unit_scale = unit_scale
        for group in self.gate_groups:
            _check_gates(group)

    @property
    def gate_groups(self) -> list[dict[str, Any]]:
        """Parameter groups that hold gates."""
        return [group for group in self.param_groups if "xi" in group]

    @override
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; `closure` recomputes the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        _fill_empty(self.matrices)
        for group in self.gate_groups:
            _fill_gradients(group)
            _warn_of_schedule(group)
            if group["holds_zeros"]:
                _drop_dead_gradients(group)
        self._decay_live_ranks()
        # AdamW passes over parameters without a gradient: gates that it must not move hide theirs.
        hidden = [
            (gate, gate.grad)
            for group in self.gate_groups
            if not gate_rule(group["gate_update"]).moved_by_adamw
            for gate in group["params"]
        ]
        for gate, _ in hidden:
            gate.grad = None
        super().step()
        for gate, gradient in hidden:
            gate.grad = gradient
        for group in self.gate_groups:
            rule = gate_rule(group["gate_update"])
            group["applied_xi"] = gate_step_(
                group["params"],
                update=group["gate_update"],
                lr=group["lr"],
                xi=group["xi"],
                gradients=() if rule.moved_by_adamw else _averaged_gradients(self, group),
                metric=self._metric(group) if rule.needs_metric else (),
                costs=self._costs(group) if group["least"] > 0 else None,
                least=group["least"],
            )
        if self._unit_scale and self.matrices:
            growths = to_unit_scale_(self.matrices)
            states = [self.state[matrix.gate] for matrix in self.matrices]
            for state, growth in zip(states, growths, strict=True):
                if "growth" not in state:
                    state["growth"] = growth.clone()
            _lerp_([state["growth"] for state in states], growths, 1 - GROWTH_AVERAGING)
        return loss

    @torch.no_grad()
    def forget_dead_ranks(self) -> None:
        """Set the state of ranks with a zero gate to 0, before steps that hold zeros.

        Their A and B have no gradient then, so without moments they do not move; a rank that comes
        back later starts without a past.
        """
        for matrix in self.matrices:
            dead = matrix.gate == 0
            for parameter, dim in ((matrix.gate, 0), (matrix.lora_A, 0), (matrix.lora_B, 1)):
                for value in self.state.get(parameter, {}).values():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        value.transpose(0, dim)[dead] = 0.0

    def growth(self, matrix: AdaptedMatrix) -> Tensor:
        """Return the running mean of `log(|A_i| |B_i|)` that unit scale took off a step, (r,).

        Zeros in free scale and before the first step.
        """
        state = self.state.get(matrix.gate, {})  # never adds a state where there is none
        return state.get("growth", torch.zeros_like(matrix.gate))

    def _costs(self, group: dict[str, Any]) -> Tensor:
        by_gate = {id(matrix.gate): matrix for matrix in self.matrices}
        return rank_costs(by_gate[id(gate)] for gate in group["params"])

    def _metric(self, group: dict[str, Any]) -> list[Tensor]:
        """Return AdamW's `sqrt(v_hat) + eps` of every gate."""
        beta2 = group["betas"][1]
        metric = []
        for gate in group["params"]:
            state = self.state[gate]
            correction = 1 - beta2 ** float(state["step"])
            metric.append((state["exp_avg_sq"] / correction).sqrt() + group["eps"])
        return metric

    def _decay_live_ranks(self) -> None:
        if self._rank_weight_decay == 0 or not self.matrices:
            return
        lrs = {id(p): group["lr"] for group in self.param_groups for p in group["params"]}
        shrinks = [lrs[id(matrix.lora_A)] * self._rank_weight_decay for matrix in self.matrices]
        decay_live_ranks_(self.matrices, shrinks)


def _averaged_gradients(optimizer: Optimizer, group: dict[str, Any]) -> list[Tensor]:
    """Return the bias-corrected running average of every gate's gradient, after one update of it.

    `m <- a m + (1 - a) dL/dg` and `m / (1 - a^t)`; with `a = 0` the gradient itself, and no state.
    """
    weight = group["averaging"]
    gradients = [gate.grad for gate in group["params"]]
    if weight == 0:
        return gradients
    states = [optimizer.state[gate] for gate in group["params"]]
    for gate, state in zip(group["params"], states, strict=True):
        if "average" not in state:
            state["average"] = torch.zeros_like(gate)
            state["step"] = torch.tensor(0.0)
    averages, steps = [s["average"] for s in states], [s["step"] for s in states]
    _add_(steps, 1)
    _lerp_(averages, gradients, 1 - weight)
    corrections = [1 - weight ** float(step) for step in steps]
    return list(_divided(averages, corrections))


def _with_rule(group: dict[str, Any]) -> dict[str, Any]:
    """Return a gate group with the defaults of its update."""
    completed = {"gate_update": "sgd", "averaging": 0.0, "least": 0, "holds_zeros": False, **group}
    eps = gate_rule(completed["gate_update"]).eps
    return completed if eps is None else {"eps": eps, **completed}


def _fill_empty(matrices: Sequence[AdaptedMatrix]) -> None:
    """Give matrices whose ranks are all taken out (`Compaction`) gradients as empty as they are.

    Then AdamW counts the step for them as for the others.
    """
    for matrix in matrices:
        if matrix.gate.numel() == 0:
            for parameter in (matrix.lora_A, matrix.lora_B, matrix.gate):
                parameter.grad = torch.zeros_like(parameter)


def _names(group: dict[str, Any]) -> Sequence[str]:
    return group.get("param_names", [f"gate {i}" for i in range(len(group["params"]))])


def _check_gates(group: dict[str, Any]) -> None:
    if not group["xi"] >= 0:
        raise ValueError(f"`xi` must be >= 0, got {group['xi']}.")
    if not 0 <= group["averaging"] < 1:
        raise ValueError(f"`averaging` must be in [0, 1), got {group['averaging']}.")
    for name, gate in zip(_names(group), group["params"], strict=True):
        if gate.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"`{name}` must be float32 or float64, got {gate.dtype}. In lower precision a "
                "gate of 1 does not "
                "move by a small `xi`."
            )


def _drop_dead_gradients(group: dict[str, Any]) -> None:
    """Set the gradient of gates that are zero to 0: without moments, they stay zero."""
    for gate in group["params"]:
        if gate.numel():  # some are taken out (`Compaction`)
            gate.grad.masked_fill_(gate == 0, 0.0)


def _warn_of_schedule(group: dict[str, Any]) -> None:
    """Warn, once, of a learning-rate schedule that moves the step size of gates."""
    initial = group.get("initial_lr")  # set by PyTorch's schedulers, for every group
    if initial is not None and group["lr"] != initial:
        warnings.warn(
            f"`lr` of gates should stay {initial}, but a learning-rate schedule changes it: lambda "
            "= xi / lr changes with it. Use a constant schedule, or one that leaves the gate group "
            "as it is.",
            stacklevel=3,
        )


def _fill_gradients(group: dict[str, Any]) -> None:
    """Give gates that the forward pass of this step left out (LayerDrop) the gradient 0.

    It is the gradient of that step's loss, so lambda = xi / lr holds for the expected loss. AdamW's
    habit of passing over such a parameter would make the penalty of a layer smaller the more often
    it is left out.

    Raises:
        ValueError: If no gate has a gradient, or one had none `MAX_SKIPPED_STEPS` times in a row.
    """
    gates, names = group["params"], _names(group)
    missing = [gate.grad is None for gate in gates]
    if not any(missing):
        group.pop("skipped", None)
        return
    skipped = group.get("skipped", [0] * len(gates))
    skipped = [n + 1 if is_missing else 0 for n, is_missing in zip(skipped, missing, strict=True)]
    unused = [name for name, n in zip(names, skipped, strict=True) if n > MAX_SKIPPED_STEPS]
    if all(missing):
        unused = list(names)
    if unused:
        raise ValueError(
            f"`grad` of a gate must not be None, got None for {len(unused)} of {len(gates)} gates, "
            f"first {unused[0]!r}. Thresholding a gate without a gradient prunes it whatever the "
            "data say: check that every adapted module is used in the forward pass, and that "
            "gradient checkpointing is not reentrant."
        )
    group["skipped"] = skipped
    for gate in gates:
        if gate.grad is None:
            gate.grad = torch.zeros_like(gate)
