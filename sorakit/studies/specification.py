"""What a study asks for -> the sweep file of it, `study.yaml`. Free of torch."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import yaml

from sorakit.config import MethodConfig, XiConfig
from sorakit.options import Choice, checked_values, flatten
from sorakit.quoting import cut, quoted
from sorakit.records import FLOOR
from sorakit.records.durable import replace_text
from sorakit.studies.datasets import Dataset, datasets_of
from sorakit.sweep.controls import parse_controls
from sorakit.sweep.grid import read_yaml

STUDY_FILE = "study.yaml"
RUNS_DIR = "runs"
_SEEDS, _QUICK_SEEDS = 5, 1
_CONTROLS = (FLOOR, "random_mask", "hard_mask_retrain")
_QUICK_CONTROLS = (FLOOR, "random_mask")
_LORA = "lora"
_QUICK_OPTIONS: Choice = {"task.train_examples": 500, "xi.num_stages": 5}
_OWNERS = {
    "task.label": "`--data NAME=PLACE`",
    "backbone.name": "`--backbone`",
    "seed": "`--seeds`",
    "out_dir": "`--out`",
    "method.name": "`--controls`",
    "stage.control": "`--controls`",
}
"""Options of a run that a study sets, and what sets them."""
_HEAD = """\
# What `sorakit study` runs here: every path with its controls. It is a sweep file; the same command
# goes on where it stopped, and `sorakit status` shows how far it is.
"""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a study is asked for, as on the command line; null leaves a choice to the study.

    Attributes:
        data: Words after `--data`.
        backbone: Name, folder or Hub id of the model.
        seeds: Number of seeds; they are 0, 1, ...
        controls: What every path is compared with, as in `sorakit run --controls`.
        lora_ranks: Ranks of plain LoRA, the rival at the same number of parameters; may be empty.
        quick: Whether a small first answer will do.
        options: Further options of the runs, by dotted option.
        out: Folder of the study.
    """

    data: Sequence[str]
    backbone: str = "embedded"
    seeds: int | None = None
    controls: str | None = None
    lora_ranks: Sequence[int] | None = None
    quick: bool = False
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    out: str | None = None

    def __post_init__(self) -> None:
        if self.seeds is not None and self.seeds < 1:
            raise ValueError(f"`--seeds` must be >= 1, got {self.seeds}.")
        for rank in self.lora_ranks or ():
            if rank < 1:
                raise ValueError(f"`--lora-ranks` must be >= 1, got {rank}.")


@dataclass(frozen=True, kw_only=True)
class Specification:
    """A study, decided.

    Attributes:
        content: What `study.yaml` holds.
        datasets: Its datasets.
        folder: Where it is kept.
        left_out: What a quick study leaves out, in words; empty of a whole one.
    """

    content: dict[str, Any]
    datasets: list[Dataset]
    folder: Path
    left_out: str

    @property
    def runs(self) -> Path:
        """Folder of the run folders."""
        return self.folder / RUNS_DIR

    @property
    def text(self) -> str:
        """`study.yaml`."""
        return _HEAD + yaml.safe_dump(self.content, sort_keys=False, allow_unicode=True)

    def require_same(self) -> None:
        """Refuse a folder that holds another study, naming what differs.

        Raises:
            ValueError: If it does.
        """
        file = self.folder / STUDY_FILE
        if not file.exists():
            if self.folder.is_dir() and any(self.folder.iterdir()):
                raise ValueError(
                    f"`--out` must be a new folder or that of a study, got {str(self.folder)!r}, "
                    "which holds something else."
                )
            if self.folder.exists() and not self.folder.is_dir():
                raise ValueError(f"`--out` must be a folder, got {str(self.folder)!r}.")
            return
        there = _facts(read_yaml(file))
        asked = _facts(self.content)
        for name in dict.fromkeys([*asked, *there]):
            if there.get(name) != asked.get(name):
                raise ValueError(
                    f"`{name}` must stay {_shown(there, name)} in {str(self.folder)!r}, which "
                    f"holds that study, got {_shown(asked, name)}. Give another `--out`."
                )

    def write(self) -> None:
        """Write `study.yaml`, if it is not there; the folder is made.

        Raises:
            ValueError: If the folder cannot be written.
        """
        file = self.folder / STUDY_FILE
        if file.exists():
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_text(file, self.text)
        except OSError as error:
            raise ValueError(
                f"`--out` must be a folder that can be written, got {str(self.folder)!r}: {error}."
            ) from error


def specification(request: Request) -> Specification:
    """Return the sweep of a study.

    Raises:
        ValueError: If data, controls or options are none.
    """
    datasets = datasets_of(list(request.data))
    options = _checked(request.options, datasets)
    seeds = request.seeds or (_QUICK_SEEDS if request.quick else _SEEDS)
    base: Choice = {"backbone.name": request.backbone}
    base |= _QUICK_OPTIONS if request.quick else {}
    base |= options
    if len(datasets) == 1:
        base |= datasets[0].options
    content: dict[str, Any] = {**base, "grid": {"seed": list(range(seeds))}}
    if len(datasets) > 1:
        content["points"] = [dataset.options for dataset in datasets]
    r = int(base.get("method.r", MethodConfig().r))
    content["controls"] = _controls(request, r=r)
    left_out = ""
    if request.quick:
        whole = _controls(replace(request, quick=False), r=r)
        left_out = _left_out(content, seeds=seeds, whole=whole)
    return Specification(
        content=content,
        datasets=datasets,
        folder=Path(request.out) if request.out is not None else _default_folder(request, datasets),
        left_out=left_out,
    )


def parse_ranks(text: str | None) -> list[int] | None:
    """Return the ranks of `--lora-ranks`: `1,2,4`, or none.

    Raises:
        ValueError: If a rank is no whole number.
    """
    if text is None:
        return None
    if text == "none":
        return []
    words = [word.strip() for word in text.strip("[]").split(",")]
    if not all(word.isdigit() for word in words):
        raise ValueError(
            f"`--lora-ranks` must be ranks such as 1,2,4, or none, got {quoted(text)}."
        )
    return [int(word) for word in words]


def _checked(options: Mapping[str, Any], datasets: Sequence[Dataset]) -> Choice:
    """Return further options, typed; those that the study decides itself are refused."""
    checked: Choice = {}
    by_data = {option for dataset in datasets for option in dataset.options}
    for option, value in flatten(options).items():
        owner = "`--data`" if option in by_data else _OWNERS.get(option)
        if owner is not None:
            raise ValueError(
                f"`--{option}` must be left to {owner} in a study, got {quoted(value)}."
            )
        [checked[option]] = checked_values(option, [value])
    return checked


def _controls(request: Request, *, r: int) -> list[Any]:
    """Return the entry `controls` of the sweep file."""
    if request.controls is None:
        names = list[Any](_QUICK_CONTROLS if request.quick else _CONTROLS)
        has_lora = False
    else:
        names = list[Any]()
        has_lora = False
        for rule in parse_controls(request.controls) if request.controls != "none" else ():
            has_lora = has_lora or rule.name == _LORA
            values = dict(rule.options) if rule.stage is None else {"method.r": rule.stage}
            rank = values.pop("method.r", None)
            names.append({rule.name: rank or values} if rank or values else rule.name)
    if request.lora_ranks is not None and has_lora:
        raise ValueError(
            f"`--lora-ranks` must not be given when `--controls` names lora, got "
            f"{list(request.lora_ranks)}."
        )
    ranks = request.lora_ranks
    if ranks is None:
        ranks = [] if has_lora else _default_ranks(r, quick=request.quick)
    return [*names, {_LORA: list(ranks)}] if ranks else names


def _default_ranks(r: int, *, quick: bool) -> list[int]:
    """Return 1, 2, 4, ... up to r; of a quick study 1 and r."""
    ranks = [2**k for k in range(r.bit_length()) if 2**k < r] + [r]
    return sorted({1, r}) if quick else ranks


def _default_folder(request: Request, datasets: Sequence[Dataset]) -> Path:
    """Return studies/<datasets>[-<backbone>][-quick]."""
    parts = ["+".join(dataset.label for dataset in datasets)]
    if request.backbone != "embedded":
        parts.append(Path(request.backbone).name)
    parts += ["quick"] if request.quick else []
    return Path("studies") / re.sub(r"[^\w.+-]+", "_", cut("-".join(parts), 100))


def _left_out(content: Mapping[str, Any], *, seeds: int, whole: list[Any]) -> str:
    """Return what a quick study leaves out of the whole one, whose controls are `whole`."""
    parts: list[str] = []
    if seeds < _SEEDS:
        parts.append(f"{_SEEDS - seeds} of {_SEEDS} seeds")
    examples = content.get("task.train_examples")
    if examples is not None:
        parts.append(f"training examples beyond {examples:,}")
    stages, all_stages = content["xi.num_stages"], XiConfig().num_stages
    if stages < all_stages:
        parts.append(f"{all_stages - stages} of {all_stages} stages")
    names, ranks = _names(content["controls"])
    all_names, all_ranks = _names(whole)
    parts += [name for name in all_names if name not in names]
    missing = [str(rank) for rank in all_ranks if rank not in ranks]
    parts += [f"LoRA of rank {', '.join(missing)}"] if missing else []
    alone = " One seed has no interval over seeds." if seeds == 1 else ""
    return (
        f"Quick: it leaves out {'; '.join(parts)}.{alone} Take leads from it, no claims; the same "
        "command without --quick gives the answer."
    )


def _names(controls: list[Any]) -> tuple[list[str], list[int]]:
    """Return the names of controls and the ranks of LoRA among them."""
    names: list[str] = []
    ranks: list[int] = []
    for entry in controls:
        named = cast(dict[str, Any], entry) if isinstance(entry, dict) else {str(entry): None}
        for name, value in named.items():
            if name == _LORA:
                ranks += cast(list[int], value if isinstance(value, list) else [value])
            else:
                names.append(name)
    return names, ranks


def _facts(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a study is, by the name that a user knows it by."""
    facts = dict(content)
    facts["--seeds"] = len(facts.pop("grid", {}).get("seed", []))
    facts["--controls"] = facts.pop("controls", [])
    facts["--backbone"] = facts.pop("backbone.name", None)
    points = facts.pop("points", None)
    named = ("task.name", "task.dataset", "task.train_file", "task.label")
    one = {name: facts.pop(name) for name in named if name in facts}
    facts["--data"] = points if points is not None else [one]
    return facts


def _shown(facts: Mapping[str, Any], name: str) -> str:
    if name not in facts:
        return "its default"
    return cut(
        yaml.safe_dump(facts[name], default_flow_style=True).strip().removesuffix("\n..."), 200
    )
