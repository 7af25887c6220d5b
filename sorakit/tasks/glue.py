"""GLUE from the Hugging Face Hub, a folder of parquet files, or the official TSV tree."""

import csv
import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, load_dataset

from sorakit.config import TaskConfig, TaskMetric
from sorakit.metric_names import LABEL, TEXT, TEXT_PAIR
from sorakit.quoting import cut, listed, quoted
from sorakit.tasks.base import Task

logger = logging.getLogger(__name__)

HUB_ID = "nyu-mll/glue"
SORA_SPLIT_SEED = 42
SORA_VALIDATION_EXAMPLES = 1000
STSB_RANGE = (0.0, 5.0)


@dataclass(frozen=True, kw_only=True)
class GlueSpec:
    """How one GLUE task is stored and scored.

    Attributes:
        folder: Folder of the task in the official tree; also matched as `sst2`, `sst-2`, ...
        hub_config: Configuration of `nyu-mll/glue`.
        hub_texts: Text columns on the Hub and in parquet files, where the label is `label`.
        tsv_texts: Text columns in the official TSV files.
        tsv_label: Label column in the official TSV files.
        tsv_header: Column names of a TSV without a header line.
        label_names: Class names in the order of `nyu-mll/glue`; empty for a regression.
        validation: Name of the held-out split on the Hub.
        metric: Score of the SoRA paper.
        extra_metrics: Further scores of the GLUE benchmark.
        halves_validation: Whether the `sora` protocol halves the official validation split.
        drops_incomplete_rows: Whether rows that lack a field or the label are left out, as on the
            Hub.
    """

    folder: str
    hub_config: str
    hub_texts: tuple[str, ...]
    tsv_texts: tuple[str, ...]
    label_names: tuple[str, ...]
    halves_validation: bool
    tsv_label: str = "label"
    tsv_header: tuple[str, ...] | None = None
    validation: str = "validation"
    metric: TaskMetric = "accuracy"
    extra_metrics: tuple[TaskMetric, ...] = ()
    drops_incomplete_rows: bool = False


_SENTENCES = ("sentence1", "sentence2")


def _mnli(validation: str) -> GlueSpec:
    return GlueSpec(
        folder="MNLI",
        hub_config="mnli",
        hub_texts=("premise", "hypothesis"),
        tsv_texts=_SENTENCES,
        tsv_label="gold_label",
        label_names=("entailment", "neutral", "contradiction"),
        validation=validation,
        halves_validation=True,
    )


GLUE = {
    "cola": GlueSpec(
        folder="CoLA",
        hub_config="cola",
        hub_texts=("sentence",),
        tsv_texts=("sentence",),
        tsv_header=("source", "label", "mark", "sentence"),
        label_names=("unacceptable", "acceptable"),
        metric="matthews_correlation",
        halves_validation=True,
    ),
    "sst2": GlueSpec(
        folder="SST-2",
        hub_config="sst2",
        hub_texts=("sentence",),
        tsv_texts=("sentence",),
        label_names=("negative", "positive"),
        halves_validation=False,
    ),
    "mrpc": GlueSpec(
        folder="MRPC",
        hub_config="mrpc",
        hub_texts=_SENTENCES,
        tsv_texts=("#1 String", "#2 String"),
        tsv_label="Quality",
        label_names=("not_equivalent", "equivalent"),
        extra_metrics=("f1",),
        halves_validation=True,
    ),
    "qqp": GlueSpec(
        folder="QQP",
        hub_config="qqp",
        hub_texts=("question1", "question2"),
        tsv_texts=("question1", "question2"),
        tsv_label="is_duplicate",
        label_names=("not_duplicate", "duplicate"),
        extra_metrics=("f1",),
        halves_validation=False,
        drops_incomplete_rows=True,
    ),
    "stsb": GlueSpec(
        folder="STS-B",
        hub_config="stsb",
        hub_texts=_SENTENCES,
        tsv_texts=_SENTENCES,
        tsv_label="score",
        label_names=(),
        metric="pearson",
        extra_metrics=("spearman",),
        halves_validation=True,
    ),
    "mnli": _mnli("validation_matched"),
    "mnli_mismatched": _mnli("validation_mismatched"),
    "qnli": GlueSpec(
        folder="QNLI",
        hub_config="qnli",
        hub_texts=("question", "sentence"),
        tsv_texts=("question", "sentence"),
        label_names=("entailment", "not_entailment"),
        halves_validation=False,
    ),
    "rte": GlueSpec(
        folder="RTE",
        hub_config="rte",
        hub_texts=_SENTENCES,
        tsv_texts=_SENTENCES,
        label_names=("entailment", "not_entailment"),
        halves_validation=True,
    ),
    "wnli": GlueSpec(
        folder="WNLI",
        hub_config="wnli",
        hub_texts=_SENTENCES,
        tsv_texts=_SENTENCES,
        label_names=("not_entailment", "entailment"),
        halves_validation=True,
    ),
}


def load_glue(config: TaskConfig) -> Task:
    """Return one GLUE task with the columns `text`, `text_pair` (pairs) and `label`.

    A local `data_dir` is either the task's own folder or a parent with one folder per task, in
    parquet or as the official TSV tree; the Hub is asked only when `data_dir` is null.

    The `sora` protocol has the sizes of the SoRA authors' release: cola, wnli, rte, mrpc, stsb and
    mnli halve the official validation split into validation and test; qqp, qnli and sst2 take 1,000
    training examples as validation and the official validation split as test. The permutation is
    seeded with 42 as theirs is, but drawn by `numpy.random.default_rng`, so which example falls
    where differs from the release, whose code carries no licence and is not copied.

    Args:
        config: `name`, `data_dir` and `split_protocol` are read.

    Returns:
        The task, in memory; `test` is set under the `sora` protocol only.

    Raises:
        ValueError: If data is missing or malformed. Rows are counted from 0, without a header line.
    """
    spec = GLUE[config.name]
    if config.data_dir is None:
        train, validation = _read_hub(spec, name=config.name)
        source = f"Hugging Face Hub: {HUB_ID}, {spec.hub_config}, {spec.validation}"
    else:
        folder = find_task_folder(Path(config.data_dir).expanduser(), name=config.name)
        train, train_files = _read_split(folder, "train", spec, name=config.name)
        validation, validation_files = _read_split(folder, spec.validation, spec, name=config.name)
        source = "local files: " + ", ".join(
            file.name for file in (*train_files, *validation_files)
        )
    test = None
    if config.split_protocol == "sora":
        train, validation, test = _split_like_sora(train, validation, spec, name=config.name)
    return Task(
        name=config.name,
        train=Dataset(train),
        validation=Dataset(validation),
        test=None if test is None else Dataset(test),
        label_names=spec.label_names,
        objective="classification" if spec.label_names else "regression",
        metric=spec.metric,
        extra_metrics=spec.extra_metrics,
        source=source,
    )


def _split_like_sora(
    train: pa.Table, validation: pa.Table, spec: GlueSpec, *, name: str
) -> tuple[pa.Table, pa.Table, pa.Table]:
    generator = np.random.default_rng(SORA_SPLIT_SEED)
    if spec.halves_validation:
        order = generator.permutation(len(validation))
        half = len(validation) // 2
        return train, validation.take(order[:half]), validation.take(order[half:])
    if len(train) <= SORA_VALIDATION_EXAMPLES:
        raise ValueError(
            f"`task.split_protocol` must be official when {name} has at most "
            f"{SORA_VALIDATION_EXAMPLES} training examples, got sora with {len(train)}."
        )
    order = generator.permutation(len(train))
    rest = np.sort(order[SORA_VALIDATION_EXAMPLES:])
    return train.take(rest), train.take(order[:SORA_VALIDATION_EXAMPLES]), validation


# Reading from the Hub and from parquet -------------------------------------------------------


def _read_hub(spec: GlueSpec, *, name: str) -> tuple[pa.Table, pa.Table]:
    try:
        train, validation = load_dataset(HUB_ID, spec.hub_config, split=["train", spec.validation])
    except ConnectionError as error:
        raise ValueError(
            f"`task.data_dir` must name a local folder of {name} when the Hugging Face Hub cannot "
            "be reached, got null. Copy the GLUE files there, or check the connection "
            f"({cut(str(error), 300)})."
        ) from error
    train, validation = (
        _check(
            split.with_format("arrow")[:],
            spec,
            texts=spec.hub_texts,
            label=LABEL,
            file=f"{HUB_ID} {spec.hub_config}",
        )
        for split in (train, validation)
    )
    return train, validation


def _read_parquet(file: Path, columns: Sequence[str]) -> pa.Table:
    try:
        with pq.ParquetFile(file) as content:
            known = [name for name in columns if name in content.schema_arrow.names]
            # where one is missing, the columns that are there are named
            return content.read(columns=known if len(known) == len(columns) else None)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(
            f"`task.data_dir`: {file} must be a parquet file, got one that cannot be read "
            f"({cut(str(error), 300)})."
        ) from error


# Finding files -------------------------------------------------------------------------------


def _plain(name: str) -> str:
    return re.sub(r"[-_ ]", "", name).lower()


def find_task_folder(data_dir: Path, *, name: str) -> Path:
    """Return the folder of a task: `data_dir`, or the one in it that has the task's name.

    Raises:
        ValueError: If there is no such folder, or it is another task's.
    """
    if not data_dir.is_dir():
        raise ValueError(
            f"`task.data_dir` must be an existing folder, got '{data_dir}'. "
            f"Put the files of {name} there, or set it to null to read {HUB_ID} from the Hub."
        )
    wanted = _plain(GLUE[name].folder)
    for folder in sorted(data_dir.iterdir()):
        if folder.is_dir() and _plain(folder.name) == wanted:
            return folder
    folder_name = _plain(data_dir.resolve().name)
    if folder_name != wanted and folder_name in {_plain(spec.folder) for spec in GLUE.values()}:
        raise ValueError(
            f"`task.data_dir` must hold {name}, got '{data_dir}', which by its name is another "
            "GLUE task. Give the folder of the task, or its parent."
        )
    return data_dir


def _read_split(
    folder: Path, split: str, spec: GlueSpec, *, name: str
) -> tuple[pa.Table, list[Path]]:
    """Return the checked table of one split and the files that it came from."""
    parquet = folder / f"{split}.parquet"
    files = [parquet] if parquet.is_file() else _find_shards(folder, split)
    if files:
        tables = [
            _check(
                _read_parquet(file, (*spec.hub_texts, LABEL)),
                spec,
                texts=spec.hub_texts,
                label=LABEL,
                file=file.name,
            )
            for file in files
        ]
        return pa.concat_tables(tables).combine_chunks(), files
    tsv = folder / f"{split.replace('validation', 'dev')}.tsv"
    if tsv.is_file():
        return _check_tsv(_read_tsv(tsv, spec), spec, file=tsv), [tsv]
    paraphrases = folder / "msr_paraphrase_train.txt"
    if name == "mrpc" and paraphrases.is_file():
        return _read_paraphrases(paraphrases, split, spec)
    raise ValueError(
        f"`task.data_dir` must hold {parquet.name}, {split}-*-of-*.parquet or {tsv.name} of "
        f"{name}, got '{folder}' with {_list_folder(folder)}."
    )


def _find_shards(folder: Path, split: str) -> list[Path]:
    """Return the files of the Hub's mirror layout, `train-00000-of-00002.parquet` and so on."""
    shards = sorted(folder.glob(f"{split}-[0-9]*-of-[0-9]*.parquet"))
    if shards:
        expected = int(shards[0].stem.rpartition("-")[2])
        if len(shards) != expected:
            raise ValueError(
                f"`task.data_dir` must hold all {expected} files {split}-*-of-*.parquet, "
                f"got {len(shards)} in '{folder}'."
            )
    return shards


def _list_folder(folder: Path, limit: int = 12) -> str:
    names = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in folder.iterdir())
    if not names:
        return "nothing in it"
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


# Reading the official TSV tree ---------------------------------------------------------------


def _read_tsv(file: Path, spec: GlueSpec, *, header: Sequence[str] | None = None) -> pa.Table:
    """Return every field of a TSV as text; quotes are ordinary characters there."""
    header = spec.tsv_header if header is None else header
    try:
        # utf-8-sig: msr_paraphrase_train.txt starts with a byte order mark
        with file.open(encoding="utf-8-sig") as lines:
            rows = [row for row in csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"`task.data_dir`: {file} must be UTF-8 text with tabs, got a file that cannot be read "
            f"({cut(str(error), 300)})."
        ) from error
    if header is None:
        header, rows = (rows[0], rows[1:]) if rows else ((), [])
    complete = []
    for index, row in enumerate(rows):
        if len(row) == len(header):
            complete.append(row)
        elif len(row) > len(header) or not spec.drops_incomplete_rows:
            raise ValueError(
                f"`task.data_dir`: row {index} of {file.name} must have {len(header)} fields "
                f"({', '.join(header)}), got {len(row)}."
            )
    if spec.drops_incomplete_rows and spec.tsv_label in header:
        label = header.index(spec.tsv_label)
        complete = [row for row in complete if row[label]]
        if len(complete) < len(rows):
            logger.warning(
                "%s: left out %d of %d rows that lack fields, as nyu-mll/glue does.",
                file.name,
                len(rows) - len(complete),
                len(rows),
            )
    columns = zip(*complete, strict=True) if complete else ((),) * len(header)
    return pa.table({name: list(column) for name, column in zip(header, columns, strict=True)})


def _check_tsv(table: pa.Table, spec: GlueSpec, *, file: Path) -> pa.Table:
    return _check(table, spec, texts=spec.tsv_texts, label=spec.tsv_label, file=file.name)


def _read_paraphrases(file: Path, split: str, spec: GlueSpec) -> tuple[pa.Table, list[Path]]:
    """Return one split of MRPC as Microsoft ships it: dev_ids.tsv names the held-out pairs."""
    candidates = [file.with_name("dev_ids.tsv"), file.with_name("mrpc_dev_ids.tsv")]
    dev_ids = next((candidate for candidate in candidates if candidate.is_file()), None)
    if dev_ids is None:
        raise ValueError(
            f"`task.data_dir` must hold dev_ids.tsv beside {file.name}, got '{file.parent}' with "
            f"{_list_folder(file.parent)}. Without it the held-out pairs are unknown."
        )
    pairs = _read_tsv(file, spec)
    table = _check_tsv(pairs, spec, file=file)
    _require_columns(pairs, ("#1 ID", "#2 ID"), file=file.name)
    held_out = _read_tsv(dev_ids, spec, header=("first", "second"))
    held_out_ids = set(zip(*(column.to_pylist() for column in held_out.columns), strict=True))
    ids = zip(pairs["#1 ID"].to_pylist(), pairs["#2 ID"].to_pylist(), strict=True)
    is_train = split == "train"
    table = table.filter(pa.array([(pair in held_out_ids) != is_train for pair in ids]))
    if len(table) == 0:
        raise ValueError(
            f"`task.data_dir`: {dev_ids.name} must leave some pairs of {file.name} to each split, "
            f"got none for {split}."
        )
    return table, [file, dev_ids]


# Checking ------------------------------------------------------------------------------------


def _require_columns(table: pa.Table, columns: Sequence[str], *, file: str) -> None:
    if not set(columns) <= set(table.column_names):
        raise ValueError(
            f"`task.data_dir`: {file} must have the columns {', '.join(columns)}, "
            f"got {listed(table.column_names)}."
        )


def _check(
    table: pa.Table, spec: GlueSpec, *, texts: Sequence[str], label: str, file: str
) -> pa.Table:
    """Return the table with exactly the task's columns, every text and every label checked."""
    _require_columns(table, (*texts, label), file=file)
    if len(table) == 0:
        raise ValueError(f"`task.data_dir`: {file} must hold at least one example, got none.")
    columns = {}
    for output, column in zip((TEXT, TEXT_PAIR), texts, strict=False):
        if table[column].type == pa.string() and table[column].null_count == 0:
            columns[output] = table[column]
            continue
        values = table[column].to_pylist()
        for row, value in enumerate(values):
            if not isinstance(value, str):
                raise ValueError(  # noqa: TRY004 - what a user's file holds, not a wrong call
                    f"`task.data_dir`: '{column}' in row {row} of {file} must be a text, "
                    f"got {quoted(value)}."
                )
        columns[output] = pa.array(values, pa.string())
    labels = table[label].to_pylist()
    if spec.label_names:
        parsed = [
            _parse_class(value, spec.label_names, row=row, file=file)
            for row, value in enumerate(labels)
        ]
        columns[LABEL] = pa.array(parsed, pa.int64())
    else:
        parsed = [_parse_score(value, row=row, file=file) for row, value in enumerate(labels)]
        columns[LABEL] = pa.array(parsed, pa.float64())
    return pa.table(columns)


def _parse_class(value: object, label_names: tuple[str, ...], *, row: int, file: str) -> int:
    if value in label_names:
        return label_names.index(str(value))
    try:
        label = int(str(value))
    except ValueError:
        label = -1
    if not 0 <= label < len(label_names):
        raise ValueError(
            f"`task.data_dir`: label {quoted(value)} in row {row} of {file} must "
            f"be one of 0..{len(label_names) - 1} ({', '.join(label_names)})."
        )
    return label


def _parse_score(value: object, *, row: int, file: str) -> float:
    try:
        score = float(str(value))
    except ValueError:
        score = math.nan
    low, high = STSB_RANGE
    if not low <= score <= high:
        raise ValueError(
            f"`task.data_dir`: score {quoted(value)} in row {row} of {file} must be a number in "
            f"[{low:g}, {high:g}]."
        )
    return score
