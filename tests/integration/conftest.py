"""Fixtures of the whole runs."""

from pathlib import Path

import pytest

from tests.support.tiny_hub import write_model, write_task


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny model and task; runs go beside them."""
    root = tmp_path_factory.mktemp("hub")
    write_model(root / "model")
    write_task(root / "task")
    return root
