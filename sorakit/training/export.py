"""The adapter of one stage as a folder that plain PEFT loads, checked against its record."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from sorakit.backbones import EMBEDDED, Backbone, load_backbone
from sorakit.config import RunConfig
from sorakit.metric_names import GENERALIZATION_SPLIT, LABEL
from sorakit.objectives import objective
from sorakit.options import run_config
from sorakit.records import ADAPTERS_DIR, Run, dataset_label, stage_name
from sorakit.training.data import AdaptationData, Padding, model_inputs
from sorakit.training.inputs import load_data
from sorakit.training.model_card import model_card

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
    """

    recorded: float
    score: float | None
    tolerance: float
    precision: str
    not_verified: str | None


def export_stage(
    run: Run, stage: int, out: Path, *, with_base: bool | None = None, verify: bool = True
) -> Export:
    """Write the adapter of a stage with all that loading it needs, and compute its score again.

    Beside the adapter as it is in the run folder: `base/config.json` with class names and pad
    token, the tokenizer, and README.md, which says what a class index means and how to load it.

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
        name, count = dataset_label(run.config["task"]), run.meta["data"]["train"]
        facts = {
            "trained on": f"{name}, {count:,} examples",
            "adapter parameters": f"{int(row['num_nonzero_params']):,}",
            f"{row['metric']} on held-out examples": f"{row['generalization']:.4f} "
            f"(recorded in {config.trainer.precision})",
            "sorakit run": f"{run.run_id}, stage {stage}",
        }
        card = model_card(
            run.meta["interface"], base=config.backbone.name, has_base=with_base, facts=facts
        )
        (out / "README.md").write_text(card, encoding="utf-8")
    except OSError as error:
        shutil.rmtree(out, ignore_errors=True)
        raise ValueError(f"`--out` must be writable, got {str(out)!r}: {error}") from error
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    return result


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
        file = out / "adapter_config.json"
        settings = json.loads(file.read_text("utf-8")) | {"base_model_name_or_path": str(folder)}
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
    return _with(export, score=score, tolerance=tolerance)


def _with(export: Export, **values: Any) -> Export:
    return Export(**{**vars(export), **values})
