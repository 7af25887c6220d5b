import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from sorakit.config import TaskConfig
from sorakit.tasks import GLUE_NAMES, load_task
from sorakit.tasks.glue import GLUE, load_glue

# The official tree: one training and one validation example a task, quotes left open on purpose.
OFFICIAL = {
    "CoLA/train.tsv": 'gj04\t1\t\t"Yes, said he.\nks08\t0\t*\tHe said yes".\n',
    "CoLA/dev.tsv": "gj04\t0\t*\tSailors the rode.\n",
    "SST-2/train.tsv": 'sentence\tlabel\n"hide new secretions \t0\n',
    "SST-2/dev.tsv": "sentence\tlabel\na charming journey . \t1\n",
    "MRPC/train.tsv": (
        "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
        '1\t702876\t702977\tHe said " no .\tHe refused .\n'
    ),
    "MRPC/dev.tsv": (
        "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t1\t2\tIt fell .\tIt rose .\n"
    ),
    "QQP/train.tsv": (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n0\t1\t2\tWhy?\tWhy so?\t1\n"
    ),
    "QQP/dev.tsv": (
        'id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t3\t4\t"How?\tWhen?\t0\n'
    ),
    "STS-B/train.tsv": (
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
        "0\tmain-captions\tMSRvid\t2012test\t0001\tnone\tnone\tA plane.\tAn air plane.\t4.750\n"
    ),
    "STS-B/dev.tsv": (
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
        "0\tmain-captions\tMSRvid\t2012test\t0000\tnone\tnone\tA man.\tA dog.\t0.000\n"
    ),
    "MNLI/train.tsv": (
        "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\t"
        "sentence1_parse\tsentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label\n"
        "0\t31193\t31193n\tgovernment\t( a )\t( b )\t(ROOT)\t(ROOT)\tIt rains.\tIt may.\t"
        "neutral\tneutral\n"
    ),
    "MNLI/dev_matched.tsv": (
        "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\t"
        "sentence1_parse\tsentence2_parse\tsentence1\tsentence2\t"
        "label1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label\n"
        "0\t6\t6e\tslate\t( a )\t( b )\t(ROOT)\t(ROOT)\tIt rained.\tIt was dry.\t"
        "entailment\tcontradiction\tcontradiction\tneutral\tcontradiction\tcontradiction\n"
    ),
    "MNLI/dev_mismatched.tsv": (
        "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\t"
        "sentence1_parse\tsentence2_parse\tsentence1\tsentence2\t"
        "label1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label\n"
        "0\t7\t7e\tletters\t( a )\t( b )\t(ROOT)\t(ROOT)\tDear all.\tA letter.\t"
        "neutral\tentailment\tentailment\tneutral\tentailment\tentailment\n"
    ),
    "QNLI/train.tsv": "index\tquestion\tsentence\tlabel\n0\tWhen?\tIn 1857.\tentailment\n",
    "QNLI/dev.tsv": "index\tquestion\tsentence\tlabel\n0\tWho?\tIn 1857.\tnot_entailment\n",
    "RTE/train.tsv": "index\tsentence1\tsentence2\tlabel\n0\tNo.\tYes.\tnot_entailment\n",
    "RTE/dev.tsv": 'index\tsentence1\tsentence2\tlabel\n0\t"Yes.\tYes.\tentailment\n',
    "WNLI/train.tsv": "index\tsentence1\tsentence2\tlabel\n0\tIt sank.\tThe ship sank.\t1\n",
    "WNLI/dev.tsv": "index\tsentence1\tsentence2\tlabel\n0\tIt sank.\tThe pin sank.\t0\n",
}

EXPECTED = {
    "cola": (
        [{"text": '"Yes, said he.', "label": 1}, {"text": 'He said yes".', "label": 0}],
        [{"text": "Sailors the rode.", "label": 0}],
    ),
    "sst2": (
        [{"text": '"hide new secretions ', "label": 0}],
        [{"text": "a charming journey . ", "label": 1}],
    ),
    "mrpc": (
        [{"text": 'He said " no .', "text_pair": "He refused .", "label": 1}],
        [{"text": "It fell .", "text_pair": "It rose .", "label": 0}],
    ),
    "qqp": (
        [{"text": "Why?", "text_pair": "Why so?", "label": 1}],
        [{"text": '"How?', "text_pair": "When?", "label": 0}],
    ),
    "stsb": (
        [{"text": "A plane.", "text_pair": "An air plane.", "label": 4.75}],
        [{"text": "A man.", "text_pair": "A dog.", "label": 0.0}],
    ),
    "mnli": (
        [{"text": "It rains.", "text_pair": "It may.", "label": 1}],
        [{"text": "It rained.", "text_pair": "It was dry.", "label": 2}],
    ),
    "mnli_mismatched": (
        [{"text": "It rains.", "text_pair": "It may.", "label": 1}],
        [{"text": "Dear all.", "text_pair": "A letter.", "label": 0}],
    ),
    "qnli": (
        [{"text": "When?", "text_pair": "In 1857.", "label": 0}],
        [{"text": "Who?", "text_pair": "In 1857.", "label": 1}],
    ),
    "rte": (
        [{"text": "No.", "text_pair": "Yes.", "label": 1}],
        [{"text": '"Yes.', "text_pair": "Yes.", "label": 0}],
    ),
    "wnli": (
        [{"text": "It sank.", "text_pair": "The ship sank.", "label": 1}],
        [{"text": "It sank.", "text_pair": "The pin sank.", "label": 0}],
    ),
}


def write_official_tree(root: Path) -> Path:
    for name, content in OFFICIAL.items():
        file = root / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(content, encoding="utf-8")
    return root


def write_parquet(
    file: Path, name: str, *, count: int = 1, start: int = 0, label: object = 1
) -> None:
    """Write examples as the Hub stores them, texts numbered from `start`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    columns: dict[str, list] = {
        column: [f"{column} {start + row}" for row in range(count)]
        for column in GLUE[name].hub_texts
    }
    columns["label"] = [label] * count
    columns["idx"] = list(range(count))
    pq.write_table(pa.table(columns), file)


def write_parquet_task(folder: Path, name: str, *, num_train: int = 2, num_validation: int = 1):
    write_parquet(folder / "train.parquet", name, count=num_train)
    write_parquet(folder / f"{GLUE[name].validation}.parquet", name, count=num_validation)


def load(name: str, data_dir: Path, **keys):
    return load_glue(TaskConfig(name=name, data_dir=str(data_dir), **keys))


def error_of(name: str, data_dir: Path, **keys) -> str:
    with pytest.raises(ValueError, match=r"^`task\..*\.$") as caught:
        load(name, data_dir, **keys)
    return str(caught.value)


@pytest.fixture
def no_hub(monkeypatch):
    def refuse(*arguments, **keys):
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr("sorakit.tasks.glue.load_dataset", refuse)


def test_every_glue_name_has_a_spec():
    assert tuple(GLUE) == GLUE_NAMES


# Official TSV tree


@pytest.mark.parametrize("name", GLUE_NAMES)
def test_official_tree_gives_the_training_examples(name, tmp_path, no_hub):
    task = load(name, write_official_tree(tmp_path))
    assert task.train.to_list() == EXPECTED[name][0]


@pytest.mark.parametrize("name", GLUE_NAMES)
def test_official_tree_gives_the_validation_examples(name, tmp_path, no_hub):
    task = load(name, write_official_tree(tmp_path))
    assert task.validation.to_list() == EXPECTED[name][1]


@pytest.mark.parametrize("name", ["cola", "mrpc", "stsb"])
def test_folder_of_one_task_is_read_as_its_parent_is(name, tmp_path):
    write_official_tree(tmp_path)
    task = load(name, tmp_path / GLUE[name].folder)
    assert task.train.to_list() == EXPECTED[name][0]


def write_paraphrases(folder: Path) -> None:
    rows = ["1\t11\t12\tA .\tB .", "0\t21\t22\tC .\tD .", "1\t31\t32\tE .\tF ."]
    header = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String"
    text = "\n".join((header, *rows, ""))
    (folder / "msr_paraphrase_train.txt").write_text(text, encoding="utf-8")


def test_microsoft_distribution_of_mrpc_keeps_the_pairs_outside_dev_ids_for_training(tmp_path):
    write_paraphrases(tmp_path)
    (tmp_path / "dev_ids.tsv").write_text("21\t22\n")
    assert load("mrpc", tmp_path).train["text"][:] == ["A .", "E ."]


def test_microsoft_distribution_of_mrpc_holds_out_the_pairs_of_dev_ids(tmp_path):
    write_paraphrases(tmp_path)
    (tmp_path / "dev_ids.tsv").write_text("21\t22\n")
    assert load("mrpc", tmp_path).validation.to_list() == [
        {"text": "C .", "text_pair": "D .", "label": 0}
    ]


def test_microsoft_distribution_of_mrpc_without_dev_ids_is_an_error(tmp_path):
    write_paraphrases(tmp_path)
    assert error_of("mrpc", tmp_path) == (
        "`task.data_dir` must hold dev_ids.tsv beside msr_paraphrase_train.txt, "
        f"got '{tmp_path}' with msr_paraphrase_train.txt. "
        "Without it the held-out pairs are unknown."
    )


def test_dev_ids_that_match_nothing_are_an_error(tmp_path):
    write_paraphrases(tmp_path)
    (tmp_path / "dev_ids.tsv").write_text("9\t9\n")
    assert error_of("mrpc", tmp_path) == (
        "`task.data_dir`: dev_ids.tsv must leave some pairs of msr_paraphrase_train.txt to each "
        "split, got none for validation."
    )


def test_incomplete_rows_of_qqp_are_left_out_and_counted(tmp_path, caplog):
    write_official_tree(tmp_path)
    with (tmp_path / "QQP/train.tsv").open("a") as file:
        file.write("5\t6\t7\tbroken\n8\t9\t10\tA?\tB?\t\n")
    assert load("qqp", tmp_path).train.to_list() == EXPECTED["qqp"][0]
    assert caplog.messages == [
        "train.tsv: left out 2 of 3 rows that lack fields, as nyu-mll/glue does."
    ]


def test_incomplete_row_elsewhere_is_an_error(tmp_path):
    write_official_tree(tmp_path)
    (tmp_path / "RTE/train.tsv").write_text("index\tsentence1\tsentence2\tlabel\n0\tNo.\tYes.\n")
    assert error_of("rte", tmp_path) == (
        "`task.data_dir`: row 0 of train.tsv must have 4 fields "
        "(index, sentence1, sentence2, label), got 3."
    )


def test_row_with_too_many_fields_is_an_error(tmp_path):
    write_official_tree(tmp_path)
    (tmp_path / "CoLA/dev.tsv").write_text("gj04\t1\t\tA\tB\n")
    assert error_of("cola", tmp_path) == (
        "`task.data_dir`: row 0 of dev.tsv must have 4 fields "
        "(source, label, mark, sentence), got 5."
    )


def test_tsv_that_is_not_text_is_an_error(tmp_path):
    write_official_tree(tmp_path)
    file = tmp_path / "RTE/train.tsv"
    file.write_bytes(b"\xff\xfe\x00")
    assert error_of("rte", tmp_path) == (
        f"`task.data_dir`: {file} must be UTF-8 text with tabs, got a file that cannot be read "
        "('utf-8' codec can't decode byte 0xff in position 0: invalid start byte)."
    )


# Parquet


@pytest.mark.parametrize("name", GLUE_NAMES)
def test_parquet_gives_exactly_the_task_columns(name, tmp_path, no_hub):
    write_parquet_task(tmp_path / "data", name)
    columns = load(name, tmp_path / "data").train.column_names
    pair = ["text_pair"] if len(GLUE[name].hub_texts) == 2 else []
    assert columns == ["text", *pair, "label"]


@pytest.mark.parametrize("name", GLUE_NAMES)
def test_mirror_of_the_hub_layout_is_read(name, tmp_path, no_hub):
    folder = tmp_path / GLUE[name].hub_config
    write_parquet(folder / "train-00000-of-00001.parquet", name)
    write_parquet(folder / f"{GLUE[name].validation}-00000-of-00001.parquet", name)
    assert load(name, tmp_path).validation["text"][:] == [f"{GLUE[name].hub_texts[0]} 0"]


def test_shards_are_joined_in_order(tmp_path):
    write_parquet(tmp_path / "train-00001-of-00002.parquet", "rte", start=2)
    write_parquet(tmp_path / "train-00000-of-00002.parquet", "rte", count=2)
    write_parquet(tmp_path / "validation.parquet", "rte")
    texts = load("rte", tmp_path).train["text"][:]
    assert texts == ["sentence1 0", "sentence1 1", "sentence1 2"]


def test_missing_shard_is_an_error(tmp_path):
    write_parquet(tmp_path / "train-00001-of-00002.parquet", "rte")
    assert error_of("rte", tmp_path) == (
        f"`task.data_dir` must hold all 2 files train-*-of-*.parquet, got 1 in '{tmp_path}'."
    )


def test_file_that_is_not_parquet_is_an_error(tmp_path):
    file = tmp_path / "train.parquet"
    file.write_text("no parquet")
    message = error_of("rte", tmp_path)
    assert re.match(
        rf"^`task\.data_dir`: {re.escape(str(file))} must be a parquet file, "
        r"got one that cannot be read \(Parquet magic bytes not found .*\)\.$",
        message,
    )


# What a task says about itself


@pytest.mark.parametrize(
    ("name", "metric", "extra"),
    [
        ("cola", "matthews_correlation", ()),
        ("sst2", "accuracy", ()),
        ("mrpc", "accuracy", ("f1",)),
        ("qqp", "accuracy", ("f1",)),
        ("stsb", "pearson", ("spearman",)),
        ("mnli", "accuracy", ()),
        ("mnli_mismatched", "accuracy", ()),
        ("qnli", "accuracy", ()),
        ("rte", "accuracy", ()),
        ("wnli", "accuracy", ()),
    ],
)
def test_task_has_the_metrics_of_the_paper(name, metric, extra, tmp_path):
    task = load(name, write_official_tree(tmp_path))
    assert (task.metric, task.extra_metrics) == (metric, extra)


def test_stsb_is_a_regression(tmp_path):
    assert load("stsb", write_official_tree(tmp_path)).objective == "regression"


def test_source_names_the_files_but_not_the_folder(tmp_path):
    task = load("mnli", write_official_tree(tmp_path))
    assert task.source == "local files: train.tsv, dev_matched.tsv"


# Splits


@pytest.mark.parametrize("name", ["cola", "wnli", "rte", "mrpc", "stsb", "mnli"])
def test_sora_protocol_halves_the_validation_of_small_tasks(name, tmp_path):
    write_parquet_task(tmp_path / "data", name, num_train=3, num_validation=7)
    task = load(name, tmp_path / "data", split_protocol="sora")
    assert task.test is not None
    assert [len(split) for split in (task.train, task.validation, task.test)] == [3, 3, 4]


def test_sora_halves_are_a_partition_of_the_validation(tmp_path):
    write_parquet_task(tmp_path, "rte", num_validation=9)
    task = load("rte", tmp_path, split_protocol="sora")
    assert task.test is not None
    held_out = [*task.validation["text"], *task.test["text"]]
    assert sorted(held_out) == [f"sentence1 {row}" for row in range(9)]


@pytest.mark.parametrize("name", ["qqp", "qnli", "sst2"])
def test_sora_protocol_takes_1000_training_examples_of_large_tasks(name, tmp_path):
    write_parquet_task(tmp_path / "data", name, num_train=1005, num_validation=3)
    task = load(name, tmp_path / "data", split_protocol="sora")
    assert task.test is not None
    assert [len(split) for split in (task.train, task.validation, task.test)] == [5, 1000, 3]


def test_sora_validation_of_large_tasks_is_disjoint_from_training(tmp_path):
    write_parquet_task(tmp_path, "sst2", num_train=1005)
    task = load("sst2", tmp_path, split_protocol="sora")
    texts = [*task.train["text"], *task.validation["text"]]
    assert sorted(texts) == sorted(f"sentence {row}" for row in range(1005))


def test_sora_split_is_the_same_every_time(tmp_path):
    write_parquet_task(tmp_path, "rte", num_validation=9)
    # numpy.random.default_rng(42).permutation(9)[:4]
    expected = ["sentence1 3", "sentence1 0", "sentence1 7", "sentence1 2"]
    assert load("rte", tmp_path, split_protocol="sora").validation["text"][:] == expected


def test_sora_protocol_refuses_a_large_task_with_too_few_examples(tmp_path):
    write_parquet_task(tmp_path, "sst2", num_train=1000)
    assert error_of("sst2", tmp_path, split_protocol="sora") == (
        "`task.split_protocol` must be official when sst2 has at most 1000 training examples, "
        "got sora with 1000."
    )


def test_official_protocol_has_no_test_split(tmp_path):
    assert load("rte", write_official_tree(tmp_path)).test is None


# Errors


def test_missing_folder_is_an_error(tmp_path):
    assert error_of("rte", tmp_path / "nowhere") == (
        f"`task.data_dir` must be an existing folder, got '{tmp_path / 'nowhere'}'. "
        "Put the files of rte there, or set it to null to read nyu-mll/glue from the Hub."
    )


def test_missing_split_lists_what_is_there(tmp_path):
    write_parquet(tmp_path / "validation.parquet", "rte")
    (tmp_path / "cola").mkdir()
    assert error_of("rte", tmp_path) == (
        "`task.data_dir` must hold train.parquet, train-*-of-*.parquet or train.tsv of rte, "
        f"got '{tmp_path}' with cola/, validation.parquet."
    )


def test_missing_split_in_an_empty_folder_is_an_error(tmp_path):
    assert error_of("mnli", tmp_path) == (
        "`task.data_dir` must hold train.parquet, train-*-of-*.parquet or train.tsv of mnli, "
        f"got '{tmp_path}' with nothing in it."
    )


def test_folder_of_another_task_is_an_error(tmp_path):
    write_official_tree(tmp_path)
    assert error_of("rte", tmp_path / "WNLI") == (
        f"`task.data_dir` must hold rte, got '{tmp_path / 'WNLI'}', which by its name is another "
        "GLUE task. Give the folder of the task, or its parent."
    )


def test_missing_column_lists_the_columns(tmp_path):
    pq.write_table(pa.table({"premise": ["a"], "label": [0]}), tmp_path / "train.parquet")
    assert error_of("rte", tmp_path) == (
        "`task.data_dir`: train.parquet must have the columns sentence1, sentence2, label, "
        "got premise, label."
    )


def test_hidden_test_label_is_an_error(tmp_path):
    write_parquet(tmp_path / "train.parquet", "mrpc", label=-1)
    assert error_of("mrpc", tmp_path) == (
        "`task.data_dir`: label -1 in row 0 of train.parquet must be one of 0..1 "
        "(not_equivalent, equivalent)."
    )


def test_unknown_label_names_its_row(tmp_path):
    table = pa.table({"sentence": ["a", "b"], "label": [1, 7]})
    pq.write_table(table, tmp_path / "train.parquet")
    assert error_of("cola", tmp_path) == (
        "`task.data_dir`: label 7 in row 1 of train.parquet must be one of 0..1 "
        "(unacceptable, acceptable)."
    )


def test_unknown_label_text_is_quoted(tmp_path):
    write_official_tree(tmp_path)
    (tmp_path / "RTE/dev.tsv").write_text("index\tsentence1\tsentence2\tlabel\n0\ta\tb\tmaybe\n")
    assert error_of("rte", tmp_path) == (
        "`task.data_dir`: label 'maybe' in row 0 of dev.tsv must be one of 0..1 "
        "(entailment, not_entailment)."
    )


def test_missing_label_is_an_error(tmp_path):
    write_parquet(tmp_path / "train.parquet", "rte", label=None)
    assert error_of("rte", tmp_path) == (
        "`task.data_dir`: label null in row 0 of train.parquet must be one of 0..1 "
        "(entailment, not_entailment)."
    )


@pytest.mark.parametrize(
    ("label", "shown"), [(-1.0, "-1.0"), (5.1, "5.1"), (float("nan"), "nan"), (None, "null")]
)
def test_score_outside_the_range_is_an_error(label, shown, tmp_path):
    write_parquet(tmp_path / "train.parquet", "stsb", label=label)
    assert error_of("stsb", tmp_path) == (
        f"`task.data_dir`: score {shown} in row 0 of train.parquet must be a number in [0, 5]."
    )


def test_null_text_is_an_error(tmp_path):
    table = pa.table({"sentence": ["a", None], "label": [1, 1]})
    pq.write_table(table, tmp_path / "train.parquet")
    assert error_of("cola", tmp_path) == (
        "`task.data_dir`: 'sentence' in row 1 of train.parquet must be a text, got null."
    )


@pytest.mark.parametrize("content", ["", "index\tsentence1\tsentence2\tlabel\n"])
def test_empty_tsv_is_an_error(content, tmp_path):
    write_official_tree(tmp_path)
    (tmp_path / "RTE/dev.tsv").write_text(content)
    assert re.match(r"^`task\.data_dir`: dev\.tsv must .*, got none\.$", error_of("rte", tmp_path))


# Hub


def test_hub_is_asked_for_the_two_splits(monkeypatch):
    asked = []

    def answer(*arguments, **keys):
        asked.append((arguments, keys))
        columns = {"premise": ["a"], "hypothesis": ["b"], "label": [2], "idx": [0]}
        return [Dataset.from_dict(columns), Dataset.from_dict(columns)]

    monkeypatch.setattr("sorakit.tasks.glue.load_dataset", answer)
    task = load_glue(TaskConfig(name="mnli_mismatched"))
    assert asked == [(("nyu-mll/glue", "mnli"), {"split": ["train", "validation_mismatched"]})]
    assert task.train.to_list() == [{"text": "a", "text_pair": "b", "label": 2}]


def test_unreachable_hub_is_an_error_with_a_cure(monkeypatch):
    def fail(*arguments, **keys):
        raise ConnectionError("Couldn't reach 'nyu-mll/glue' on the Hub")

    monkeypatch.setattr("sorakit.tasks.glue.load_dataset", fail)
    with pytest.raises(ValueError, match=r"^`task\.data_dir`") as caught:
        load_glue(TaskConfig(name="cola"))
    assert str(caught.value) == (
        "`task.data_dir` must name a local folder of cola when the Hugging Face Hub cannot be "
        "reached, got null. Copy the GLUE files there, or check the connection "
        "(Couldn't reach 'nyu-mll/glue' on the Hub)."
    )


# load_task


def test_load_task_adds_label_noise(tmp_path):
    write_parquet_task(tmp_path, "rte", num_train=10)
    config = TaskConfig(name="rte", data_dir=str(tmp_path), label_noise=0.3)
    assert sum(load_task(config, seed=0).train["is_noisy"]) == 3


def test_load_task_refuses_an_unknown_name():
    with pytest.raises(
        ValueError,
        match=(
            r"^`task\.name` must be one of pydoc_topic, pydoc_pair, pydoc_order, pydoc_text, cola, "
            r"sst2, mrpc, qqp, stsb, mnli, mnli_mismatched, qnli, rte, wnli, files, hub, "
            r"got 'foo'\.$"
        ),
    ):
        load_task(TaskConfig(name="foo"), seed=0)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"name": "cola", "train_file": "a.csv"},
            "`task.train_file` must be null unless `task.name` is files, got 'a.csv'.",
        ),
        (
            {"name": "cola", "metric": "f1"},
            "`task.metric` must be null unless `task.name` is files or hub, or `task.objective` "
            "is set, got 'f1'.",
        ),
        (
            {"name": "pydoc_pair", "data_dir": "data"},
            "`task.data_dir` must be null when `task.name` is pydoc_pair, got 'data'. "
            "The task is embedded.",
        ),
        (
            {"name": "files", "split_protocol": "sora"},
            "`task.split_protocol` must not be sora when `task.name` is files, got 'sora'.",
        ),
    ],
)
def test_load_task_refuses_keys_of_other_tasks(keys, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_task(TaskConfig(**keys), seed=0)


# Real data


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "protocol", "sizes"),
    [
        ("cola", "official", (8551, 1043)),
        ("mrpc", "official", (3668, 408)),
        ("rte", "official", (2490, 277)),
        ("cola", "sora", (8551, 521, 522)),
        ("mrpc", "sora", (3668, 204, 204)),
        ("rte", "sora", (2490, 138, 139)),
    ],
)
def test_real_data_has_the_published_sizes(name, protocol, sizes, shared_dir):
    task = load(name, shared_dir / "data" / "glue", split_protocol=protocol)
    splits = (task.train, task.validation, task.test)
    assert tuple(len(split) for split in splits if split is not None) == sizes
