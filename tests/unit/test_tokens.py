from functools import partial
from pathlib import Path

import pytest
from datasets import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from sorakit.objectives import objective
from sorakit.training import tokens as tokens_module
from tests.support.tiny_hub import write_model

tokenise = partial(tokens_module.tokenise, objective=objective("classification"))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(write_model(tmp_path_factory.mktemp("model")))


def split_of(count: int) -> Dataset:
    texts = [" ".join(["cat"] * (1 + i % 7)) for i in range(count)]
    pairs = ["old dog" if i % 2 else "dog" for i in range(count)]
    labels = [i % 3 for i in range(count)]
    return Dataset.from_dict({"text": texts, "text_pair": pairs, "label": labels})


def test_rows_are_what_the_tokenizer_gives(tokenizer, monkeypatch):
    monkeypatch.setattr(tokens_module, "_CHUNK_ROWS", 4)
    split = split_of(11)
    found = tokenise(split, tokenizer, max_length=8).rows(range(11))
    for index, row in enumerate(split.to_list()):
        expected = tokenizer(row["text"], row["text_pair"], truncation=True, max_length=8)
        assert found[index] == {**expected, "label": row["label"], "index": index}


def test_selected_rows_keep_their_index(tokenizer):
    chosen = tokenise(split_of(9), tokenizer, max_length=8).select([7, 2])
    assert [row["index"] for row in chosen.rows([0, 1])] == [7, 2]
    assert chosen.lengths.tolist() == [len(row["input_ids"]) for row in chosen.rows([0, 1])]


def test_numbers_keep_their_bits(tokenizer):
    split = Dataset.from_dict({"text": ["cat", "dog"], "label": [0.1, 1 / 3]})
    rows = tokenise(split, tokenizer, max_length=8).rows([0, 1])
    assert [row["label"] for row in rows] == [0.1, 1 / 3]


def test_texts_that_do_not_fit_are_counted(tokenizer):
    split = Dataset.from_dict({"text": ["cat " * n for n in (1, 6, 7, 30)], "label": [0] * 4})
    assert tokenise(split, tokenizer, max_length=8).num_cut == 2  # [CLS] and [SEP] take two


@pytest.fixture
def cached(monkeypatch, tmp_path) -> Path:
    """Keep tokens of splits of any size in a folder of their own."""
    monkeypatch.setattr(tokens_module, "_CACHED_FROM", 1)
    monkeypatch.setattr(tokens_module, "_CHUNK_ROWS", 4)
    monkeypatch.setenv("SORAKIT_CACHE", str(tmp_path))
    return tmp_path / "tokens"


def test_cached_tokens_are_the_same(tokenizer, cached):
    first = tokenise(split_of(11), tokenizer, max_length=8)
    (file,) = cached.iterdir()
    written = file.stat().st_mtime_ns
    again = tokenise(split_of(11), tokenizer, max_length=8)
    assert again.rows(range(11)) == first.rows(range(11))
    assert again.num_cut == first.num_cut
    assert (file.stat().st_mtime_ns, len(list(cached.iterdir()))) == (written, 1)


def test_other_texts_or_lengths_have_other_files(tokenizer, cached):
    tokenise(split_of(11), tokenizer, max_length=8)
    tokenise(split_of(10), tokenizer, max_length=8)
    tokenise(split_of(11), tokenizer, max_length=9)
    assert len(list(cached.iterdir())) == 3


def test_damaged_file_is_made_anew(tokenizer, cached, caplog):
    first = tokenise(split_of(11), tokenizer, max_length=8).rows(range(11))
    (file,) = cached.iterdir()
    half = file.read_bytes()[:200]
    file.unlink()  # the file that `first` has mapped
    file.write_bytes(half)
    assert tokenise(split_of(11), tokenizer, max_length=8).rows(range(11)) == first
    assert "Tokens are made anew" in caplog.text
