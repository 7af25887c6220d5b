"""Configuration of one run: frozen dataclasses, free of torch, the only home of defaults."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from sorakit.quoting import quoted
from sorakit.rank_pattern import checked_rank_pattern, read_rank_pattern
from sorakit.variants import ADAPTERS, CONTROLS, GATES, OBJECTIVES

if TYPE_CHECKING:
    import sorakit.adapters
    import sorakit.controls
    import sorakit.method.gates
    import sorakit.objectives

METHOD_VERSION = 4
"""Raised whenever the same configuration would give other numbers; part of every run id.

2: unit scale and averaged gradients are the default. 3: a target is met within the weakest rank
that is left, not the smallest. 4: convergence is judged in shares of the null loss, the learning
rate of a converging phase is constant and then falls to 0, and the ranks of a stage are refitted.
"""

TaskMetric = Literal[
    "accuracy",
    "f1",
    "matthews_correlation",
    "pearson",
    "spearman",
    "token_accuracy",
    "exact_match",
    "extraction_strength",
    "extraction_rate",
    "extraction_length",
    "perplexity",
    "bits_per_token",
]
"""Scores of classes, of numbers, and of texts that are written (docs/objectives.md)."""
# The values of these options are files. pyright cannot list a folder: it sees any string.
if TYPE_CHECKING:
    GateUpdate = str
    MethodName = str
    ObjectiveName = str
    StageControl = str
else:
    GateUpdate = Literal[GATES.names]
    MethodName = Literal[ADAPTERS.names]
    ObjectiveName = Literal[OBJECTIVES.names]
    StageControl = Literal[CONTROLS.names]
GateScale = Literal["free", "unit"]
GateInit = Literal["auto", "ones", "zeros", "normal"]
Spacing = Literal["geometric", "linear", "list", "target"]
Refit = Literal["none", "branch", "continue"]
TrackingMode = Literal["off", "offline", "online", "auto"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed", "64-true"]


def _require(holds: bool, name: str, constraint: str, value: object, cure: str = "") -> None:
    if not holds:
        hint = f" {cure}" if cure else ""
        raise ValueError(f"`{name}` must be {constraint}, got {quoted(value)}.{hint}")


def _is_positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _expand_home(config: object, *names: str) -> None:
    """Write the home folder for ~ in path options, so that no reader of a configuration needs to.

    A shell does so in `--out_dir ~/a`, but neither in `--out_dir=~/a` nor in a YAML file.

    Raises:
        ValueError: If it is the home of a user that there is not.
    """
    for name in names:
        value = getattr(config, name)
        if isinstance(value, str) and value.startswith("~"):
            object.__setattr__(config, name, with_home(value))


def with_home(path: str) -> str:
    """Return a path with the home folder in the place of a ~ at its start.

    Raises:
        ValueError: If it is the home folder of a user that there is not.
    """
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError as error:
        raise ValueError(
            f"A path with ~ must begin with the home folder of a user that exists, got "
            f"{quoted(path)}."
        ) from error


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """Which examples are trained on, and which are held out."""

    name: str = "pydoc_topic"
    """Task: pydoc_topic, pydoc_pair, pydoc_order, pydoc_text (embedded, no download); cola, sst2,
    mrpc, qqp, stsb, mnli, mnli_mismatched, qnli, rte, wnli (GLUE); files (your own CSV, JSON or
    parquet); or hub (whatever `datasets.load_dataset` reads, from the Hub or a folder)."""
    objective: ObjectiveName | None = None
    """What the model is trained to do (docs/objectives.md). null: what the task is made for, of
    your own data classification, or regression where `metric` says so. causal_lm, text_to_text:
    texts, prompts with responses, or a classification whose classes are written.
    image_classification: a dataset of the Hub, or a folder, with a column of images."""
    dataset: str | None = None
    """hub: id of a dataset on the Hub; null reads the folder `data_dir`."""
    subset: str | None = None
    """hub: configuration of the dataset, if it has several."""
    train_split: str | None = None
    """hub: split to train on; null is train."""
    validation_split: str | None = None
    """hub: held-out split; null is validation, or test if there is none, or else a tenth of the
    training split, class by class, drawn with seed 42."""
    data_dir: str | None = None
    """Local folder of the data. GLUE: the task's parquet files or official TSV tree; null reads the
    Hub (nyu-mll/glue). files: the folder of `train_file` and `validation_file`. hub: a
    folder in the Hub's layout, or of CSV, JSON or parquet files named for their split."""
    max_length: int = 128
    """Longest input in word pieces; longer ones are cut."""
    split_protocol: Literal["official", "sora", "train_halves"] = "official"
    """official: trained on the training split, held out is the validation split. sora (GLUE): the
    SoRA authors' halves, with a test split. train_halves: half of the training examples is trained
    on and the other half held out, to choose options by what no table reports."""
    train_examples: int | None = None
    """Training examples, a sample that keeps the share of every class, drawn with seed 42 whatever
    the run's seed; null takes all, as do fewer examples than that."""
    memorization_examples: int = 1000
    """Training examples (drawn with seed 42) on which memorization is measured; all, if there are
    fewer."""
    label: str | None = None
    """Name of the dataset in titles, tables and W&B groups, part of no run id. null: the task; of
    your own files the name of `train_file` without train, or of its folder if nothing is left."""
    label_noise: float = 0.0
    """Share of training labels replaced by another class, drawn with the run's seed, of every class
    its share. In [0, 1]."""
    duplicate_examples: int | None = None
    """Training examples that stand among them twice, drawn with seed 42 whatever the run's seed: a
    probe of what measures of memorization say. null: none."""
    subset_fraction: float | None = None
    """Share of the training examples that this run trains on; the others are evaluated as the
    split `left_out`. Runs of many seeds tell what training on an example does. In (0, 1); null
    trains on all."""
    subset_seed: int | None = None
    """Seed of that subset; null is the run's seed."""
    train_file: str | None = None
    """files: training file, relative to `data_dir` (.csv, .tsv, .json, .jsonl or .parquet)."""
    validation_file: str | None = None
    """files: held-out file, relative to `data_dir`; null holds out a tenth of `train_file`, class
    by class, drawn with seed 42."""
    text_column: str = "text"
    """files, hub: column of the (first) text. hub: the only column of texts, if there is no
    `text`."""
    text_pair_column: str | None = None
    """files, hub: column of the second text, if examples are pairs."""
    image_size: int | None = None
    """Side in pixels that images are resized and cropped to; null is what the backbone's processor
    says."""
    label_column: str = "label"
    """files, hub: column of the label. hub: the only column of classes, if there is no `label`."""
    metric: TaskMetric | None = None
    """files, hub, and tasks with an `objective`: score of the task; null is accuracy, or
    token_accuracy of texts that are written. pearson or spearman make the task a regression."""

    def __post_init__(self) -> None:
        _expand_home(self, "data_dir", "train_file", "validation_file")
        _require(self.max_length >= 8, "task.max_length", ">= 8", self.max_length)
        _require(
            self.label is None or bool(self.label.strip()),
            "task.label",
            "a name or null",
            self.label,
        )
        _require(
            self.memorization_examples >= 1,
            "task.memorization_examples",
            ">= 1",
            self.memorization_examples,
        )
        _require(
            self.train_examples is None or self.train_examples >= 1,
            "task.train_examples",
            ">= 1 or null",
            self.train_examples,
        )
        _require(
            self.image_size is None or self.image_size >= 8,
            "task.image_size",
            ">= 8 or null",
            self.image_size,
        )
        for key in ("text_column", "text_pair_column", "label_column"):
            column = getattr(self, key)
            _require(column != "", f"task.{key}", "the name of a column", column)
        _require(0 <= self.label_noise <= 1, "task.label_noise", "in [0, 1]", self.label_noise)
        _require(
            self.duplicate_examples is None or self.duplicate_examples >= 1,
            "task.duplicate_examples",
            ">= 1 or null",
            self.duplicate_examples,
        )
        _require(
            self.subset_fraction is None or 0 < self.subset_fraction < 1,
            "task.subset_fraction",
            "in (0, 1) or null",
            self.subset_fraction,
        )
        if self.subset_seed is not None:
            in_range = 0 <= self.subset_seed < 2**31
            _require(in_range, "task.subset_seed", "in [0, 2**31) or null", self.subset_seed)
            if self.subset_fraction is None:
                raise ValueError(
                    "`task.subset_seed` must be null unless `task.subset_fraction` is set, got "
                    f"{self.subset_seed}."
                )

    @property
    def goal(self) -> "sorakit.objectives.Objective | None":
        """What `objective` names; None where the task itself says it."""
        if self.objective is None:
            return None
        return cast("sorakit.objectives.Objective", OBJECTIVES.load(self.objective))


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """The pre-trained model that is adapted."""

    name: str = "embedded"
    """Hub id, local folder in the Hub's layout, or embedded (the small encoder shipped with
    sorakit)."""
    attention: Literal["auto", "eager", "sdpa"] = "auto"
    """Attention kernel: eager, sdpa, or auto: eager for bf16-mixed on a CPU (sdpa's bf16 backward
    is slow there), otherwise the model's own choice."""
    random_init: bool = False
    """Keep the architecture and draw the weights anew: the control that shows what pre-training
    gives."""

    def __post_init__(self) -> None:
        _expand_home(self, "name")


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """The adapter."""

    name: MethodName = "sora"
    """How the model is adapted."""
    r: int = 8
    """Rank of every adapted matrix before pruning."""
    lora_alpha: float = 16.0
    """Scaling numerator; the update is multiplied by `lora_alpha / r`, with the initial r."""
    lora_dropout: float = 0.0
    """Dropout on the input of lora_A while training."""
    target_modules: str | list[str] = "all-linear"
    """Matrices to adapt: all-linear (every linear layer below the task head), one regular
    expression, a list of name endings such as [query,value], or of the paper's six matrix types
    W_Q, W_K, W_V, W_O, W_F1, W_F2 (BERT, RoBERTa, DeBERTa, MPNet, DistilBERT)."""
    exclude_modules: str | list[str] | None = None
    """Matrices of `target_modules` to leave out, written as these. What gets no gradient is left
    out in any case, with a warning."""
    gate_init: GateInit = "auto"
    """Gates at the start: ones, zeros, normal, or auto (free scale 1, unit scale 0, released N(0,
    1))."""
    rank_pattern: str | dict[str, int] | None = None
    """lora_pattern: the ranks of the adapted matrices, a file `rank_pattern.json` that stands in
    the adapter folder of every stage. A run's configuration holds what is in the file."""
    train_head: bool = True
    """Train the task head beside the adapter. It is saved, and never counted among adapter
    parameters."""
    target_r: float | None = None
    """adalora: rank that is left, on average over the adapted matrices; null is half of `r`, with
    which it begins."""
    allocation_epochs: float = 10.0
    """adalora: passes in which the rank falls to `target_r`; it trains on until it converges."""
    bottleneck: int = 16
    """adapter: width of the bottleneck."""
    placement: Literal["houlsby", "pfeiffer"] = "houlsby"
    """adapter: behind attention and feed-forward network (houlsby), or behind the latter alone."""
    virtual_tokens: int = 8
    """prefix, prompt: trained positions before every input."""
    dimension: int = 200
    """random_subspace: numbers that are trained."""

    def __post_init__(self) -> None:
        if isinstance(self.rank_pattern, str):
            # What the file holds, not where it is, decides the run and names it.
            ranks = read_rank_pattern(Path(with_home(self.rank_pattern)))
            object.__setattr__(self, "rank_pattern", ranks)
        elif self.rank_pattern is not None:
            object.__setattr__(self, "rank_pattern", checked_rank_pattern(self.rank_pattern))
        if self.rank_pattern is not None and self.name != "lora_pattern":
            raise ValueError(
                "`method.rank_pattern` must be null unless `method.name` is lora_pattern, got "
                f"{quoted(self.rank_pattern)}."
            )
        _require(
            _is_positive(self.allocation_epochs),
            "method.allocation_epochs",
            "> 0",
            self.allocation_epochs,
        )
        for name in ("bottleneck", "virtual_tokens", "dimension"):
            _require(getattr(self, name) >= 1, f"method.{name}", ">= 1", getattr(self, name))
        _require(self.r >= 1, "method.r", ">= 1", self.r)
        _require(_is_positive(self.lora_alpha), "method.lora_alpha", "> 0", self.lora_alpha)
        _require(0 <= self.lora_dropout < 1, "method.lora_dropout", "in [0, 1)", self.lora_dropout)
        _require(
            bool(self.target_modules), "method.target_modules", "not empty", self.target_modules
        )

    @property
    def adapter(self) -> "sorakit.adapters.Adapter":
        """What `name` names."""
        return cast("sorakit.adapters.Adapter", ADAPTERS.load(self.name))


@dataclass(frozen=True, kw_only=True)
class GatesConfig:
    """How gates are updated (SoRA Eq. 10 and its variants)."""

    update: GateUpdate = "sgd"
    """How a step moves gates, and makes zeros of small ones."""
    scale: GateScale = "unit"
    """unit: rows of A and columns of B kept at norm 1, their size carried by the gate. free: A and
    B as they are. Why unit, and the step size: docs/method.md."""
    gate_lr: float = 1.0
    """Step size eta of the gates, constant; lambda = xi / gate_lr."""
    averaging: float | None = None
    """Weight of the past in a running average of the gate gradient, which then moves the gates; 0
    is the minibatch gradient. In [0, 1). null: 0.9 for sgd; 0 for those that AdamW moves, where it
    must be 0."""

    def __post_init__(self) -> None:
        _require(_is_positive(self.gate_lr), "gates.gate_lr", "> 0", self.gate_lr)
        weight = self.gradient_averaging
        _require(0 <= weight < 1, "gates.averaging", "in [0, 1)", weight)
        self.rule.check(self)

    def lambda_of(self, xi: float) -> float:
        """Return `lambda = xi / gate_lr`, the weight of the L1 norm that a threshold stands for."""
        return xi / self.gate_lr

    @property
    def rule(self) -> "sorakit.method.gates.GateRule":
        """What `update` names."""
        return cast("sorakit.method.gates.GateRule", GATES.load(self.update))

    @property
    def gradient_averaging(self) -> float:
        """`averaging`, or what null stands for."""
        if self.averaging is not None:
            return self.averaging
        return self.rule.averaging


@dataclass(frozen=True, kw_only=True)
class XiConfig:
    """The thresholds of Algorithm 1, in gate units per optimizer step."""

    start: float = 1e-4
    """xi of the dense stage (stage 0)."""
    first: float = 2e-3
    """geometric: xi of the first sparsifying stage; target: where the rise begins. Just below where
    the first gate dies, so that no stage is wasted."""
    end: float | None = None
    """Last xi. null (geometric only): the ratio goes on until no gate is left."""
    ratio: float = 1.3
    """geometric with `end: null`: factor from one stage to the next. target: factor within
    `stage.epochs`."""
    num_stages: int = 12
    """Sparsifying stages after the dense one; geometric with `end: null`: the most there may be."""
    spacing: Spacing = "target"
    """target raises xi step by step and ends each stage when the next number of parameters is
    reached: `num_stages` numbers, evenly spaced in log from dense to one rank, or to `budget`.
    geometric or linear levels lie between the first one and `end`; list takes `levels`."""
    levels: list[float] | None = None
    """list: xi of stages 1, 2, ...; strictly increasing. `num_stages` is then their number."""
    budget: int | None = None
    """target: non-zero parameters at the end of the last stage; null is one rank."""

    def __post_init__(self) -> None:
        _require(_is_positive(self.start), "xi.start", "> 0", self.start)
        _require(self.num_stages >= 1, "xi.num_stages", ">= 1", self.num_stages)
        self._check_target()
        if self.spacing == "list":
            self._check_list()
        elif self.levels is not None:
            raise ValueError(
                f"`xi.levels` must be null unless `xi.spacing` is list, got {self.levels}. "
                "Set `xi.spacing` to list."
            )
        if self.spacing in ("geometric", "target"):
            _require(self.first > self.start, "xi.first", f"> xi.start = {self.start}", self.first)
            _require(math.isfinite(self.first), "xi.first", "finite", self.first)
            if self.end is None:
                _require(self.ratio > 1, "xi.ratio", "> 1", self.ratio)
                _require(math.isfinite(self.ratio), "xi.ratio", "finite", self.ratio)
            else:
                floor = self.start if self.num_stages == 1 else self.first
                _require(self.end > floor, "xi.end", f"> {floor}", self.end)
                _require(math.isfinite(self.end), "xi.end", "finite", self.end)
        if self.spacing == "linear":
            if self.end is None:
                raise ValueError("`xi.end` must be set when `xi.spacing` is linear, got null.")
            _require(self.end > self.start, "xi.end", f"> xi.start = {self.start}", self.end)
            _require(math.isfinite(self.end), "xi.end", "finite", self.end)

    def _check_target(self) -> None:
        if self.spacing == "target":
            if self.end is not None:
                raise ValueError(
                    f"`xi.end` must be null when `xi.spacing` is target, got {self.end}. xi rises "
                    "until the number of parameters is reached; set `xi.budget`."
                )
            _require(self.budget is None or self.budget >= 1, "xi.budget", ">= 1", self.budget)
        elif self.budget is not None:
            raise ValueError(
                f"`xi.budget` must be null unless `xi.spacing` is target, got {self.budget}. "
                "Set `xi.spacing` to target."
            )

    def _check_list(self) -> None:
        if not self.levels:
            raise ValueError(
                "`xi.levels` must hold at least one xi when `xi.spacing` is list, got "
                f"{self.levels}."
            )
        previous = self.start
        for level in self.levels:
            if not (math.isfinite(level) and level > previous):
                raise ValueError(
                    "`xi.levels` must be finite and strictly increasing from xi.start = "
                    f"{self.start}, "
                    f"got {self.levels}."
                )
            previous = level


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """The dense stage: xi = xi.start until the training loss has converged."""

    max_epochs: int = 60
    """Guard: passes after which the dense stage ends in any case. The record says so."""
    patience: int = 5
    """Passes in a row without an improvement, after which the learning rate falls to 0 within
    `cooldown_epochs` and the stage ends."""
    min_improvement: float = 0.01
    """Improvement of a pass's mean training loss over the best so far that counts as one, as a
    share of the null loss: the entropy of the training labels, or their variance. In [0, 1)."""
    low_loss: float = 0.01
    """Training loss of a pass at which the stage ends at once, as a share of the null loss."""
    cooldown_epochs: int = 2
    """Passes in which the learning rate falls to 0 when the loss has stopped improving."""

    def __post_init__(self) -> None:
        _check_convergence("dense", self)


@dataclass(frozen=True, kw_only=True)
class RefitConfig:
    """The refit of a stage: the ranks that are left train at xi = 0 until they have converged."""

    max_epochs: int = 40
    """Guard: passes after which a refit ends in any case. The record says so."""
    patience: int = 5
    """As `dense.patience`."""
    min_improvement: float = 0.01
    """As `dense.min_improvement`."""
    low_loss: float = 0.01
    """As `dense.low_loss`."""
    cooldown_epochs: int = 1
    """As `dense.cooldown_epochs`."""
    lr_factor: float = 1.0
    """Learning rate at the start of every refit, as a share of `optim.lr`."""

    def __post_init__(self) -> None:
        _check_convergence("refit", self)
        _require(_is_positive(self.lr_factor), "refit.lr_factor", "> 0", self.lr_factor)


def _check_convergence(section: str, rule: DenseConfig | RefitConfig) -> None:
    _require(rule.max_epochs >= 1, f"{section}.max_epochs", ">= 1", rule.max_epochs)
    _require(rule.patience >= 1, f"{section}.patience", ">= 1", rule.patience)
    for name in ("min_improvement", "low_loss"):
        share = getattr(rule, name)
        _require(0 <= share < 1, f"{section}.{name}", "in [0, 1)", share)
    _require(rule.cooldown_epochs >= 0, f"{section}.cooldown_epochs", ">= 0", rule.cooldown_epochs)


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """A sparsifying stage: xi takes ranks away, then the ranks that are left are refitted."""

    epochs: float = 0.5
    """Passes over the training data in which xi takes ranks away; may be a fraction. With
    `xi.spacing` target the least; with `until: stationary` the time between two looks. The refit
    that follows has a length of its own (`refit`)."""
    until: Literal["length", "stationary"] = "length"
    """length: `epochs` passes. stationary: until the gates are at a fixed point of the training
    step, to `tolerance`, or `max_epochs`; needs `gates.scale` unit."""
    tolerance: float = 0.1
    """stationary: `stationarity_residual`, in units of lambda, at which the stage ends."""
    max_epochs: float = 10.0
    """Passes after which a stage ends in any case (`until: stationary`, `xi.spacing: target`)."""
    lr_factor: float = 0.3
    """Learning rate while xi takes ranks away, constant, as a share of `optim.lr`."""
    refit: Refit = "continue"
    """What follows when the ranks of a stage are chosen. none: the penalised weights are the point
    of the curve. branch: a refit gives the point, and the next stage goes on from the penalised
    weights. continue: the next stage goes on from the refitted ones. How long: section `refit`."""
    control: StageControl = "none"
    """What is done in the place of Algorithm 1, with the same phases and records."""
    kkt_examples: int = -1
    """Memorization examples for the KKT residual of every stage record; -1 takes all of them, 0
    leaves it out."""

    def __post_init__(self) -> None:
        _require(_is_positive(self.epochs), "stage.epochs", "> 0", self.epochs)
        _require(_is_positive(self.tolerance), "stage.tolerance", "> 0", self.tolerance)
        _require(_is_positive(self.lr_factor), "stage.lr_factor", "> 0", self.lr_factor)
        _require(self.kkt_examples >= -1, "stage.kkt_examples", ">= -1", self.kkt_examples)
        _require(_is_positive(self.max_epochs), "stage.max_epochs", "> 0", self.max_epochs)
        if self.until == "stationary" and self.kkt_examples == 0:
            raise ValueError(
                "`stage.kkt_examples` must not be 0 when `stage.until` is stationary, got 0."
            )

    @property
    def control_class(self) -> "type[sorakit.controls.Control]":
        """What `control` names."""
        return cast("type[sorakit.controls.Control]", CONTROLS.load(self.control))


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW for everything but the gates."""

    lr: float = 1e-3
    """Peak learning rate of A, B and the head."""
    batch_size: int = 32
    """Examples per optimizer step."""
    weight_decay: float = 0.01
    """Decoupled weight decay of A, B (live ranks only) and the head; gates have none."""
    warmup_epochs: float = 0.5
    """Linear warm-up at the start of the dense stage, in epochs."""
    max_grad_norm: float = 1.0
    """Gradient norm of A, B and the head is clipped to this; 0 does not clip. Gates are never
    clipped."""
    eval_batch_size: int = 128
    """Examples per evaluation batch."""

    def __post_init__(self) -> None:
        _require(_is_positive(self.lr), "optim.lr", "> 0", self.lr)
        _require(self.batch_size >= 1, "optim.batch_size", ">= 1", self.batch_size)
        _require(self.eval_batch_size >= 1, "optim.eval_batch_size", ">= 1", self.eval_batch_size)
        _require(self.weight_decay >= 0, "optim.weight_decay", ">= 0", self.weight_decay)
        _require(self.warmup_epochs >= 0, "optim.warmup_epochs", ">= 0", self.warmup_epochs)
        _require(self.max_grad_norm >= 0, "optim.max_grad_norm", ">= 0", self.max_grad_norm)


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """Where and how exactly it is computed."""

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """Device kind."""
    precision: Precision = "bf16-mixed"
    """Arithmetic of the model; gates, optimizer state and adapters stay float32 in the mixed
    modes."""
    num_threads: int | None = None
    """Threads of a CPU run, of each of its processes; null keeps torch's choice. Results are
    bit-identical only at equal thread counts."""
    devices: int = 1
    """Devices (CPU: processes) on each machine. They share every batch of `optim.batch_size`."""
    num_nodes: int = 1
    """Machines; with more than one, Slurm or torchrun starts the processes (docs/cluster.md)."""
    strategy: Literal["auto", "ddp"] = "auto"
    """How several devices train: ddp, each with the whole model; auto is ddp where there are
    several. Strategies that split a model would split the ranks that a gate stands for."""

    def __post_init__(self) -> None:
        _require(self.devices >= 1, "trainer.devices", ">= 1", self.devices)
        _require(self.num_nodes >= 1, "trainer.num_nodes", ">= 1", self.num_nodes)
        _require(
            self.num_threads is None or self.num_threads >= 1,
            "trainer.num_threads",
            ">= 1 or null",
            self.num_threads,
        )

    @property
    def num_processes(self) -> int:
        """Processes of a run, one a device."""
        return self.devices * self.num_nodes


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Where a run is shown while it runs; changes nothing in it and is part of no run id."""

    wandb: TrackingMode | Literal[False] = "auto"
    """Weights & Biases: off; offline (files in the run folder, sent by `sorakit sync`); online
    (live; offline, with a warning, without a key or a server); auto: as WANDB_MODE says if it is
    set, otherwise online if there is a key, and offline if not. YAML reads off as false."""
    project: str = "sorakit"
    """W&B project."""
    entity: str | None = None
    """W&B user or team; null is the key's own."""
    log_adapters: bool = False
    """Send the pruned adapter of every stage as an artifact."""

    def __post_init__(self) -> None:
        _require(bool(self.project), "tracking.project", "not empty", self.project)

    @property
    def mode(self) -> TrackingMode:
        """`wandb`, with off for false."""
        return self.wandb or "off"


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides the outcome of one run."""

    task: TaskConfig = field(default_factory=TaskConfig)
    """Data."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """Pre-trained model."""
    method: MethodConfig = field(default_factory=MethodConfig)
    """Adapter."""
    gates: GatesConfig = field(default_factory=GatesConfig)
    """Gate update."""
    xi: XiConfig = field(default_factory=XiConfig)
    """Threshold levels."""
    dense: DenseConfig = field(default_factory=DenseConfig)
    """Dense stage."""
    stage: StageConfig = field(default_factory=StageConfig)
    """Sparsifying stages."""
    refit: RefitConfig = field(default_factory=RefitConfig)
    """How the ranks that a stage leaves are refitted (`stage.refit`)."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizer and batches."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    """Hardware and arithmetic."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Live curves."""
    seed: int = 0
    """Seed of initialisation, batch order and dropout."""
    out_dir: str | None = None
    """Folder of this run; null is runs/<group>/<run_id>: group is the
    task, or the name of your dataset, and run_id is a hash of everything
    above but `tracking`."""

    def __post_init__(self) -> None:
        _expand_home(self, "out_dir")
        _require(0 <= self.seed < 2**31, "seed", "in [0, 2**31)", self.seed)
        self.method.adapter.check(self)
        if self.stage.until == "stationary" or self.xi.spacing == "target":
            _require(
                self.stage.max_epochs >= self.stage.epochs,
                "stage.max_epochs",
                f">= stage.epochs = {self.stage.epochs}",
                self.stage.max_epochs,
            )
        if self.stage.until == "stationary":
            if self.gates.scale != "unit":
                raise ValueError(
                    "`gates.scale` must be unit when `stage.until` is stationary, got "
                    f"{self.gates.scale!r}. With free scale the penalised loss has no minimum."
                )
            if self.xi.spacing == "target":
                raise ValueError(
                    "`stage.until` must be length when `xi.spacing` is target, got 'stationary'. "
                    "A target ends its stages itself."
                )
        self.stage.control_class.check(self.stage.control, self.xi)
