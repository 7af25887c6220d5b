"""Command line: parse, call; nothing else.

Every command imports what it needs: `--help` takes a fraction of a second, and only `run` imports
torch (the runs of a sweep are processes of their own).
"""

import errno
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NoReturn

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace, set_parsing_settings
from typing_extensions import override

from sorakit.config import RunConfig, with_home
from sorakit.option_errors import in_plain_words
from sorakit.options import (
    Choice,
    describe_variants,
    flatten,
    one_line,
    option_types,
    run_config,
    split_options,
    with_nulls,
)
from sorakit.quoting import cut, quoted

_FORMAT_WARNING = warnings.formatwarning
_FAILED = 1
_USER_ERROR = 2
_PIPE_WIDTH = 500
_RUNS = "runs"
_RUN_ONLY = ("run_folder", "controls")
"""Arguments of `run` that are no options of a run."""

_DESCRIPTION = """How few adapter parameters does a dataset need, and what is lost first: what the
model memorized, or what it generalizes? sorakit adapts a pre-trained model densely, raises the SoRA
threshold xi step by step, and records both scores at every stage."""

_RUN_DESCRIPTION = """Adapt one model to one dataset, from dense to sparse, and record every stage
in a run folder. Options come from YAML files (--config, several may be given) and from the command
line; later ones win. Rerun the same command after any interruption: it resumes, and the results are
bit-identical. A run that is complete is not repeated."""

_EXAMPLES = "examples:"
_RUN_EPILOG = f"""{_EXAMPLES}
  sorakit run --task.name pydoc_topic
  sorakit run --task.name mrpc --backbone.name microsoft/deberta-v3-base --seed 1
  sorakit run --task.name mrpc --method.name head_only        # the floor: no adapter
  sorakit run --task.name mrpc --controls floor,hold_dense,random_mask
  sorakit run runs/mrpc/0f3a5c7e9b1d                          # resume it, or repeat it
  sorakit run --config experiments/glue_minilm.yaml --print_config"""

_SWEEP_DESCRIPTION = """Run many configurations. A sweep file holds options of `sorakit run` and
lists: every combination of the values in grid, zip (lists taken together) and points is one run,
and controls gives each path what it is compared with. Later files change earlier ones. All
configurations are checked before the first run starts. Rerun the same command after any
interruption: finished runs are skipped, unfinished ones resume, and new values in a list only add
runs. Runs with the same dense stage train it once. A failed run does not stop the others."""

_SWEEP_EPILOG = f"""{_EXAMPLES}
  sorakit sweep --config experiments/sweeps/fig2_small.yaml --dry-run
  sorakit sweep --config experiments/sweeps/fig2_small.yaml --workers 2
  sorakit sweep --config SWEEP.yaml --engine ray --gpus-per-run 0.25   # docs/cluster.md
a line of a sweep file:
  controls: [floor, hold_dense, random_mask, lora: [1, 2, 4, 8]]"""


_STUDY_DESCRIPTION = """The whole answer for a dataset of your own: how few parameters keep how
much, what goes first, and whether other adapters of as many parameters do as well. For every seed
it runs Algorithm 1, its floor (the task head alone), its matched controls and plain LoRA of several
ranks, and makes tables, figures and report.html of them. It first says what it understood of the
data and how long it will take. Ctrl-C stops it; the same command goes on, and repeats nothing."""

_STUDY_EPILOG = f"""{_EXAMPLES}
  sorakit study --data pydoc_order --quick          # a first look, embedded: no download
  sorakit study --data reviews.csv                  # columns text and label; see --task.text_column
  sorakit study --data reviews.csv --task.text_column review --task.label_column stars
  sorakit study --data reviews.csv --task.validation_file held_out.csv
  sorakit study --data mrpc --backbone microsoft/deberta-v3-base --seeds 3
  sorakit study --data data/mails --data forum=data/forum.jsonl --out studies/two --workers 2
  sorakit study --data mrpc --controls "floor,hold_dense,random_mask" --lora-ranks 1,4 --dry-run
every option of `sorakit run` may be given too, as --xi.num_stages 8 or --optim.lr 5e-4"""


class _Formatter(DefaultHelpFormatter):
    """Leaves the lines of examples as they are."""

    @override
    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith(_EXAMPLES) else super()._fill_text(text, width, indent)


class _Parser(ArgumentParser):
    """Reports a mistake in one sentence, with exit code 2."""

    def __init__(self, **options: Any) -> None:
        # An abbreviation of one option may be a mistyped other one: --method.rank.
        super().__init__(formatter_class=_Formatter, allow_abbrev=False, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # noqa: ARG002  # jsonargparse's signature
        _fail(in_plain_words(one_line(message), options=option_types(), arguments=self._types()))

    def _types(self) -> dict[str, Any]:
        """Return the types of the arguments that are no options of a run."""
        return {action.dest: getattr(action, "_typehint", None) or str for action in self._actions}


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
    if sys.platform == "win32":
        _fail("sorakit must run on Linux or macOS, got Windows. Use the Linux of WSL 2.")
    # `datasets` shows bars of steps that mean nothing to a user; tokenising has a bar of its own.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    warnings.formatwarning = _format_warning
    words = [_with_home(word) for word in (sys.argv[1:] if argv is None else argv)]
    run_options: Choice = {}
    if words[:1] in (["run"], ["check"]):
        words = with_nulls(words)
        try:
            _require_yaml(words)
        except ValueError as error:
            _fail(str(error))
    elif words[:1] == ["study"]:
        try:
            words, run_options = split_options(words)
        except ValueError as error:
            _fail(str(error))
    options = _parser(words[:1]).parse_args(words)
    command = options.subcommand
    try:
        if command == "run":
            code = _run(options.run, given=words[1:])
        elif command == "study":
            code = _study(options.study, run_options=run_options)
        else:
            code = _COMMANDS[command](options[command])
    except ValueError as error:
        _fail(str(error))
    except OSError as error:  # a full disk, above all
        if error.errno == errno.ENAMETOOLONG:
            _fail(f"A path must be one that the file system takes, got {quoted(error.filename)}.")
        sys.stderr.write(f"sorakit: error: {cut(str(error))}\n")
        sys.exit(_FAILED)
    except KeyboardInterrupt as error:
        signum = error.args[0] if error.args else signal.SIGINT
        how = "Interrupted" if signum == signal.SIGINT else f"Stopped by {signum.name}"
        sys.stderr.write(f"\n{how}. Rerun the same command to resume from the last checkpoint.\n")
        sys.exit(128 + signum)
    sys.exit(code)


def _require_yaml(words: Sequence[str]) -> None:
    """Read the files of `--config` once, for messages that say the file and the line.

    Raises:
        ValueError: If one cannot be read, is no YAML, or holds no options.
    """
    files = [word.partition("=")[2] for word in words if word.startswith("--config=")]
    files += [file for word, file in pairwise(words) if word == "--config"]
    if files:
        from sorakit.sweep.grid import read_yaml

        for file in files:
            read_yaml(Path(file))


def _format_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """Return a warning of sorakit as a user reads it: without the line of code that gave it."""
    if not Path(filename).is_relative_to(Path(__file__).parent):
        return _FORMAT_WARNING(message, category, filename, lineno, line)
    return f"sorakit: warning: {cut(one_line(str(message)))}\n"


def _with_home(word: str) -> str:
    """Return an argument, or the value of --name=VALUE, with the home folder for its ~."""
    name, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    is_path = value == "~" or value.startswith("~/")  # and no other word that begins with ~
    return name + equals + (with_home(value) if is_path else value)


def parse_run_config(argv: Sequence[str]) -> RunConfig:
    """Return the configuration that `sorakit run` would run with the arguments `argv`.

    Raises:
        SystemExit: If a key or value is wrong; the reason is on stderr.
    """
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    return _to_config(_parser(["run"]).parse_args(["run", *with_nulls(argv)]).run)


def _to_config(options: Namespace) -> RunConfig:
    values = options.as_dict()
    for name in ("config", *_RUN_ONLY):
        values.pop(name, None)
    return run_config(values)


def _parser(command: Sequence[str]) -> ArgumentParser:
    """Return the parser; the options of a run, slow to make, only where they are taken."""
    parser = _Parser(prog="sorakit", description=_DESCRIPTION)
    commands = parser.add_subcommands(required=True)
    run = _RunParser(description=_RUN_DESCRIPTION, epilog=_RUN_EPILOG)
    run.add_argument(
        "run_folder",
        metavar="RUN_FOLDER",
        nargs="?",
        type=str | None,
        default=None,
        help="A run folder, instead of options. An incomplete run is resumed in place. A complete "
        "one is repeated in --out_dir (RUN_FOLDER-again by default) and the two are compared.",
    )
    run.add_argument("--config", action="config", help="YAML file with options of `run`.")
    run.add_argument(
        "--controls",
        type=str | None,
        default=None,
        help="Also run what the path is compared with: floor, the values of stage.control, and "
        "LoRA of given ranks, for example 'floor, hold_dense, lora: [1, 4]'. Every run then has a "
        "folder of its own below --out_dir (runs by default).",
    )
    if list(command) == ["run"]:
        run.add_class_arguments(RunConfig, as_group=False)
        describe_variants(run)
    commands.add_subcommand("run", run, help="adapt one model to one dataset, from dense to sparse")
    check = _Parser(
        description="Tell what a run would do, and train nothing: its examples, their classes and "
        "lengths, what repeats and what is cut, the adapted matrices, and the time of a pass, from "
        "a few timed steps. The options are those of `sorakit run`."
    )
    check.add_argument("--config", action="config", help="YAML file with options of `run`.")
    if list(command) == ["check"]:
        check.add_class_arguments(RunConfig, as_group=False)
    commands.add_subcommand("check", check, help="what a run would do; trains nothing")
    commands.add_subcommand(
        "sweep", _sweep_parser(), help="run many configurations, with their controls"
    )
    commands.add_subcommand(
        "study", _study_parser(), help="the whole answer for a dataset: paths, controls, report"
    )
    status = _Parser(
        description="List every run at or below a folder: its state, how far it is, the error if "
        "it failed, and the command that resumes it. Safe while runs are in progress."
    )
    status.add_argument("runs", metavar="RUNS", help="Folder with runs.")
    commands.add_subcommand(
        "status", status, help="list runs: state, progress, error, how to resume"
    )
    export = _Parser(
        description="Copy the adapter of one stage: a plain LoRA that PEFT loads without sorakit."
    )
    export.add_argument("run", metavar="RUN", help="Run folder.")
    export.add_argument(
        "--stage", type=int | None, default=None, help="Number of the stage; 0 is dense."
    )
    export.add_argument(
        "--retention",
        type=float | None,
        default=None,
        help="Choose the stage with the fewest parameters that keeps this share of the dense "
        "generalization score, for example 0.99.",
    )
    export.add_argument("--out", type=str, required=True, help="New folder for the adapter.")
    export.add_argument(
        "--with-base",
        type=bool | None,
        default=None,
        help="Write the weights of the base model beside it; null: those of the embedded encoder, "
        "which no Hub has.",
    )
    export.add_argument(
        "--verify",
        type=bool,
        default=True,
        help="Load the adapter in plain PEFT and compare its score with the record.",
    )
    export.add_argument(
        "--push_to_hub",
        metavar="REPO",
        type=str | None,
        default=None,
        help="Send the export to the Hugging Face Hub too, as a new repository: OWNER/NAME, or "
        "NAME of your own. Needs a token (`hf auth login`, or HF_TOKEN).",
    )
    export.add_argument(
        "--private", action="store_true", help="Make the repository of --push_to_hub a private one."
    )
    commands.add_subcommand("export", export, help="copy the LoRA of one stage")
    predict = _Parser(
        description="Write what the adapter of one stage says of the texts in a file: the class of "
        "each row and the probability of every class, or its number, as CSV."
    )
    predict.add_argument("run", metavar="RUN", help="Run folder.")
    predict.add_argument(
        "--stage", type=int, required=True, help="Number of the stage; 0 is dense."
    )
    predict.add_argument(
        "--file",
        type=str,
        required=True,
        help="CSV, TSV, JSON, JSON lines or parquet with the columns of texts of the run's task.",
    )
    predict.add_argument(
        "--out", type=str | None, default=None, help="File to write; null writes to stdout."
    )
    predict.add_argument(
        "--glue",
        action="store_true",
        help="Write the task's file of a submission to the GLUE benchmark instead, for the "
        "official test file; --out is then the folder it goes to.",
    )
    commands.add_subcommand("predict", predict, help="classes and probabilities for new texts")
    texts = _Parser(
        description="Write the texts of a run's examples, with the index and split that its record "
        "gives them, as CSV. Records hold no texts; they are read through the run's task again."
    )
    texts.add_argument("run", metavar="RUN", help="Run folder, or PACK/RUN_ID.")
    texts.add_argument("--out", type=str, required=True, help="New file to write.")
    commands.add_subcommand("texts", texts, help="the texts behind the examples of a record")
    commands.add_subcommand("sync", _sync_parser(), help="send runs and their dashboard to W&B")
    return parser


def _sync_parser() -> ArgumentParser:
    parser = _Parser(
        description="Send the runs at or below a folder to Weights & Biases and update the "
        "dashboard and the report of their project. Runs that the server already has are not sent "
        "again."
    )
    parser.add_argument("runs", metavar="RUNS", help="Folder with runs.")
    parser.add_argument(
        "--project",
        type=str | None,
        default=None,
        help="W&B project; by default tracking.project of each run.",
    )
    parser.add_argument(
        "--entity",
        type=str | None,
        default=None,
        help="W&B user or team; by default tracking.entity of each run.",
    )
    parser.add_argument(
        "--workspace",
        type=bool,
        default=True,
        help="Create or update the dashboard and the report.",
    )
    return parser


def _sweep_parser() -> ArgumentParser:
    parser = _Parser(description=_SWEEP_DESCRIPTION, epilog=_SWEEP_EPILOG)
    parser.add_argument(
        "--config",
        action="append",
        type=str,
        help="Sweep file; give it again to change an earlier one.",
    )
    parser.add_argument("--out", type=str, default=_RUNS, help="Folder for the run folders.")
    parser.add_argument(
        "--records",
        action="append",
        type=str,
        help="Folder with records of finished runs to skip; may be given several times.",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="List the runs and their estimated cost, then stop."
    )
    parser.add_argument(
        "--engine",
        type=Literal["local", "ray"],
        default="local",
        help="local: processes on this machine. ray: the cluster at RAY_ADDRESS, or this machine "
        "where that is not set.",
    )
    parser.add_argument(
        "--workers",
        type=int | None,
        default=None,
        help="Runs at a time; by default 1, with ray as many as fit.",
    )
    parser.add_argument(
        "--threads-per-run",
        type=int,
        default=1,
        help="CPU threads of each run that leaves trainer.num_threads unset.",
    )
    parser.add_argument(
        "--gpus-per-run", type=float, default=0.0, help="ray: GPUs per run, for example 0.25."
    )
    return parser


def _study_parser() -> ArgumentParser:
    parser = _Parser(description=_STUDY_DESCRIPTION, epilog=_STUDY_EPILOG)
    parser.add_argument(
        "--data",
        action="append",
        type=str,
        help="An embedded or GLUE task, a .csv, .tsv, .json, .jsonl or .parquet file, a folder "
        "that `datasets.load_dataset` reads, or the id of a dataset on the Hub. NAME=PLACE gives "
        "it a name. May be given several times: datasets are then compared.",
    )
    parser.add_argument(
        "--backbone", type=str, default="embedded", help="embedded, a folder, or a Hub id."
    )
    parser.add_argument(
        "--seeds", type=int | None, default=None, help="Number of seeds; 5, or 1 with --quick."
    )
    parser.add_argument(
        "--controls",
        type=str | None,
        default=None,
        help="What every path is compared with, as in `sorakit run`; 'floor,random_mask,"
        "hard_mask_retrain' by default, with --quick 'floor,random_mask'. none: nothing.",
    )
    parser.add_argument(
        "--lora-ranks",
        type=str | None,
        default=None,
        help="Ranks of plain LoRA, the rival at as many parameters: 1,2,4 and so on up to method.r "
        "by default, with --quick 1 and method.r. none: no LoRA.",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="A small first answer: at most 500 training examples, 5 stages, one seed, fewer "
        "controls. It says what it leaves out.",
    )
    parser.add_argument(
        "--out",
        type=str | None,
        default=None,
        help="Folder of the study; studies/<data> by default.",
    )
    parser.add_argument("--workers", type=int, default=1, help="Runs at a time.")
    parser.add_argument(
        "--threads-per-run",
        type=int,
        default=1,
        help="CPU threads of each run that leaves trainer.num_threads unset.",
    )
    parser.add_argument(
        "--config", action="append", type=str, help="YAML file with options of `sorakit run`."
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="Say what was understood, what would run and how long it would take; write nothing.",
    )
    return parser


def _run(options: Namespace, *, given: Sequence[str]) -> int:
    if options.run_folder is not None:
        return _repeat(options, given=given)
    config = _to_config(options)
    if options.controls is not None:
        return _run_with_controls(config, options.controls)
    from sorakit.sweep.cost import describe_run_cost
    from sorakit.training.run import run  # torch takes seconds to import

    outcome = run(config, cost=describe_run_cost(config))
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
    from sorakit.sweep.data_check import require_data
    from sorakit.sweep.engines import LocalEngine
    from sorakit.sweep.grid import one_path
    from sorakit.sweep.plan import plan_points

    sweep = one_path(config, controls=parse_controls(controls))
    plan = plan_points(sweep, out=Path(config.out_dir or _RUNS), threads_per_run=None)
    require_data(plan.jobs)
    return _run_plan(plan, lambda: LocalEngine(workers=1))


def _sweep(options: Namespace) -> int:
    from sorakit.sweep.data_check import require_data
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
    require_data(plan.jobs)
    workers = options.workers or 1
    if options.dry_run:
        _say(describe_plan(plan, workers=workers))
        return 0
    return _run_plan(plan, lambda: _engine(options, plan))


def _study(options: Namespace, *, run_options: Choice) -> int:
    from sorakit.studies.conduct import conduct

    for name in ("workers", "threads_per_run"):
        if options[name] < 1:
            raise ValueError(f"`--{name.replace('_', '-')}` must be >= 1, got {options[name]}.")
    done = conduct(
        _study_specification(options, run_options),
        workers=options.workers,
        threads_per_run=options.threads_per_run,
        dry_run=options.dry_run,
        say=_say,
    )
    return 0 if done else _FAILED


def _study_specification(options: Namespace, run_options: Choice) -> Any:
    from sorakit.studies.specification import Request, parse_ranks, specification
    from sorakit.sweep.grid import read_yaml

    from_files: Choice = {}
    for file in options.config or ():
        from_files |= flatten(read_yaml(Path(file)))
    return specification(
        Request(
            data=options.data or [],
            backbone=options.backbone,
            seeds=options.seeds,
            controls=options.controls,
            lora_ranks=parse_ranks(options.lora_ranks),
            quick=options.quick,
            options=from_files | run_options,
            out=options.out,
        )
    )


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


def _check(options: Namespace) -> int:
    config = _to_config(options)
    from sorakit.training.check import preview  # torch takes seconds to import

    _say(preview(config).text)
    return 0


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
        console.print("To resume (or rerun the sweep):")
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
    if options.private and options.push_to_hub is None:
        raise ValueError("`--private` must come with `--push_to_hub`, got it alone.")
    from sorakit.training.export import (  # torch takes seconds to import
        export_stage,
        require_loadable_by_others,
        texts_for_hub,
    )
    from sorakit.training.hub import new_repository, push
    from sorakit.training.run import quiet_libraries

    quiet_libraries()
    repository = None
    if options.push_to_hub is not None:
        require_loadable_by_others(run, with_base=options.with_base)
        repository = new_repository(options.push_to_hub, private=options.private)
    result = export_stage(run, stage, out, with_base=options.with_base, verify=options.verify)
    row = run.stages.set_index("stage").loc[stage]
    _say(
        f"Stage {stage}: {row['num_nonzero_params']:,} parameters, generalization "
        f"{row['generalization']:.4f} "
        f"({row['metric']}) -> {out}"
    )
    if result.score is None:
        _say(f"Not verified: {result.not_verified}")
    else:
        _say(
            f"Verified: {result.score:.4f} in plain PEFT (float32), {result.recorded:.4f} recorded "
            f"({result.precision}); tolerance {result.tolerance:.3g}."
        )
    if repository is not None:
        texts = texts_for_hub(run, stage, out, result, repo_id=repository.repo_id)
        note = f"Stage {stage} of sorakit run {run.run_id}"
        _say(f"Pushed to {push(out, repository, replaced=texts, note=note)}")
    return 0


def _predict(options: Namespace) -> int:
    from sorakit.records import ADAPTERS_DIR, load_run, stage_name

    run = load_run(options.run)
    if not (run.path / ADAPTERS_DIR / stage_name(options.stage)).is_dir():
        last = len(run.stages) - 1
        raise ValueError(f"`--stage` must be a stage of the run, 0 to {last}, got {options.stage}.")
    out = None if options.out is None else Path(options.out)
    if options.glue and out is None:
        raise ValueError("`--out` must be a folder when `--glue` is given, got null.")
    if not options.glue and out is not None and out.exists():
        raise ValueError(f"`--out` must be a new file, got {options.out!r}, which exists.")
    from sorakit.training.predict import predict, predictions_csv, submission
    from sorakit.training.run import quiet_libraries  # torch takes seconds to import

    quiet_libraries()
    task = run.config["task"]["name"]
    found = predict(run, options.stage, Path(options.file))
    text = predictions_csv(found)
    if options.glue:
        assert out is not None
        name, text = submission(found, task)
        out = out / name
        if out.exists():
            raise ValueError(f"`--out` must not hold {name} yet, got {options.out!r}.")
    if out is None:
        sys.stdout.write(text)
        return 0
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, "utf-8")
    _say(f"{len(found.outputs):,} predictions -> {out}")
    return 0


def _texts(options: Namespace) -> int:
    from sorakit.records import load_run
    from sorakit.tasks.texts import example_texts
    from sorakit.training.inputs import load_data, require_same_inputs

    run = load_run(options.run, with_ranks=False)
    out = Path(options.out)
    if out.exists():
        raise ValueError(f"`--out` must be a new file, got {options.out!r}, which exists.")
    config = run_config(flatten(run.config))
    require_same_inputs(run.path, config, run.meta)
    table = example_texts(load_data(config))
    out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(out, index=False, lineterminator="\n")
    _say(f"{len(table):,} texts -> {out}")
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
    from sorakit.tracking.optional import require_wandb

    require_wandb()
    from sorakit.tracking.dashboards import require_workspaces, save_dashboards
    from sorakit.tracking.sync import sync

    if options.workspace:
        require_workspaces()
    report = sync(Path(options.runs), project=options.project, entity=options.entity, say=_say)
    failed = [str(path) for path, _ in report.failed]
    if options.workspace:
        failed += save_dashboards(report.projects, say=_say)
    if failed:
        more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
        sys.stderr.write(f"sorakit: error: W&B has not taken {failed[0]}{more}; try again later.\n")
        return _FAILED
    return 0


_COMMANDS = {
    "check": _check,
    "sweep": _sweep,
    "status": _status,
    "export": _export,
    "predict": _predict,
    "texts": _texts,
    "sync": _sync,
}


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()  # what comes next may take hours


def _fail(message: str) -> NoReturn:
    sys.stderr.write(f"sorakit: error: {cut(message)}\n")
    sys.exit(_USER_ERROR)
