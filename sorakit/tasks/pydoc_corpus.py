"""English paragraphs from the docstrings of packages that sorakit depends on anyway."""

import ast
import gc
import hashlib
import importlib.metadata
import importlib.util
import inspect
import logging
import os
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sorakit.tasks.cache import cache_dir, new_file

logger = logging.getLogger(__name__)

STANDARD_LIBRARY = "python"
PACKAGES = (
    STANDARD_LIBRARY,
    "numpy",
    "scipy",
    "pandas",
    "torch",
    "transformers",
    "sympy",
    "networkx",
    "torchmetrics",
    "wandb",
    "lightning",
    "huggingface_hub",
    "peft",
    "datasets",
    "accelerate",
    "pydantic",
    "mpmath",
    "rich",
    "fsspec",
    "aiohttp",
    "jsonargparse",
)
TRAIN, VALIDATION = "train", "validation"
VALIDATION_PERCENT = 15

_FORMAT = 1  # raise when reading or splitting changes, so that no older cache file is taken
_FINGERPRINT_KEY = b"sorakit_fingerprint"
_SKIPPED_FOLDERS = frozenset(
    {"tests", "test", "site-packages", "dist-packages", "__pycache__", "idlelib", "lib2to3"}
    | {"_vendor", "vendor", "_vendored_packages"}
)
_MAX_CHARACTERS = 1000
_MIN_WORDS = 3
_MIN_LETTERS = 0.6
_NOT_PROSE = re.compile(r"^(>>>|\.\. |```|@|\|)")
_UNDERLINE = re.compile(r"^\s*[-=~^*`]{3,}\s*$", re.MULTILINE)
_NOT_LETTERS = re.compile(r"[^a-z]+")


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Docstring paragraphs, no two of them alike up to case, digits and punctuation.

    Attributes:
        paragraphs: One row a paragraph: `doc` (number of its docstring), `package`, `split`
            (`train` or `validation`, the same for a whole docstring), `position` (0 is the summary)
            and `text` (one line).
        versions: Package name to version, in the order of `PACKAGES`.
        fingerprint: SHA-256 over the sorted texts.
    """

    paragraphs: pd.DataFrame
    versions: dict[str, str]
    fingerprint: str

    @property
    def source(self) -> str:
        """One line that says what the corpus was read from."""
        packages = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return f"pydoc corpus of {packages}; sha256 {self.fingerprint}"


def normalize(text: str) -> str:
    """Return the letters of `text` in lower case; near-identical texts have the same ones."""
    return _NOT_LETTERS.sub("", text.lower())


def stable_hash(text: str) -> int:
    """Return a number that depends on `text` alone, on every machine and in every process."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:8], "big")


def split_of(summary: str) -> str:
    """Return the split of the docstring that begins with `summary`.

    Near-identical summaries go to the same side.
    """
    percent = stable_hash("split:" + normalize(summary)) % 100
    return VALIDATION if percent < VALIDATION_PERCENT else TRAIN


def load_corpus() -> Corpus:
    """Return the corpus of the installed package versions, from the cache if it holds them.

    Reading the packages takes about half a minute; a damaged cache file is read anew.
    """
    versions = installed_versions()
    key = hashlib.sha256(repr((_FORMAT, versions)).encode()).hexdigest()[:16]
    path = cache_dir() / f"pydoc-{key}.parquet"
    corpus = _read_cache(path, versions) if path.exists() else None
    if corpus is None:
        logger.info("Reading the docstrings of %d packages", len(versions))
        paragraphs = build_paragraphs(
            (name, text) for name in PACKAGES for text in read_docstrings(name)
        )
        corpus = Corpus(
            paragraphs=paragraphs, versions=versions, fingerprint=_fingerprint(paragraphs)
        )
        _write_cache(path, corpus)
    return corpus


@cache
def installed_versions() -> dict[str, str]:
    """Return the versions of the packages that the corpus is read from, Python's first."""
    return {
        name: platform.python_version()
        if name == STANDARD_LIBRARY
        else importlib.metadata.version(name)
        for name in PACKAGES
    }


def read_docstrings(package: str) -> Iterator[str]:
    """Yield every docstring of an installed package; its files are parsed, never imported."""
    for path in sorted(_source_files(package)):
        yield from _docstrings_of_file(path)


def build_paragraphs(docstrings: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """Return the table of `Corpus.paragraphs`.

    Docstrings are taken in the order of their hash, so that neither the order of files nor that of
    packages decides which of two near-identical paragraphs stays.

    Args:
        docstrings: Pairs of package and docstring.
    """
    ordered = sorted(set(docstrings), key=lambda pair: (stable_hash(pair[1]), pair[0]))
    seen: set[str] = set()
    rows: list[tuple[int, str, str, int, str]] = []
    for doc, (package, docstring) in enumerate(ordered):
        blocks = _blocks(docstring)
        if not blocks:
            continue
        split = split_of(blocks[0])
        for position, text in enumerate(blocks):
            key = normalize(text)
            if _is_english(text) and key not in seen:
                seen.add(key)
                rows.append((doc, package, split, position, text))
    return pd.DataFrame(rows, columns=["doc", "package", "split", "position", "text"])


def _blocks(docstring: str) -> list[str]:
    text = _UNDERLINE.sub("", inspect.cleandoc(docstring))
    return [" ".join(block.split())[:_MAX_CHARACTERS] for block in re.split(r"\n\s*\n", text)]


def _is_english(text: str) -> bool:
    if _NOT_PROSE.match(text) or len(text.split()) < _MIN_WORDS:
        return False
    letters = sum(character.isascii() and character.isalpha() for character in text)
    return letters >= _MIN_LETTERS * len(text)


def _package_folders(package: str) -> list[Path]:
    if package == STANDARD_LIBRARY:
        return [Path(sysconfig.get_path("stdlib"))]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"`{package}` must be installed to build the pydoc corpus, got no such package. "
            "Install sorakit with its dependencies."
        )
    return [Path(folder) for folder in spec.submodule_search_locations]


def _source_files(package: str) -> Iterator[Path]:
    for root in _package_folders(package):
        for folder, subfolders, names in os.walk(root):
            subfolders[:] = [name for name in subfolders if name not in _SKIPPED_FOLDERS]
            yield from (Path(folder, name) for name in names if name.endswith(".py"))


def _docstrings_of_file(path: Path) -> list[str]:
    collects = gc.isenabled()
    gc.disable()  # a third of the parsing time is the collector walking syntax trees
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's escapes and literals
            tree = ast.parse(path.read_bytes())
        return list(_docstrings_of_node(tree))
    except (SyntaxError, ValueError):  # templates and files for other Python versions
        logger.debug("No Python of this version: %s", path)
        return []
    finally:
        if collects:
            gc.enable()


def _docstrings_of_node(node: ast.AST) -> Iterator[str]:
    # Only statement bodies are searched: definitions never sit inside expressions.
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        docstring = ast.get_docstring(node, clean=False)
        if docstring:
            yield docstring
    for child in getattr(node, "body", ()):
        if isinstance(
            child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.If | ast.Try
        ):
            yield from _docstrings_of_node(child)


def _fingerprint(paragraphs: pd.DataFrame) -> str:
    texts = "\n".join(sorted(paragraphs["text"]))
    return hashlib.sha256(texts.encode("utf-8", "replace")).hexdigest()


def _write_cache(path: Path, corpus: Corpus) -> None:
    table = pa.Table.from_pandas(corpus.paragraphs, preserve_index=False)
    metadata = {**(table.schema.metadata or {}), _FINGERPRINT_KEY: corpus.fingerprint.encode()}
    with new_file(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary)


def _read_cache(path: Path, versions: dict[str, str]) -> Corpus | None:
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        logger.warning("Building the pydoc corpus anew, %s is damaged: %s", path, error)
        return None
    paragraphs = table.to_pandas()
    fingerprint = _fingerprint(paragraphs)
    if (table.schema.metadata or {}).get(_FINGERPRINT_KEY, b"").decode() != fingerprint:
        logger.warning("Building the pydoc corpus anew, %s does not match its fingerprint", path)
        return None
    return Corpus(paragraphs=paragraphs, versions=versions, fingerprint=fingerprint)
