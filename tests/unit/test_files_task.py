import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sorakit.config import TaskConfig
from sorakit.tasks import load_task
from sorakit.tasks.files import load_files

TRAIN = {"text": ["one", "two", "three"], "label": ["b", "a", "b"]}
VALIDATION = {"text": ["four"], "label": ["a"]}


def write(file: Path, columns: dict) -> None:
    table = pd.DataFrame(columns)
    match file.suffix:
        case ".csv":
            table.to_csv(file, index=False)
        case ".tsv":
            table.to_csv(file, sep="\t", index=False)
        case ".json":
            table.to_json(file, orient="records")
        case ".jsonl":
            table.to_json(file, orient="records", lines=True)
        case ".parquet":
            table.to_parquet(file, index=False)


def config_of(folder: Path, *, suffix: str = ".csv", **keys) -> TaskConfig:
    defaults: dict[str, Any] = {
        "data_dir": str(folder),
        "train_file": f"train{suffix}",
        "validation_file": f"dev{suffix}",
    }
    return TaskConfig(name="files", **(defaults | keys))


def load(folder: Path, train: dict, validation: dict, *, suffix: str = ".csv", **keys):
    write(folder / f"train{suffix}", train)
    write(folder / f"dev{suffix}", validation)
    return load_files(config_of(folder, suffix=suffix, **keys))


def error_of(folder: Path, train: dict, validation: dict, **keys) -> str:
    with pytest.raises(ValueError, match=r"^`task\..*[.?]$") as caught:
        load(folder, train, validation, **keys)
    return str(caught.value)


def test_without_a_held_out_file_a_tenth_is_held_out_by_class(tmp_path):
    rows = {"text": [f"t{i}" for i in range(200)], "label": ["a"] * 150 + ["b"] * 50}
    write(tmp_path / "train.csv", rows)
    with pytest.warns(UserWarning, match="has no held-out split: 10% of the training split is"):
        task = load_files(config_of(tmp_path, validation_file=None))
    held_out, train = task.validation["text"][:], task.train["text"][:]
    assert sorted(task.validation["label"][:]) == [0] * 15 + [1] * 5
    assert sorted([*held_out, *train]) == sorted(rows["text"])
    assert task.source == "local files: train.csv, 10% of the training split held out"


def test_too_few_examples_to_hold_some_out_are_refused(tmp_path):
    write(tmp_path / "train.csv", {"text": ["x", "y", "z"], "label": ["a", "b", "a"]})
    with pytest.raises(ValueError, match=r"^`task\.validation_file` must be set .* 3 examples\.$"):
        load_files(config_of(tmp_path, validation_file=None))


LINE = {
    ".csv": " (line 3)",
    ".tsv": " (line 3)",
    ".json": " (line 1)",  # pandas writes the list on one line
    ".jsonl": " (line 2)",
    ".parquet": "",
}
"""Where the second example stands in a file that `write` writes."""
SUFFIXES = [".csv", ".tsv", ".json", ".jsonl", ".parquet"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gives_the_same_training_examples(suffix, tmp_path):
    task = load(tmp_path, TRAIN, VALIDATION, suffix=suffix)
    assert task.train.to_list() == [
        {"text": "one", "label": 1},
        {"text": "two", "label": 0},
        {"text": "three", "label": 1},
    ]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gives_the_same_classes_from_integers(suffix, tmp_path):
    train = {"text": ["a", "b", "c"], "label": [10, 2, -1]}
    task = load(tmp_path, train, {"text": ["d"], "label": [10]}, suffix=suffix)
    assert (task.label_names, task.validation["label"][:]) == (("-1", "2", "10"), [2])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gives_the_same_numbers(suffix, tmp_path):
    train = {"text": ["a", "b"], "label": [0.5, 2.0]}
    task = load(tmp_path, train, {"text": ["c"], "label": [1.0]}, suffix=suffix, metric="pearson")
    assert (task.objective, task.train["label"][:]) == ("regression", [0.5, 2.0])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_words_that_pandas_takes_for_null_stay_texts(suffix, tmp_path):
    train = {"text": ["NA", "null"], "label": ["None", "nan"]}
    task = load(tmp_path, train, {"text": ["x"], "label": ["nan"]}, suffix=suffix)
    assert (task.train["text"][:], task.label_names) == (["NA", "null"], ("None", "nan"))


def test_formats_may_be_mixed(tmp_path):
    write(tmp_path / "train.parquet", {"text": ["a", "b"], "label": [0, 1]})
    write(tmp_path / "dev.csv", {"text": ["c"], "label": [1]})
    task = load_files(config_of(tmp_path, train_file="train.parquet"))
    assert task.validation["label"][:] == [1]


def test_json_file_may_hold_one_object_per_line(tmp_path):
    for name in ("train", "dev"):
        lines = [json.dumps({"text": text, "label": text}) for text in ("a", "b")]
        (tmp_path / f"{name}.json").write_text("\n".join(lines) + "\n")
    assert load_files(config_of(tmp_path, suffix=".json")).train["text"][:] == ["a", "b"]


def test_csv_fields_may_hold_commas_quotes_and_line_breaks(tmp_path):
    texts = ['He said "no", twice', "two\nlines"]
    task = load(tmp_path, {"text": texts, "label": [0, 1]}, {"text": ["a"], "label": [0]})
    assert task.train["text"][:] == texts


def test_quotes_in_tsv_are_ordinary_characters(tmp_path):
    (tmp_path / "train.tsv").write_text('text\tlabel\n"open\t0\nplain\t1\n')
    (tmp_path / "dev.tsv").write_text("text\tlabel\nplain\t1\n")
    task = load_files(config_of(tmp_path, suffix=".tsv"))
    assert task.train["text"][:] == ['"open', "plain"]


def test_pairs_come_from_their_own_columns(tmp_path):
    train = {"a": ["x", "y"], "b": ["u", "v"], "gold": [0, 1], "other": [5, 6]}
    task = load(tmp_path, train, train, text_column="a", text_pair_column="b", label_column="gold")
    assert task.train.to_list() == [
        {"text": "x", "text_pair": "u", "label": 0},
        {"text": "y", "text_pair": "v", "label": 1},
    ]


def test_paths_start_at_the_working_folder_without_data_dir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(load(tmp_path, TRAIN, VALIDATION, data_dir=None).train) == 3


def test_paths_may_be_absolute(tmp_path):
    keys = {"train_file": str(tmp_path / "train.csv"), "validation_file": str(tmp_path / "dev.csv")}
    assert len(load(tmp_path, TRAIN, VALIDATION, data_dir="elsewhere", **keys).train) == 3


def test_metric_is_accuracy_unless_named(tmp_path):
    assert load(tmp_path, TRAIN, VALIDATION).metric == "accuracy"


def test_metric_is_taken_over(tmp_path):
    assert load(tmp_path, TRAIN, VALIDATION, metric="f1").metric == "f1"


def test_source_names_the_files_but_not_the_folder(tmp_path):
    assert load(tmp_path, TRAIN, VALIDATION).source == "local files: train.csv, dev.csv"


def test_load_task_reads_files(tmp_path):
    write(tmp_path / "train.csv", TRAIN)
    write(tmp_path / "dev.csv", VALIDATION)
    task = load_task(config_of(tmp_path), seed=0)
    assert task.train["is_noisy"][:] == [False, False, False]


# Errors


def test_file_must_be_named():
    with pytest.raises(
        ValueError,
        match=r"^`task\.train_file` must name a file when `task\.name` is files, got null\.$",
    ):
        load_files(TaskConfig(name="files"))


def test_missing_file_is_an_error(tmp_path):
    write(tmp_path / "train.csv", TRAIN)
    with pytest.raises(ValueError, match=r"^`task\.validation_file`") as caught:
        load_files(config_of(tmp_path))
    assert str(caught.value) == (
        f"`task.validation_file` must be an existing file, got '{tmp_path / 'dev.csv'}'. "
        "Relative names start at `task.data_dir`, or at the working folder if that is null."
    )


def test_unknown_suffix_is_an_error(tmp_path):
    with pytest.raises(
        ValueError,
        match=(
            r"^`task\.train_file` must end in one of \.csv, \.tsv, \.json, \.jsonl, \.parquet, "
            r"got 'train\.txt'\.$"
        ),
    ):
        load_files(config_of(tmp_path, suffix=".txt"))


@pytest.mark.parametrize(
    ("key", "column"),
    [
        ("text_column", "body"),
        ("text_pair_column", "second"),
        ("label_column", "gold"),
    ],
)
def test_missing_column_lists_the_columns(key, column, tmp_path):
    assert error_of(tmp_path, TRAIN, VALIDATION, **{key: column}) == (
        f"`task.{key}` must be a column of train.csv (text, label), got '{column}'. "
        "Name one of them."
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_column_that_is_nearly_right_is_asked_about(suffix, tmp_path):
    train = {"Review text": ["one", "two"], "sentiment": ["a", "b"]}
    keys = {"text_column": "review_text", "label_column": "sentimet", "suffix": suffix}
    assert error_of(tmp_path, train, train, **keys).startswith(
        f"`task.text_column` must be a column of train{suffix} (Review text, sentiment), got "
        "'review_text'. "
    )
    keys["text_column"] = "Review text"
    assert error_of(tmp_path, train, train, **keys).endswith(" Did you mean `sentiment`?")


def test_a_file_without_a_header_is_told_so(tmp_path):
    (tmp_path / "train.csv").write_text("It was a good film and I liked it.,1\nAwful.,0\n")
    with pytest.raises(ValueError, match="seems to be an example; it must be a header") as caught:
        load_files(config_of(tmp_path, validation_file="train.csv"))
    assert str(caught.value).startswith("`task.text_column` must be a column of train.csv (It was")


def test_a_missing_folder_is_named_itself(tmp_path):
    with pytest.raises(
        ValueError, match=r"^`task\.data_dir` must be an existing folder, got '.*'\.$"
    ):
        load_files(config_of(tmp_path / "no" / "such"))


def test_a_file_name_that_is_nearly_right_is_asked_about(tmp_path):
    write(tmp_path / "reviews_train.csv", TRAIN)
    with pytest.raises(ValueError, match=r" Did you mean `reviews_train\.csv`\?$"):
        load_files(config_of(tmp_path, train_file="review_train.csv"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_empty_file_is_an_error(suffix, tmp_path):
    nothing = {"text": [], "label": []}
    assert error_of(tmp_path, TRAIN, nothing, suffix=suffix) == (
        "`task.validation_file` must hold at least one example, "
        f"got none in '{tmp_path / f'dev{suffix}'}'."
    )


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl"])
def test_file_without_a_byte_is_an_error(suffix, tmp_path):
    file = tmp_path / f"train{suffix}"
    file.write_text("")
    (tmp_path / f"dev{suffix}").write_text("")
    with pytest.raises(ValueError, match=r"^`task\.train_file`") as caught:
        load_files(config_of(tmp_path, suffix=suffix))
    assert str(caught.value) == (
        f"`task.train_file` must hold at least one example, got none in '{file}'."
    )


@pytest.mark.parametrize(
    ("suffix", "shown"),
    [(".csv", "''"), (".tsv", "''"), (".json", "null"), (".jsonl", "null"), (".parquet", "null")],
)
def test_null_text_names_its_row(suffix, shown, tmp_path):
    train = {"text": ["a", None], "label": ["x", "y"]}
    assert error_of(tmp_path, train, VALIDATION, suffix=suffix) == (
        f"`task.train_file`: 'text' in row 1{LINE[suffix]} of train{suffix} must be a text that is "
        f"not blank, got {shown}."
    )


@pytest.mark.parametrize(
    ("suffix", "shown"),
    [(".csv", "''"), (".tsv", "''"), (".json", "null"), (".jsonl", "null"), (".parquet", "null")],
)
def test_null_label_names_its_row(suffix, shown, tmp_path):
    train = {"text": ["a", "b"], "label": ["x", None]}
    assert error_of(tmp_path, train, VALIDATION, suffix=suffix) == (
        f"`task.train_file`: label {shown} in column 'label', row 1{LINE[suffix]} of "
        f"train{suffix}, must be a text or a whole number."
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_whole_numbers_are_the_same_classes_in_every_format(suffix, tmp_path):
    write(tmp_path / "dev.csv", {"text": ["x", "y"], "label": ["1.0", "0"]})
    write(tmp_path / f"train{suffix}", {"text": ["a", "b"], "label": [0.0, 1.0]})
    task = load_files(config_of(tmp_path, train_file=f"train{suffix}"))
    assert (task.label_names, task.validation["label"][:]) == (("0", "1"), [1, 0])


def test_json_may_write_a_whole_number_in_three_ways(tmp_path):
    labels = [1, 1.0, "1", "1.0", 0, -0.0]
    records = [{"text": "t", "label": label} for label in labels]
    for name in ("train.json", "dev.json"):
        (tmp_path / name).write_text(json.dumps(records))
    task = load_files(config_of(tmp_path, suffix=".json"))
    assert (task.label_names, task.train["label"][:]) == (("0", "1"), [1, 1, 1, 1, 0, 0])


def test_text_with_leading_zeros_is_no_whole_number(tmp_path):
    train = {"text": ["a", "b"], "label": ["01", "1"]}
    assert load(tmp_path, train, train).label_names == ("01", "1")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_scores_are_not_taken_for_classes(suffix, tmp_path):
    train = {"text": ["a", "b", "c"], "label": [1.0, 2.5, 0.5]}
    label = "'2.5'" if suffix in (".csv", ".tsv") else "2.5"
    names = "1, 2.5, 0.5"
    assert error_of(tmp_path, train, VALIDATION, suffix=suffix) == (
        f"`task.train_file`: label {label} in column 'label', row 1{LINE[suffix]} of train{suffix} "
        f"must be a text or a whole number; all 3 labels are numbers ({names}). Scores need "
        "`task.metric` pearson or spearman."
    )


def test_number_among_texts_is_a_class(tmp_path):
    train = {"text": ["a", "b"], "label": ["2.5", "high"]}
    assert load(tmp_path, train, train).label_names == ("2.5", "high")


def test_many_whole_numbers_are_classes_with_a_warning(tmp_path):
    train = {"text": ["t"] * 50, "label": list(range(25)) * 2}
    with pytest.warns(
        UserWarning, match=r"^`task\.train_file`: 25 whole numbers in column 'label'"
    ):
        task = load(tmp_path, train, {"text": ["t"], "label": [3]})
    assert len(task.label_names) == 25


def test_spellings_of_one_class_are_refused(tmp_path):
    train = {"text": ["a", "b", "c", "d"], "label": ["yes", "no", "yes ", "Yes"]}
    assert error_of(tmp_path, train, VALIDATION) == (
        "`task.train_file`: labels of column 'label' of train.csv must differ in more than case "
        "and spaces, got 'yes', 'yes ', 'Yes' (the second in column 'label', row 2 (line 4) of "
        "train.csv). Write every class in one way."
    )


def test_swapped_columns_are_refused(tmp_path):
    train = {"text": ["a", "b"] * 20, "label": [f"text {i}" for i in range(40)]}
    assert error_of(tmp_path, train, VALIDATION) == (
        "`task.label_column` must be the column of the classes, got 'label' with 40 different "
        "labels in 40 rows of train.csv (text 0, text 1, text 2, text 3, text 4, text 5, text 6, "
        "text 7, ... (40 in all)). Are text and label columns swapped?"
    )


def test_hardly_an_example_a_class_is_warned_of(tmp_path):
    train = {"text": ["t"] * 12, "label": [f"class {i}" for i in range(12)]}
    with pytest.warns(UserWarning, match="which is hardly an example a class"):
        load(tmp_path, train, {"text": ["t"], "label": ["class 1"]})


def test_label_outside_the_training_classes_is_an_error(tmp_path):
    assert error_of(tmp_path, TRAIN, {"text": ["d"], "label": ["c"]}) == (
        "`task.validation_file`: label 'c' in column 'label', row 0 (line 2) of dev.csv must be "
        "one of the training classes (a, b)."
    )


def test_other_spelling_of_a_training_class_is_named(tmp_path):
    assert error_of(tmp_path, TRAIN, {"text": ["d"], "label": [" A"]}).endswith(
        "must be one of the training classes (a, b). Is 'a' meant?"
    )


def test_single_class_is_an_error(tmp_path):
    assert error_of(tmp_path, {"text": ["a", "b"], "label": ["x", "x"]}, VALIDATION) == (
        "`task.train_file` must hold at least 2 classes, got only 'x' in column 'label' of "
        "train.csv."
    )


@pytest.mark.parametrize("label", ["high", "nan", "inf"])
def test_label_of_a_regression_must_be_a_number(label, tmp_path):
    train = {"text": ["a"], "label": [label]}
    assert error_of(tmp_path, train, VALIDATION, metric="spearman") == (
        f"`task.train_file`: label '{label}' in column 'label', row 0 (line 2) of train.csv, must "
        "be a finite number, because `task.metric` is pearson or spearman."
    )


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (
            "train.csv",
            'text,label\n"a\nb",x\n\na,b,c\n',
            r"row 1 \(line 5\) has 3 fields, the header has 2",
        ),
        (
            "train.csv",
            'text,label\n"a",b\n"say \\"yes\\"",c\n',
            r"line 3: ',' expected after '\"'; a quote within a quoted field is written twice, .*",
        ),
        ("train.csv", 'text,label\n"a,b\nc,d\n', "lines 2 to 3: unexpected end of data; .*"),
        ("train.jsonl", '{"text": "a", "label": 1}\nx\n', "line 2 is not JSON: Expecting value"),
        ("train.jsonl", '{"text": "a", "label": 1}\n3\n', "line 2 holds 3, no object; .*"),
        ("train.json", "[1]", "line 1 holds 1, no object; sorakit reads a list of objects, .*"),
        ("train.json", '[{"text": "a", "label": 1}', "line 1: a comma or the end of the list .*"),
        ("train.json", '{"data": [{"text": "a", "label": 1}]}', r"it holds whole .* \(data\); .*"),
        ("train.json", '{"text": {"0": "a"}, "label": {"0": 1}}', "it holds whole columns .*"),
        ("train.tsv", "version https://git-lfs.github.com/spec/v1\noid\n", "it is a Git LFS .*"),
        ("train.parquet", "no parquet", "Parquet magic bytes not found.*"),
    ],
)
def test_malformed_file_is_an_error(name, content, reason, tmp_path):
    (tmp_path / name).write_text(content)
    write(tmp_path / "dev.csv", VALIDATION)
    message = (
        rf"^`task\.train_file` must be a well-formed \{Path(name).suffix} file, "
        rf"got '{re.escape(str(tmp_path / name))}' \({reason}\)\.$"
    )
    with pytest.raises(ValueError, match=message):
        load_files(config_of(tmp_path, train_file=name))


def test_column_that_is_there_twice_is_an_error(tmp_path):
    (tmp_path / "train.csv").write_text("text,text,label\na,b,c\n")
    write(tmp_path / "dev.csv", VALIDATION)
    with pytest.raises(ValueError, match=r"^`task\.text_column` must be there once among the "):
        load_files(config_of(tmp_path))


# Only what is asked for is read


def test_columns_without_a_name_are_no_matter(tmp_path):
    for name in ("train.csv", "dev.csv"):
        (tmp_path / name).write_text("text,label,,\na,x,,\nb,y,1,2\n")
    assert load_files(config_of(tmp_path)).train["text"][:] == ["a", "b"]


def test_field_may_be_longer_than_the_csv_module_allows(tmp_path):
    long = "word " * 40_000
    train = {"text": [long, "b"], "label": ["x", "y"]}
    assert load(tmp_path, train, train).train["text"][0] == long


def test_parquet_columns_that_are_not_asked_for_are_not_read(tmp_path):
    file = tmp_path / "train.parquet"
    write(file, {"text": ["a", "b"], "label": [0, 1], "vector": ["unlikely" * 99, "x"]})
    content = file.read_bytes()
    file.write_bytes(content.replace(b"unlikely", b"\0\0\0\0\0\0\0\0"))
    write(tmp_path / "dev.parquet", {"text": ["a"], "label": [0]})
    assert load_files(config_of(tmp_path, suffix=".parquet")).train["text"][:] == ["a", "b"]


def test_objects_over_several_lines_are_read(tmp_path):
    for name in ("train.jsonl", "dev.jsonl"):
        records = [{"text": text, "label": text} for text in ("a", "b")]
        (tmp_path / name).write_text("\n".join(json.dumps(r, indent=1) for r in records))
    task = load_files(config_of(tmp_path, suffix=".jsonl"))
    assert task.train["text"][:] == ["a", "b"]


def test_more_rows_than_a_chunk_are_all_read(tmp_path):
    count = 20_001
    train = {"text": [f"t{i}" for i in range(count)], "label": [i % 3 for i in range(count)]}
    task = load(tmp_path, train, {"text": ["x"], "label": [2]})
    assert task.train["text"][:] == train["text"]
    assert task.train["label"][:] == train["label"]


# Messages


def test_half_an_emoji_names_its_row(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"text": "well \\ud83d", "label": 1}\n')
    with pytest.raises(ValueError, match=r"^`task\.train_file`: 'text' in row 0 \(line 1\) of "):
        load_files(config_of(tmp_path, suffix=".jsonl", validation_file="train.jsonl"))


@pytest.mark.parametrize(
    ("encoding", "found"),
    [
        ("cp1252", "line 3 is not UTF-8 text, and UTF-8 is read here; if its encoding is WINDOWS"),
        ("utf-16", "it is UTF-16, and UTF-8 is read here; if its encoding is UTF-16, `iconv -f"),
    ],
)
def test_other_encodings_are_named_with_the_way_out(encoding, found, tmp_path):
    (tmp_path / "train.csv").write_text("text,label\nplain,0\ncafé,1\n", encoding=encoding)
    write(tmp_path / "dev.csv", VALIDATION)
    with pytest.raises(ValueError, match=re.escape(found)):
        load_files(config_of(tmp_path))


def test_other_separator_is_named(tmp_path):
    (tmp_path / "train.csv").write_text("text;label\na;b\n")
    write(tmp_path / "dev.csv", VALIDATION)
    with pytest.raises(ValueError, match="The separator seems to be ';'"):
        load_files(config_of(tmp_path))


def test_no_message_is_long(tmp_path):
    giant = "x" * 3_000_000
    wide = ",".join(f"column {i} {'y' * 300}" for i in range(3000))
    (tmp_path / "wide.csv").write_text(wide + "\n" + wide + "\n")
    (tmp_path / "giant.jsonl").write_text(json.dumps({"text": [giant], "label": giant}) + "\n")
    (tmp_path / "labels.csv").write_text(f"text,label\na,{giant}\nb,{giant} \n")
    (tmp_path / "shape.json").write_text(json.dumps({f"{i}{giant[:99]}": [i] for i in range(999)}))
    write(tmp_path / "dev.csv", VALIDATION)
    for name in ("wide.csv", "giant.jsonl", "labels.csv", "shape.json"):
        with pytest.raises(ValueError, match=r"^`task\.") as caught:
            load_files(config_of(tmp_path, train_file=name, validation_file="dev.csv"))
        assert len(str(caught.value)) < 1000
