"""Exact counts of a SoRA adapter, and the plain LoRA that zero gates leave behind (Eq. 12)."""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel
from peft.utils import ModulesToSaveWrapper
from safetensors.torch import save_file
from torch import Tensor, nn

from sorakit.method.tuner import PEFT_PREFIX, AdaptedMatrix, adapted_matrices, base_name
from sorakit.rank_pattern import RANK_PATTERN_FILE, rank_pattern_text

_DUMMY_TARGET = (
    "dummy-target-modules"  # peft.utils.constants.DUMMY_TARGET_MODULES: an adapter of nothing
)


def nonzero_ranks(model: nn.Module, adapter_name: str = "default") -> dict[str, int]:
    """Return the number of non-zero gates of every adapted matrix, by the name of its module."""
    return {m.name: _nonzero(m) for m in adapted_matrices(model, adapter_name)}


def num_nonzero_params(model: nn.Module, adapter_name: str = "default") -> int:
    """Return the elements of A and B at non-zero gates: exactly what `export_lora` writes.

    A rank of a linear layer counts `in + out`. Gates are folded away and not counted, nor is the
    task head.
    """
    return count_nonzero_params(adapted_matrices(model, adapter_name))


def count_nonzero_params(matrices: Iterable[AdaptedMatrix]) -> int:
    """Return `num_nonzero_params` of the matrices."""
    return sum(_nonzero(m) * m.params_per_rank for m in matrices)


def count_nonzero_ranks(matrices: Iterable[AdaptedMatrix]) -> int:
    """Return the ranks that are left, summed over the matrices."""
    return sum(_nonzero(m) for m in matrices)


def num_adapter_params(model: nn.Module, adapter_name: str = "default") -> int:
    """Return `num_nonzero_params` of the same adapter with no gate zero."""
    return count_adapter_params(adapted_matrices(model, adapter_name))


def count_adapter_params(matrices: Iterable[AdaptedMatrix]) -> int:
    """Return `num_adapter_params` of the matrices."""
    return sum(m.gate.numel() * m.params_per_rank for m in matrices)


@torch.no_grad()
def fold(matrix: AdaptedMatrix) -> tuple[Float[Tensor, "kept d_in"], Float[Tensor, "d_out kept"]]:
    """Return A and B of the plain LoRA that equals `matrix`, with scaling 1 (Eq. 12).

    Ranks with a zero gate are dropped. `s * g` is split as a square root onto both sides, in
    float64, so that neither factor leaves the range of a 16-bit file.
    """
    keep = matrix.gate != 0
    size = matrix.gate[keep].double() * matrix.scaling
    root = size.abs().sqrt()
    lora_A = matrix.lora_A[keep].double() * (size.sign() * root)[:, None]
    lora_B = matrix.lora_B[:, keep].double() * root[None, :]
    return (
        lora_A.to(matrix.lora_A.dtype).contiguous(),
        lora_B.to(matrix.lora_B.dtype).contiguous(),
    )


@torch.no_grad()
def merge(model: nn.Module, adapter_name: str = "default") -> nn.Module:
    """Fold the adapter into the base weights and return the base model without PEFT.

    Args:
        model: A `PeftModel` with a SoRA adapter; it is used up.
        adapter_name: The adapter. It need not be the active one; its own trained head is kept.

    Raises:
        ValueError: If `model` has no such SoRA adapter, or an adapted matrix shares its base
            weight with another module.
        TypeError: If `model` is not wrapped by PEFT.
    """
    matrices = adapted_matrices(model, adapter_name)
    if not matrices:
        raise ValueError(f"`model` must have a SoRA adapter named {adapter_name!r}, got none.")
    if not isinstance(model, PeftModel):
        raise TypeError(
            f"`model` must be a PeftModel to be merged, got {type(model).__name__}. "
            "Pass what `get_peft_model` returned."
        )
    for module, other in _shared_weights(model, matrices):
        raise ValueError(
            f"`{module}` must not share its weight with `{other}` to be merged: the adapter would "
            "change both. Leave it out of `target_modules`."
        )
    # PEFT unloads the head of the active adapter, whichever adapter is merged.
    model.set_adapter(adapter_name)
    return model.merge_and_unload(adapter_names=[adapter_name])


def export_lora(
    model: nn.Module,
    save_directory: Path | str,
    *,
    adapter_name: str = "default",
    matrices: Iterable[AdaptedMatrix] | None = None,
    base_model_name_or_path: str | None = None,
    task_type: str | None = None,
    uniform_rank: bool = False,
) -> None:
    """Write the pruned adapter as a plain PEFT LoRA that loads without sorakit.

    Modules with rank 0 are left out; scaling is folded in, so `lora_alpha` equals the rank
    everywhere. The ranks stand in rank_pattern.json as well, by module, for a LoRA that is trained
    anew. Modules that were trained in full (`modules_to_save`: the task head) are written
    beside it.

    Args:
        model: A `PeftModel` with a SoRA adapter, or with none at all (only its trained modules are
            written).
        save_directory: Folder for adapter_config.json, adapter_model.safetensors and
            rank_pattern.json; made if missing.
        adapter_name: The adapter.
        matrices: What is written in the place of a SoRA adapter's matrices.
        base_model_name_or_path: Written into the configuration, for loaders that find the base
            model by it.
        task_type: PEFT task type, for example SEQ_CLS.
        uniform_rank: Pad every kept module with zeros to the largest rank, for consumers that
            ignore rank patterns (vLLM, llama.cpp).

    Raises:
        ValueError: If an adapted matrix is not linear, belongs to an nn.MultiheadAttention, or
            shares its base weight with another module.
    """
    chosen = adapted_matrices(model, adapter_name) if matrices is None else matrices
    by_name = {m.name: m for m in chosen}
    _check_exportable(model, by_name.values())
    folded = {name: fold(m) for name, m in by_name.items()}
    kept = {name: a.shape[0] for name, (a, _) in folded.items() if a.shape[0] > 0}
    ranks = rank_pattern_text(kept)
    if uniform_rank and kept:
        rank = max(kept.values())
        folded = {name: _pad(*folded[name], rank=rank) for name in kept}
        kept = dict.fromkeys(kept, rank)
    state: dict[str, Tensor] = {}
    for name in kept:
        lora_A, lora_B = folded[name]
        state[f"{PEFT_PREFIX}{name}.lora_A.weight"] = lora_A.cpu()
        state[f"{PEFT_PREFIX}{name}.lora_B.weight"] = lora_B.cpu()
    saved = _modules_to_save(model, adapter_name)
    for name, module in saved.items():
        for key, value in module.state_dict().items():
            state[f"{PEFT_PREFIX}{name}.{key}"] = value.detach().cpu().clone().contiguous()
    config = _adapter_config(
        kept,
        all_names=[base_name(name) for name, _ in model.named_modules()],
        modules_to_save=sorted(saved),
        base_model_name_or_path=base_model_name_or_path,
        task_type=task_type,
        fan_in_fan_out=any(by_name[name].fan_in_fan_out for name in kept),
    )
    folder = Path(save_directory)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    text = json.dumps(config, indent=2, sort_keys=True)
    (folder / "adapter_config.json").write_text(text + "\n", "utf-8")
    (folder / RANK_PATTERN_FILE).write_text(ranks, "utf-8")


def _nonzero(matrix: AdaptedMatrix) -> int:
    return int(torch.count_nonzero(matrix.gate))


def _pad(lora_A: Tensor, lora_B: Tensor, *, rank: int) -> tuple[Tensor, Tensor]:
    missing = rank - lora_A.shape[0]
    return (
        torch.cat([lora_A, lora_A.new_zeros(missing, lora_A.shape[1])]),
        torch.cat([lora_B, lora_B.new_zeros(lora_B.shape[0], missing)], dim=1),
    )


def _modules_to_save(model: nn.Module, adapter_name: str) -> dict[str, nn.Module]:
    """Return the trained copies of PEFT's `modules_to_save`, by their name in the base model."""
    return {
        base_name(name): module.modules_to_save[adapter_name]
        for name, module in model.named_modules()
        if isinstance(module, ModulesToSaveWrapper) and adapter_name in module.modules_to_save
    }


def _adapter_config(
    kept: Mapping[str, int],
    *,
    all_names: Collection[str],
    modules_to_save: list[str],
    base_model_name_or_path: str | None,
    task_type: str | None,
    fan_in_fan_out: bool,
) -> dict[str, Any]:
    """Return adapter_config.json.

    Keys that would be null are left out: old PEFT rejects what it does not know.
    """
    rank = Counter(kept.values()).most_common(1)[0][0] if kept else 1
    pattern = {_pattern_key(name, kept): r for name, r in kept.items() if r != rank}
    # target_modules match by dotted suffix: 'enc.0' also hits 'sub.enc.0', which must then be
    # excluded by name.
    hit = sorted(
        other
        for other in set(all_names) - set(kept)
        if any(other.endswith("." + name) for name in kept)
    )
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": task_type,
        "base_model_name_or_path": base_model_name_or_path,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": fan_in_fan_out,
        "use_rslora": False,
        "init_lora_weights": True,
        "rank_pattern": pattern,
        "alpha_pattern": dict(pattern),
        "target_modules": sorted(kept) if kept else _DUMMY_TARGET,
        "exclude_modules": "|".join(re.escape(name) for name in hit) or None,
        "modules_to_save": modules_to_save or None,
    }
    return {key: value for key, value in config.items() if value is not None}


def _pattern_key(name: str, kept: Mapping[str, int]) -> str:
    """Return a rank_pattern key that only `name` matches.

    PEFT <= 0.14 matches a proper dotted suffix, later versions also whole names and `^`: a suffix,
    if unambiguous.
    """
    suffix = name.partition(".")[2]
    is_clear = suffix and not any(
        other != name and (other == suffix or other.endswith("." + suffix)) for other in kept
    )
    return suffix if is_clear else "^" + re.escape(name)


def _check_exportable(model: nn.Module, matrices: Collection[AdaptedMatrix]) -> None:
    for matrix in matrices:
        if matrix.lora_A.dim() != 2:
            raise ValueError(
                f"`{matrix.name}` must be a linear layer to be exported, got factors with "
                f"{matrix.lora_A.dim()} dimensions."
            )
    names = {matrix.name for matrix in matrices}
    for name, module in model.named_modules():
        short = base_name(name)
        # Plain PEFT gives the projections in and out one rank and cannot leave out either.
        is_attention = isinstance(getattr(module, "base_layer", None), nn.MultiheadAttention)
        if short in names and is_attention:
            raise ValueError(
                f"`{short}` must be a linear layer to be exported, got a MultiheadAttention. "
                "Use `merge`, or leave it out of `target_modules`."
            )
    for module, other in _shared_weights(model, matrices):
        raise ValueError(
            f"`{module}` must not share its weight with `{other}` to be exported: the "
            "adapter would change one of the two. Leave it out of `target_modules`."
        )


def _shared_weights(
    model: nn.Module, matrices: Collection[AdaptedMatrix]
) -> Iterator[tuple[str, str]]:
    """Yield pairs of modules that share a parameter, one of them adapted."""
    owners: dict[int, str] = {}
    names = {matrix.name for matrix in matrices}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        module = base_name(name).removesuffix(".weight").removesuffix(".base_layer")
        other = owners.setdefault(id(parameter), module)
        if other != module and names & {other, module}:
            yield module, other
