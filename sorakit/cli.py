"""Command line: parse, call; nothing else.

Every command imports what it needs: `--help` takes a fraction of a second, and only `run` imports
torch.
"""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from sorakit.config import RunConfig

_FAILED = 1
_USER_ERROR = 2
_INTERRUPTED = 130

_DESCRIPTION = """Memorization and generalization against adapter sparsity: adapt a pre-trained
model densely, raise the SoRA threshold xi step by step, and record both at every stage."""

_RUN_DESCRIPTION = """Run Algorithm 1 and record every stage in a run folder. Options come from YAML
files (--config, several may be given) and dotted overrides, later ones winning. A run that was
killed goes on when the same command is started again; a completed one is left as it is."""

_RUN_EPILOG = """examples:
  sorakit run --task.name pydoc_topic
  sorakit run --task.name mrpc --backbone.name microsoft/deberta-v3-base --seed 1
  sorakit run --task.name mrpc --method.name head_only        # the floor of the curve
  sorakit run --config experiments/glue_minilm.yaml --print_config"""


class _Parser(ArgumentParser):
    """Reports a mistake in one sentence, with exit code 2."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # noqa: ARG002  # jsonargparse's signature
        _fail(_one_sentence(message))


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line.

    Args:
        argv: Arguments without the program name; `None` reads `sys.argv`.

    Raises:
        SystemExit: Always: 0 done, 1 failed while running, 2 wrong input, 130 interrupted.
    """
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    options = _parser().parse_args(None if argv is None else list(argv))
    command = options.subcommand
    try:
        _COMMANDS[command](options[command])
    except ValueError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted. The same command goes on from the last checkpoint.\n")
        sys.exit(_INTERRUPTED)
    sys.exit(0)


def parse_run_config(argv: Sequence[str]) -> RunConfig:
    """Return the configuration that `sorakit run` would run with the arguments `argv`.

    Raises:
        SystemExit: If a key or value is wrong; the reason is on stderr.
    """
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    return _to_config(_parser().parse_args(["run", *argv]).run)


def _parser() -> ArgumentParser:
    parser = _Parser(prog="sorakit", description=_DESCRIPTION)
    commands = parser.add_subcommands(required=True)
    run = _Parser(description=_RUN_DESCRIPTION, epilog=_RUN_EPILOG)
    run.add_argument("--config", action="config", help="YAML file with options of `run`.")
    run.add_class_arguments(RunConfig, as_group=False)
    commands.add_subcommand("run", run, help="run Algorithm 1 on one dataset")
    status = _Parser(description="Tell what became of every run at or below a folder.")
    status.add_argument("runs", metavar="RUNS", help="Folder with runs.")
    commands.add_subcommand("status", status, help="completed, running or failed, with the error")
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


def _run(options: Namespace) -> None:
    config = _to_config(options)
    from sorakit.training.run import run  # torch takes seconds to import

    outcome = run(config)
    if outcome.action == "skipped":
        _say(f"{outcome.path} is complete already; nothing to do.")
    else:
        _say(f"Completed {outcome.path}")


def _to_config(options: Namespace) -> RunConfig:
    parser = ArgumentParser()
    parser.add_class_arguments(RunConfig, "run")
    values = options.as_dict()
    values.pop("config", None)
    return parser.instantiate(parser.parse_object({"run": values})).run


def _status(options: Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from sorakit.records import find_runs, is_alive, load_run

    table = Table("run", "task", "state", "stages", "parameters left", "error", box=None)
    for path in find_runs(Path(options.runs)):
        run = load_run(path)
        stale = run.state == "running" and not is_alive(run.status)
        state = "stopped (same command resumes)" if stale else run.state
        left = "" if run.stages.empty else f"{run.stages['num_nonzero_params'].iloc[-1]:,}"
        error = run.status["error"] or ""
        task = run.config["task"]["name"]
        table.add_row(str(path), task, state, str(len(run.stages)), left, error)
    if table.row_count == 0:
        raise ValueError(f"`RUNS` must hold runs, got {options.runs!r}, which holds none.")
    Console().print(table)


def _export(options: Namespace) -> None:
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


def _retaining(run: Any, share: float) -> int:
    """Return the stage with the fewest parameters that keep `share` of dense generalization."""
    from sorakit.records import sparsest_keeping

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


def _sync(options: Namespace) -> None:
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
        sys.exit(_FAILED)


_COMMANDS = {"run": _run, "status": _status, "export": _export, "sync": _sync}


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _fail(message: str) -> NoReturn:
    sys.stderr.write(f"sorakit: error: {message}\n")
    sys.exit(_USER_ERROR)


def _one_sentence(message: str) -> str:
    """Return jsonargparse's message on one line, without its parser-internal prefixes."""
    return " ".join(message.split())
