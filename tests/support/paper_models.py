"""The paper's two backbones, small: their own configurations, and no tokenizer.json.

Folders in the layout of the Hub: `spm.model` for DeBERTaV3, `vocab.json` and `merges.txt` for
RoBERTa. Sizes apart, they are as `microsoft/deberta-v3-base` and `FacebookAI/roberta-large`.
"""

import json
from io import BytesIO
from pathlib import Path

import sentencepiece
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import DebertaV2Config, DebertaV2Model, RobertaConfig, RobertaModel

from tests.support.tiny_hub import FILLERS, THEMES

HIDDEN, LAYERS, INTERMEDIATE = 16, 2, 32
TEXTS = [
    f"the {word} is {filler} the {other}"
    for theme in THEMES.values()
    for word in theme
    for filler in FILLERS
    for other in theme[:2]
]


def write_deberta_v3(folder: Path) -> Path:
    """Write a DeBERTaV3 of two layers with a SentencePiece model of its own."""
    folder.mkdir(parents=True)
    model = BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_writer=model,
        vocab_size=60,
        hard_vocab_limit=False,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        pad_piece="[PAD]",
        bos_piece="[CLS]",
        eos_piece="[SEP]",
        unk_piece="[UNK]",
        minloglevel=2,
    )
    (folder / "spm.model").write_bytes(model.getvalue())
    settings = {"do_lower_case": False, "vocab_type": "spm"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = DebertaV2Config.from_dict(  # some keys of its file are no parameters of the class
        {
            "vocab_size": 64,
            "hidden_size": HIDDEN,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 2,
            "intermediate_size": INTERMEDIATE,
            "max_position_embeddings": 512,
            "relative_attention": True,
            "position_buckets": 256,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
            "max_relative_positions": -1,
            "position_biased_input": False,
            "type_vocab_size": 0,
            "layer_norm_eps": 1e-7,
            "pooler_hidden_size": HIDDEN,
            "pooler_dropout": 0,
            "pooler_hidden_act": "gelu",
            "initializer_range": 0.3,
        }
    )
    return _write(DebertaV2Model, config, folder)


def write_roberta(folder: Path) -> Path:
    """Write a RoBERTa of two layers with byte-level BPE merges of its own."""
    folder.mkdir(parents=True)
    tokenizer = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(TEXTS, vocab_size=320, special_tokens=special)
    tokenizer.save_model(str(folder))
    config = RobertaConfig(
        vocab_size=320,
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        intermediate_size=INTERMEDIATE,
        max_position_embeddings=514,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        layer_norm_eps=1e-5,
        initializer_range=0.3,
    )
    return _write(RobertaModel, config, folder)


def _write(kind: type, config: DebertaV2Config | RobertaConfig, folder: Path) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kind(config).save_pretrained(folder)
    assert not (folder / "tokenizer.json").exists()
    return folder


WRITERS = {"deberta_v3": write_deberta_v3, "roberta": write_roberta}
