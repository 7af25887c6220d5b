"""What `meta.json` says of a run: versions, commit, fingerprints, hardware."""

import importlib.metadata
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from sorakit.config import METHOD_VERSION, RunConfig
from sorakit.records import SCHEMA_VERSION, run_id
from sorakit.tasks.base import Task
from sorakit.training.inputs import data_fingerprint, input_stamps

_PACKAGES = (
    "sorakit",
    "torch",
    "transformers",
    "datasets",
    "lightning",
    "peft",
    "torchmetrics",
    "numpy",
)


def run_meta(
    config: RunConfig,
    *,
    task: Task,
    data: dict[str, Any],
    backbone_fingerprint: str,
    model: dict[str, Any],
    interface: dict[str, Any],
) -> dict[str, Any]:
    """Return the content of `meta.json` at the start of a run.

    Args:
        config: Resolved configuration.
        task: The data.
        data: What is said of them (`DataReport.meta`).
        backbone_fingerprint: Hash of the base weights.
        model: Sizes of the model, and layers that were left out.
        interface: What a class index means, and how texts become inputs.
    """
    return {
        **_origin(config),
        "data": data,
        "data_fingerprint": data_fingerprint(task),
        "backbone_fingerprint": backbone_fingerprint,
        "inputs": input_stamps(config),
        **_circumstances(),
        "model": model,
        "interface": interface,
    }


def trainer_meta(config: RunConfig, *, model: dict[str, Any]) -> dict[str, Any]:
    """Return the content of `meta.json` of a run in a Hugging Face `Trainer`, whose data are its.

    Args:
        config: Configuration of the record.
        model: Sizes of the model.
    """
    return {
        **_origin(config),
        "data": {"source": "the datasets of a transformers Trainer"},
        "data_fingerprint": None,
        "backbone_fingerprint": None,
        **_circumstances(),
        "model": model,
    }


def _origin(config: RunConfig) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "method_version": METHOD_VERSION,
        "run_id": run_id(config),
        "git": _git_state(),
        "versions": {"python": platform.python_version(), **_versions()},
    }


def _circumstances() -> dict[str, Any]:
    return {
        "hardware": _hardware(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
            found[package] = "not installed"
    return found


def _git_state() -> dict[str, Any]:
    """Return the commit of the checkout that sorakit runs from; null in an installed package."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return {"sha": None, "dirty": None}
    try:
        sha = _git(root, "rev-parse", "HEAD").strip()
        return {"sha": sha, "dirty": bool(_git(root, "status", "--porcelain").strip())}
    except (OSError, subprocess.CalledProcessError):
        return {"sha": None, "dirty": None}


def _git(root: Path, *args: str) -> str:
    command = ["git", "-C", str(root), *args]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _hardware() -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "machine": platform.machine(),
        "cpu": _cpu(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
    }


def _cpu() -> str | None:
    """Return the kind of processor: kernels are chosen by it, and their sums differ in last bits.

    Name, family and model where Linux tells them; a name elsewhere.
    """
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
    except OSError:
        return platform.processor() or None
    first = dict(re.findall(r"^([^:\n]*\S)[ \t]*: (.+)$", text.partition("\n\n")[0], re.MULTILINE))
    names = ("model name", "cpu family", "model")
    known = [first[name] for name in names if name in first]
    return ", ".join(known) or platform.processor() or None
