"""Make the embedded encoder: masked language modelling on the training part of the pydoc corpus.

    python experiments/pretrain_encoder.py --minutes 20
    python experiments/pretrain_encoder.py --steps 3000 --out /tmp/encoder

With `--minutes` the learning rate follows the clock, so that it decays to zero in time however busy
the machine is. The model card records the steps it came to, for a rerun by `--steps`. Such a rerun
is close, not bit-identical: `tokenizers` breaks ties between word pieces differently every time.
"""

import argparse
import csv
import json
import logging
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from safetensors.torch import save_file
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from sorakit.tasks.pydoc_corpus import (
    TRAIN,
    VALIDATION,
    VALIDATION_PERCENT,
    Corpus,
    load_corpus,
)

logger = logging.getLogger("pretrain_encoder")

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ROOT / "sorakit" / "backbones" / "assets" / "encoder"
CURVE = ROOT / "experiments" / "pretrain_encoder_loss.png"

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNK, CLS, SEP, MASK = range(5)
VOCAB_SIZE = 8192
MAX_POSITIONS = 128
MAX_TOKENS = 96  # of a training sequence
TOKENS_PER_STEP = 2048
LR = 1e-3
WARMUP = 0.06  # of all steps
WEIGHT_DECAY = 0.01
MASKED = 0.2
SEED = 0
LOG_EVERY = 25
HELD_OUT_POINTS = 8


@dataclass(frozen=True, kw_only=True)
class Sequence:
    """Consecutive paragraphs of one docstring: `[CLS] first [SEP] second [SEP] ...`."""

    ids: list[int]
    token_types: list[int]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Sequences of similar length, padded, with a fifth of the word pieces hidden."""

    ids: Tensor
    attention_mask: Tensor
    token_types: Tensor
    is_masked: Tensor
    targets: Tensor


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Return an uncased WordPiece tokenizer with BERT's template for one text or a pair."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=list(SPECIAL), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    # Not BertTokenizerFast(vocab_file=...): transformers 5 makes a 5-token vocabulary of it.
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=MAX_POSITIONS,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def pack(corpus: Corpus, split: str, tokenizer: PreTrainedTokenizerFast) -> list[Sequence]:
    """Return sequences of at most `MAX_TOKENS`; long paragraphs are continued in the next one."""
    rows = corpus.paragraphs[corpus.paragraphs["split"] == split]
    encoded = tokenizer(rows["text"].tolist(), add_special_tokens=False, verbose=False)["input_ids"]
    sequences: list[Sequence] = []
    current = Sequence(ids=[], token_types=[])
    last_doc = -1
    for doc, ids in zip(rows["doc"].tolist(), encoded, strict=True):
        for start in range(0, len(ids), MAX_TOKENS - 2):
            piece = ids[start : start + MAX_TOKENS - 2]
            if doc != last_doc or len(current.ids) + len(piece) + 1 > MAX_TOKENS:
                current = Sequence(ids=[CLS], token_types=[0])
                sequences.append(current)
            segment = 0 if len(current.ids) == 1 else 1
            current.ids.extend([*piece, SEP])
            current.token_types.extend([segment] * (len(piece) + 1))
            last_doc = doc
    return [sequence for sequence in sequences if len(sequence.ids) >= 6]


def batches(sequences: list[Sequence], *, rng: random.Random) -> Iterator[list[Sequence]]:
    """Yield one epoch: sequences of similar length together, `TOKENS_PER_STEP` with padding."""
    order = list(sequences)
    rng.shuffle(order)
    order.sort(key=lambda sequence: len(sequence.ids))
    groups: list[list[Sequence]] = [[]]
    for sequence in order:
        if (len(groups[-1]) + 1) * len(sequence.ids) > TOKENS_PER_STEP:
            groups.append([])
        groups[-1].append(sequence)
    rng.shuffle(groups)
    yield from groups


def mask(sequences: list[Sequence], *, rng: np.random.Generator) -> Batch:
    """Return a batch; of the chosen pieces 80 % are masked, 10 % random and 10 % kept."""
    length = max(len(sequence.ids) for sequence in sequences)
    ids = np.full((len(sequences), length), PAD)
    token_types = np.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence.ids)] = sequence.ids
        token_types[row, : len(sequence.ids)] = sequence.token_types
    attention = ids != PAD
    is_masked = (ids >= len(SPECIAL)) & (rng.random(ids.shape) < MASKED)
    targets = ids[is_masked]
    choice = rng.random(len(targets))
    shown = np.where(choice < 0.8, MASK, targets)
    is_random = choice >= 0.9
    shown[is_random] = rng.integers(len(SPECIAL), VOCAB_SIZE, int(is_random.sum()))
    ids[is_masked] = shown
    return Batch(
        ids=torch.from_numpy(ids),
        attention_mask=torch.from_numpy(attention),
        token_types=torch.from_numpy(token_types),
        is_masked=torch.from_numpy(is_masked),
        targets=torch.from_numpy(targets),
    )


def masked_lm_loss(model: BertForMaskedLM, batch: Batch) -> Tensor:
    """Return the mean cross-entropy in nats; logits are made at masked positions only."""
    hidden = model.bert(
        input_ids=batch.ids,
        attention_mask=batch.attention_mask,
        token_type_ids=batch.token_types,
    ).last_hidden_state
    logits = model.cls(hidden[batch.is_masked])
    return F.cross_entropy(logits.float(), batch.targets)


def learning_rate(progress: float) -> float:
    """Return the rate at a share of the run: linear warm-up, then linear decay to 0 at the end."""
    if progress < WARMUP:
        return LR * progress / WARMUP
    return LR * max(0.0, 1 - progress) / (1 - WARMUP)


@torch.inference_mode()
def held_out_loss(model: BertForMaskedLM, batches: list[Batch]) -> float:
    """Return the masked-LM loss over fixed masks of held-out sequences."""
    model.eval()
    losses = [masked_lm_loss(model, batch).item() for batch in batches]
    sizes = [len(batch.targets) for batch in batches]
    model.train()
    return float(np.average(losses, weights=sizes))


def build_model() -> BertForMaskedLM:
    """Return the randomly initialised encoder with a tied masked-LM head, without dropout."""
    config = BertConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=192,
        num_hidden_layers=4,
        num_attention_heads=3,
        intermediate_size=768,
        max_position_embeddings=MAX_POSITIONS,
        hidden_dropout_prob=0.0,  # the text is seen a few times only
        attention_probs_dropout_prob=0.0,
        pad_token_id=PAD,
        attn_implementation="eager",  # 1.25 times as fast as sdpa in bfloat16 on a CPU without AMX
    )
    return BertForMaskedLM(config)


class Bf16Trainer:
    """Trains a bfloat16 model through float32 copies of its weights.

    Autocast casts activations and weights over and over; in a profile of a step on 2 CPU cores
    those copies were a quarter of the time.

    Args:
        model: A float32 model; it becomes bfloat16.
    """

    def __init__(self, model: BertForMaskedLM) -> None:
        self.master = [p.detach().clone() for p in model.parameters()]
        self.model = model.to(torch.bfloat16)
        self.shadow = list(self.model.parameters())
        decayed = [p for p in self.master if p.ndim > 1]
        other = [p for p in self.master if p.ndim <= 1]  # biases and layer norms
        groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}]
        groups.append({"params": other, "weight_decay": 0.0})
        self.optimizer = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.98), fused=True)

    def step(self, batch: Batch, *, lr: float) -> float:
        """Take one optimizer step and return the loss before it."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        loss = masked_lm_loss(self.model, batch)
        loss.backward()
        for master, shadow in zip(self.master, self.shadow, strict=True):
            master.grad = None if shadow.grad is None else shadow.grad.float()
            shadow.grad = None
        torch.nn.utils.clip_grad_norm_(self.master, 1.0)
        self.optimizer.step()
        self.copy_weights()
        return loss.item()

    def copy_weights(self) -> None:
        """Round the float32 weights into the model."""
        with torch.no_grad():
            for master, shadow in zip(self.master, self.shadow, strict=True):
                shadow.copy_(master)

    def trained_model(self) -> BertForMaskedLM:
        """Return the model with its float32 weights."""
        self.model.float()
        self.copy_weights()
        return self.model


def endless(sequences: list[Sequence]) -> Iterator[Batch]:
    """Yield masked batches, epoch after epoch; every epoch has new masks."""
    rng, mask_rng = random.Random(SEED), np.random.default_rng(SEED)
    while True:
        for group in batches(sequences, rng=rng):
            yield mask(group, rng=mask_rng)


def train(
    sequences: list[Sequence],
    held_out: list[Batch],
    *,
    num_steps: int | None,
    minutes: float,
    log: Path,
) -> tuple[BertForMaskedLM, int]:
    """Return the trained model and its steps.

    Args:
        sequences: Training sequences.
        held_out: Batches for the held-out loss.
        num_steps: Steps to take; `None` trains for `minutes`.
        minutes: Time to train for, if `num_steps` is `None`.
        log: CSV file that gets step, seconds, mlm_loss (mean since the row before) and
            held_out_mlm_loss.
    """
    torch.manual_seed(SEED)
    trainer = Bf16Trainer(build_model())
    data = endless(sequences)
    losses: list[float] = []
    step, progress, next_point = 0, 0.0, 0
    started = time.perf_counter()
    with log.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "seconds", "mlm_loss", "held_out_mlm_loss"])
        while True:
            is_point = progress >= next_point / HELD_OUT_POINTS
            if is_point or step % LOG_EVERY == 0:
                held = f"{held_out_loss(trainer.model, held_out):.4f}" if is_point else ""
                next_point += is_point
                mean = f"{np.mean(losses):.4f}" if losses else ""
                seconds = time.perf_counter() - started
                writer.writerow([step, f"{seconds:.1f}", mean, held])
                file.flush()
                logger.info("step %d, %.1f %%, loss %s %s", step, 100 * progress, mean, held)
                losses.clear()
            if progress >= 1:
                break
            losses.append(trainer.step(next(data), lr=learning_rate(progress)))
            step += 1
            elapsed = (time.perf_counter() - started) / 60
            progress = min(1.0, step / num_steps if num_steps else elapsed / minutes)
    return trainer.trained_model(), step


def save(model: BertForMaskedLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the Hub layout: half-precision weights without the masked-LM head, and the tokenizer.

    The pooler, which masked LM does not train, is the identity before its tanh: a classifier on top
    of it sees the `[CLS]` vector, and not another random projection with every seed.
    """
    weights = {
        name: value.detach().to(torch.float16).contiguous()
        for name, value in model.bert.state_dict().items()
    }
    width = model.config.hidden_size
    weights["pooler.dense.weight"] = torch.eye(width, dtype=torch.float16)
    weights["pooler.dense.bias"] = torch.zeros(width, dtype=torch.float16)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # safetensors 0.8 leaves it to the owner alone
    config = model.config.to_dict()
    config |= {"architectures": ["BertModel"], "dtype": "float32"}  # loaded at full precision
    BertConfig(**config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def read_log(log: Path) -> list[dict[str, str]]:
    """Return the rows of a training log."""
    with log.open(newline="") as file:
        return list(csv.DictReader(file))


def draw_loss(rows: list[dict[str, str]], path: Path) -> None:
    """Draw the masked-LM loss over the steps, in training and held out."""
    figure = Figure(figsize=(5, 3), layout="constrained")
    ax = figure.subplots()
    for column, label, marker in (
        ("mlm_loss", "training", ""),
        ("held_out_mlm_loss", "held out", "o"),
    ):
        points = [(int(row["step"]), float(row[column])) for row in rows if row[column]]
        ax.plot(*zip(*points, strict=True), label=label, marker=marker, markersize=3)
    ax.set(xlabel="optimizer step", ylabel="masked-LM loss (nats)")
    ax.legend(frameon=False)
    figure.savefig(path, dpi=150, metadata={"Software": None})


def model_card(corpus: Corpus, facts: dict[str, object], rows: list[dict[str, str]]) -> str:
    """Return the README of the encoder's folder."""
    held = [row for row in rows if row["held_out_mlm_loss"]]
    table = "\n".join(
        f"| {row['step']} | {row['mlm_loss'] or '-'} | {row['held_out_mlm_loss']} |" for row in held
    )
    listed = "\n".join(f"| {key} | {value} |" for key, value in facts.items())
    packages = ", ".join(f"{name} {version}" for name, version in corpus.versions.items())
    return f"""---
language: en
library_name: transformers
tags: [fill-mask, bert, demo]
---

# sorakit's embedded encoder

A small BERT encoder (uncased, 4 layers, hidden size 192, 3 heads, 8,192 word pieces), pre-trained
by sorakit itself so that a machine without the Hub can run the main job on real text. It is a demo
and test backbone, not a general language model: it has read nothing but Python docstrings.

- **Data**: the training part ({100 - VALIDATION_PERCENT} % of the docstrings, split by hash) of the
  pydoc corpus: English docstring paragraphs of {packages}.
  The `pydoc_*` tasks take their training examples from the same part, and their validation examples
  from docstrings this encoder has never seen.
- **Objective**: masked language modelling only, {MASKED:.0%} of the word pieces (80 % `[MASK]`,
  10 % random, 10 % kept), AdamW, linear warm-up and decay to zero. No dropout, neither here
  nor in fine-tuning: the tasks are there to be memorised.
- **Pooler**: the identity before its tanh (not trained): sequence classification sees `[CLS]`.
- **Weights**: float16 on disk, float32 when loaded.
- **Made by** `experiments/pretrain_encoder.py`; the loss over time is in `training_log.csv`.
- **Licence of the text**: the docstrings are under their packages' own open-source licences.

| fact | value |
|---|---|
{listed}

| step | masked-LM loss, training (mean since the row before in the log) | held out |
|---|---|---|
{table}
"""


def main() -> None:
    """Read the corpus, train the tokenizer and the encoder, and write the folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=20.0, help="training time to aim for")
    length.add_argument("--steps", type=int, help="optimizer steps, instead of a time")
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder of the encoder")
    parser.add_argument("--curve", type=Path, default=CURVE, help="picture of the loss")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)

    corpus = load_corpus()
    texts = corpus.paragraphs.loc[corpus.paragraphs["split"] == TRAIN, "text"].tolist()
    tokenizer = train_tokenizer(texts)
    sequences = pack(corpus, TRAIN, tokenizer)
    num_tokens = sum(len(sequence.ids) for sequence in sequences)
    logger.info("%d paragraphs, %d sequences, %d tokens", len(texts), len(sequences), num_tokens)
    rng = np.random.default_rng(SEED + 1)
    held_out = [
        mask(group, rng=rng)
        for group in list(
            batches(pack(corpus, VALIDATION, tokenizer), rng=random.Random(SEED + 1))
        )[:6]
    ]

    log = args.out / "training_log.csv"
    model, num_steps = train(
        sequences, held_out, num_steps=args.steps, minutes=args.minutes, log=log
    )
    save(model, tokenizer, args.out)
    rows = read_log(log)
    draw_loss(rows, args.curve)
    minutes = float(rows[-1]["seconds"]) / 60
    num_batches = sum(1 for _ in batches(sequences, rng=random.Random(SEED)))
    facts: dict[str, object] = {
        "training paragraphs": f"{len(texts):,}",
        "training sequences": f"{len(sequences):,} (at most {MAX_TOKENS} word pieces)",
        "training word pieces": f"{num_tokens:,}",
        "corpus sha256": corpus.fingerprint,
        "optimizer steps": f"{num_steps:,} ({num_steps / num_batches:.2f} epochs)",
        "word pieces per step": f"at most {TOKENS_PER_STEP:,}, padding included",
        "peak learning rate": LR,
        "arithmetic": "bfloat16, with float32 copies of the weights in the optimizer",
        "training time": f"{minutes:.1f} minutes, {args.threads} CPU threads",
        "held-out masked-LM loss": f"{rows[-1]['held_out_mlm_loss']} nats",
        "seed": SEED,
        "torch": torch.__version__,
    }
    (args.out / "README.md").write_text(model_card(corpus, facts, rows))
    logger.info("%s", json.dumps(facts))


if __name__ == "__main__":
    main()
