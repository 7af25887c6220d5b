"""The embedded encoder: small, readable by transformers, and at home in its own corpus."""

import csv
import importlib.util
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertModel,
    PreTrainedTokenizerBase,
)

from sorakit.tasks.pydoc_corpus import VALIDATION, load_corpus


@pytest.fixture(scope="module")
def folder() -> Path:
    spec = importlib.util.find_spec("sorakit")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "backbones" / "assets" / "encoder"


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def model(folder: Path) -> BertModel:
    return AutoModel.from_pretrained(folder)


def test_folder_takes_at_most_twelve_megabytes(folder: Path):
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 12_000_000


def test_folder_has_a_model_card_with_the_corpus_fingerprint(folder: Path):
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "masked language modelling" in card
    assert "corpus sha256" in card


def test_training_log_ends_below_where_it_began(folder: Path):
    with (folder / "training_log.csv").open(newline="") as file:
        losses = [float(row["held_out_mlm_loss"] or "nan") for row in csv.DictReader(file)]
    assert losses[-1] < losses[0] - 3


def test_tokenizer_keeps_its_vocabulary(tokenizer: PreTrainedTokenizerBase):
    # transformers 5 turns a vocab.txt into five tokens without a word.
    assert len(tokenizer) == 8192


def test_tokenizer_gives_a_sentence_back(tokenizer: PreTrainedTokenizerBase):
    sentence = "return the sum of two arrays."
    ids = tokenizer(sentence)["input_ids"]
    assert tokenizer.decode(ids) == f"[CLS] {sentence} [SEP]"


def test_tokenizer_numbers_the_two_texts_of_a_pair(tokenizer: PreTrainedTokenizerBase):
    encoded = tokenizer("return", "array")
    tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    assert tokens == ["[CLS]", "return", "[SEP]", "array", "[SEP]"]
    assert encoded["token_type_ids"] == [0, 0, 0, 1, 1]


def test_tokenizer_knows_held_out_summaries(tokenizer: PreTrainedTokenizerBase):
    table = load_corpus().paragraphs
    texts = table.loc[(table["split"] == VALIDATION) & (table["position"] == 0), "text"].tolist()
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    pieces = [piece for ids in encoded for piece in ids]
    assert sum(piece == tokenizer.unk_token_id for piece in pieces) < 0.02 * len(pieces)


def test_model_loads_in_float32(model: BertModel):
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_model_fits_its_tokenizer(model: BertModel, tokenizer: PreTrainedTokenizerBase):
    assert model.get_input_embeddings().weight.shape == (len(tokenizer), 192)
    assert tokenizer.model_max_length == model.config.max_position_embeddings == 128


def test_model_tells_contexts_of_a_word_apart(model: BertModel, tokenizer: PreTrainedTokenizerBase):
    model.eval()
    texts = ["the index of the array", "the index of the page"]
    with torch.inference_mode():
        hidden = model(**tokenizer(texts, return_tensors="pt")).last_hidden_state
    assert hidden.isfinite().all()
    assert not torch.allclose(hidden[0, 2], hidden[1, 2], atol=1e-2)


def test_classifier_on_top_starts_from_the_same_encoder(folder: Path, model: BertModel):
    classifier = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3)
    loaded = classifier.bert.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(loaded[name], value), name
