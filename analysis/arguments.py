"""The verbs of the command line, their arguments, and what `--help` says of them."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from analysis.figures import Width
from analysis.load import PATH
from analysis.memory.verbs import MEMORY_VERBS
from analysis.weights import Weights

_DESCRIPTION = """\
Read the records of sorakit runs and compare them.

RUNS are run folders, packs of finished runs (see `pack`), or folders with some of either at any
depth below them. A run plays one part, its role:
  path        Algorithm 1 with a rising threshold: the curve
  floor       method.name=head_only: what the task head reaches without an adapter
  a control   named by stage.control: hold_dense (as much training as the path, nothing pruned),
              random_mask (as many ranks as the path, drawn at random), and others
  a rival     named by its method, as lora: another adapter on the same data, for the frontier
A floor and a control belong to the paths of the same task, backbone, setting, seed and
configuration; only what a control is made to change may differ. Paths of one dataset with different
options are compared and drawn apart, never averaged; --only gates.gate_lr=1 leaves the others out.
Runs that cannot be used are listed with the reason."""

_EPILOG = """\
examples:
  python -m analysis summary  runs
  python -m analysis compare  runs --csv compare.csv --latex compare.tex
  python -m analysis frontier runs --csv frontier.csv
  python -m analysis curves   runs --csv curves.csv
  python -m analysis report   runs --out report.html
  python -m analysis figures  runs/pydoc_topic runs/mrpc --out figures --at lambda=0.02
  python -m analysis freeze   runs --out paper_figs/data && python -m paper_figs
  python -m analysis pack     runs --out experiments/results/mine
  python -m analysis noise    runs --figure noise.pdf  # this and the others: docs/measures.md"""


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One verb of `python -m analysis`.

    Attributes:
        text: What it does, without a capital and a full stop.
        add: Adds its arguments, beside RUNS.
    """

    text: str
    add: Callable[[argparse.ArgumentParser], None]


def _path(text: str) -> Path:
    return Path(text).expanduser()


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line; the verb is in `verb`."""
    whole = argparse.ArgumentParser(
        prog="python -m analysis",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = whole.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, verb in VERBS.items():
        description = f"{verb.text[0].upper()}{verb.text[1:]}."
        # argparse formats a help text, not a description
        command = verbs.add_parser(name, help=verb.text.replace("%", "%%"), description=description)
        command.add_argument(
            "runs",
            nargs="+",
            type=_path,
            metavar="RUNS",
            help="run folder, pack, or a folder with some of either at any depth below it",
        )
        verb.add(command)
    return whole


def _add_only(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--only",
        action="append",
        type=_option,
        metavar="OPTION=VALUE",
        help="paths with this option only, for example gates.gate_lr=1; may be repeated",
    )


def _add_tables(command: argparse.ArgumentParser) -> None:
    _add_only(command)
    _add_csv(command)
    _add_file(command, "latex", "a LaTeX tabular")


def _add_curves(command: argparse.ArgumentParser) -> None:
    _add_only(command)
    _add_csv(command)


def _add_csv(command: argparse.ArgumentParser) -> None:
    _add_file(command, "csv", "a CSV file")


def _add_file(command: argparse.ArgumentParser, name: str, what: str) -> None:
    command.add_argument(
        f"--{name}",
        type=_path,
        metavar="FILE",
        help=f"write the table as {what} too; replaced if it exists",
    )


def _add_page(command: argparse.ArgumentParser) -> None:
    _add_only(command)
    command.add_argument(
        "--out",
        required=True,
        type=_path,
        metavar="FILE",
        help="the page, for example report.html; replaced if it exists",
    )
    _add_texts(command)


def _add_maps(command: argparse.ArgumentParser) -> None:
    _add_only(command)
    command.add_argument(
        "--out",
        required=True,
        type=_path,
        metavar="DIR",
        help="folder for the files, made if needed; files of the same name are replaced",
    )
    command.add_argument(
        "--at",
        default="retention=0.95",
        metavar="KIND=VALUE",
        help="stage that the rank maps show: stage=K, lambda=X (the nearest, within a "
        "factor 1.15), retention=SHARE (the sparsest that keeps this share of the dense "
        "generalization) or budget=N parameters; default %(default)s",
    )
    command.add_argument(
        "--role",
        default=PATH,
        help="whose rank maps: path, or a control such as from_scratch; default path",
    )


def _add_figures(command: argparse.ArgumentParser) -> None:
    _add_maps(command)
    command.add_argument(
        "--width",
        choices=get_args(Width),
        default="auto",
        help="column or text width of a two-column page; auto: column for one panel",
    )
    command.add_argument(
        "--weights",
        choices=get_args(Weights),
        default="refitted",
        help="which scores the curves show, of runs with a refit: those of the refitted weights, "
        "which are exported, or those before; default %(default)s",
    )


def _add_freeze(command: argparse.ArgumentParser) -> None:
    _add_maps(command)
    command.add_argument(
        "--fixed-lambda",
        type=float,
        metavar="X",
        help="freeze the rank maps of from_scratch runs at this lambda as well: "
        "runs that were trained at one xi from the start",
    )


def _add_pack(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="PACK",
        help="folder of the pack; of one that is there, the runs are added to what it holds",
    )


def _add_forgetting(command: argparse.ArgumentParser) -> None:
    _add_memory(command)
    _add_texts(command)


def _add_texts(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--texts",
        type=_path,
        metavar="FILE",
        help="what `sorakit texts` wrote of a run, where all runs are of one dataset: list the "
        "first and the last lost texts of each split",
    )


def _add_memory(command: argparse.ArgumentParser) -> None:
    _add_only(command)
    command.add_argument(
        "--csv",
        type=_path,
        metavar="FILE",
        help="write the table behind the figure as a CSV file, and further ones beside it as "
        "FILE_NAME.csv; replaced if they exist",
    )
    command.add_argument(
        "--figure",
        type=_path,
        metavar="FILE",
        help="draw the figure, for example noise.pdf or noise.png; replaced if it exists",
    )


VERBS = {
    "compare": Verb(
        text="compare datasets: how few parameters keep how much, where curves drop, what goes "
        "first, which dataset needs fewer",
        add=_add_tables,
    ),
    "frontier": Verb(
        text="tell which adapter of N parameters is best, and by how much: SoRA, random and "
        "strongest ranks, plain LoRA",
        add=_add_tables,
    ),
    "curves": Verb(
        text="print the mean curve of every dataset at fixed shares of the full adapter, with "
        "standard errors and N: the numbers behind the curves in W&B",
        add=_add_curves,
    ),
    "summary": Verb(
        text="print dense score, floor and how few parameters keep 99 to 50 % of the dense "
        "score, a row a path",
        add=_add_only,
    ),
    "report": Verb(
        text="write one self-contained HTML page: curves, comparison, rank maps, runs",
        add=_add_page,
    ),
    "figures": Verb(
        text="draw score curves and rank maps: curves.pdf/.png, rank_maps.pdf/.png",
        add=_add_figures,
    ),
    "freeze": Verb(
        text="write the tables behind the figures as CSV, with their sources (sources.json)",
        add=_add_freeze,
    ),
    "pack": Verb(
        text="pack the records of finished runs, without weights, as one parquet file a table; "
        "nothing of a record is lost, and run folders stay",
        add=_add_pack,
    ),
    **{
        name: Verb(text=verb.text, add=_add_forgetting if name == "forgetting" else _add_memory)
        for name, verb in MEMORY_VERBS.items()
    },
}
"""In the order of `--help`."""


def _option(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise argparse.ArgumentTypeError(f"must be OPTION=VALUE, got {text!r}")
    return key, value
