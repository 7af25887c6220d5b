"""Command line of the analysis: parse, load, call, print."""

import argparse
import os
import sys
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import get_args

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from analysis import style
from analysis.compare import compare
from analysis.compare_text import comparison_table, csv_text, print_comparison
from analysis.controls import configuration_notes, missing_controls
from analysis.curves import BANDS, SCORES, SHARES, count_spacing, summary
from analysis.figures import Width, curve_figure, rank_map_figure
from analysis.frozen import FIXED_XI_FILE, frozen_tables
from analysis.inflection_table import inflections_by_dataset, inflections_by_seed
from analysis.latex import shares_table
from analysis.load import (
    DEFAULT_SETTING,
    FLOOR,
    HOLD_DENSE,
    PATH,
    RunSet,
    comparability_notes,
    load_runs,
    require_path_run,
    select_paths,
    with_curves,
)
from analysis.ranks import maps_at, parse_criterion, without_map
from analysis.report.page import report

_PLAIN_WIDTH = 120  # columns when the output is a file or a pipe

_DESCRIPTION = """\
Read sorakit run folders and compare them.

RUNS are folders that `sorakit run` wrote, or folders above them: every run below is found. A run is
one of three things:
  path        SoRA with rising threshold: the curve
  floor       method.name=head_only: what the task head reaches with no adapter at all
  hold_dense  stage.control=hold_dense: as much training as the path, nothing pruned
  another control, by its name: it is loaded and frozen, and not drawn as a curve
A path is matched with the floor and the controls of the same task, backbone, setting, seed and
configuration: everything but what a control changes. Paths of one dataset with different options
are compared and drawn apart, never averaged; --only gates.gate_lr=1 leaves the others out.
Runs that cannot be used are listed with the reason."""

_EPILOG = """\
examples:
  python -m analysis summary runs
  python -m analysis compare runs --csv compare.csv --latex compare.tex
  python -m analysis report  runs --out report.html
  python -m analysis figures runs/pydoc_topic runs/mrpc --out figures --at lambda=0.02
  python -m analysis freeze  runs --out paper_figs/data && python -m paper_figs"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit code: 0, or 2 when the request cannot be met.

    Args:
        argv: Arguments without the program name; None reads `sys.argv`.
    """
    args = _parser().parse_args(argv)
    console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    try:
        if args.verb == "compare":
            _compare(console, args)
            return 0
        if args.verb == "report":
            _report(console, args)
            return 0
        out = _checked_out(args.out) if "out" in args else None
        runs = _load(args)
        if out is None:
            require_path_run(runs.stages)
            _print_runs(console, runs)
            _print_summary(console, runs, args.runs)
        else:
            _write(console, args, runs, out)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m analysis",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=formatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    texts = {
        "compare": "compare datasets: fewest parameters, inflections, what goes first, rankings",
        "summary": "print dense score, floor and how few parameters keep 99 to 50 % of dense",
        "report": "write one self-contained HTML page: curves, comparison, rank maps, runs",
        "figures": "draw score curves and rank maps: curves.pdf/.png, rank_maps.pdf/.png",
        "freeze": "write the tables behind the figures as CSV, with their sources (sources.json)",
    }
    for verb, text in texts.items():
        description = f"{text[0].upper()}{text[1:]}."
        command = verbs.add_parser(verb, help=text, description=description)
        command.add_argument(
            "runs",
            nargs="+",
            type=Path,
            metavar="RUNS",
            help="run folder, or a folder with run folders at any depth below it",
        )
        command.add_argument(
            "--only",
            action="append",
            type=_option,
            metavar="OPTION=VALUE",
            help="paths with this option only, for example gates.gate_lr=1; may be repeated",
        )
        if verb == "compare":
            for name, what in (("csv", "a CSV file"), ("latex", "a LaTeX tabular")):
                command.add_argument(
                    f"--{name}",
                    type=Path,
                    metavar="FILE",
                    help=f"write the table of shares as {what} too; replaced if it exists",
                )
        elif verb == "report":
            command.add_argument(
                "--out",
                required=True,
                type=Path,
                metavar="FILE",
                help="the page, for example report.html; replaced if it exists",
            )
        elif verb != "summary":
            command.add_argument(
                "--out",
                required=True,
                type=Path,
                metavar="DIR",
                help="folder for the files, made if needed; files of the same name are replaced",
            )
            command.add_argument(
                "--at",
                default="retention=0.95",
                metavar="KIND=VALUE",
                help="stage that the rank maps show: stage=K, lambda=X (the nearest, within a "
                "factor 1.15), retention=SHARE (the sparsest that keeps this share of dense "
                "generalization) or budget=N parameters; default %(default)s",
            )
            command.add_argument(
                "--role",
                default=PATH,
                help="whose rank maps: path, or a control such as from_scratch; default path",
            )
            if verb == "figures":
                command.add_argument(
                    "--width",
                    choices=get_args(Width),
                    default="auto",
                    help="column or text width of a two-column page; auto: column for one panel",
                )
            else:
                command.add_argument(
                    "--fixed-lambda",
                    type=float,
                    metavar="X",
                    help="freeze the rank maps of from_scratch runs at this lambda as well: "
                    "runs that were trained at one xi from the start",
                )
    return parser


def _checked_out(out: Path) -> Path:
    """Return `out` if files can be written there, before anything is made."""
    existing = out
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"`--out` must be a writable folder, got {str(out)!r}. Name another one.")
    return out


def _write(console: Console, args: argparse.Namespace, runs: RunSet, out: Path) -> None:
    at = parse_criterion(args.at)
    require_path_run(runs.stages)
    maps = maps_at(runs.ranks, runs.stages, at, role=args.role)
    if args.verb == "freeze":
        texts = frozen_tables(runs, at=at, role=args.role, fixed_lambda=args.fixed_lambda)
        out.mkdir(parents=True, exist_ok=True)
        if FIXED_XI_FILE not in texts:  # not beside tables of other runs
            (out / FIXED_XI_FILE).unlink(missing_ok=True)
        files = [out / name for name in texts]
        for file, text in zip(files, texts.values(), strict=True):
            file.write_text(text, "utf-8")
    else:
        drops = inflections_by_dataset(inflections_by_seed(runs.stages))
        figures = {
            "curves": curve_figure(runs.stages, drops, width=args.width),
            "rank_maps": rank_map_figure(maps, width=args.width),
        }
        out.mkdir(parents=True, exist_ok=True)
        files = [
            file for name, figure in figures.items() for file in style.save(figure, out / name)
        ]
    _print_runs(console, runs, without_map(runs.stages, maps, role=args.role))
    for file in files:
        console.print(f"wrote {file}")


def _compare(console: Console, args: argparse.Namespace) -> None:
    for option in ("csv", "latex"):
        _check_file(option, getattr(args, option))
    runs = _load(args, with_ranks=False)
    comparison = compare(runs)
    left_out = {path for path, _ in comparison.excluded}
    used = runs.runs[[Path(path) not in left_out for path in runs.runs["path"]]]
    _print_used(console, used, comparison.excluded, comparison.notes)
    print_comparison(console, comparison)
    texts = {args.csv: csv_text(comparison), args.latex: shares_table(comparison_table(comparison))}
    for file, text in texts.items():
        if file is not None:
            file.write_text(text, "utf-8")
            console.print(f"wrote {file}")


def _report(console: Console, args: argparse.Namespace) -> None:
    out: Path = args.out
    _check_file("out", out)
    page = report(_load(args))
    out.write_text(page.html, "utf-8")
    _print_used(console, page.used, page.excluded, page.notes)
    console.print(f"wrote {out} ({out.stat().st_size / 1e6:.2f} MB)")


def _load(args: argparse.Namespace, *, with_ranks: bool = True) -> RunSet:
    runs = load_runs(args.runs, with_ranks=with_ranks)
    return with_curves(select_paths(runs, dict(args.only)) if args.only else runs)


def _option(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise argparse.ArgumentTypeError(f"must be OPTION=VALUE, got {text!r}")
    return key, value


def _check_file(option: str, file: Path | None) -> None:
    """Refuse a file that cannot be written, before anything is computed."""
    if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
        raise ValueError(f"`--{option}` must be a file in an existing folder, got {str(file)!r}.")


def _print_runs(console: Console, runs: RunSet, further: Sequence[str] = ()) -> None:
    notes = [
        *further,
        *comparability_notes(runs.runs),
        *configuration_notes(runs.stages),
        *missing_controls(runs.stages),
    ]
    _print_used(console, runs.runs, runs.excluded, notes)


def _print_used(
    console: Console,
    used: pd.DataFrame,
    excluded: Sequence[tuple[Path, str]],
    notes: Sequence[str],
) -> None:
    counts = used["role"].value_counts()
    others = sorted(set(counts.index) - {PATH, FLOOR, HOLD_DENSE})
    roles = ", ".join(f"{counts.get(r, 0)} {r}" for r in (PATH, FLOOR, HOLD_DENSE, *others))
    console.print(f"{len(used)} runs used ({roles}), {len(excluded)} left out")
    for path, reason in excluded:
        console.print(f"  left out {path}: {reason}")
    for note in notes:
        console.print(f"  note: {note}")


def _print_summary(console: Console, runs: RunSet, paths: Sequence[Path]) -> None:
    table = summary(runs.stages)
    console.print(_share_table(table))
    console.print(
        "99 % ... 50 %: fewest non-zero parameters measured with at least this share of the dense "
        "score, and their share of the dense count.\n"
        "*: the floor alone reaches this score, so keeping it needs no adapter. -: no such run, or "
        "undefined."
    )
    console.print(_spacing_table(table, runs.stages))
    console.print(
        "Distinct non-zero parameter counts in each band (percent of dense), and the largest ratio "
        "between neighbouring counts, down to 1 % of dense."
    )
    names = " ".join(str(path) for path in paths)
    console.print(
        f"\nCurves and rank maps: python -m analysis figures {names} --out figures\n"
        f"Every stage as CSV:   python -m analysis freeze {names} --out tables\n"
        "Run folders:"
    )
    for row in runs.runs[runs.runs["role"] == PATH].to_dict("records"):
        console.print(f"  {row['task']}, seed {row['seed']}: {row['path']}")


def _share_table(table: pd.DataFrame) -> Table:
    view = Table(
        box=box.SIMPLE_HEAD,
        title="Fewest parameters that keep a share of the dense score",
        title_justify="left",
    )
    view.add_column("dataset", overflow="fold", min_width=12)
    for column in ("seed", "score"):
        view.add_column(column, no_wrap=True)
    for column in (
        "dense",
        "floor",
        "hold_dense",
        *(f"{s:.0%}".replace("%", " %") for s in SHARES.values()),
    ):
        view.add_column(column, justify="right", no_wrap=True)
    for row in table.to_dict("records"):
        for score in SCORES:
            floor, dense = row[f"{score}_{FLOOR}"], row[f"{score}_dense"]
            first = score == SCORES[0]
            view.add_row(
                row["task"] if first else _origin(row),
                str(row["seed"]) if first else "",
                score,
                _score(dense),
                _score(floor),
                _score(row[f"{score}_{HOLD_DENSE}"]),
                *(
                    _count(row[f"{score}_{column}"], row["dense_params"], floor >= share * dense)
                    for column, share in SHARES.items()
                ),
            )
    return view


def _spacing_table(table: pd.DataFrame, stages: pd.DataFrame) -> Table:
    view = Table(box=box.SIMPLE_HEAD, title="Parameter counts along the path", title_justify="left")
    view.add_column("dataset", overflow="fold", min_width=12)
    for column in (
        "seed",
        "stages",
        "dense params",
        *(f"{upper}-{lower} %" for upper, lower in BANDS),
    ):
        view.add_column(column, justify="right")
    view.add_column("largest ratio", justify="right")
    view.add_column("smallest non-zero", justify="right")
    for row in table.to_dict("records"):
        counts = stages.loc[stages["run_id"] == row["run_id"], "num_nonzero_params"]
        spacing = count_spacing(counts.tolist(), row["dense_params"])
        view.add_row(
            f"{row['task']},{_origin(row)[1:]}",
            str(row["seed"]),
            f"1 + {row['num_stages']}",
            f"{row['dense_params']:,}",
            *(str(number) for number in spacing.bands.values()),
            _score(spacing.largest_ratio, digits=2),
            f"{spacing.smallest_percent:.3g} %",
        )
    return view


def _origin(row: Mapping[Hashable, object]) -> str:
    parts = [row["backbone"], row["setting"], row["variant"]]
    return "  " + ", ".join(str(part) for part in parts if part not in (DEFAULT_SETTING, ""))


def _score(value: float, digits: int = 3) -> str:
    return "-" if pd.isna(value) else f"{value:.{digits}f}"


def _count(count: int, dense: int, needs_no_adapter: bool) -> str:
    if pd.isna(count):
        return "-"
    return f"{'*' * needs_no_adapter}{count:,}\n{100 * count / dense:.3g} %"
