"""The embedded tasks: nothing held out is seen in training, and every load gives the same task."""

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from sorakit.tasks import pydoc_corpus
from sorakit.tasks.base import Task
from sorakit.tasks.pydoc import (
    NUM_EXAMPLES,
    TOPICS,
    build_order,
    build_pair,
    build_topic,
    find_sentences,
    load_pydoc,
    swap_words,
)
from sorakit.tasks.pydoc_corpus import (
    TRAIN,
    VALIDATION,
    Corpus,
    build_paragraphs,
    load_corpus,
    normalize,
    split_of,
)

BUILDERS = {"pydoc_topic": build_topic, "pydoc_pair": build_pair, "pydoc_order": build_order}


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return load_corpus()


@pytest.fixture(scope="module")
def paragraphs(corpus: Corpus) -> dict[str, pd.DataFrame]:
    table = corpus.paragraphs
    return {split: table[table["split"] == split] for split in (TRAIN, VALIDATION)}


@pytest.fixture(scope="module")
def sentences(corpus: Corpus) -> dict[str, pd.DataFrame]:
    table = find_sentences(corpus.paragraphs)
    return {split: table[table["split"] == split] for split in (TRAIN, VALIDATION)}


@pytest.fixture(scope="module")
def built(
    paragraphs: dict[str, pd.DataFrame], sentences: dict[str, pd.DataFrame]
) -> dict[tuple[str, str], pd.DataFrame]:
    """(task, split) -> its table, with the docstrings that its texts came from."""
    return {
        (name, split): build((paragraphs if build is build_topic else sentences)[split], split)
        for name, build in BUILDERS.items()
        for split in (TRAIN, VALIDATION)
    }


@pytest.fixture(scope="module", params=BUILDERS)
def task(request: pytest.FixtureRequest) -> Task:
    return load_pydoc(request.param)


@pytest.fixture
def small_corpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A corpus of one small package and a cache of its own; the list grows with every reading."""
    readings: list[str] = []

    def read(package: str):
        readings.append(package)
        yield from original(package)

    original = pydoc_corpus.read_docstrings
    monkeypatch.setattr(pydoc_corpus, "PACKAGES", ("jsonargparse",))
    monkeypatch.setattr(pydoc_corpus, "read_docstrings", read)
    monkeypatch.setenv("SORAKIT_CACHE", str(tmp_path))
    return readings


def test_corpus_holds_no_two_near_identical_paragraphs(corpus: Corpus):
    assert not corpus.paragraphs["text"].map(normalize).duplicated().any()


def test_corpus_gives_a_docstring_to_one_split_only(corpus: Corpus):
    assert (corpus.paragraphs.groupby("doc")["split"].nunique() == 1).all()


def test_corpus_holds_out_about_fifteen_percent_of_the_docstrings(corpus: Corpus):
    held_out = corpus.paragraphs.drop_duplicates("doc")["split"] == VALIDATION
    assert 0.14 < held_out.mean() < 0.16


def test_build_paragraphs_keeps_one_of_near_identical_docstrings():
    docstrings = [("a", "Return the sum of 2 arrays."), ("b", "return the sum of 3 arrays")]
    assert len(build_paragraphs(docstrings)) == 1


def test_build_paragraphs_does_not_depend_on_the_order_of_docstrings():
    docstrings = [
        ("a", "Return the sum of 2 arrays.\n\nThe arrays may be empty, too."),
        ("b", "return the sum of 3 arrays"),
        ("b", "Draw a line between two points."),
    ]
    pd.testing.assert_frame_equal(build_paragraphs(docstrings), build_paragraphs(docstrings[::-1]))


def test_build_paragraphs_leaves_out_code_and_underlines():
    docstring = (
        "Return the sum of arrays.\n\nNotes\n-----\nIt is exact here.\n\n>>> add(one, two)\n3"
    )
    texts = build_paragraphs([("a", docstring)])["text"].tolist()
    assert texts == ["Return the sum of arrays.", "It is exact here."]


def test_split_of_sends_near_identical_summaries_to_the_same_side():
    summaries = [f"Describe the thing called {letter * 3}." for letter in "abcdefghijklmnopqrst"]
    assert {split_of(summary) for summary in summaries} == {TRAIN, VALIDATION}
    for summary in summaries:
        assert split_of(summary) == split_of(summary.upper() + " 12")


def test_load_corpus_reads_the_packages_once(small_corpus: list[str]):
    first, second = load_corpus(), load_corpus()
    assert small_corpus == ["jsonargparse"]
    assert first.fingerprint == second.fingerprint
    pd.testing.assert_frame_equal(first.paragraphs, second.paragraphs, check_dtype=False)


def test_load_corpus_rebuilds_a_torn_cache_file(small_corpus: list[str], tmp_path: Path):
    first = load_corpus()
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:1000])
    assert load_corpus().fingerprint == first.fingerprint
    assert len(small_corpus) == 2
    load_corpus()
    assert len(small_corpus) == 2


def test_load_corpus_rebuilds_a_cache_file_that_was_edited(small_corpus: list[str], tmp_path: Path):
    first = load_corpus()
    (path,) = tmp_path.iterdir()
    fewer = Corpus(paragraphs=first.paragraphs.iloc[1:], versions={}, fingerprint=first.fingerprint)
    pydoc_corpus._write_cache(path, fewer)
    pd.testing.assert_frame_equal(load_corpus().paragraphs, first.paragraphs, check_dtype=False)
    assert len(small_corpus) == 2


def test_load_corpus_leaves_no_temporary_file(small_corpus: list[str], tmp_path: Path):
    load_corpus()
    assert [path.suffix for path in tmp_path.iterdir()] == [".parquet"]


def test_task_has_as_many_examples_of_every_class(task: Task):
    for data, split in ((task.train, TRAIN), (task.validation, VALIDATION)):
        assert len(data) == NUM_EXAMPLES[split]
        counts = Counter(data["label"])
        assert counts.keys() == set(range(len(task.label_names)))
        assert set(counts.values()) == {NUM_EXAMPLES[split] // len(task.label_names)}


def test_task_holds_out_texts_that_training_never_shows(task: Task):
    columns = ["text", "text_pair"] if task.is_pair else ["text"]
    train, validation = (
        {normalize(text) for name in columns for text in data[name]}
        for data in (task.train, task.validation)
    )
    assert not train & validation


def test_order_holds_out_words_that_training_never_shows_in_any_order(
    built: dict[tuple[str, str], pd.DataFrame],
):
    train, validation = (
        {tuple(sorted(text.lower().split(" "))) for text in built["pydoc_order", split]["text"]}
        for split in (TRAIN, VALIDATION)
    )
    assert not train & validation


def test_task_is_the_same_in_two_loads(task: Task):
    again = load_pydoc(task.name)
    assert again.train.to_dict() == task.train.to_dict()
    assert again.validation.to_dict() == task.validation.to_dict()
    assert again.source == task.source


def test_task_names_its_corpus_without_a_path(task: Task, corpus: Corpus):
    assert task.source.startswith("pydoc corpus of python ")
    assert task.source.endswith(f"sha256 {corpus.fingerprint}")
    assert "/" not in task.source


@pytest.mark.parametrize("name", BUILDERS)
def test_task_draws_from_its_own_part_of_the_docstrings(
    name: str,
    built: dict[tuple[str, str], pd.DataFrame],
    paragraphs: dict[str, pd.DataFrame],
):
    for split, table in paragraphs.items():
        assert set(built[name, split]["doc"]) <= set(table["doc"])


def test_topic_leaves_out_summaries_that_name_their_package():
    data = load_pydoc("pydoc_topic").train
    for text, label in zip(data["text"], data["label"], strict=True):
        assert TOPICS[label] not in text.lower()


@pytest.mark.parametrize("split", [TRAIN, VALIDATION])
def test_pair_is_positive_exactly_for_sentences_of_one_docstring(
    split: str,
    built: dict[tuple[str, str], pd.DataFrame],
    sentences: dict[str, pd.DataFrame],
):
    doc_of = sentences[split].set_index("text")["doc"]
    table = built["pydoc_pair", split]
    is_same = table["text"].map(doc_of) == table["text_pair"].map(doc_of)
    assert (is_same == (table["label"] == 1)).all()


@pytest.mark.parametrize("split", [TRAIN, VALIDATION])
def test_pair_takes_half_of_its_negatives_from_the_same_package(
    split: str,
    built: dict[tuple[str, str], pd.DataFrame],
    sentences: dict[str, pd.DataFrame],
):
    package_of = sentences[split].set_index("text")["package"]
    table = built["pydoc_pair", split]
    negatives = table[table["label"] == 0]
    is_near = negatives["text"].map(package_of) == negatives["text_pair"].map(package_of)
    assert is_near.sum() == NUM_EXAMPLES[split] // 4


@pytest.mark.parametrize("split", [TRAIN, VALIDATION])
def test_order_changes_nothing_but_the_order(
    split: str,
    built: dict[tuple[str, str], pd.DataFrame],
    sentences: dict[str, pd.DataFrame],
):
    intact = set(sentences[split]["text"])
    bags = {tuple(sorted(text.split(" "))) for text in intact}
    table = built["pydoc_order", split]
    for text, label in zip(table["text"].tolist(), table["label"].tolist(), strict=True):
        assert (text in intact) == (label == 1)
        assert tuple(sorted(text.split(" "))) in bags


def test_swap_words_keeps_the_ends_and_moves_four_words():
    words = ["Return", "the", "smallest", "of", "all", "given", "finite", "numbers."]
    swapped = swap_words(" ".join(words)).split(" ")
    assert sorted(swapped) == sorted(words)
    assert (swapped[0], swapped[-1]) == (words[0], words[-1])
    assert sum(one != other for one, other in zip(words, swapped, strict=True)) == 4


def test_load_pydoc_refuses_an_unknown_name():
    names = "'pydoc_order', 'pydoc_pair', 'pydoc_text', 'pydoc_topic'"
    message = rf"^`name` must be one of \[{names}\], got 'pydoc'\.$"
    with pytest.raises(ValueError, match=message):
        load_pydoc("pydoc")
