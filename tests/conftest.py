"""Fixtures of the whole suite, and an environment in which no test reaches the network."""

import copy
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Read once, when huggingface_hub, datasets and wandb are imported, so before any of them is.
_SCRATCH = tempfile.TemporaryDirectory(prefix="sorakit-tests-")  # removed when pytest ends
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # `HF_HUB_OFFLINE=0 pytest -m network` reads the Hub
os.environ["HF_DATASETS_CACHE"] = f"{_SCRATCH.name}/datasets"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "agg"
os.environ["OMP_NUM_THREADS"] = "1"  # tiny models, and a pytest process a core
# W&B is off, in fixtures of whole modules too, and stays out of the checkout and the home folder
# where a test turns it on.
os.environ["WANDB_MODE"] = "disabled"  # `tracking.wandb: auto` follows it
os.environ["WANDB_SILENT"] = "true"
for _name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
    os.environ[_name] = f"{_SCRATCH.name}/{_name.lower()}"
    Path(os.environ[_name]).mkdir()

import hypothesis
import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from tests.support.tiny_bert import TINY_BERT

hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")

SHARED_DIR = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def _no_launcher_after_a_test() -> Iterator[None]:
    """Take away what Lightning leaves in the environment when it asks who launched a process."""
    names = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
    before = {name: os.environ.get(name) for name in names}
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture(autouse=True)
def _same_global_rng_after_as_before() -> Iterator[None]:
    """Undo what a test does to the global generators, so that no result depends on test order."""
    python, cpu = random.getstate(), torch.get_rng_state()
    numpy = np.random.get_state()  # noqa: NPY002 - reads the global state
    yield
    random.setstate(python)
    np.random.set_state(numpy)  # noqa: NPY002 - restores it
    torch.set_rng_state(cpu)


@pytest.fixture
def generator() -> torch.Generator:
    """A CPU generator seeded with 0, the only source of randomness a test needs."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def _tiny_bert_original() -> BertForSequenceClassification:
    config = BertConfig(**TINY_BERT)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return BertForSequenceClassification(config)


@pytest.fixture
def tiny_bert(_tiny_bert_original: BertForSequenceClassification) -> BertForSequenceClassification:
    """A BERT of this test's own: 2 layers, hidden 8, 64 word pieces, 3 labels, no dropout."""
    return copy.deepcopy(_tiny_bert_original)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real data and models beside the repository, for tests marked `realdata`."""
    if not SHARED_DIR.is_dir():
        reason = f"needs the folder {SHARED_DIR}"
        if os.environ.get("SORAKIT_REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return SHARED_DIR
