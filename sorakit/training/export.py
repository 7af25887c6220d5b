"""The adapter of one stage as a folder that plain PEFT loads, checked against its record."""

import json
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from sorakit.backbones import EMBEDDED, Backbone, load_backbone
from sorakit.config import RunConfig
from sorakit.metric_names import GENERALIZATION_SPLIT, LABEL
from sorakit.objectives import objective
from sorakit.options import run_config
from sorakit.records import ADAPTERS_DIR, Run, stage_name
from sorakit.training.card_facts import (
    CONFIG_FILE,
    card_facts,
    card_header,
    how_it_was_made,
    shown_yaml,
)
from sorakit.training.data import AdaptationData, Padding, model_inputs
from sorakit.training.inputs import load_data
from sorakit.training.model_card import is_hub_id, model_card
from sorakit.training.score_interval import ScoreInterval, score_interval

ADAPTER_CONFIG = "adapter_config.json"
CARD = "README.md"
_BASE_DIR = "base"
TOLERANCES = {"64-true": 0.005, "32-true": 0.005, "bf16-mixed": 0.02, "16-mixed": 0.02}
"""Units of the score by `trainer.precision`: what rounding may change, measured in float32."""
_LEAST_EXAMPLES = 2
"""Held-out examples that may change sides whatever the tolerance: of few, one is a large share."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """What was exported.

    Attributes:
        recorded: Generalization in the record, from the precision of training.
        score: The same score of the exported adapter on the base model, float32; None if it was not
            computed.
        tolerance: Largest difference that is taken for rounding, in units of the score.
        precision: `trainer.precision` of the run.
        not_verified: Why there is no score, if there is none.
        interval: What the choice of held-out examples adds to the score; None without one.
    """

    recorded: float
    score: float | None
    tolerance: float
    precision: str
    not_verified: str | None
    interval: ScoreInterval | None = None


def export_stage(
    run: Run, stage: int, out: Path, *, with_base: bool | None = None, verify: bool = True
) -> Export:
    """Write the adapter of a stage with all that loading it needs, and compute its score again.

    Beside the adapter as it is in the run folder: `base/config.json` with class names and pad
    token, the tokenizer, the run's configuration, and README.md: what it was trained on, its
    scores, what a class index means, how to load it.

    Args:
        run: The run.
        stage: One of its stages, whose adapter is there.
        out: New folder.
        with_base: Write the weights of the base model too, and name them in adapter_config.json;
            `None` does so for the embedded encoder, which no Hub has.
        verify: Load the adapter in plain PEFT on the base model and score the held-out examples.

    Raises:
        ValueError: If `out` is there or cannot be written, the base model is gone, or the score is
            not the recorded one; nothing is written then.
    """
    config = run_config(run.config)
    if with_base is None:
        with_base = config.backbone.name == EMBEDDED
    if out.exists():
        raise ValueError(f"`--out` must be a new folder, got {str(out)!r}, which exists.")
    backbone = _backbone(run, config)
    try:
        shutil.copytree(run.path / ADAPTERS_DIR / stage_name(stage), out)
        _write_base(backbone, out, with_base=with_base)
        (row,) = run.stages[run.stages["stage"] == stage].to_dict("records")
        result = Export(
            recorded=float(row["generalization"]),
            score=None,
            tolerance=TOLERANCES[config.trainer.precision],
            precision=config.trainer.precision,
            not_verified=None if verify else "`--verify` is false",
        )
        if verify:
            result = _verified(result, run, config, backbone, out)
        (out / CONFIG_FILE).write_text(shown_yaml(run), encoding="utf-8")
        card = _card(run, stage, result, with_base=with_base)
        (out / CARD).write_text(card, encoding="utf-8")
    except OSError as error:
        shutil.rmtree(out, ignore_errors=True)
        raise ValueError(f"`--out` must be writable, got {str(out)!r}: {error}") from error
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    return result


def require_loadable_by_others(run: Run, *, with_base: bool | None) -> None:
    """Refuse an export for the Hub whose base model nobody else has.

    Args:
        run: The run.
        with_base: As for `export_stage`.

    Raises:
        ValueError: If the base model is a folder of this machine that is not exported.
    """
    name = str(run.config["backbone"]["name"])
    is_exported = name == EMBEDDED if with_base is None else with_base
    if not is_exported and not is_hub_id(name):
        raise ValueError(
            "`--push_to_hub` must be of an adapter whose base model others can load, got the base "
            f"{name!r}, which is on this machine. Give `--with-base true`, or name the base by its "
            "Hub id when you train."
        )


def texts_for_hub(
    run: Run, stage: int, out: Path, export: Export, *, repo_id: str
) -> dict[str, str]:
    """Return the files of an export that say something else on the Hub: name -> text.

    Args:
        run: The run.
        stage: Its stage.
        out: The export.
        export: What was said of it.
        repo_id: OWNER/NAME.
    """
    settings = json.loads((out / ADAPTER_CONFIG).read_text("utf-8"))
    with_base = settings["base_model_name_or_path"] == str((out / _BASE_DIR).resolve())
    if with_base:
        settings["base_model_name_or_path"] = _BASE_DIR
    return {
        ADAPTER_CONFIG: json.dumps(settings, indent=2, sort_keys=True) + "\n",
        CARD: _card(run, stage, export, with_base=with_base, repository=repo_id),
    }


def _card(
    run: Run, stage: int, export: Export, *, with_base: bool, repository: str | None = None
) -> str:
    (row,) = run.stages[run.stages["stage"] == stage].to_dict("records")
    row = {str(key): value for key, value in row.items()}
    base = str(run.config["backbone"]["name"])
    hub_id = base if not with_base and is_hub_id(base) else None
    return model_card(
        run.meta["interface"],
        base=base,
        has_base=with_base,
        header=card_header(run, row, base=hub_id, interval=export.interval),
        facts=card_facts(run, row, export.interval),
        made=how_it_was_made(run, stage),
        repository=repository,
    )


def _backbone(run: Run, config: RunConfig) -> Backbone:
    interface = run.meta.get("interface")
    if interface is None:
        raise ValueError(
            f"`RUN` must record what its classes are, got {str(run.path)!r} of an older sorakit. "
            f"Copy {ADAPTERS_DIR}/ from it, or run it again."
        )
    of_older = "classification" if interface["class_names"] else "regression"
    goal = objective(interface.get("objective", of_older))
    torch.manual_seed(config.seed)
    return load_backbone(
        config.backbone, objective=goal, label_names=tuple(interface["class_names"])
    )


def _write_base(backbone: Backbone, out: Path, *, with_base: bool) -> None:
    folder = out / _BASE_DIR
    transformers_logging.disable_progress_bar()
    if with_base:
        backbone.model.save_pretrained(folder)
        backbone.tokenizer.save_pretrained(folder)
        file = out / ADAPTER_CONFIG
        # PEFT looks for a relative path from where Python runs, which need not be here.
        path = {"base_model_name_or_path": str(folder.resolve())}
        settings = json.loads(file.read_text("utf-8")) | path
        file.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", "utf-8")
    else:
        backbone.model.config.save_pretrained(folder)
    backbone.tokenizer.save_pretrained(out)


def _verified(export: Export, run: Run, config: RunConfig, backbone: Backbone, out: Path) -> Export:
    try:
        task = load_data(config)
    except ValueError as error:  # moved, or another machine: the adapter is none the worse for it
        return _with(export, not_verified=str(error))
    data = AdaptationData(
        task,
        backbone.tokenizer,
        max_length=config.task.max_length,
        memorization_examples=1,
        batch_size=1,
        eval_batch_size=config.optim.eval_batch_size,
        seed=config.seed,
        image_size=config.task.image_size,
    )
    interface = run.meta["interface"]
    if "padding_side" in interface:
        data.padding = Padding(side=interface["padding_side"], length=interface["padded_to"])
    head = data.objective.head_modules(backbone.model)
    model = config.method.adapter.load(backbone.model, out, config, head=head)
    loader = data.val_dataloader()[data.split_names.index(GENERALIZATION_SPLIT)]
    with torch.no_grad():
        parts = [
            data.objective.outputs(model(**model_inputs(batch)).logits.float(), batch[LABEL])
            for batch in loader
        ]
    outputs, labels = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    score = data.objective.score(task.metric, outputs, labels)
    tolerance = max(export.tolerance, _LEAST_EXAMPLES / len(labels))
    if not abs(score - export.recorded) <= tolerance:
        raise ValueError(
            f"`RUN` must hold an adapter with the recorded score, got {score:.4f} in plain PEFT "
            f"(float32) and {export.recorded:.4f} in its record ({export.precision}): further "
            f"apart than {tolerance:.3g}. Were data or base model changed?"
        )
    interval = score_interval(partial(data.objective.score, task.metric), outputs, labels)
    return _with(export, score=score, tolerance=tolerance, interval=interval)


def _with(export: Export, **values: Any) -> Export:
    return Export(**{**vars(export), **values})
