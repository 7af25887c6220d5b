"""The data and the base model of a run are those that it was begun with, or it is refused.

Everything is compared by what it is, not by its name: stamps of the files first
(`records.inputs`), and where these differ what a run makes of them, so that an edited comment or a
column that is not read changes nothing. Free of torch until a model has to be loaded.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sorakit.config import BackboneConfig, RunConfig, TaskConfig
from sorakit.controls import control_class
from sorakit.metric_names import CLEAN_LABEL, IMAGE
from sorakit.quoting import listed
from sorakit.records.inputs import Input, changed, stamps
from sorakit.tasks import load_task
from sorakit.tasks.inputs import hub_revision, task_inputs

if TYPE_CHECKING:  # it imports `datasets`, which takes a second
    from sorakit.tasks.base import Task

_EMBEDDED_DIR = Path(__file__).parents[1] / "backbones" / "assets" / "encoder"
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
"""The first of these patterns that a folder has files of names its weights, as in transformers."""
_MODEL_FILES = (
    "config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "preprocessor_config.json",
    "processor_config.json",
)
_REVISION = "revision"
_BATCH = 1000
"""Examples that are hashed at a time."""


def input_stamps(config: RunConfig) -> dict[str, Any]:
    """Return what `meta.json` keeps under `inputs`: data, weights, model (its other files).

    `revision`, of a model from the Hub, says which one it was and is not compared: of two revisions
    with the same files the results are the same.
    """
    weights, others = backbone_files(config.backbone)
    return {
        "data": stamps(task_inputs(config.task)),
        "weights": stamps(weights),
        "model": stamps(others),
        _REVISION: hub_revision(config.backbone.name, kind="model"),
    }


def backbone_files(config: BackboneConfig) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return the files of a backbone by name: those with weights, and those of model and tokenizer.

    Both are empty for a model of the Hub that is not in the local cache. With `random_init` no
    weights are read.
    """
    folder = _backbone_folder(config.name)
    if folder is None:
        return {}, {}
    kinds = (sorted(folder.glob(pattern)) for pattern in _WEIGHTS)
    weights = [] if config.random_init else next((files for files in kinds if files), [])
    others = sorted({file for pattern in _MODEL_FILES for file in folder.glob(pattern)})
    return {file.name: file for file in weights}, {file.name: file for file in others}


def require_same_inputs(
    path: Path,
    config: RunConfig,
    meta: Mapping[str, Any],
    *,
    loaded: Mapping[str, Any] | None = None,
    cure: str = "choose another `out_dir`",
) -> None:
    """Raise if a run was begun with other data, or another base model, than there are now.

    What is no longer there is not compared: a complete run needs it no more, and one that goes on
    has loaded it. A record of an older sorakit, without stamps, is compared by its fingerprints: of
    the data always, of the base weights when they are loaded anyway.

    Args:
        path: Run folder, for the message.
        config: Configuration of the run.
        meta: Its `meta.json`.
        loaded: What `meta.json` would say now, where data and model are loaded already.
        cure: What else can be done than to put the inputs back.

    Raises:
        ValueError: If they differ.
    """
    weights, others = backbone_files(config.backbone)
    found = [
        difference
        for difference in (
            _other_data(config, meta, loaded),
            _other_weights(weights, meta, loaded),
            _other_model(others, meta),
        )
        if difference is not None
    ]
    if found:
        raise ValueError(
            f"`out_dir` must hold a run with the data and base model of now, got {str(path)!r}, "
            f"made with {' and '.join(found)}. Put back what it was made with, or {cure}."
        )


def load_data(config: RunConfig) -> "Task":
    """Return the task of a run, with the labels that its control gives it.

    Raises:
        ValueError: As `load_task` does.
    """
    return _load(config.task, config.seed, config.stage.control)


def data_fingerprint(task: "Task") -> str:
    """Return a hash over all texts, or images, and labels of a task.

    Of what is trained on and held out: of a subset, what it leaves out follows from the others.
    """
    digest = hashlib.sha256()
    encode = json.JSONEncoder(sort_keys=True).encode  # `json.dumps` makes an encoder a row
    for split in (task.train, task.validation, task.test):
        if split is not None and IMAGE in split.column_names:
            from sorakit.tasks.images import image_digests

            for digest_of_image in image_digests(split):
                digest.update(digest_of_image.encode())
            split = split.remove_columns(IMAGE)
        if split is not None:
            if CLEAN_LABEL in split.column_names:  # decides nothing; older records do not have it
                split = split.remove_columns(CLEAN_LABEL)
            for start in range(0, len(split), _BATCH):
                columns = split[start : start + _BATCH]
                rows = zip(*columns.values(), strict=True)
                texts = [encode(dict(zip(columns, values, strict=True))) for values in rows]
                digest.update("".join(texts).encode())
        digest.update(b"|")
    return digest.hexdigest()[:16]


def _other_data(
    config: RunConfig, meta: Mapping[str, Any], loaded: Mapping[str, Any] | None
) -> str | None:
    now = _task_inputs_now(config.task)
    names = _altered(meta, "data", now)
    if names == [] or not (now or loaded):
        return None
    fingerprint = loaded["data_fingerprint"] if loaded else _fingerprint_now(config)
    if fingerprint is None:  # data that cannot be loaded: a damaged file is another, a lost one not
        is_other = bool(set(names or ()) & set(now))
    else:
        is_other = fingerprint != meta["data_fingerprint"]
    return f"other data ({_named(names)})" if is_other else None


def _other_weights(
    files: Mapping[str, Input], meta: Mapping[str, Any], loaded: Mapping[str, Any] | None
) -> str | None:
    names = _altered(meta, "weights", files)
    if names == [] or not (names or loaded):
        return None
    # Whoever has loaded the weights knows that a file written anew holds the same.
    if loaded and loaded["backbone_fingerprint"] == meta["backbone_fingerprint"]:
        return None
    return f"other base weights ({_named(names)})"


def _other_model(files: Mapping[str, Input], meta: Mapping[str, Any]) -> str | None:
    names = _altered(meta, "model", files)
    return f"another base model or tokenizer ({_named(names)})" if names else None


def _altered(meta: Mapping[str, Any], kind: str, now: Mapping[str, Input]) -> list[str] | None:
    """Return the names of changed inputs, or None where there are no stamps to compare."""
    recorded = meta.get("inputs")
    return None if recorded is None or not now else changed(recorded[kind], now)


def _task_inputs_now(config: TaskConfig) -> dict[str, Input]:
    try:
        return task_inputs(config)
    except ValueError:  # the folder has gone
        return {}


def _fingerprint_now(config: RunConfig) -> str | None:
    """Return the fingerprint of the data as they are now; None where they cannot be loaded."""
    control = config.stage.control if config.stage.control_class.changes_task else "none"
    task = config.task
    draws = control != "none" or task.label_noise > 0 or task.subset_fraction is not None
    try:
        return _fingerprint_of(config.task, config.seed if draws else 0, control)
    except ValueError:
        return None


@lru_cache
def _fingerprint_of(task: TaskConfig, seed: int, control: str) -> str:
    """Return the fingerprint of a task as it is now; the points of a sweep share it."""
    return data_fingerprint(_load(task, seed, control))


def _load(task: TaskConfig, seed: int, control: str) -> "Task":
    return control_class(control)(seed=seed).change_task(load_task(task, seed=seed))


def _backbone_folder(name: str) -> Path | None:
    """Return where the files of a backbone are on this machine, or None."""
    if name == "embedded":
        return _EMBEDDED_DIR
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(name, "config.json")
    except HFValidationError:  # a folder that has gone
        return None
    return Path(config).parent if isinstance(config, str) else None


def _named(names: list[str] | None) -> str:
    return f"changed: {listed(names)}" if names else "their fingerprint differs"
