"""Wrong options are told in plain words: what must stand there, and what did."""

import re

import pytest

from sorakit.cli import main
from sorakit.option_errors import describe_type
from sorakit.options import option_types, run_config
from sorakit.quoting import did_you_mean


@pytest.mark.parametrize("option", option_types())
def test_every_type_has_plain_words(option: str) -> None:
    words = describe_type(option_types()[option])
    assert not re.search(r"[<>\[\]]|\bclass\b|typing|None|Literal|Union", words)


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error.strip().removeprefix("sorakit: error: ")


RUN = {
    "whole number": ("--seed=x", "`seed` must be a whole number, got 'x'."),
    "or null": (
        "--task.train_examples=many",
        "`task.train_examples` must be a whole number, or null, got 'many'.",
    ),
    "number": ("--optim.lr=[1]", "`optim.lr` must be a number, got '[1]'."),
    "truth": ("--backbone.random_init=2", "`backbone.random_init` must be true or false, got '2'."),
    "choice": ("--gates.scale=big", "`gates.scale` must be one of free, unit, got 'big'."),
    "list": (
        "--xi.levels=[a, b]",
        "`xi.levels` must be a list of numbers, or null, got \"['a', 'b']\".",
    ),
    "group": (
        "--task=mrpc",
        "`task` must be a group of options, got 'mrpc'. Give an option of it, such as `task.name`.",
    ),
    "nearly": (
        "--optm.lr=1",
        "`--optm.lr` must be an option of this command, and is none. Did you mean `--optim.lr`? "
        "See --help.",
    ),
    "no value": ("--seed", "`--seed` must be followed by a value, got none."),
}


@pytest.mark.parametrize(("word", "message"), RUN.values(), ids=RUN)
def test_wrong_options_of_a_run(
    word: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal(capsys, "run", word) == message


OTHERS = {
    "number": (("export", "r", "--stage", "x", "--out", "o"), "`--stage` must be a whole number, "),
    "choice": (("sweep", "--engine", "x"), "`--engine` must be one of local, ray, got 'x'."),
    "study": (("study", "--optim.lr", "x", "a.csv"), "`optim.lr` must be a number, got 'x'."),
    "required": (("export",), "`RUN` and `--out` must be given."),
    "command": (("rum",), "The command must be one of run, check, "),
    "none": ((), "A command must be given, got none. "),
}


@pytest.mark.parametrize(("words", "message"), OTHERS.values(), ids=OTHERS)
def test_wrong_arguments_of_other_commands(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal(capsys, *words).startswith(message)


FILES = {
    "value": ("optim:\n  lr: fast\n", "`optim.lr` must be a number, got 'fast'."),
    "group": ("optim: 3\n", "`optim` must be a group of options, got 3. Give an option of it, "),
    "nearly": ("optim: {lrr: 1}\n", "`optim.lrr` must be an option of this command, and is none. "),
    "no yaml": ("optim: {lr: 1\n", "`--config` must be YAML, got '"),
    "a list": ("- optim\n", "`--config` must be YAML with keys and values, got '"),
    "twice": ("seed: 1\nseed: 2\n", "`--config` must be YAML, got '"),
}


@pytest.mark.parametrize(("text", "message"), FILES.values(), ids=FILES)
def test_wrong_files_of_options(
    text: str, message: str, tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "options.yaml"
    file.write_text(text)
    assert refusal(capsys, "run", "--config", str(file)).startswith(message)


def test_a_missing_file_of_options_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, "run", "--config=/no/such.yaml")
    assert said == "`--config` must be a file that can be read, got '/no/such.yaml'."


def test_options_from_python_are_told_the_same() -> None:
    with pytest.raises(ValueError, match=r"^`optim\.lr` must be a number, got 'fast'\.$"):
        run_config({"optim": {"lr": "fast"}})


@pytest.mark.parametrize(
    ("name", "meant"), [("Review-Text", "review_text"), ("lable", "label"), ("xyz", None)]
)
def test_the_closest_name_is_asked_about(name: str, meant: str | None) -> None:
    expected = "" if meant is None else f" Did you mean `{meant}`?"
    assert did_you_mean(name, ["review_text", "label"]) == expected


def test_data_without_its_name_and_its_name_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(capsys, "study", "tickets.csv") == (
        "`tickets.csv` must be an argument of this command, and is none. Data are given by name: "
        "--data FILE. See --help."
    )
    assert refusal(capsys, "check", "--data", "x.csv") == (
        "`--data` must be an option of this command, and is none. A file of your own is "
        "--task.name files --task.train_file FILE; `sorakit study` takes --data. See --help."
    )
