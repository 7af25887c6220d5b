"""The run folder: its schema, a crash-tolerant writer and a reader. Free of torch.

A stage is complete when its line stands in `stages.jsonl`, which is written last. Lines are flushed
to the disk; whole files are replaced atomically. A torn last line and rows of incomplete stages are
ignored by the reader.
"""

import hashlib
import json
import math
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, cast

import pandas as pd
import yaml

from sorakit.config import METHOD_VERSION, NULL_MODELS, RunConfig
from sorakit.locks import lock_holder

SCHEMA_VERSION = 1
CONFIG_FILE = "config.yaml"
META_FILE = "meta.json"
STATUS_FILE = "status.json"
STAGES_FILE = "stages.jsonl"
RANKS_FILE = "ranks.jsonl"
STEPS_FILE = "steps.jsonl"
TIMINGS_FILE = "timings.jsonl"
EXAMPLES_FILE = "examples.parquet"
ADAPTERS_DIR = "adapters"
CHECKPOINTS_DIR = "checkpoints"
DENSE_CHECKPOINT = "dense.ckpt"
"""In `CHECKPOINTS_DIR`: the state at the end of the dense stage."""
LOG_FILE = "log.txt"
"""What a run of a sweep wrote to stdout and stderr."""
LOCK_FILE = "lock"
"""Held by the process that writes into the folder."""
TRACKING_DIR = "wandb"
"""What the tracker keeps in a run folder; the run itself never reads it."""

State = Literal["running", "completed", "failed", "interrupted"]

# Seven times faster where PyYAML was built with libyaml, as its wheels are; safe as well.
YAML_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
ROUNDING = 1e-12
"""Relative; what a share of a score is lowered by: 0.9 * 0.8 comes out above the score 0.72."""
PATH = "path"
"""Role of a run of Algorithm 1; the role of a control is its name."""
FLOOR = "floor"
"""Role of a run without an adapter."""


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """One line of `stages.jsonl`. Scores and counts come from the same weights."""

    stage: int
    """0 is the dense stage."""
    xi: float
    """Threshold, gate units per optimizer step."""
    lambda_: float
    """xi / gate_lr: weight of the L1 norm of the gates. Written as `lambda`."""
    num_nonzero_params: int
    """Elements of A and B that belong to non-zero gates: what the exported LoRA holds."""
    num_adapter_params: int
    """The same count with no gate zero."""
    num_nonzero_gates: int
    """Ranks left, summed over the adapted matrices."""
    released_count: int
    """The authors' count (2 * hidden_size for a rank of any matrix), for comparison only."""
    metric: str
    """Name of the score."""
    memorization: float
    """Score on the memorization sample (training examples), evaluation mode."""
    generalization: float
    """Score on the validation split."""
    test: float | None
    """Score on the test split, where the split protocol has one."""
    memorization_percent: float | None
    """Memorization in percent of the dense stage's; null where that is not positive."""
    generalization_percent: float | None
    """Generalization in percent of the dense stage's; null where that is not positive."""
    extra_metrics: dict[str, dict[str, float]]
    """Further scores: split -> metric -> value."""
    train_loss: float
    """Mean training loss over the last pass of the stage, training mode."""
    memorization_loss: float
    """Mean loss on the memorization sample, evaluation mode."""
    generalization_loss: float
    """Mean loss on the validation split, evaluation mode."""
    kkt_residual: float | None
    """Largest violation of the gates' optimality conditions at fixed A and B, in units of
    lambda."""
    kkt_residual_se: float | None
    """Split-half standard error of `kkt_residual`."""
    gates_flickering: int
    """Gates whose zero status changed during the last pass of the stage (or its last segment, where
    that is shorter): those that died then, and those that came and went."""
    sum_of_strengths: float
    """Sum over ranks of |g_i| |A_i| |B_i|."""
    epochs: float
    """Passes over the training data in this stage."""
    optimizer_steps: int
    """Optimizer steps in this stage."""
    stopped_by: str
    """What ended the stage: converged, max_epochs, length, stationary or target."""
    gates_revived: int | None = None
    """Gates that came back from zero during the same steps; null in older records."""
    stationarity_residual: float | None = None
    """`kkt_residual` with the penalty that unit scale leaves on a live gate, whose growth from A
    and B is never thresholded: how far the gates are from a fixed point of the training step. Null
    in older records."""


@dataclass(frozen=True, kw_only=True)
class RankRecord:
    """One line of `ranks.jsonl`: one adapted matrix at the end of one stage."""

    stage: int
    """Stage that ended."""
    module: str
    """Full name of the adapted module in the base model."""
    layer: int | None
    """Index of the transformer layer; null outside of layers."""
    matrix: str
    """Name of the matrix inside its layer, for example attention.self.query."""
    in_features: int
    """Columns of A."""
    out_features: int
    """Rows of B."""
    r: int
    """Rank before pruning."""
    nonzero_rank: int
    """Non-zero gates."""
    strengths: list[float]
    """|g_i| |A_i| |B_i| of every rank, zeros included."""


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One line of `steps.jsonl`: an optimizer step between evaluations, every few steps."""

    step: int
    """Optimizer steps taken since the run began."""
    stage: int
    """Stage that the step belongs to."""
    train_loss: float | None
    """Loss of the step's batch, training mode; null where it is not finite."""
    lr: float
    """Learning rate of A, B and the head."""
    xi: float
    """Threshold, gate units per optimizer step; 0 without gates."""


def role_of(method: str, control: str) -> str:
    """Return what a run stands for: the path, the floor, or the control that it is.

    Args:
        method: `method.name`.
        control: `stage.control`.
    """
    if method == "head_only":
        return FLOOR
    return PATH if control == "none" else control


def config_to_dict(config: RunConfig) -> dict[str, Any]:
    """Return the resolved configuration as plain nested dictionaries.

    As `dataclasses.asdict` does, in a tenth of its time: a sweep names thousands of runs.
    """
    return {name: _plain(value) for name, value in vars(config).items()}


def short_hash(value: Any) -> str:
    """Return the hash of nested plain values by which folders are named."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def run_id(config: RunConfig) -> str:
    """Return the short hash that names an experiment.

    It covers the resolved configuration and the method version, without what cannot change the
    experiment: the output folder, the number of threads and where the run is shown.
    """
    content = _named_content(config)
    del content["trainer"]["num_threads"]
    return short_hash({"method_version": METHOD_VERSION, "config": _numbers_as_floats(content)})


def dense_config(config: RunConfig) -> dict[str, Any]:
    """Return the part of a configuration that decides the dense stage and its record.

    Two configurations in which it is the same may share the dense stage: they differ only in what
    comes after it. The number of threads is part of it: it decides the last bits.
    """
    content = _named_content(config)
    control = config.stage.control
    stage = {
        "lr_factor": config.stage.lr_factor,  # the dense learning rate decays to it
        "kkt_examples": config.stage.kkt_examples,  # a column of the record
        "null_model": control if control in NULL_MODELS else None,
    }
    return {**content, "xi": {"start": config.xi.start}, "stage": stage}


def dense_key(config: RunConfig) -> str:
    """Return the short hash of `dense_config`, with the method version."""
    content = _numbers_as_floats(dense_config(config))
    return short_hash({"method_version": METHOD_VERSION, "config": content})


def run_path(config: RunConfig) -> Path:
    """Return the folder of a run: `out_dir`, or runs/<task>/<run_id>."""
    if config.out_dir is not None:
        return Path(config.out_dir)
    return Path("runs") / config.task.name / run_id(config)


def stage_name(stage: int) -> str:
    """Return the folder name of a stage's adapter."""
    return f"stage_{stage:02d}"


class RunWriter:
    """Writes one run folder.

    Args:
        path: The run folder. It must exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write_config(self, config: RunConfig) -> None:
        """Write `config.yaml`, resolved."""
        text = yaml.safe_dump(config_to_dict(config), sort_keys=False, allow_unicode=True)
        _replace_text(self.path / CONFIG_FILE, text)

    def write_meta(self, meta: Mapping[str, Any]) -> None:
        """Write `meta.json`; `meta` names the schema version, the method version and the run id."""
        _replace_text(self.path / META_FILE, json.dumps(meta, indent=2, allow_nan=False) + "\n")

    def write_status(self, state: State, error: str | None = None) -> None:
        """Replace `status.json`."""
        status = {"state": state, "error": error, "host": socket.gethostname(), "pid": os.getpid()}
        _replace_text(self.path / STATUS_FILE, json.dumps(status, indent=2) + "\n")

    def adapter_path(self, stage: int) -> Path:
        """Return where the pruned adapter of a stage belongs."""
        return self.path / ADAPTERS_DIR / stage_name(stage)

    def append_stage(
        self,
        record: StageRecord,
        *,
        ranks: Iterable[RankRecord],
        examples: pd.DataFrame,
        timing: Mapping[str, Any],
    ) -> None:
        """Append one complete stage; the line in `stages.jsonl` comes last.

        Raises:
            ValueError: If a number of the record is not finite: training has diverged.

        Args:
            record: The stage.
            ranks: One record per adapted matrix.
            examples: Rows of `examples.parquet`, with the column `stage`.
            timing: What may differ between two equal runs: seconds, memory, host.
        """
        for name, value in asdict(record).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(
                    f"`{name}` of stage {record.stage} must be finite, got {value}. "
                    "Training has diverged; lower `optim.lr` or `gates.gate_lr`."
                )
        previous = _read_examples(self.path)
        table = examples if previous is None else pd.concat([previous, examples], ignore_index=True)
        _replace_parquet(self.path / EXAMPLES_FILE, table)
        _append_lines(self.path / RANKS_FILE, [asdict(rank) for rank in ranks])
        _append_lines(self.path / TIMINGS_FILE, [{"stage": record.stage, **timing}])
        line = asdict(record)
        _append_lines(self.path / STAGES_FILE, [_rename(line, "lambda_", "lambda")])

    def append_step(self, record: StepRecord) -> None:
        """Append one line to `steps.jsonl`, flushed; `keep_steps` has made sure of whole lines."""
        with (self.path / STEPS_FILE).open("a", encoding="utf-8") as stream:
            stream.write(_dump(asdict(record)))

    def keep_steps(self, last: int) -> None:
        """Cut `steps.jsonl` back to the steps up to `last`, before a resumed run goes on."""
        file = self.path / STEPS_FILE
        if file.exists():
            rows = [row for row in _read_lines(file) if row["step"] <= last]
            _replace_text(file, "".join(_dump(row) for row in rows))

    def keep_stages(self, num_stages: int) -> None:
        """Cut every table back to `num_stages` stages, before a resumed run goes on."""
        for name in (STAGES_FILE, RANKS_FILE, TIMINGS_FILE):
            file = self.path / name
            if file.exists():
                rows = [row for row in _read_lines(file) if row["stage"] < num_stages]
                _replace_text(file, "".join(_dump(row) for row in rows))
        examples = _read_examples(self.path)
        if examples is not None:
            kept = examples[examples["stage"] < num_stages].reset_index(drop=True)
            _replace_parquet(self.path / EXAMPLES_FILE, kept)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run folder, read.

    Attributes:
        path: The folder.
        config: Resolved configuration.
        meta: Versions, fingerprints, hardware.
        status: State, error, host and pid.
        stages: One row a complete stage, columns as in `StageRecord` (`lambda_` is `lambda`).
        ranks: One row a (stage, module), columns as in `RankRecord`.
        timings: One row a stage.
    """

    path: Path
    config: dict[str, Any]
    meta: dict[str, Any]
    status: dict[str, Any]
    stages: pd.DataFrame
    ranks: pd.DataFrame
    timings: pd.DataFrame

    @property
    def run_id(self) -> str:
        """Hash of the configuration, as written when the run started."""
        return str(self.meta["run_id"])

    @property
    def state(self) -> str:
        """running, completed, failed or interrupted; running also when its process is gone."""
        return str(self.status["state"])

    def steps(self) -> list[dict[str, Any]]:
        """Read `steps.jsonl`; empty in older records."""
        return read_steps(self.path)

    def examples(self) -> pd.DataFrame:
        """Read `examples.parquet`: one row a (stage, split, example) of the complete stages."""
        table = _read_examples(self.path)
        if table is None:
            return pd.DataFrame()
        complete = table["stage"].isin(self.stages["stage"])
        return table[complete].reset_index(drop=True)


def sparsest_keeping(path: pd.DataFrame, score: str, share: float) -> pd.Series | None:
    """Return the stage of one run with fewest parameters among those that keep `share` of dense.

    As measured: no interpolation. Among equal counts the later stage is taken. None where the run
    has no dense stage or its dense score is not positive.

    Args:
        path: Stages of one run.
        score: memorization or generalization.
        share: Share of the dense stage's score, in (0, 1].
    """
    dense = path[path["stage"] == 0]
    if dense.empty or not dense[score].iloc[0] > 0:
        return None
    least = share * float(dense[score].iloc[0]) * (1 - ROUNDING)
    kept: pd.DataFrame = path[path[score] >= least]
    return kept.sort_values(["num_nonzero_params", "stage"], ascending=[True, False]).iloc[0]


def is_run_folder(path: Path) -> bool:
    """Return whether `path` holds a run."""
    return (path / CONFIG_FILE).is_file() and (path / META_FILE).is_file()


def find_runs(root: Path) -> list[Path]:
    """Return the run folders at or below `root`, sorted.

    Raises:
        ValueError: If `root` does not exist.
    """
    if not root.is_dir():
        raise ValueError(f"`RUNS` must be an existing folder, got {str(root)!r}.")
    # Not rglob: it fails when a folder goes away meanwhile, as in a sweep that is running.
    folders = [Path(folder) for folder, _, files in os.walk(root) if META_FILE in files]
    return sorted(folder for folder in folders if is_run_folder(folder))


def load_run(path: Path | str, *, with_ranks: bool = True) -> Run:
    """Read a run folder; tolerate a torn last line and rows of an incomplete stage.

    Args:
        path: The run folder.
        with_ranks: Read `ranks.jsonl`, the largest of the text files; without, `ranks` is empty.

    Raises:
        ValueError: If the folder holds no run, or one of another schema version.
    """
    folder = Path(path)
    if not is_run_folder(folder):
        raise ValueError(
            f"`RUN` must be a run folder (with {CONFIG_FILE} and {META_FILE}), got {str(folder)!r}."
        )
    meta = read_meta(folder)
    stages = _read_table(folder / STAGES_FILE, _stage_columns())
    complete = set(stages["stage"])
    rank_columns = [field.name for field in fields(RankRecord)]
    ranks = (
        _read_table(folder / RANKS_FILE, rank_columns)
        if with_ranks
        else pd.DataFrame(columns=pd.Index(rank_columns))
    )
    timings = _read_table(folder / TIMINGS_FILE, ["stage"])
    return Run(
        path=folder,
        config=read_config(folder),
        meta=meta,
        status=read_status(folder),
        stages=stages,
        ranks=ranks[ranks["stage"].isin(complete)].reset_index(drop=True),
        timings=timings[timings["stage"].isin(complete)].reset_index(drop=True),
    )


def read_meta(path: Path) -> dict[str, Any]:
    """Return `meta.json` of a run folder.

    Raises:
        ValueError: If it is of another schema version.
    """
    meta = _read_json(path / META_FILE)
    version = meta.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"`schema_version` must be {SCHEMA_VERSION}, got {version!r} in "
            f"{str(path / META_FILE)!r}. "
            "Read this run with the sorakit version named in its meta.json."
        )
    return meta


def read_config(path: Path) -> dict[str, Any]:
    """Return the resolved configuration in a run folder."""
    text = (path / CONFIG_FILE).read_text("utf-8")
    return cast(dict[str, Any], yaml.load(text, Loader=YAML_LOADER))


def read_timings(path: Path) -> list[dict[str, Any]]:
    """Return the lines of `timings.jsonl`; a torn last line is left out."""
    return _read_lines(path / TIMINGS_FILE)


def read_last_stage(path: Path) -> dict[str, Any] | None:
    """Return the last complete line of `stages.jsonl`, or None before the first."""
    rows = _read_lines(path / STAGES_FILE)
    return rows[-1] if rows else None


def read_steps(path: Path) -> list[dict[str, Any]]:
    """Return the lines of `steps.jsonl`, keys as in `StepRecord`; a torn last line is left out."""
    return _read_lines(path / STEPS_FILE)


def read_status(path: Path) -> dict[str, Any]:
    """Return `status.json`; a run killed before it wrote one is running without a process."""
    file = path / STATUS_FILE
    if not file.exists():
        return {"state": "running", "error": None, "host": None, "pid": None}
    return _read_json(file)


def is_complete(path: Path) -> bool:
    """Return whether `path` is the folder of a run that came to its end."""
    return is_run_folder(path) and read_status(path)["state"] == "completed"


def is_alive(status: Mapping[str, Any]) -> bool:
    """Return whether the process of a running run still exists, as far as this host can tell."""
    if status["state"] != "running" or status["pid"] is None:
        return False
    if status["host"] != socket.gethostname():
        return True
    try:
        os.kill(int(status["pid"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class FolderInUseError(ValueError):
    """Another process is writing into the run folder."""


def find_writer(path: Path) -> str | None:
    """Return "process N on HOST" for the other process that writes into a run folder, or None.

    The lock tells, on every machine that sees the folder. The status tells only of this host, and
    where there is no lock: a run of an older sorakit, or a file system without locks.
    """
    holder = lock_holder(path / LOCK_FILE)
    if holder is not None:
        return holder
    status = read_status(path)
    is_here = status["host"] == socket.gethostname()
    if is_here and status["pid"] != os.getpid() and is_alive(status):
        return f"process {status['pid']} on {status['host']}"
    return None


def check_run_folder(path: Path, config: RunConfig) -> None:
    """Raise unless a run of `config` may write into `path`. Nothing is written.

    Raises:
        FolderInUseError: If another process is writing into it.
        ValueError: If the folder cannot be written, or holds another run or foreign files.
    """
    check_run_content(path, config)
    writer = find_writer(path)
    if writer is not None:
        raise FolderInUseError(
            f"`out_dir` must not be in use, got {str(path)!r}, which {writer} is writing."
        )


def check_run_content(path: Path, config: RunConfig) -> None:
    """Raise unless `path` is a place for a run of `config`, or holds that run.

    Raises:
        ValueError: If the folder cannot be written, or holds another run or foreign files.
    """
    existing = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(
            f"`out_dir` must be a folder that can be written, got {str(path)!r} ({existing} "
            "cannot)."
        )
    if not is_run_folder(path):
        # A process killed before meta.json was written leaves these.
        own = {CONFIG_FILE, CONFIG_FILE + ".part", META_FILE + ".part", LOG_FILE, LOCK_FILE}
        if path.exists() and any(file.name not in own for file in path.iterdir()):
            raise ValueError(
                f"`out_dir` must be empty, new or a run folder, got {str(path)!r}, which holds "
                "other files."
            )
        return
    found = str(read_meta(path)["run_id"])
    if found != run_id(config):
        raise ValueError(
            f"`out_dir` must hold no other configuration, got {str(path)!r} with run {found}, "
            f"not {run_id(config)}. "
            "Choose another folder, or the configuration in its config.yaml."
        )


def _named_content(config: RunConfig) -> dict[str, Any]:
    """Return what names a run or a dense stage.

    Of several devices it is their number that changes results, by rounding and dropout. One has no
    mention: a run on it has the name that it had before there could be several.
    """
    content = config_to_dict(config)
    del content["out_dir"]
    del content["tracking"]
    trainer = content["trainer"]
    del trainer["devices"], trainer["num_nodes"], trainer["strategy"]
    if config.trainer.num_processes > 1:
        trainer["num_processes"] = config.trainer.num_processes
    return content


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {name: _plain(item) for name, item in vars(value).items()}
    return list(cast(list[Any], value)) if isinstance(value, list) else value


def _numbers_as_floats(value: Any) -> Any:
    """Return nested configuration values with 16 written as 16.0: they are the same experiment."""
    if isinstance(value, dict):
        return {key: _numbers_as_floats(item) for key, item in cast(dict[str, Any], value).items()}
    if isinstance(value, list):
        return [_numbers_as_floats(item) for item in cast(list[Any], value)]
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def _stage_columns() -> list[str]:
    return ["lambda" if field.name == "lambda_" else field.name for field in fields(StageRecord)]


def _rename(row: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    return {new if key == old else key: value for key, value in row.items()}


def _dump(row: Mapping[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


def _append_lines(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    _drop_torn_line(file)
    with file.open("a", encoding="utf-8") as stream:
        stream.write("".join(_dump(row) for row in rows))
        stream.flush()
        os.fsync(stream.fileno())


def _drop_torn_line(file: Path) -> None:
    """Remove what a killed process left of a line, or the next line would be glued to it."""
    if not file.exists():
        return
    content = file.read_bytes()
    if content and not content.endswith(b"\n"):
        _replace_bytes(file, content[: content.rfind(b"\n") + 1])


def _read_lines(file: Path) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    lines = file.read_text("utf-8", errors="replace").split("\n")
    complete = lines[:-1]  # the last element is empty, or a torn line
    # Many lines at once: a quarter less time than one by one.
    return cast(list[dict[str, Any]], json.loads(f"[{','.join(complete)}]"))


def _read_table(file: Path, columns: list[str]) -> pd.DataFrame:
    rows = _read_lines(file)
    if not rows:
        return pd.DataFrame(columns=pd.Index(columns))
    table = pd.DataFrame(rows)
    for column in columns:  # of a newer release
        if column not in table:
            table[column] = None
    return table


def _read_json(file: Path) -> dict[str, Any]:
    return cast(dict[str, Any], json.loads(file.read_text("utf-8")))


def _read_examples(path: Path) -> pd.DataFrame | None:
    file = path / EXAMPLES_FILE
    return pd.read_parquet(file) if file.exists() else None


def _replace_text(file: Path, text: str) -> None:
    _replace_bytes(file, text.encode())


def _replace_bytes(file: Path, content: bytes) -> None:
    part = file.with_name(file.name + ".part")
    with part.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(file)


def _replace_parquet(file: Path, table: pd.DataFrame) -> None:
    part = file.with_name(file.name + ".part")
    table.to_parquet(part, index=False)
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    part.replace(file)
