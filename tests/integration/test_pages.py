"""What docs/own_data.md tells a newcomer to type, typed: block after block, at a small size."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.unit.test_commands import Command, commands_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "own_data.md").read_text("utf-8")
SMALL = [
    *("--task.max_length", "16", "--task.memorization_examples", "16"),
    *("--dense.max_epochs", "1", "--refit.max_epochs", "1", "--xi.num_stages", "2"),
    *("--stage.max_epochs", "2", "--stage.kkt_examples", "0", "--tracking.wandb", "off"),
]


def write(file: Path, text: str, label: str) -> None:
    words = ["engine", "violin", "harvest", "lantern", "meadow", "copper", "ribbon", "saddle"]
    rows = [
        (f"{'the good' if i % 2 else 'a bad'} {words[i % 8]} of number {i}", f"class {i % 2}")
        for i in range(48)
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, columns=pd.Index([text, label])).to_csv(file, index=False)


def for_study(root: Path) -> None:
    write(root / "reviews.csv", "text", "label")
    write(root / "data" / "mails" / "train.csv", "text", "label")


def for_file(root: Path) -> None:
    write(root / "data" / "reviews.csv", "review", "mood")


def for_two_files(root: Path) -> None:
    write(root / "data" / "train.csv", "sentence", "label")
    write(root / "data" / "held_out.csv", "sentence", "label")


def for_folder(root: Path) -> None:
    write(root / "data" / "train.csv", "text", "label")


FILES: list[Callable[[Path], None]] = [for_study, for_file, for_two_files, for_folder]
"""What a reader has before each block of commands, in their order."""
BLOCKS = [f"```sh{block}" for block in PAGE.split("```sh")[1:]]


def test_every_block_has_its_files() -> None:
    assert len(BLOCKS) == len(FILES)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("number", range(len(FILES)))
def test_block_of_commands_runs(number: int, tmp_path: Path) -> None:
    FILES[number](tmp_path)
    commands = [c for c in commands_of("own_data", BLOCKS[number]) if not c.needs]
    assert commands
    for command in commands:
        done = subprocess.run(
            _small(command), check=False, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"


def _small(command: Command) -> list[str]:
    words = [sys.executable, "-m", *command.words]
    if command.starts_with("python", "-m"):
        return [sys.executable, *command.words[1:]]
    if command.starts_with("sorakit", "study"):
        return [*words, "--seeds", "1", "--lora-ranks", "1", "--controls", "floor", *SMALL]
    return [*words, *SMALL]
