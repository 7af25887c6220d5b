"""Every command that a page tells a reader to type is understood here, or says what it needs.

A comment `# needs: Hub` (GPU, cluster, W&B account) on a command, or as the first line of its
block, marks what cannot be run here. `tests/integration/test_pages.py` runs what newcomers type.
"""

import importlib.util
import itertools
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from contextlib import chdir
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from jsonargparse import ArgumentParser
from wandb.cli.cli import cli as wandb_cli

from analysis.arguments import parser as analysis_parser
from sorakit.backbones import EMBEDDED
from sorakit.cli import _parser, _study_specification, _to_config
from sorakit.config import RunConfig
from sorakit.options import split_options, with_nulls
from sorakit.records import is_packed
from sorakit.sweep.controls import parse_controls
from sorakit.sweep.grid import load_specification, load_sweep

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
    + list((ROOT / "docs").rglob("*.md"))
)
NEEDS = {"Hub", "GPU", "cluster", "W&B account"}
_WANDB_COMMANDS = set(wandb_cli.commands)
_LOCAL_TASKS = ("pydoc_topic", "pydoc_pair", "pydoc_order", "files")


@dataclass(frozen=True)
class Command:
    """A command of a page.

    Attributes:
        page: The page.
        words: The command, as a shell splits it.
        needs: What it is marked to need.
    """

    page: str
    words: list[str]
    needs: frozenset[str]

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"

    def starts_with(self, *words: str) -> bool:
        return self.words[: len(words)] == list(words)


def commands_of(page: str, text: str) -> Iterator[Command]:
    """Yield the commands of every block that is marked as shell."""
    for block in re.findall(r"^```(?:sh|bash|shell|console)\n(.*?)^```", text, re.DOTALL | re.M):
        lines = block.replace("\\\n", " ").splitlines()
        of_block = _needs(lines[0]) if lines and lines[0].startswith("#") else frozenset()
        for line in lines:
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Za-z_]\w*=.*", words[0]):
                words = words[1:]  # NAME=value before a command, or alone
            if words:
                yield Command(page, words, of_block | _needs(line))


def _needs(line: str) -> frozenset[str]:
    found = re.search(r"# needs: ([^.]+)", line)
    return frozenset(part.strip() for part in found[1].split(",")) if found else frozenset()


COMMANDS = [
    command
    for page in PAGES
    for command in commands_of(str(page.relative_to(ROOT)), page.read_text("utf-8"))
]


@cache  # a second each to make
def parser_of(name: str) -> ArgumentParser:
    return _parser([name])


def check_run(command: Command) -> None:
    verb, *words = command.words[1:]
    if words == ["--help"]:
        return
    if "--controls" in words:
        assert parse_controls(words[words.index("--controls") + 1])
    # RUN.yaml is a file of the reader's
    words = [word.replace("RUN.yaml", "experiments/embedded_refit.yaml") for word in words]
    words = [word for word in words if word != "--print_config"]  # prints and ends
    with TemporaryDirectory() as name:
        ranks = Path(name) / "rank_pattern.json"  # a stage of the reader's has one
        ranks.write_text('{"encoder.layer.0.attention.self.query": 1}')
        words = [str(ranks) if word.endswith(f"/{ranks.name}") else word for word in words]
        options = parser_of(verb).parse_args([verb, *with_nulls(words)])
        config = _to_config(options[verb])
    folder = options[verb].get("run_folder")
    if folder is not None:  # a run of the reader's, or one of a pack that is committed
        assert is_packed(Path(folder)) or folder.startswith("runs/")
        return
    assert config != RunConfig()
    of_hub = config.task.name not in _LOCAL_TASKS and config.task.data_dir is None
    of_hub |= config.backbone.name != EMBEDDED
    assert ("Hub" in command.needs) == of_hub, "`# needs: Hub` must say whether the Hub is read"
    assert ("GPU" in command.needs) == (config.trainer.devices > 1)


def check_study(command: Command) -> None:
    words, run_options = split_options(command.words[1:])
    options = parser_of("study").parse_args(words).study
    with TemporaryDirectory() as name, chdir(name):
        for place in ("data/mails/train.csv", "data/forum.jsonl", "reviews.csv"):
            Path(place).parent.mkdir(parents=True, exist_ok=True)
            Path(place).touch()  # of the reader
        spec = _study_specification(options, run_options)
        spec.require_same()
        sweep = load_specification(spec.content, name="study")
    assert sweep.points
    of_hub = any(dataset.options["task.name"] not in _LOCAL_TASKS for dataset in spec.datasets)
    of_hub &= all("task.data_dir" not in dataset.options for dataset in spec.datasets)
    assert ("Hub" in command.needs) == (of_hub or options.backbone != EMBEDDED)


def check_sweep(command: Command) -> None:
    files = [Path(file) for file in _values(command.words, "--config")]
    parser_of("sweep").parse_args(command.words[1:])
    if files == [Path("SWEEP.yaml")]:
        assert "cluster" in command.needs
        return
    assert len(load_sweep(files).points) > 1
    assert ("Hub" in command.needs) == any("glue" in file.name for file in files)


def check_sorakit(command: Command) -> None:
    parser_of(command.words[1]).parse_args(command.words[1:])


def check_analysis(command: Command) -> None:
    analysis_parser().parse_args(command.words[3:])


def check_module(command: Command) -> None:
    assert importlib.util.find_spec(command.words[2]) is not None


def check_make(command: Command) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert re.search(rf"^{command.words[1]}:", makefile, flags=re.MULTILINE)


def check_pip(command: Command) -> None:
    assert command.words[2:4] == ["-c", "constraints.txt"], "an install is of the tested versions"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for extras in re.findall(r"\[([\w,-]+)\]", " ".join(command.words)):
        assert set(extras.split(",")) <= set(project["optional-dependencies"])


def check_wandb(command: Command) -> None:
    assert command.words[1] in _WANDB_COMMANDS
    assert ("W&B account" in command.needs) == (command.words[1] != "leet")


def check_marked(command: Command) -> None:
    assert command.needs


def check_environment(command: Command) -> None:
    assert command.words[1:] in (["-m", "venv", ".venv"], [".venv/bin/activate"])


CHECKS: list[tuple[tuple[str, ...], Callable[[Command], None]]] = [
    (("sorakit", "run"), check_run),
    (("sorakit", "check"), check_run),
    (("sorakit", "study"), check_study),
    (("sorakit", "sweep"), check_sweep),
    (("sorakit",), check_sorakit),
    (("python", "-m", "analysis"), check_analysis),
    (("python", "-m"), check_module),
    (("make",), check_make),
    (("pip", "install"), check_pip),
    (("wandb",), check_wandb),
    (("python3",), check_environment),
    (("source",), check_environment),
    *[((name,), check_marked) for name in ("hf", "lm_eval", "ray", "srun", "torchrun")],
]
"""First words of a command -> what is asked of it; the first that fits."""


def test_pages_have_commands_of_every_kind():
    assert len(COMMANDS) > 30
    for start in (("sorakit", "run"), ("sorakit", "check"), ("python", "-m", "analysis")):
        assert any(command.starts_with(*start) for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_command_of_a_page_is_understood(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert command.needs <= NEEDS
    checks = [check for start, check in CHECKS if command.starts_with(*start)]
    assert checks, "a command that no check knows: give it one, and a marker if it cannot run here"
    checks[0](command)


@pytest.mark.parametrize(
    "line",
    [
        "sorakit run --task.name mrpc",
        "sorakit run --task.nmae mrpc",
        "sorakit study --data mrpc",
        "sorakit study --data reviews.csv --seed 3",
        "sorakit study --data pydoc_order   # needs: Hub",
        "sorakit run --task.name pydoc_topic   # needs: Hub",
        "sorakit nothing",
        "wandb login",
        "make nothing",
        "pip install sorakit",
        "frobnicate",
    ],
)
def test_command_that_is_wrong_or_lacks_its_marker_is_noticed(line, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    [command] = commands_of("page", f"```sh\n{line}\n```\n")
    checks = [check for start, check in CHECKS if command.starts_with(*start)]
    if checks:
        with pytest.raises((AssertionError, SystemExit, ValueError)):
            checks[0](command)


def _values(words: list[str], option: str) -> list[str]:
    return [value for name, value in itertools.pairwise(words) if name == option]
