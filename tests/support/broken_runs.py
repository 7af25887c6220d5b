"""Runs that die at a chosen moment, and what makes two run folders equal."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sorakit.records import load_run
from sorakit.training.module import AdaptationModule


def files_of(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def assert_same_run(actual: Path, expected: Path) -> None:
    assert files_of(actual) == files_of(expected)
    for name in ("stages.jsonl", "ranks.jsonl", "steps.jsonl"):
        assert (actual / name).read_bytes() == (expected / name).read_bytes(), name
    pd.testing.assert_frame_equal(load_run(actual).examples(), load_run(expected).examples())
    for file in (expected / "adapters").rglob("*"):
        if file.is_file():
            other = actual / file.relative_to(expected)
            assert other.read_bytes() == file.read_bytes(), file.name


class Killed(BaseException):
    """Stands for the death of the process: nothing that comes after it happens."""


def kill_at_step(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Die in the training batch after `step` optimizer steps."""
    original, calls = AdaptationModule.training_step, iter(range(10**6))

    def training_step(self: AdaptationModule, batch: Any, batch_idx: int) -> Any:
        if next(calls) == step:
            raise Killed
        return original(self, batch, batch_idx)

    monkeypatch.setattr(AdaptationModule, "training_step", training_step)
