"""Four tasks made from installed docstrings, without labels the last: no download, no seed."""

import random
import re
from collections.abc import Callable

import pandas as pd
from datasets import Dataset

from sorakit.metric_names import LABEL, TEXT, TEXT_PAIR
from sorakit.tasks.base import Task
from sorakit.tasks.pydoc_corpus import (
    TRAIN,
    VALIDATION,
    load_corpus,
    normalize,
    stable_hash,
)

TOPICS = ("python", "numpy", "scipy", "pandas", "torch", "transformers", "sympy", "networkx")
NUM_EXAMPLES = {TRAIN: 2400, VALIDATION: 560}
NUM_SWAPS = 2
"""Pairs of words that trade places in a corrupted sentence of `pydoc_order`."""

_DOC = "doc"  # a column of the tables below that the task itself does not keep
_MAX_TOPIC_CHARACTERS = 160
_MAX_SENTENCE_CHARACTERS = 110
_TEXT_CHARACTERS = (60, 200)
"""Shortest and longest text of `pydoc_text`: long enough for a beginning and what follows it."""
_MAX_SENTENCES_APART = 6
_MAX_PAIRS_PER_PACKAGE = {TRAIN: 600, VALIDATION: 130}
_SENTENCE_END = re.compile(r"(?<=[a-z)`]\.)\s+(?=[A-Z])")
_SENTENCE = re.compile(r"[A-Z][A-Za-z0-9 ,'()/`_-]*\.")


def load_pydoc(name: str) -> Task:
    """Return a task made from the docstrings of the installed packages.

    Every draw follows from hashes of the texts: it depends on the package versions, and on no seed.

    Args:
        name: `pydoc_topic` (which package is this summary from?), `pydoc_pair` (are these two
            sentences from one docstring?), `pydoc_order` (is this sentence intact, or have words
            traded places?) or `pydoc_text` (summaries to learn by heart, or to write more of).

    Raises:
        ValueError: If `name` is none of these.
    """
    if name not in _TASKS:
        raise ValueError(f"`name` must be one of {sorted(_TASKS)}, got {name!r}.")
    build, label_names = _TASKS[name]
    corpus = load_corpus()
    of_paragraphs = build in (build_topic, build_text)
    table = corpus.paragraphs if of_paragraphs else find_sentences(corpus.paragraphs)
    tables = {split: build(table[table["split"] == split], split) for split in (TRAIN, VALIDATION)}
    return Task(
        name=name,
        train=_to_dataset(tables[TRAIN]),
        validation=_to_dataset(tables[VALIDATION]),
        label_names=label_names,
        objective="classification" if label_names else "causal_lm",
        metric="accuracy" if label_names else "token_accuracy",
        source=corpus.source,
    )


def build_topic(paragraphs: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return summaries with the index of their package in `TOPICS`, as many of each.

    Summaries that name their package are left out.

    Args:
        paragraphs: Rows of `Corpus.paragraphs` of one split.
        split: Which split that is.
    """
    per_class = NUM_EXAMPLES[split] // len(TOPICS)
    summaries = paragraphs[
        (paragraphs["position"] == 0) & (paragraphs["text"].str.len() <= _MAX_TOPIC_CHARACTERS)
    ]
    parts = []
    for label, package in enumerate(TOPICS):
        rows = summaries[summaries["package"] == package]
        rows = rows[~rows["text"].str.lower().str.contains(package, regex=False)]
        rows = _draw(rows, per_class, salt="topic", what=f"summaries of {package}")
        parts.append(rows[[_DOC, TEXT]].assign(**{LABEL: label}))
    return _shuffled(pd.concat(parts), salt="topic order")


def build_pair(sentences: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return pairs of sentences: label 1 if both are from one docstring, 0 if not.

    In half of the negatives the second sentence is from another docstring of the same package, in
    the other half from another package. No docstring gives more than one pair of sentences.

    Args:
        sentences: Rows of `find_sentences` of one split.
        split: Which split that is.
    """
    count = NUM_EXAMPLES[split]
    sentences = sentences[sentences["package"].isin(TOPICS)]
    sentences = _shuffled(sentences.groupby(_DOC).head(_MAX_SENTENCES_APART), salt="pair")
    place = sentences.groupby(_DOC).cumcount()
    seconds = sentences[place == 1].set_index(_DOC)[TEXT].rename(TEXT_PAIR)
    table = _shuffled(sentences[place == 0].join(seconds, on=_DOC, how="inner"), salt="pairs")
    table = table.groupby("package").head(_MAX_PAIRS_PER_PACKAGE[split])
    table = _draw(table, count, salt="pairs", what="docstrings with two sentences")
    positives, negatives = table.iloc[: count // 2], table.iloc[count // 2 :]
    near, far = negatives.iloc[: count // 4], negatives.iloc[count // 4 :]
    parts = [
        positives.assign(**{LABEL: 1}),
        _trade_within_packages(near).assign(**{LABEL: 0}),
        _trade_across_packages(far).assign(**{LABEL: 0}),
    ]
    return _shuffled(pd.concat(parts), salt="pair order")[[_DOC, TEXT, TEXT_PAIR, LABEL]]


def build_order(sentences: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return sentences: label 1 if intact, 0 if `NUM_SWAPS` pairs of words traded places.

    Intact and corrupted sentences are different ones, at most one from a docstring. The first and
    the last word, which capital and full stop give away, stay where they are.

    Args:
        sentences: Rows of `find_sentences` of one split.
        split: Which split that is.
    """
    count = NUM_EXAMPLES[split]
    sentences = sentences[sentences[TEXT].map(_swappable_words) >= 2 * NUM_SWAPS + 2]
    sentences = _shuffled(sentences, salt="order").drop_duplicates(_DOC)
    table = _draw(sentences, count, salt="order", what="sentences")
    intact, broken = table.iloc[: count // 2], table.iloc[count // 2 :]
    parts = [
        intact.assign(**{LABEL: 1}),
        broken.assign(**{TEXT: broken[TEXT].map(swap_words), LABEL: 0}),
    ]
    return _shuffled(pd.concat(parts), salt="order order")[[_DOC, TEXT, LABEL]]


def build_text(paragraphs: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return summaries of docstrings, of all packages, each the text of an example.

    Args:
        paragraphs: Rows of `Corpus.paragraphs` of one split.
        split: Which split that is.
    """
    length = paragraphs["text"].str.len()
    summaries = paragraphs[(paragraphs["position"] == 0) & length.between(*_TEXT_CHARACTERS)]
    table = _draw(summaries, NUM_EXAMPLES[split], salt="text", what="summaries")
    return table[[_DOC, TEXT]].assign(**{LABEL: 0})


def find_sentences(paragraphs: pd.DataFrame) -> pd.DataFrame:
    """Return the plain English sentences of paragraphs: `doc`, `package`, `split`, `text`.

    A sentence that (nearly) occurs twice, be it in both splits, is left out.

    Args:
        paragraphs: `Corpus.paragraphs`, all of them.
    """
    columns = [paragraphs[name].tolist() for name in (_DOC, "package", "split", TEXT)]
    rows = [
        (doc, package, split, sentence)
        for doc, package, split, text in zip(*columns, strict=True)
        for sentence in _SENTENCE_END.split(text)
        if len(sentence) <= _MAX_SENTENCE_CHARACTERS
        and sentence.count(" ") >= 4
        and _SENTENCE.fullmatch(sentence)
    ]
    table = pd.DataFrame(rows, columns=[_DOC, "package", "split", TEXT])
    return table[~table[TEXT].map(normalize).duplicated(keep=False)]


def swap_words(sentence: str) -> str:
    """Return `sentence` with `NUM_SWAPS` pairs of inner words traded, drawn by the text's hash."""
    rng = random.Random(stable_hash("swap:" + sentence))
    words = sentence.split(" ")
    places = list(range(1, len(words) - 1))
    for _ in range(NUM_SWAPS):
        one = rng.choice(places)
        others = [place for place in places if words[place].lower() != words[one].lower()]
        other = rng.choice(others)
        words[one], words[other] = words[other], words[one]
        places = [place for place in places if place not in (one, other)]
    return " ".join(words)


def _swappable_words(sentence: str) -> int:
    return len({word.lower() for word in sentence.split(" ")[1:-1]})


def _trade_within_packages(table: pd.DataFrame) -> pd.DataFrame:
    """Give every first sentence the second one of another docstring of its package."""
    parts = []
    for _, rows in table.groupby("package", sort=True):
        assert len(rows) > 1
        parts.append(rows.assign(**{TEXT_PAIR: _rotated(rows[TEXT_PAIR].tolist(), 1)}))
    return pd.concat(parts)


def _trade_across_packages(table: pd.DataFrame) -> pd.DataFrame:
    """Give every first sentence the second one of a docstring of another package."""
    rows = table.sort_values(["package", _DOC])
    # Moved by the size of the largest package, nobody lands in their own.
    largest = int(rows["package"].value_counts().max())
    assert 2 * largest <= len(rows)
    return rows.assign(**{TEXT_PAIR: _rotated(rows[TEXT_PAIR].tolist(), largest)})


def _rotated(values: list[str], by: int) -> list[str]:
    return values[by:] + values[:by]


def _shuffled(table: pd.DataFrame, *, salt: str) -> pd.DataFrame:
    keys = [stable_hash(f"{salt}:{text}") for text in table[TEXT]]
    return table.assign(_key=keys).sort_values("_key", kind="stable").drop(columns="_key")


def _draw(table: pd.DataFrame, count: int, *, salt: str, what: str) -> pd.DataFrame:
    if len(table) < count:
        raise ValueError(
            f"`{what}` must be at least {count} in the pydoc corpus, got {len(table)}."
        )
    return _shuffled(table, salt=salt).head(count)


def _to_dataset(table: pd.DataFrame) -> Dataset:
    columns = [name for name in (TEXT, TEXT_PAIR, LABEL) if name in table.columns]
    return Dataset.from_dict({name: table[name].tolist() for name in columns})


_Builder = Callable[[pd.DataFrame, str], pd.DataFrame]
_TASKS: dict[str, tuple[_Builder, tuple[str, ...]]] = {
    "pydoc_topic": (build_topic, TOPICS),
    "pydoc_pair": (build_pair, ("different", "same")),
    "pydoc_order": (build_order, ("swapped", "intact")),
    "pydoc_text": (build_text, ()),
}
