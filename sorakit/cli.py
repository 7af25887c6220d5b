"""Command line: parse, call; nothing else.

Every command imports what it needs: `--help` takes a fraction of a second, and only `run` imports
torch (the runs of a sweep are processes of their own).
"""

import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings
from typing_extensions import override

from sorakit.config import RunConfig
from sorakit.options import describe_variants, one_line, run_config, with_nulls

_FAILED = 1
_USER_ERROR = 2
_PIPE_WIDTH = 500
_RUNS = "runs"
_RUN_ONLY = ("run_folder", "controls")
"""Arguments of `run` that are no options of a run."""

_DESCRIPTION = """Memorization and generalization against adapter sparsity: adapt a pre-trained
model densely, raise the SoRA threshold xi step by step, and record both at every stage."""

_RUN_DESCRIPTION = """Run Algorithm 1 and record every stage in a run folder. Options come from YAML
files (--config, several may be given) and dotted overrides, later ones winning. A run that was
killed goes on when the same command is started again; a completed one is left as it is."""

_RUN_EPILOG = """examples:
  sorakit run --task.name pydoc_topic
  sorakit run --task.name mrpc --backbone.name microsoft/deberta-v3-base --seed 1
  sorakit run --task.name mrpc --method.name head_only        # the floor of the curve
  sorakit run --task.name mrpc --controls floor,hold_dense,random_mask
  sorakit run runs/mrpc/0f3a5c7e9b1d                          # resume it, or repeat it
  sorakit run --config experiments/glue_minilm.yaml --print_config"""


_SWEEP_DESCRIPTION = """Run every point of a grid. A sweep file holds options of `run` and the lists
grid, zip and points, of which the points are the product; later files are overlays. Every point is
checked before anything runs. Finished runs are skipped and broken ones go on, so the same command
resumes a sweep, and a wider grid only adds. Runs that differ only after the dense stage
train it once. A failed run does not stop the others."""

_SWEEP_EPILOG = """examples:
  sorakit sweep --config experiments/sweeps/fig2_small.yaml --dry-run
  sorakit sweep --config experiments/sweeps/fig2_small.yaml --workers 2
  sorakit sweep --config SWEEP.yaml --engine ray --gpus-per-run 0.25   # docs/cluster.md"""


class _Parser(ArgumentParser):
    """Reports a mistake in one sentence, with exit code 2."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # noqa: ARG002  # jsonargparse's signature
        _fail(one_line(message))


class _RunParser(_Parser):
    """Prints a configuration without what is no option of a run: it may be read as a sweep file."""

    @override
    def dump(self, namespace: Namespace, *args: Any, **kwargs: Any) -> str:
        kept = namespace.clone()
        for name in _RUN_ONLY:
            kept.pop(name, None)
        return super().dump(kept, *args, **kwargs)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line.

    Args:
        argv: Arguments without the program name; `None` reads `sys.argv`.

    Raises:
        SystemExit: Always: 0 done, 1 failed while running, 2 wrong input, 130 after Ctrl-C, 143
            after SIGTERM.
    """
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    words = sys.argv[1:] if argv is None else list(argv)
    if words[:1] == ["run"]:
        words = with_nulls(words)
    options = _parser().parse_args(words)
    command = options.subcommand
    try:
        if command == "run":
            code = _run(options.run, given=words[1:])
        else:
            code = _COMMANDS[command](options[command])
    except ValueError as error:
        _fail(str(error))
    except OSError as error:  # a full disk, above all
        sys.stderr.write(f"sorakit: error: {error}\n")
        sys.exit(_FAILED)
    except KeyboardInterrupt as error:
        signum = error.args[0] if error.args else signal.SIGINT
        how = "Interrupted" if signum == signal.SIGINT else f"Stopped by {signum.name}"
        sys.stderr.write(f"\n{how}. The same command goes on from the last checkpoint.\n")
        sys.exit(128 + signum)
    sys.exit(code)


def parse_run_config(argv: Sequence[str]) -> RunConfig:
    """Return the configuration that `sorakit run` would run with the arguments `argv`.

    Raises:
        SystemExit: If a key or value is wrong; the reason is on stderr.
    """
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    return _to_config(_parser().parse_args(["run", *with_nulls(argv)]).run)


def _to_config(options: Namespace) -> RunConfig:
    values = options.as_dict()
    for name in ("config", *_RUN_ONLY):
        values.pop(name, None)
    return run_config(values)


def _parser() -> ArgumentParser:
    parser = _Parser(prog="sorakit", description=_DESCRIPTION)
    commands = parser.add_subcommands(required=True)
    run = _RunParser(description=_RUN_DESCRIPTION, epilog=_RUN_EPILOG)
    run.add_argument(
        "run_folder",
        metavar="RUN_FOLDER",
        nargs="?",
        type=str | None,
        default=None,
        help="Run folder in the place of options: a run that is not complete goes on there; a "
        "complete one runs again in RUN_FOLDER-again, or in --out_dir, and is compared.",
    )
    run.add_argument("--config", action="config", help="YAML file with options of `run`.")
    run.add_argument(
        "--controls",
        type=str | None,
        default=None,
        help="Also run what the path is compared with, for example floor,hold_dense,random_mask; "
        "each goes to OUT/<task>/<run_id>, OUT being --out_dir, or runs. All controls are those of "
        "stage.control, floor, and lora: [1, 2, 4].",
    )
    run.add_class_arguments(RunConfig, as_group=False)
    describe_variants(run)
    commands.add_subcommand("run", run, help="run Algorithm 1 on one dataset")
    commands.add_subcommand("sweep", _sweep_parser(), help="run every point of a grid")
    status = _Parser(
        description="Tell what became of every run at or below a folder, from the run folders "
        "alone; the runs may be going meanwhile."
    )
    status.add_argument("runs", metavar="RUNS", help="Folder with runs.")
    commands.add_subcommand(
        "status", status, help="completed, running, stopped or failed, and how to go on"
    )
    export = _Parser(
        description="Copy the pruned adapter of one stage: a plain PEFT LoRA, no sorakit needed."
    )
    export.add_argument("run", metavar="RUN", help="Run folder.")
    export.add_argument("--stage", type=int | None, default=None, help="Stage; 0 is dense.")
    export.add_argument(
        "--retention",
        type=float | None,
        default=None,
        help="Instead of a stage: the fewest parameters that keep this share of the dense "
        "generalization, for example 0.99.",
    )
    export.add_argument("--out", type=str, required=True, help="New folder for the adapter.")
    commands.add_subcommand("export", export, help="the pruned LoRA of one stage")
    commands.add_subcommand("sync", _sync_parser(), help="runs and their dashboard to W&B")
    return parser


def _sync_parser() -> ArgumentParser:
    parser = _Parser(
        description="Send the runs at or below a folder to Weights & Biases, and make or renew the "
        "dashboard of their project. What the server holds already is not sent again."
    )
    parser.add_argument("runs", metavar="RUNS", help="Folder with runs.")
    parser.add_argument(
        "--project", type=str | None, default=None, help="Instead of tracking.project of the runs."
    )
    parser.add_argument(
        "--entity", type=str | None, default=None, help="Instead of tracking.entity of the runs."
    )
    parser.add_argument("--workspace", type=bool, default=True, help="Make or renew the dashboard.")
    return parser


def _sweep_parser() -> ArgumentParser:
    parser = _Parser(description=_SWEEP_DESCRIPTION, epilog=_SWEEP_EPILOG)
    parser.add_argument(
        "--config", action="append", type=str, help="Sweep file; several are overlays."
    )
    parser.add_argument("--out", type=str, default=_RUNS, help="Folder of the run folders.")
    parser.add_argument(
        "--records",
        action="append",
        type=str,
        help="Folder with records of finished runs, which are not run again; several may be given.",
    )
    parser.add_argument("--dry-run", action="store_true", help="Show the points and their cost.")
    parser.add_argument(
        "--engine",
        type=Literal["local", "ray"],
        default="local",
        help="local: processes of this machine. ray: the cluster of RAY_ADDRESS, or this machine.",
    )
    parser.add_argument(
        "--workers", type=int | None, default=None, help="Runs at a time (1; ray: what fits)."
    )
    parser.add_argument(
        "--threads-per-run",
        type=int,
        default=1,
        help="CPU threads of a process, where trainer.num_threads is null.",
    )
    parser.add_argument(
        "--gpus-per-run", type=float, default=0.0, help="ray: GPUs of a run, for example 0.25."
    )
    return parser


def _run(options: Namespace, *, given: Sequence[str]) -> int:
    if options.run_folder is not None:
        return _repeat(options, given=given)
    config = _to_config(options)
    if options.controls is not None:
        return _run_with_controls(config, options.controls)
    from sorakit.training.run import run  # torch takes seconds to import

    outcome = run(config)
    if outcome.action == "skipped":
        _say(f"{outcome.path} is complete already; nothing to do.")
    elif outcome.action == "completed":
        _say(f"Completed {outcome.path}")
    return 0


def _repeat(options: Namespace, *, given: Sequence[str]) -> int:
    from sorakit.sweep.repeat import repetition

    if options.controls is not None:
        raise ValueError(
            f"`--controls` must not be given with RUN_FOLDER, got {options.controls!r}. Give the "
            "options of the run, or a sweep file."
        )
    rest = list(given)
    rest.remove(options.run_folder)
    found = repetition(Path(options.run_folder), lambda first: parse_run_config([*first, *rest]))
    _say(found.announce())
    from sorakit.training.run import run  # torch takes seconds to import

    outcome = run(found.config)
    if outcome.action != "followed":
        _say(f"Completed {outcome.path}")
        if found.action == "repeats":
            _say(found.compare())
    return 0


def _run_with_controls(config: RunConfig, controls: str) -> int:
    from sorakit.sweep.controls import parse_controls
    from sorakit.sweep.engines import LocalEngine
    from sorakit.sweep.grid import one_path
    from sorakit.sweep.plan import plan_points

    sweep = one_path(config, controls=parse_controls(controls))
    plan = plan_points(sweep, out=Path(config.out_dir or _RUNS), threads_per_run=None)
    return _run_plan(plan, lambda: LocalEngine(workers=1))


def _sweep(options: Namespace) -> int:
    from sorakit.sweep.display import describe_plan
    from sorakit.sweep.plan import plan_sweep

    for name in ("workers", "threads_per_run"):
        if options[name] is not None and options[name] < 1:
            raise ValueError(f"`--{name.replace('_', '-')}` must be >= 1, got {options[name]}.")
    if not options.config:
        raise ValueError("`--config` must name a sweep file, got none.")
    plan = plan_sweep(
        [Path(file) for file in options.config],
        out=Path(options.out),
        threads_per_run=options.threads_per_run,
        records=[Path(folder) for folder in options.records or ()],
    )
    workers = options.workers or 1
    if options.dry_run:
        _say(describe_plan(plan, workers=workers))
        return 0
    return _run_plan(plan, lambda: _engine(options, plan))


def _run_plan(plan: Any, engine: Callable[[], Any]) -> int:
    """Run the jobs of a plan on the engine that `engine` makes; return the exit code."""
    from rich.console import Console

    from sorakit.sweep.display import SweepDisplay, describe_failures, describe_work
    from sorakit.sweep.driver import run_sweep
    from sorakit.sweep.manifest import Recorded
    from sorakit.sweep.plan import require_writable

    require_writable(plan.out)
    running = engine()
    _say(describe_work(plan, workers=running.num_slots))
    with SweepDisplay(plan, workers=running.num_slots, console=Console()) as display:
        outcome = run_sweep(plan, running, Recorded(plan, display))
    if outcome.failed:
        _say(describe_failures(outcome.failed, blocked=outcome.blocked))
        return _FAILED
    _say(f"All {len(plan.jobs)} runs are complete below {plan.out}.")
    return 0


def _engine(options: Namespace, plan: Any) -> Any:
    if options.engine == "local":
        from sorakit.sweep.engines import LocalEngine

        if options.gpus_per_run:
            raise ValueError(
                f"`--gpus-per-run` must be 0 with the local engine, got {options.gpus_per_run}. "
                "Name the GPUs in CUDA_VISIBLE_DEVICES; the workers take them in turn."
            )
        return LocalEngine(workers=options.workers or 1)
    from sorakit.sweep.ray_engine import RayEngine

    processes = max(job.config.trainer.devices for job in plan.jobs)
    return RayEngine(
        workers=options.workers,
        cpus_per_run=options.threads_per_run * processes,
        gpus_per_run=options.gpus_per_run,
    )


def _status(options: Namespace) -> int:
    from rich.console import Console

    from sorakit.sweep.display import status_table
    from sorakit.sweep.status import count_states, run_statuses

    root = Path(options.runs)
    statuses = run_statuses(root)
    if not statuses:
        raise ValueError(f"`RUNS` must hold runs, got {options.runs!r}, which holds none.")
    # A pipe has no width, and a line for `grep` must not be folded.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    runs = "1 run" if len(statuses) == 1 else f"{len(statuses)} runs"
    console.print(f"{runs}: {count_states(statuses)}")
    console.print(status_table(statuses, root))
    for run in statuses:
        if run.log is not None and run.state == "failed":
            console.print(f"{run.path} failed; its log: {run.log}", markup=False, soft_wrap=True)
    resumable = [run.resume for run in statuses if run.resume is not None]
    if resumable:
        console.print("To go on (or start the sweep again):")
        for command in resumable:
            console.print(f"  {command}", markup=False, soft_wrap=True)
    return 0


def _export(options: Namespace) -> int:
    if (options.stage is None) == (options.retention is None):
        raise ValueError("`--stage` or `--retention` must be given, and not both.")
    from sorakit.records import ADAPTERS_DIR, load_run, stage_name

    run = load_run(options.run)
    stage = options.stage if options.stage is not None else _retaining(run, options.retention)
    source = run.path / ADAPTERS_DIR / stage_name(stage)
    if stage not in set(run.stages["stage"]) or not source.is_dir():
        last = len(run.stages) - 1
        raise ValueError(f"`--stage` must be a stage of the run, 0 to {last}, got {stage}.")
    out = Path(options.out)
    if out.exists():
        raise ValueError(f"`--out` must be a new folder, got {options.out!r}, which exists.")
    try:
        shutil.copytree(source, out)
    except OSError as error:
        raise ValueError(f"`--out` must be writable, got {options.out!r}: {error}") from error
    row = run.stages.set_index("stage").loc[stage]
    _say(
        f"Stage {stage}: {row['num_nonzero_params']:,} parameters, generalization "
        f"{row['generalization']:.4f} "
        f"({row['metric']}) -> {out}"
    )
    return 0


def _retaining(run: Any, share: float) -> int:
    """Return the stage with the fewest parameters that keep `share` of dense generalization."""
    from sorakit.retention import sparsest_keeping

    if not 0 < share <= 1:
        raise ValueError(f"`--retention` must be in (0, 1], got {share}.")
    stages = run.stages
    if stages.empty:
        raise ValueError(f"`RUN` must have a complete stage, got {str(run.path)!r} with none.")
    stage = sparsest_keeping(stages, "generalization", share)
    if stage is None:
        raise ValueError(
            f"`RUN` must have a positive dense score for `--retention`, got {str(run.path)!r}. "
            "Name a `--stage`."
        )
    return int(stage["stage"])


def _sync(options: Namespace) -> int:
    from sorakit.tracking.sync import sync
    from sorakit.tracking.workspace import require_workspaces, save_workspaces

    if options.workspace:
        require_workspaces()
    report = sync(Path(options.runs), project=options.project, entity=options.entity, say=_say)
    failed = [str(path) for path, _ in report.failed]
    if options.workspace:
        failed += save_workspaces(report.projects, say=_say)
    if failed:
        more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
        sys.stderr.write(f"sorakit: error: W&B has not taken {failed[0]}{more}; try again later.\n")
        return _FAILED
    return 0


_COMMANDS = {
    "sweep": _sweep,
    "status": _status,
    "export": _export,
    "sync": _sync,
}


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _fail(message: str) -> NoReturn:
    sys.stderr.write(f"sorakit: error: {message}\n")
    sys.exit(_USER_ERROR)
