import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch import nn

from sorakit.method.compaction import Compaction, compacted
from sorakit.method.optimizer import ProxAdamW
from sorakit.method.prune import num_nonzero_params
from sorakit.method.tuner import AdaptedMatrix, GatedB, SoraConfig, adapted_matrices

State = dict[str, torch.Tensor]


def adapt(model: nn.Module, *, scale: str = "unit", **options: Any) -> Any:
    config = {"r": 4, "target_modules": "all-linear", "modules_to_save": ["classifier"], **options}
    torch.manual_seed(0)
    return get_peft_model(
        model,  # pyright: ignore[reportArgumentType]  # any module
        SoraConfig(gate_scale=scale, gate_init="ones", **config),  # pyright: ignore[reportArgumentType]
    )


def make_optimizer(model: Any, *, scale: str = "unit", update: str = "sgd") -> ProxAdamW:
    matrices = adapted_matrices(model)
    taken = {id(p) for m in matrices for p in (m.lora_A, m.lora_B, m.gate)}
    head = [p for p in model.parameters() if p.requires_grad and id(p) not in taken]
    return ProxAdamW(
        [
            {"params": head, "weight_decay": 0.01},
            {"params": [p for m in matrices for p in (m.lora_A, m.lora_B)]},
            {
                "params": [m.gate for m in matrices],
                "lr": 0.5 if update == "sgd" else 1e-2,
                "xi": 0.0,
                "averaging": 0.9 if update == "sgd" else 0.0,
                "gate_update": update,
            },
        ],
        matrices=matrices,
        lr=1e-2,
        rank_weight_decay=0.01,
        unit_scale=scale == "unit",
    )


def train(
    model: Any, optimizer: ProxAdamW, *, steps: int, look: Callable[[], None] = lambda: None
) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        ids = torch.randint(0, 64, (4, 6), generator=generator)
        labels = torch.randint(0, 3, (4,), generator=generator)
        model(input_ids=ids, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(
            [p for g in optimizer.param_groups if "xi" not in g for p in g["params"]], 1.0
        )
        look()
        optimizer.step()
        optimizer.zero_grad()


@torch.no_grad()
def kill(matrices: list[AdaptedMatrix], *, below: int = 0) -> None:
    """Zero two gates of each matrix, and all gates of the first `below` matrices."""
    for number, matrix in enumerate(matrices):
        matrix.gate[: 4 if number < below else 2] = 0


def begin_refit(optimizer: ProxAdamW) -> None:
    optimizer.forget_dead_ranks()
    for group in optimizer.gate_groups:
        group["holds_zeros"] = True


def everything(model: Any, optimizer: ProxAdamW) -> State:
    """Return all weights and all moments by name."""
    found: State = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            found[name] = parameter.detach().clone()
            for key, value in optimizer.state[parameter].items():
                found[f"{name} {key}"] = torch.as_tensor(value).clone()
    return found


def dead_ranks(optimizer: ProxAdamW, matrix: AdaptedMatrix) -> list[torch.Tensor]:
    """Return copies of all values and moments of the ranks with a zero gate."""
    dead = matrix.gate == 0
    values = [matrix.gate[dead], matrix.lora_A[dead], matrix.lora_B[:, dead]]
    for key in ("exp_avg", "exp_avg_sq"):
        values.append(optimizer.state[matrix.lora_A][key][dead])
        values.append(optimizer.state[matrix.lora_B][key][:, dead])
    return [value.detach().clone() for value in values]


def begun(model: nn.Module, *, scale: str, update: str = "sgd", below: int = 0) -> Any:
    """Return an adapted model and its optimizer after 5 dense steps, some ranks dead, in a refit.

    Args:
        model: Base model.
        scale: free or unit.
        update: Gate update.
        below: Matrices, from the first on, without a live rank.
    """
    adapted = adapt(model, scale=scale)
    optimizer = make_optimizer(adapted, scale=scale, update=update)
    train(adapted, optimizer, steps=5)
    kill(list(optimizer.matrices), below=below)
    begin_refit(optimizer)
    return adapted, optimizer


# The same steps ------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize(("scale", "update"), [("unit", "sgd"), ("free", "sgd"), ("free", "adamw")])
def test_steps_without_dead_ranks_are_those_with_them(scale, update, dtype, tolerance, tiny_bert):
    found: list[State] = []
    for compacts in (False, True):
        base = copy.deepcopy(tiny_bert).to(dtype)
        model, optimizer = begun(base, scale=scale, update=update, below=7)
        if compacts:
            with compacted(optimizer):
                train(model, optimizer, steps=20)
        else:
            train(model, optimizer, steps=20)
        train(model, optimizer, steps=3)
        found.append(everything(model, optimizer))
    whole, cut = found
    assert whole.keys() == cut.keys()
    for name, value in whole.items():
        torch.testing.assert_close(cut[name], value, rtol=tolerance, atol=tolerance / 100, msg=name)


def test_dead_ranks_come_back_bit_for_bit_as_they_were(tiny_bert):
    _, optimizer = model_and_optimizer = begun(tiny_bert, scale="free", below=3)
    before = [dead_ranks(optimizer, matrix) for matrix in optimizer.matrices]
    with compacted(optimizer):
        train(*model_and_optimizer, steps=3)
    for matrix, values in zip(optimizer.matrices, before, strict=True):
        now = dead_ranks(optimizer, matrix)
        assert all(torch.equal(a, b) for a, b in zip(now, values, strict=True))


def test_live_ranks_train(tiny_bert):
    model, optimizer = begun(tiny_bert, scale="unit")
    before = [matrix.lora_A.detach().clone() for matrix in optimizer.matrices]
    with compacted(optimizer):
        train(model, optimizer, steps=3)
    for matrix, value in zip(optimizer.matrices, before, strict=True):
        assert not torch.equal(matrix.lora_A[2:], value[2:])


def test_state_that_begins_while_dead_ranks_are_out_is_whole_afterwards(tiny_bert):
    model = adapt(tiny_bert)
    optimizer = make_optimizer(model)
    kill(list(optimizer.matrices))
    begin_refit(optimizer)
    with compacted(optimizer):
        train(model, optimizer, steps=1)
    for matrix in optimizer.matrices:
        for parameter in (matrix.lora_A, matrix.lora_B):
            assert optimizer.state[parameter]["exp_avg"].shape == parameter.shape


# What it costs -------------------------------------------------------------------------------


def test_only_live_ranks_are_left_inside(tiny_bert):
    model, optimizer = begun(tiny_bert, scale="unit", below=2)
    count = num_nonzero_params(model)
    with compacted(optimizer):
        assert [len(m.gate) for m in adapted_matrices(model)] == [0] * 2 + [2] * 11
        assert num_nonzero_params(model) == count
    assert [len(m.gate) for m in adapted_matrices(model)] == [4] * 13
    assert num_nonzero_params(model) == count


def test_nothing_below_the_lowest_live_matrix_needs_a_gradient(tiny_bert):
    model, optimizer = begun(tiny_bert, scale="unit", below=6)  # the first of two layers
    needs: dict[int, bool] = {}
    for number, layer in enumerate(model.base_model.model.bert.encoder.layer):

        def note(_module: nn.Module, _inputs: Any, output: torch.Tensor, number=number) -> None:
            needs[number] = output.requires_grad

        layer.output.LayerNorm.register_forward_hook(note)
    train(model, optimizer, steps=1)
    assert needs == {0: True, 1: True}
    with compacted(optimizer):
        train(model, optimizer, steps=1)
    assert needs == {0: False, 1: True}


def test_matrix_without_live_ranks_is_never_missed_by_the_optimizer(tiny_bert):
    model, optimizer = begun(tiny_bert, scale="unit", below=1)
    with compacted(optimizer):
        train(model, optimizer, steps=40)  # more than a gate may be left out in a row
    assert "skipped" not in optimizer.gate_groups[0]


def test_head_trains_on_when_no_rank_is_left(tiny_bert):
    model, optimizer = begun(tiny_bert, scale="unit", below=13)
    before = everything(model, optimizer)
    with compacted(optimizer):
        train(model, optimizer, steps=2)
    changed = {
        name
        for name, value in everything(model, optimizer).items()
        if " " not in name and not torch.equal(value, before[name])
    }
    assert changed
    assert all("modules_to_save" in name for name in changed)


# Limits --------------------------------------------------------------------------------------


def test_ranks_that_may_come_back_are_not_taken_out(tiny_bert):
    model = adapt(tiny_bert)
    optimizer = make_optimizer(model)
    message = (
        "`holds_zeros` of every group of gates must be True while dead ranks are taken out, got "
        "False. They could come back in a step that does not see them."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Compaction(optimizer)


def test_dead_ranks_are_put_back_after_an_error(tiny_bert):
    model, optimizer = begun(tiny_bert, scale="unit")
    with pytest.raises(RuntimeError, match="stopped"), compacted(optimizer):
        raise RuntimeError("stopped")
    assert [len(m.gate) for m in adapted_matrices(model)] == [4] * 13


def test_convolution_keeps_its_dead_ranks(generator):
    model = get_peft_model(
        nn.Sequential(nn.Conv2d(3, 4, 3)),  # pyright: ignore[reportArgumentType]  # any module
        SoraConfig(r=4, target_modules=["0"]),
    )
    matrices = adapted_matrices(model)
    kill(matrices, below=1)
    optimizer = ProxAdamW(
        [{"params": [matrices[0].gate], "xi": 0.0, "lr": 1.0}], matrices=matrices, lr=0.1
    )
    begin_refit(optimizer)
    with compacted(optimizer):
        assert len(matrices[0].gate) == 4
        model(torch.randn(1, 3, 5, 5, generator=generator)).sum().backward()


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_pefts_own_path_runs_without_live_ranks(dropout, generator):
    model = get_peft_model(
        nn.Sequential(nn.Linear(8, 6)),  # pyright: ignore[reportArgumentType]  # any module
        SoraConfig(r=4, target_modules=["0"], lora_dropout=dropout),
    )
    matrices = adapted_matrices(model)
    kill(matrices, below=1)
    optimizer = ProxAdamW(
        [{"params": [matrices[0].gate], "xi": 0.0, "lr": 1.0}], matrices=matrices, lr=0.1
    )
    begin_refit(optimizer)
    x = torch.randn(5, 8, generator=generator)
    layer: Any = model.base_model.model
    with compacted(optimizer):
        assert torch.equal(model.train()(x), layer[0].base_layer(x))
        assert isinstance(layer[0].lora_B["default"], GatedB)
