"""AdaLoRA: every update as P Lambda Q, of which the least important triplets are masked."""

from typing import TYPE_CHECKING, Any, final

from typing_extensions import override

from sorakit.adapters import Adapter, target_options, with_peft
from sorakit.adapters._cut_lora import refuse_controls
from sorakit.adapters._hooks import TrainingHooks
from sorakit.config import RunConfig

if TYPE_CHECKING:
    import peft
    import torch
    import transformers

    import sorakit.method.tuner

_INITIAL_SHARE = 0.3
"""Of the allocation, in which no triplet is masked (600 of 2,100 steps in the authors' RTE script,
QingruZhang/AdaLoRA)."""
_AFTER = 1
"""Steps that PEFT is told to follow the allocation; as many follow as training takes."""


@final
class _Allocation(TrainingHooks):
    """Drives PEFT's rank allocator, and keeps what it forgets in a checkpoint.

    The budget falls from `method.r` to `method.target_r` triplets a matrix (a cubic, Zhang et al.
    2023, arXiv:2303.10512) within `method.allocation_epochs` passes, triplets are masked after
    every step, and training goes on with the triplets that are left until it has converged.

    Args:
        target_r: Triplets a matrix at the end, on average.
        epochs: Passes of the allocation.
    """

    def __init__(self, *, target_r: float, epochs: float) -> None:
        self._target_r = target_r
        self.settling_epochs = epochs
        self._state: dict[str, Any] = {}
        self._tuner: Any = None

    @override
    def begin(self, model: "torch.nn.Module", *, steps_per_epoch: int) -> None:
        import torch

        tuner: Any = model.base_model
        self._tuner = tuner
        config, allocator = tuner.peft_config["default"], tuner.rankallocator
        length = max(2, round(self.settling_epochs * steps_per_epoch))
        config.tinit, config.tfinal = int(_INITIAL_SHARE * length), _AFTER
        config.total_step, config.deltaT = length + _AFTER, 1
        # PEFT takes whole ranks a matrix; the budget is a number of triplets of all matrices.
        allocator.target_bgt = max(1, round(self._target_r * len(allocator.name_set)))
        if self._state:
            device = next(model.parameters()).device
            for name in ("exp_avg_ipt", "exp_avg_unc"):
                held = self._state[name]
                setattr(allocator, name, {key: value.to(device) for key, value in held.items()})
            allocator.ipt = {k: torch.zeros_like(v) for k, v in allocator.exp_avg_ipt.items()}
            config.rank_pattern = self._state["rank_pattern"]

    @override
    def penalty(self, model: "torch.nn.Module") -> "torch.Tensor":
        """Return PEFT's orthogonality term: mean of `|P^T P - I|` and `|Q Q^T - I|`, weighted."""
        import torch

        norms = []
        for name, parameter in model.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                ranks = parameter if "lora_A" in name else parameter.T
                gram = ranks @ ranks.T
                norms.append(torch.linalg.matrix_norm(gram - torch.eye(len(gram)).to(gram)))
        return self._tuner.peft_config["default"].orth_reg_weight * torch.stack(norms).mean()

    @override
    def after_step(self, model: "torch.nn.Module", *, step: int) -> None:
        allocator = self._tuner.rankallocator
        if allocator.target_bgt < allocator.init_bgt:  # or PEFT fails: there is nothing to mask
            self._tuner.update_and_allocate(step)

    @override
    def state_dict(self) -> dict[str, Any]:
        if self._tuner is None:
            return self._state
        allocator = self._tuner.rankallocator
        return {
            "exp_avg_ipt": allocator.exp_avg_ipt,
            "exp_avg_unc": allocator.exp_avg_unc,
            "rank_pattern": self._tuner.peft_config["default"].rank_pattern,
        }

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._state = state


@final
class AdaLora(Adapter):
    """PEFT's AdaLoRA; what is left of it is exported as a plain LoRA, without the masked ranks."""

    role = "adalora"

    @override
    def check(self, config: RunConfig) -> None:
        refuse_controls(self.role, config)
        r, target, epochs = config.method.r, _target_r(config), config.method.allocation_epochs
        if not 0 < target <= r:
            raise ValueError(
                f"`method.target_r` must be in (0, method.r = {r}], got {target:g}. It is the "
                "average rank that is left."
            )
        if epochs >= config.dense.max_epochs:
            raise ValueError(
                f"`method.allocation_epochs` must be < dense.max_epochs = "
                f"{config.dense.max_epochs}, got {epochs:g}. What is left must still converge."
            )

    @override
    def build(
        self, model: "transformers.PreTrainedModel", config: RunConfig, *, head: list[str]
    ) -> "peft.PeftModel":
        from peft import AdaLoraConfig

        method = config.method
        peft_config = AdaLoraConfig(
            init_r=method.r,
            target_r=method.r,  # the hooks set the budget when they know the length of a pass
            tinit=0,
            tfinal=_AFTER,
            total_step=1 + _AFTER,
            lora_alpha=method.lora_alpha,  # pyright: ignore[reportArgumentType]  # PEFT says int, takes float
            lora_dropout=method.lora_dropout,
            **target_options(model, config, head=head),
        )
        return with_peft(model, peft_config, config)

    @override
    def matrices(self, model: "peft.PeftModel") -> list["sorakit.method.tuner.AdaptedMatrix"]:
        from peft.tuners.adalora import SVDLinear
        from torch import nn

        from sorakit.method.tuner import AdaptedMatrix, base_name

        found = []
        for name, layer in model.named_modules():
            if isinstance(layer, SVDLinear):
                values = layer.lora_E["default"].detach().flatten()
                rank = float(layer.ranknum["default"])
                found.append(
                    AdaptedMatrix(
                        name=base_name(name),
                        lora_A=layer.lora_A["default"],
                        lora_B=layer.lora_B["default"],
                        gate=nn.Parameter(values, requires_grad=False),
                        scaling=float(layer.scaling["default"]) / (rank + 1e-5),  # PEFT's epsilon
                        fan_in_fan_out=bool(layer.fan_in_fan_out),
                    )
                )
        return found

    @override
    def hooks(self, config: RunConfig) -> TrainingHooks:
        epochs = config.method.allocation_epochs
        return _Allocation(target_r=_target_r(config), epochs=epochs)


def _target_r(config: RunConfig) -> float:
    target = config.method.target_r
    return config.method.r / 2 if target is None else target


VARIANT = AdaLora()
