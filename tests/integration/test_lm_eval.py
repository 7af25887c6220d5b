"""lm-eval reads an exported adapter of a language model by its `peft=`, and scores what we do.

lm-eval is no dependency of sorakit. `pip install lm_eval`, and this test runs.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM

from sorakit import SoraConfig, export_lora, gates, nonzero_ranks

TEXTS = [("Once upon a time", " there was a little girl"), ("The dog", " ran to the park.")]


@pytest.fixture
def lm_eval() -> Any:
    return pytest.importorskip("lm_eval.models.huggingface", reason="needs the package lm_eval")


@pytest.fixture
def adapted(shared_dir: Path) -> torch.nn.Module:
    """A real Llama with gates of which half are zero."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(
        shared_dir / "models" / "stories260K", dtype=torch.float32
    )
    model = get_peft_model(
        model, SoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear")
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.2)
        for gate in gates(model).values():
            gate.copy_(torch.tensor([0.0, 0.5, -0.4, 0.0]))
    return model.eval()


@pytest.mark.realdata
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of lm_eval
def test_lm_eval_reads_the_pruned_adapter_of_a_language_model(
    lm_eval, adapted, shared_dir, tmp_path
):
    assert set(nonzero_ranks(adapted).values()) == {2}
    export_lora(adapted, tmp_path / "adapter")
    read = lm_eval.HFLM(
        pretrained=str(shared_dir / "models" / "stories260K"),
        peft=str(tmp_path / "adapter"),
        device="cpu",
        dtype="float32",
        batch_size=2,
    )
    instance = pytest.importorskip("lm_eval.api.instance").Instance
    asked = [instance("loglikelihood", {}, pair, 0) for pair in TEXTS]
    found = [value for value, _ in read.loglikelihood(asked, disable_tqdm=True)]
    assert found == pytest.approx([log_likelihood(adapted, read, pair) for pair in TEXTS], rel=1e-5)


def log_likelihood(model: torch.nn.Module, reader: Any, pair: tuple[str, str]) -> float:
    """Return the log-likelihood of a continuation, from the model with its gates."""
    context, continuation = reader._encode_pair(*pair)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([context + continuation])).logits[0]
    start = len(context) - 1
    rows = logits.double().log_softmax(dim=-1)[start : start + len(continuation)]
    return float(rows.gather(1, torch.tensor(continuation)[:, None]).sum())
