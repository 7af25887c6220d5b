"""Command line of the analysis: parse, load, call, print."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from analysis import style
from analysis.arguments import parser
from analysis.compare import compare
from analysis.compare_text import comparison_table, csv_text, print_comparison
from analysis.controls import configuration_notes, dataset_name, missing_controls
from analysis.curve_table import curve_table, print_curves
from analysis.doubts import doubt_notes
from analysis.figures import curve_figure, rank_map_figure
from analysis.frontier import frontier
from analysis.frontier_text import frontier_latex, print_frontier
from analysis.frozen import FIXED_XI_FILE, frozen_tables, table_csv
from analysis.inflection_table import inflections_by_dataset, inflections_by_seed
from analysis.latex import shares_table
from analysis.load import (
    FLOOR,
    HOLD_DENSE,
    KEYS,
    PATH,
    RunSet,
    comparability_notes,
    load_runs,
    require_path_run,
    select_paths,
    with_curves,
)
from analysis.long_names import grouped_notes
from analysis.memory.blocks import texts_block
from analysis.memory.forgetting import mean_lost
from analysis.memory.text import print_block
from analysis.memory.texts import read_texts
from analysis.memory.verbs import MEMORY_VERBS, memory_examples
from analysis.ranks import maps_at, parse_criterion, without_map
from analysis.report.page import report
from analysis.summary_text import print_summary
from analysis.weights import with_weights
from sorakit.quoting import cut
from sorakit.records import find_runs
from sorakit.records.packing import pack_runs

_PLAIN_WIDTH = 120  # columns when the output is a file or a pipe


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit code: 0, or 2 when the request cannot be met.

    Args:
        argv: Arguments without the program name; None reads `sys.argv`.
    """
    args = parser().parse_args(argv)
    console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    try:
        if args.verb == "compare":
            _compare(console, args)
            return 0
        if args.verb == "frontier":
            _frontier(console, args)
            return 0
        if args.verb == "curves":
            _curves(console, args)
            return 0
        if args.verb == "pack":
            _pack(console, args)
            return 0
        if args.verb == "report":
            _report(console, args)
            return 0
        if args.verb in MEMORY_VERBS:
            _memory(console, args)
            return 0
        out = _checked_out(args.out) if "out" in args else None
        runs = _load(args)
        if out is None:
            require_path_run(runs.stages)
            _print_runs(console, runs)
            print_summary(console, runs, args.runs)
        else:
            _write(console, args, runs, out)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {cut(' '.join(str(error).split()))}\n")
        return 2
    return 0


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
        stages = with_weights(runs.stages, args.weights)
        drops = inflections_by_dataset(inflections_by_seed(stages))
        before = "before the refit" if args.weights == "penalised" else ""
        figures = {
            "curves": curve_figure(stages, drops, width=args.width, remark=before),
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


def _frontier(console: Console, args: argparse.Namespace) -> None:
    for option in ("csv", "latex"):
        _check_file(option, getattr(args, option))
    runs = _load(args, with_ranks=False)
    table = frontier(runs.stages)
    _print_runs(console, runs)
    print_frontier(console, table)
    texts = {args.csv: table_csv(table), args.latex: frontier_latex(table)}
    for file, text in texts.items():
        if file is not None:
            file.write_text(text, "utf-8")
            console.print(f"wrote {file}")


def _curves(console: Console, args: argparse.Namespace) -> None:
    _check_file("csv", args.csv)
    runs = _load(args, with_ranks=False)
    table = curve_table(runs.stages)
    _print_runs(console, runs)
    print_curves(console, table)
    if args.csv is not None:
        args.csv.write_text(table_csv(table), "utf-8")
        console.print(f"wrote {args.csv}")


def _pack(console: Console, args: argparse.Namespace) -> None:
    out = _checked_out(args.out)
    folders = dict.fromkeys(folder for root in args.runs for folder in find_runs(root))
    packed = pack_runs(folders, out)
    there = f", {len(packed.there)} were there" if packed.there else ""
    console.print(f"{len(packed.added)} runs packed{there}, {len(packed.left_out)} left out")
    for path, reason in packed.left_out:
        console.print(f"  left out {path}: {reason}")
    if packed.added:
        size = sum(file.stat().st_size for file in out.glob("*.parquet"))
        console.print(f"wrote {out} ({size / 1e6:.2f} MB)")


def _report(console: Console, args: argparse.Namespace) -> None:
    out: Path = args.out
    _check_file("out", out)
    texts = None if args.texts is None else read_texts(args.texts)
    page = report(_load(args), texts=texts)
    out.write_text(page.html, "utf-8")
    _print_used(console, page.used, page.excluded, page.notes)
    console.print(f"wrote {out} ({out.stat().st_size / 1e6:.2f} MB)")


def _memory(console: Console, args: argparse.Namespace) -> None:
    verb = MEMORY_VERBS[args.verb]
    for option in ("csv", "figure"):
        _check_file(option, getattr(args, option))
    figure: Path | None = args.figure
    if figure is not None:
        _check_figure(figure, has_one=verb.figure is not None)
    runs = load_runs(args.runs, with_ranks=False)
    runs = select_paths(runs, dict(args.only)) if args.only else runs
    tables = verb.tables(runs, memory_examples(runs))
    _print_used(console, runs.runs, runs.excluded, comparability_notes(runs.runs))
    print_block(console, verb.block(tables))
    if args.verb == "forgetting" and args.texts is not None:
        print_block(console, texts_block(mean_lost(tables["examples"]), read_texts(args.texts)))
    if args.csv is not None:
        for place, (name, table) in enumerate(tables.items()):
            file = args.csv.with_stem(f"{args.csv.stem}_{name}") if place else args.csv
            file.write_text(table_csv(table), "utf-8")
            console.print(f"wrote {file}")
    if figure is not None and verb.figure is not None:
        drawn = verb.figure(tables)
        suffix = figure.suffix.removeprefix(".")
        console.print(f"wrote {style.save(drawn, figure.with_suffix(''), formats=[suffix])[0]}")


def _check_figure(file: Path, *, has_one: bool) -> None:
    if not has_one:
        raise ValueError(f"`--figure` must be left out, got {str(file)!r}. The table says it all.")
    if file.suffix not in {".pdf", ".png"}:
        raise ValueError(f"`--figure` must end in .pdf or .png, got {str(file)!r}.")


def _load(args: argparse.Namespace, *, with_ranks: bool = True) -> RunSet:
    runs = load_runs(args.runs, with_ranks=with_ranks)
    return with_curves(select_paths(runs, dict(args.only)) if args.only else runs)


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
        *doubt_notes(runs.stages),
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
    names = {dataset_name(*map(str, row)) for row in used[KEYS].drop_duplicates().to_numpy()}
    for note in grouped_notes(notes, names):
        console.print(f"  note: {note}")
