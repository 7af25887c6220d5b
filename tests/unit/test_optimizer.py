import copy
import io
import re
import warnings
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import nn

from sorakit.config import GatesConfig, OptimConfig
from sorakit.method.gates import gate_rule
from sorakit.method.optimizer import MAX_SKIPPED_STEPS, ProxAdamW, ProxSGD
from sorakit.method.tuner import AdaptedMatrix, SoraConfig, adapted_matrices
from sorakit.objectives import objective
from sorakit.training.module import AdaptationModule
from sorakit.variants import GATES
from tests.support import reference

LR, GATE_LR, XI, WEIGHT_DECAY = 0.05, 0.1, 0.01, 0.2
updates = pytest.mark.parametrize("update", reference.UPDATES)


def draw_matrices(generator: torch.Generator, *, unit_scale: bool = False) -> list[AdaptedMatrix]:
    """Return float64 matrices 3 x 5 and 4 x 2 of ranks 3 and 2; one gate is 0, one negative."""
    matrices = []
    for index, (d_in, d_out, gate) in enumerate([(5, 3, [0.5, 0.0, -0.3]), (2, 4, [0.02, 1.0])]):
        r = len(gate)
        a = torch.randn(r, d_in, generator=generator, dtype=torch.float64)
        b = torch.randn(d_out, r, generator=generator, dtype=torch.float64)
        if unit_scale:
            a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=0, keepdim=True)
        matrices.append(
            AdaptedMatrix(
                name=f"layer.{index}",
                lora_A=nn.Parameter(a),
                lora_B=nn.Parameter(b),
                gate=nn.Parameter(torch.tensor(gate, dtype=torch.float64)),
                scaling=2.0,
            )
        )
    return matrices


def make_optimizer(
    matrices: list[AdaptedMatrix],
    *,
    update: str = "sgd",
    unit_scale: bool = False,
    rank_weight_decay: float = WEIGHT_DECAY,
    xi: float = XI,
    **gate_options: Any,
) -> ProxAdamW:
    factors = [(f"{m.name}.{x}", getattr(m, x)) for m in matrices for x in ("lora_A", "lora_B")]
    gates = [(f"{m.name}.gate", m.gate) for m in matrices]
    gate_group = {"params": gates, "lr": GATE_LR, "xi": xi, "gate_update": update, **gate_options}
    return ProxAdamW(
        [{"params": factors}, gate_group],
        matrices=matrices,
        lr=LR,
        rank_weight_decay=rank_weight_decay,
        unit_scale=unit_scale,
    )


def draw_gradients(matrices: list[AdaptedMatrix], generator: torch.Generator) -> None:
    for parameter in parameters_of(matrices):
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


def parameters_of(matrices: list[AdaptedMatrix]) -> list[nn.Parameter]:
    return [p for m in matrices for p in (m.lora_A, m.lora_B, m.gate)]


def copy_gradients(matrices: list[AdaptedMatrix], twins: list[AdaptedMatrix]) -> None:
    for ours, theirs in zip(parameters_of(matrices), parameters_of(twins), strict=True):
        assert ours.grad is not None
        theirs.grad = ours.grad.clone()


def to_reference(matrix: AdaptedMatrix) -> reference.AdaptedLayer:
    return reference.AdaptedLayer(
        lora_A=matrix.lora_A.tolist(), lora_B=matrix.lora_B.tolist(), gate=matrix.gate.tolist()
    )


def assert_close(actual: torch.Tensor, expected: Any) -> None:
    torch.testing.assert_close(
        actual.detach().flatten(),
        torch.as_tensor(expected, dtype=torch.float64).detach().flatten(),
        rtol=1e-10,
        atol=1e-12,
    )


@pytest.mark.parametrize("unit_scale", [False, True], ids=["free", "unit"])
@updates
def test_prox_adamw_follows_the_reference_in_weights_and_state(update, unit_scale, generator):
    matrices = draw_matrices(generator, unit_scale=unit_scale)
    optimizer = make_optimizer(matrices, update=update, unit_scale=unit_scale)
    layers = [to_reference(m) for m in matrices]
    for _ in range(12):
        draw_gradients(matrices, generator)
        gradients = [
            {x: getattr(m, x).grad.tolist() for x in ("lora_A", "lora_B", "gate")} for m in matrices
        ]
        optimizer.step()
        for index, matrix in enumerate(matrices):
            layers[index] = layer = reference.prox_adamw_step(
                layers[index],
                gradients[index],
                gate_update=update,
                unit_scale=unit_scale,
                lr=LR,
                gate_lr=GATE_LR,
                xi=XI,
                rank_weight_decay=WEIGHT_DECAY,
                gate_eps=gate_rule(update).eps or 1e-8,
            )
            for name in ("lora_A", "lora_B", "gate"):
                parameter = getattr(matrix, name)
                assert_close(parameter, getattr(layer, name))
                if name == "gate":
                    assert_close(optimizer.growth(matrix), layer.growth or [0.0] * len(layer.gate))
                if name == "gate" and update == "sgd":
                    kept = {"growth"} if unit_scale else set()
                    assert set(optimizer.state.get(parameter, {})) == kept
                    continue
                state, moments = optimizer.state[parameter], layer.moments[name]
                assert state["step"].item() == moments.step
                assert_close(state["exp_avg"], moments.first)
                assert_close(state["exp_avg_sq"], moments.second)


@pytest.mark.parametrize("weight", [0.5, 0.9])
def test_averaged_gradient_follows_the_reference_in_weights_and_state(weight, generator):
    matrices = draw_matrices(generator)
    optimizer = make_optimizer(matrices, averaging=weight)
    averages = [reference.RunningAverage(weight) for _ in matrices]
    gates = [m.gate.tolist() for m in matrices]
    for _ in range(12):
        draw_gradients(matrices, generator)
        for index, matrix in enumerate(matrices):
            assert matrix.gate.grad is not None
            mean = averages[index].update(matrix.gate.grad.tolist())
            moved = [g - GATE_LR * d for g, d in zip(gates[index], mean, strict=True)]
            gates[index] = reference.soft_threshold(moved, XI)
        optimizer.step()
        for matrix, gate, average in zip(matrices, gates, averages, strict=True):
            assert_close(matrix.gate, gate)
            assert_close(optimizer.state[matrix.gate]["average"], average.value)
            assert optimizer.state[matrix.gate]["step"].item() == average.step


def test_prox_sgd_averages_as_prox_adamw(generator):
    gate = torch.randn(6, generator=generator)
    one, other = nn.Parameter(gate.clone()), nn.Parameter(gate.clone())
    alone = ProxSGD([one], lr=GATE_LR, xi=XI, averaging=0.9)
    single = ProxAdamW([{"params": [other], "lr": GATE_LR, "xi": XI, "averaging": 0.9}], lr=LR)
    for _ in range(10):
        one.grad = torch.randn(6, generator=generator)
        other.grad = one.grad.clone()
        alone.step()
        single.step()
    assert torch.equal(one, other)


@pytest.mark.parametrize("averaging", [-0.1, 1.0, float("nan")])
def test_prox_sgd_rejects_an_average_without_a_present(averaging):
    with pytest.raises(ValueError, match=rf"^`averaging` must be in \[0, 1\), got {averaging}\.$"):
        ProxSGD([nn.Parameter(torch.ones(2))], lr=0.1, averaging=averaging)


# `least`: a step that would prune too much lowers its xi -------------------------------------


@updates
def test_step_leaves_at_least_the_wanted_parameters(update, generator):
    matrices = draw_matrices(generator)  # ranks of 8 and of 6 parameters
    draw_gradients(matrices, generator)
    optimizer = make_optimizer(matrices, update=update, xi=100.0)
    optimizer.gate_groups[0]["least"] = 13
    optimizer.step()
    left = sum(int((m.gate != 0).sum()) * m.params_per_rank for m in matrices)
    assert left in (14, 16)  # 8 + 6 or 8 + 8


def test_threshold_that_was_applied_stands_in_the_group(generator):
    gate = nn.Parameter(torch.tensor([0.5, 0.25, 0.125]))
    gate.grad = torch.zeros(3)
    matrix = AdaptedMatrix(
        name="m",
        lora_A=nn.Parameter(torch.ones(3, 2)),
        lora_B=nn.Parameter(torch.ones(2, 3)),
        gate=gate,
        scaling=1.0,
    )
    group = {"params": [gate], "xi": 0.4, "least": 5, "lr": 0.1}
    optimizer = ProxAdamW([group], matrices=[matrix], lr=LR)
    optimizer.step()
    # two ranks of 4 must stay: the strongest that may die reaches 0.125
    group = optimizer.gate_groups[0]
    assert (group["xi"], group["applied_xi"]) == (0.4, 0.125)
    assert gate.tolist() == [0.375, 0.125, 0.0]


# `holds_zeros`: a refit, in which the ranks that are gone stay gone --------------------------


def draw_live_gradients(matrices: list[AdaptedMatrix], generator: torch.Generator) -> None:
    """Draw gradients as a model gives them: A and B of a zero gate have none, the gate has one."""
    draw_gradients(matrices, generator)
    for matrix in matrices:
        assert matrix.lora_A.grad is not None
        assert matrix.lora_B.grad is not None
        matrix.lora_A.grad[matrix.gate == 0] = 0.0
        matrix.lora_B.grad[:, matrix.gate == 0] = 0.0


@updates
def test_zeros_that_are_held_stay_zero_and_their_ranks_do_not_move(update, generator):
    matrices = draw_matrices(generator)
    optimizer = make_optimizer(matrices, update=update, xi=0.0)
    for _ in range(3):  # every rank gets moments
        draw_gradients(matrices, generator)
        optimizer.step()
    with torch.no_grad():
        matrices[0].gate[1] = 0.0
    dead_row = matrices[0].lora_A[1].clone()
    dead_column = matrices[0].lora_B[:, 1].clone()
    live = matrices[0].gate[0].item()
    optimizer.forget_dead_ranks()
    optimizer.gate_groups[0]["holds_zeros"] = True
    for _ in range(5):
        draw_live_gradients(matrices, generator)
        optimizer.step()
    assert matrices[0].gate[1] == 0
    assert torch.equal(matrices[0].lora_A[1], dead_row)
    assert torch.equal(matrices[0].lora_B[:, 1], dead_column)
    assert matrices[0].gate[0].item() != live


@updates
def test_live_ranks_move_as_if_no_rank_were_gone(update, generator):
    """The same steps on a matrix that never had the dead rank."""
    whole = draw_matrices(generator)[:1]
    small = [
        AdaptedMatrix(
            name="layer.0",
            lora_A=nn.Parameter(whole[0].lora_A.detach()[[0, 2]].clone()),
            lora_B=nn.Parameter(whole[0].lora_B.detach()[:, [0, 2]].clone()),
            gate=nn.Parameter(whole[0].gate.detach()[[0, 2]].clone()),
            scaling=2.0,
        )
    ]
    options: dict[str, Any] = {"update": update, "xi": 0.0, "unit_scale": update != "released"}
    optimizers = [make_optimizer(matrices, **options) for matrices in (whole, small)]
    optimizers[0].gate_groups[0]["holds_zeros"] = True
    for _ in range(5):
        draw_live_gradients(whole, generator)
        for name, index in (("lora_A", 0), ("lora_B", 1), ("gate", 0)):
            gradient = getattr(whole[0], name).grad
            # As autograd would leave it: the kernel of AdamW takes memory as it comes.
            kept = gradient.transpose(0, index)[[0, 2]].transpose(0, index).contiguous()
            getattr(small[0], name).grad = kept
        for optimizer in optimizers:
            optimizer.step()
    assert_close(whole[0].lora_A[[0, 2]], small[0].lora_A)
    assert_close(whole[0].lora_B[:, [0, 2]], small[0].lora_B)
    assert_close(whole[0].gate[[0, 2]], small[0].gate)


def test_least_that_is_not_at_stake_changes_nothing(generator):
    matrices = draw_matrices(generator)
    twins = copy.deepcopy(matrices)
    draw_gradients(matrices, generator)
    copy_gradients(matrices, twins)
    bounded, free = make_optimizer(matrices), make_optimizer(twins)
    bounded.gate_groups[0]["least"] = 1
    bounded.step()
    free.step()
    assert bounded.gate_groups[0]["xi"] == XI
    assert all(map(torch.equal, parameters_of(matrices), parameters_of(twins)))


def test_prox_adamw_without_gates_is_adamw(generator):
    weight = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    ours, theirs = nn.Parameter(weight.clone()), nn.Parameter(weight.clone())
    group = {"params": [ours], "weight_decay": 0.1}
    optimizer = ProxAdamW([group], lr=LR)
    oracle = torch.optim.AdamW([theirs], lr=LR, weight_decay=0.1)
    for _ in range(10):
        ours.grad = torch.randn(4, 3, generator=generator, dtype=torch.float64)
        theirs.grad = ours.grad.clone()
        optimizer.step()
        oracle.step()
    assert torch.equal(ours, theirs)


def test_prox_sgd_moves_gates_as_prox_adamw_with_sgd(generator):
    gate = torch.randn(6, generator=generator)
    one, other = nn.Parameter(gate.clone()), nn.Parameter(gate.clone())
    alone = ProxSGD([one], lr=GATE_LR, xi=XI)
    single = ProxAdamW([{"params": [other], "lr": GATE_LR, "xi": XI}], lr=LR)
    for _ in range(10):
        one.grad = torch.randn(6, generator=generator)
        other.grad = one.grad.clone()
        alone.step()
        single.step()
    assert torch.equal(one, other)


def test_prox_sgd_follows_eq_10():
    gate = nn.Parameter(torch.tensor([1.0, -1.0, 0.25]))
    gate.grad = torch.tensor([0.5, 0.5, 0.0])
    ProxSGD([gate], lr=0.5, xi=0.25).step()
    assert gate.tolist() == [0.5, -1.0, 0.0]


def take_step_without(matrices, optimizer, generator, *, left_out):
    draw_gradients(matrices, generator)
    for index in left_out:
        for p in (matrices[index].lora_A, matrices[index].lora_B, matrices[index].gate):
            p.grad = None
    optimizer.step()


def test_gates_without_any_gradient_are_named(generator):
    matrices = draw_matrices(generator)
    message = (
        "`grad` of a gate must not be None, got None for 2 of 2 gates, first 'layer.0.gate'. "
        "Thresholding a gate without a gradient prunes it whatever the data say: check that every "
        "adapted module is used in the forward pass, and that gradient checkpointing is not "
        "reentrant."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        take_step_without(matrices, make_optimizer(matrices), generator, left_out=[0, 1])


def test_gate_that_is_never_used_is_named_before_anything_moves(generator):
    matrices = draw_matrices(generator)
    optimizer = make_optimizer(matrices)
    for _ in range(MAX_SKIPPED_STEPS):
        take_step_without(matrices, optimizer, generator, left_out=[1])
    before = [p.detach().clone() for p in parameters_of(matrices)]
    message = r"^`grad` of a gate .* got None for 1 of 2 gates, first 'layer\.1\.gate'\."
    with pytest.raises(ValueError, match=message):
        take_step_without(matrices, optimizer, generator, left_out=[1])
    assert all(map(torch.equal, before, parameters_of(matrices)))


def test_layer_that_is_dropped_now_and_then_is_no_error(generator):
    matrices = draw_matrices(generator)
    optimizer = make_optimizer(matrices)
    for step in range(3 * MAX_SKIPPED_STEPS):
        left_out = [] if step % MAX_SKIPPED_STEPS == 0 else [1]
        take_step_without(matrices, optimizer, generator, left_out=left_out)


@updates
def test_gate_of_a_dropped_layer_moves_as_with_gradient_0(update, generator):
    # lambda = xi / lr of the expected loss, in which a dropped layer has no part
    dropped, zeroed = (nn.Parameter(torch.tensor([1.0, -2.0])) for _ in range(2))
    other = torch.randn(2, generator=generator)
    for gate, gradients in (
        (dropped, [torch.ones(2), None, torch.ones(2)]),
        (zeroed, [torch.ones(2), torch.zeros(2), torch.ones(2)]),
    ):
        kept = nn.Parameter(other.clone())
        group = {"params": [kept, gate], "lr": 0.1, "xi": 0.01, "gate_update": update}
        optimizer = ProxAdamW([group], lr=LR)
        for gradient in gradients:
            kept.grad, gate.grad = torch.ones(2), gradient
            optimizer.step()
    assert torch.equal(dropped, zeroed)


def test_steps_that_left_a_gate_out_are_in_the_checkpoint(generator):
    matrices = draw_matrices(generator)
    optimizer = make_optimizer(matrices)
    for _ in range(MAX_SKIPPED_STEPS):
        take_step_without(matrices, optimizer, generator, left_out=[1])
    resumed = make_optimizer(matrices)
    resumed.load_state_dict(optimizer.state_dict())
    with pytest.raises(ValueError, match=r"^`grad` of a gate"):
        take_step_without(matrices, resumed, generator, left_out=[1])


def test_prox_sgd_names_an_unnamed_gate_without_gradient_by_its_position():
    gates = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))]
    optimizer = ProxSGD(gates, lr=0.1, xi=0.1)
    for _ in range(MAX_SKIPPED_STEPS):
        gates[0].grad, gates[1].grad = torch.zeros(2), None
        optimizer.step()
    gates[1].grad = None
    with pytest.raises(ValueError, match=r"got None for 1 of 2 gates, first 'gate 1'\."):
        optimizer.step()


@updates
def test_gate_with_an_exactly_zero_gradient_is_thresholded(update):
    gate = nn.Parameter(torch.tensor([1.0]))
    optimizer = ProxAdamW([{"params": [gate], "lr": 0.1, "xi": 0.25, "gate_update": update}], lr=LR)
    gate.grad = torch.zeros(1)
    optimizer.step()
    # AdamW does not move; its metric is eps, so the threshold there is xi / eps
    assert gate.tolist() == [0.0 if update == "adamw_metric" else 0.75]


@updates
def test_step_keeps_the_gradients_of_gates(update):
    gate = nn.Parameter(torch.tensor([1.0, -1.0]))
    gate.grad = torch.tensor([0.5, 2.0])
    group = {"params": [gate], "lr": 0.1, "xi": 0.25, "gate_update": update}
    ProxAdamW([group], lr=LR).step()
    assert gate.grad is not None
    assert gate.grad.tolist() == [0.5, 2.0]


def test_step_returns_the_loss_of_its_closure(generator):
    matrices = draw_matrices(generator)

    def closure() -> torch.Tensor:
        loss = sum((p.square().sum() for p in parameters_of(matrices)), torch.zeros(()))
        loss.backward()
        return loss

    expected = sum(p.square().sum().item() for p in parameters_of(matrices))
    assert make_optimizer(matrices).step(closure).item() == pytest.approx(expected, rel=1e-12)


def test_xi_and_gate_update_are_saved_and_restored(generator):
    matrices = draw_matrices(generator)
    optimizer = make_optimizer(matrices, update="adamw")
    optimizer.gate_groups[0]["xi"] = 0.125
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    restored = make_optimizer(matrices)
    restored.load_state_dict(torch.load(file, weights_only=True))
    group = restored.gate_groups[0]
    assert (group["xi"], group["gate_update"], group["lr"]) == (0.125, "adamw", GATE_LR)


@updates
def test_a_restored_optimizer_goes_on_as_the_first(update, generator):
    matrices = draw_matrices(generator)
    optimizer = make_optimizer(matrices, update=update)
    for _ in range(3):
        draw_gradients(matrices, generator)
        optimizer.step()
    twins = copy.deepcopy(matrices)
    twin = make_optimizer(twins)
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(3):
        draw_gradients(matrices, generator)
        copy_gradients(matrices, twins)
        optimizer.step()
        twin.step()
    assert all(map(torch.equal, parameters_of(matrices), parameters_of(twins)))


def test_gate_update_is_sgd_unless_set():
    group = {"params": [nn.Parameter(torch.ones(2))], "xi": 0.1}
    assert ProxAdamW([group], lr=LR).gate_groups[0]["gate_update"] == "sgd"


def test_weight_decay_leaves_rows_and_columns_of_dead_gates(generator):
    matrices = draw_matrices(generator)
    first = matrices[0]  # its gate 1 is dead
    for parameter in parameters_of(matrices):
        parameter.grad = torch.zeros_like(parameter)
    rows, columns = first.lora_A.detach().clone(), first.lora_B.detach().clone()
    make_optimizer(matrices, xi=0.0).step()
    kept = 1 - LR * WEIGHT_DECAY
    factor = torch.tensor([kept, 1.0, kept], dtype=torch.float64)
    assert torch.equal(first.lora_A, rows * factor[:, None])
    assert torch.equal(first.lora_B, columns * factor)


def test_weight_decay_leaves_gates(generator):
    matrices = draw_matrices(generator)
    for parameter in parameters_of(matrices):
        parameter.grad = torch.zeros_like(parameter)
    before = [m.gate.detach().clone() for m in matrices]
    make_optimizer(matrices, xi=0.0).step()
    assert all(torch.equal(a, m.gate) for a, m in zip(before, matrices, strict=True))


def test_unit_scale_keeps_the_function(generator):
    matrices = draw_matrices(generator)
    plain = copy.deepcopy(matrices)
    draw_gradients(matrices, generator)
    copy_gradients(matrices, plain)
    make_optimizer(matrices, unit_scale=True).step()
    make_optimizer(plain).step()
    for unit, free in zip(matrices, plain, strict=True):
        torch.testing.assert_close(
            unit.lora_B * unit.gate @ unit.lora_A, free.lora_B * free.gate @ free.lora_A
        )


def test_unit_scale_keeps_norms_at_1(generator):
    matrices = draw_matrices(generator)
    draw_gradients(matrices, generator)
    make_optimizer(matrices, unit_scale=True).step()
    norms = [m.lora_A.norm(dim=1) for m in matrices] + [m.lora_B.norm(dim=0) for m in matrices]
    torch.testing.assert_close(torch.cat(norms), torch.ones(10, dtype=torch.float64))


def test_unit_scale_of_a_zero_row_is_finite(generator):
    matrices = draw_matrices(generator)
    with torch.no_grad():
        matrices[0].lora_A[0] = 0
    for parameter in parameters_of(matrices):
        parameter.grad = torch.zeros_like(parameter)
    make_optimizer(matrices, unit_scale=True).step()
    assert matrices[0].gate[0].item() == 0
    assert all(p.isfinite().all() for p in parameters_of(matrices))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "make",
    [
        lambda named: ProxSGD(named, lr=0.1, xi=0.1),
        lambda named: ProxAdamW([{"params": named, "xi": 0.1}], lr=0.1),
    ],
    ids=["ProxSGD", "ProxAdamW"],
)
def test_gate_in_16_bits_is_refused(make, dtype):
    message = (
        f"`a.gate` must be float32 or float64, got {dtype}. "
        "In lower precision a gate of 1 does not move by a small `xi`."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make([("a.gate", nn.Parameter(torch.ones(2, dtype=dtype)))])


@pytest.mark.parametrize("xi", [-1.0, float("nan")])
def test_prox_sgd_rejects_a_negative_or_nan_xi(xi):
    with pytest.raises(ValueError, match=rf"^`xi` must be >= 0, got {xi}\.$"):
        ProxSGD([nn.Parameter(torch.ones(2))], lr=0.1, xi=xi)


@pytest.mark.parametrize("xi", [-1.0, float("nan")])
def test_prox_adamw_rejects_a_negative_or_nan_xi(xi):
    with pytest.raises(ValueError, match=rf"^`xi` must be >= 0, got {xi}\.$"):
        ProxAdamW([{"params": [nn.Parameter(torch.ones(2))], "xi": xi}], lr=0.1)


@pytest.mark.parametrize("lr", [0.0, -1.0, float("nan")])
def test_prox_sgd_rejects_a_step_size_that_is_not_positive(lr):
    with pytest.raises(ValueError, match=rf"^`lr` must be > 0, got {lr}\.$"):
        ProxSGD([nn.Parameter(torch.ones(2))], lr=lr)


def test_prox_adamw_rejects_an_unknown_update():
    group = {"params": [nn.Parameter(torch.ones(2))], "xi": 0.1, "gate_update": "sparse_adam"}
    message = f"`gates.update` must be one of {', '.join(GATES.names)}, got 'sparse_adam'."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ProxAdamW([group], lr=0.1)


# AdaptationModule: the groups and their clipping ---------------------------------------------


def make_module(model: nn.Module, *, max_grad_norm: float = 1.0, **gates: Any) -> AdaptationModule:
    adapted = get_peft_model(
        model,  # pyright: ignore[reportArgumentType]  # a PreTrainedModel
        SoraConfig(r=2, target_modules=["query"], modules_to_save=["classifier"]),
    )
    assert isinstance(adapted, PeftModel)
    return AdaptationModule(
        adapted,
        split_names=("memorization",),
        metric="accuracy",
        objective=objective("classification"),
        optim=OptimConfig(max_grad_norm=max_grad_norm, lr=1e-3, weight_decay=0.03),
        gates=GatesConfig(**gates),
        xi=1e-4,
    )


def test_clipping_leaves_gate_gradients_alone(tiny_bert):
    module = make_module(tiny_bert)
    optimizer = module.configure_optimizers()
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.full_like(parameter, 100.0)
    module.configure_gradient_clipping(optimizer)
    assert all((m.gate.grad == 100).all() for m in adapted_matrices(module.model))


def test_clipping_bounds_the_norm_of_all_other_gradients(tiny_bert):
    module = make_module(tiny_bert, max_grad_norm=0.5)
    optimizer = module.configure_optimizers()
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.full_like(parameter, 100.0)
    module.configure_gradient_clipping(optimizer)
    others = [
        p.grad.flatten() for g in optimizer.param_groups if "xi" not in g for p in g["params"]
    ]
    assert torch.cat(others).norm().item() == pytest.approx(0.5, rel=1e-5)


def test_max_grad_norm_0_clips_nothing(tiny_bert):
    module = make_module(tiny_bert, max_grad_norm=0.0)
    optimizer = module.configure_optimizers()
    parameter = optimizer.param_groups[0]["params"][0]
    parameter.grad = torch.full_like(parameter, 100.0)
    module.configure_gradient_clipping(optimizer)
    assert (parameter.grad == 100).all()


def test_groups_are_head_factors_and_gates(tiny_bert):
    groups = make_module(tiny_bert).configure_optimizers().param_groups
    sizes = [(g["name"], len(g["params"]), g["lr"], g["weight_decay"]) for g in groups]
    assert sizes == [("head", 2, 1e-3, 0.03), ("factors", 4, 1e-3, 0.0), ("gates", 2, 1.0, 0.0)]


def test_every_trainable_parameter_is_in_exactly_one_group(tiny_bert):
    module = make_module(tiny_bert)
    grouped = [id(p) for g in module.configure_optimizers().param_groups for p in g["params"]]
    assert sorted(grouped) == sorted(id(p) for p in module.parameters() if p.requires_grad)


def test_gates_of_the_released_update_use_its_eps(tiny_bert):
    optimizer = make_module(tiny_bert, update="released", scale="free").configure_optimizers()
    assert [group["eps"] for group in optimizer.param_groups] == [1e-8, 1e-8, 1e-6]


@pytest.mark.parametrize("make", [make_optimizer, lambda ms: ProxSGD([m.gate for m in ms], lr=0.1)])
def test_schedule_that_moves_the_step_size_of_gates_is_warned_of(make, generator):
    matrices = draw_matrices(generator)
    optimizer = make(matrices)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.5, total_iters=2)
    draw_gradients(matrices, generator)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()  # still at its first value
    schedule.step()
    with pytest.warns(UserWarning, match=r"^`lr` of gates should stay 0\.\d+, but a learning-rate"):
        optimizer.step()


def test_constant_schedule_is_not_warned_of(generator):
    matrices = draw_matrices(generator)
    optimizer = make_optimizer(matrices)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    draw_gradients(matrices, generator)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()
        schedule.step()
        optimizer.step()
