"""A tiny BERT with its tokenizer and a small CSV task: all that a whole run needs, offline."""

import csv
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from sorakit.config import (
    BackboneConfig,
    DenseConfig,
    GatesConfig,
    MethodConfig,
    OptimConfig,
    RefitConfig,
    RunConfig,
    StageConfig,
    TaskConfig,
    TrainerConfig,
    XiConfig,
)
from sorakit.tasks.base import Task

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
THEMES = {
    "animals": ["cat", "dog", "bird", "horse", "sheep", "fox"],
    "tools": ["saw", "hammer", "drill", "nail", "wrench", "file"],
}
FILLERS = ["the", "a", "old", "new", "small", "big", "saw", "is", "was", "near", "under"]


def write_model(folder: Path, *, hidden_size: int = 16, dropout: float = 0.1) -> Path:
    """Write a 2-layer BERT with random weights and its tokenizer in the Hub's layout."""
    words = sorted({word for theme in THEMES.values() for word in theme} | set(FILLERS))
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *words, "##s"])}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()  # pyright: ignore[reportAttributeAccessIssue]  # a property in Rust
    tokenizer.pre_tokenizer = BertPreTokenizer()  # pyright: ignore[reportAttributeAccessIssue]  # as above
    tokenizer.post_processor = TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]  # as above
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=32,
    )
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=hidden_size,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=2 * hidden_size,
        max_position_embeddings=32,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=0.3,  # large enough that random features tell the words apart
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertModel(config)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def write_task(folder: Path, *, num_train: int = 64, num_validation: int = 32) -> Path:
    """Write train.csv and validation.csv (text, label): is it about animals or tools?"""
    folder.mkdir(parents=True, exist_ok=True)
    source = random.Random(0)
    for name, count in (("train", num_train), ("validation", num_validation)):
        with (folder / f"{name}.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["text", "label"])
            for index in range(count):
                label = sorted(THEMES)[index % 2]
                fillers = source.choices(FILLERS, k=source.randint(1, 6))
                text = [*fillers, source.choice(THEMES[label])]
                writer.writerow([" ".join(text), label])
    return folder


def tiny_run(
    root: Path,
    *,
    out_dir: str = "run",
    levels: Sequence[float] = (0.02, 0.05, 4.0),
    sections: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
) -> RunConfig:
    """Return a run on the model and the task in `root`, which are written if they are missing.

    Args:
        root: Folder of `model`, `task` and the run.
        out_dir: Name of the run folder.
        levels: xi of the sparsifying stages; 4 leaves no gate.
        sections: Further options by section, for example `{"method": {"r": 2}}`.
        seed: Seed of the run.
    """
    if not (root / "model").exists():
        write_model(root / "model")
        write_task(root / "task")
    options: dict[str, dict[str, Any]] = {
        "task": {
            "name": "files",
            "data_dir": str(root / "task"),
            "train_file": "train.csv",
            "validation_file": "validation.csv",
            "max_length": 16,
            "memorization_examples": 48,
        },
        "backbone": {"name": str(root / "model")},
        "method": {"r": 4, "gate_init": "normal"},  # gates that die one after the other
        "gates": {},
        "xi": {"spacing": "list", "levels": list(levels), "num_stages": len(levels)},
        "dense": {"max_epochs": 2},
        "stage": {"refit": "none", "epochs": 1.0},  # tests of refits say so
        "refit": {"max_epochs": 4, "patience": 1, "cooldown_epochs": 1},
        "optim": {"lr": 5e-3, "batch_size": 8},
        "trainer": {"accelerator": "cpu", "precision": "32-true", "num_threads": 1},
    }
    for name, values in (sections or {}).items():
        options[name] |= values
    return RunConfig(
        task=TaskConfig(**options["task"]),
        backbone=BackboneConfig(**options["backbone"]),
        method=MethodConfig(**options["method"]),
        gates=GatesConfig(**options["gates"]),
        xi=XiConfig(**options["xi"]),
        dense=DenseConfig(**options["dense"]),
        stage=StageConfig(**options["stage"]),
        refit=RefitConfig(**options["refit"]),
        optim=OptimConfig(**options["optim"]),
        trainer=TrainerConfig(**options["trainer"]),
        seed=seed,
        out_dir=str(root / out_dir),
    )


def write_regression(folder: Path, *, num_train: int = 32, num_validation: int = 16) -> Path:
    """Write train.csv and validation.csv whose label is a number: the words in the text, over 8."""
    folder.mkdir(parents=True, exist_ok=True)
    source = random.Random(0)
    for name, count in (("train", num_train), ("validation", num_validation)):
        with (folder / f"{name}.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["text", "label"])
            for _ in range(count):
                words = source.choices(FILLERS, k=source.randint(1, 8))
                writer.writerow([" ".join(words), len(words) / 8])
    return folder


def task_of(train: Sequence[str], held_out: Sequence[str], *, names: Sequence[str]) -> Task:
    """Return a task of texts, whose labels go round the classes."""
    splits = [
        Dataset.from_dict(
            {
                "text": list(texts),
                "label": [k % len(names) for k in range(len(texts))],
                "is_noisy": [False] * len(texts),
            }
        )
        for texts in (train, held_out)
    ]
    return Task(
        name="words",
        train=splits[0],
        validation=splits[1],
        label_names=tuple(names),
        metric="accuracy",
    )
