"""What a model card tells of an exported adapter: task, data, counts, scores, how it was made."""

from collections.abc import Mapping
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

from sorakit.records import Run, dataset_label
from sorakit.tracking.rows import shown_config
from sorakit.training.model_card import pipeline_tag
from sorakit.training.score_interval import ScoreInterval

CONFIG_FILE = "sorakit.yaml"
"""The configuration of the run, beside the adapter: `sorakit run --config` makes it again."""
_METRICS = {"pearson": "pearsonr", "spearman": "spearmanr"}
"""Score -> its name on the Hub, where it is another one."""
_VERSIONS = ("sorakit", "torch", "transformers", "peft", "datasets", "python")


def card_facts(run: Run, row: Mapping[str, Any], interval: ScoreInterval | None) -> dict[str, str]:
    """Return the lines of the card's table, from the record of a run.

    Args:
        run: The run.
        row: Its stage.
        interval: Of generalization; None where it was not computed.
    """
    data, metric = run.meta["data"], row["metric"]
    dense = run.stages.iloc[0]
    full = int(row["num_adapter_params"])
    held_out = _score(row["generalization"])
    if interval is not None:
        held_out += (
            f" (95 % interval {interval.low:.4f} to {interval.high:.4f}: what the choice of "
            f"{interval.examples:,} examples adds, none of other seeds)"
        )
    facts = {
        "trained on": f"{dataset_label(run.config['task'])}, {data['train']:,} examples",
        "data": data.get("source") or "not recorded",
        "adapter parameters": _count(int(row["num_nonzero_params"]), full),
        f"{metric} on held-out examples": held_out,
        f"{metric} on training examples": _score(row["memorization"]),
    }
    for name, value in ((row.get("extra_metrics") or {}).get("generalization") or {}).items():
        facts[f"{name} on held-out examples"] = _score(value)
    if int(row["stage"]) > 0:
        facts["dense adapter of the same run"] = (
            f"{_score(dense['generalization'])} on held-out and {_score(dense['memorization'])} on "
            f"training examples, with {int(dense['num_nonzero_params']):,} parameters"
        )
    precision = run.config["trainer"]["precision"]
    facts["scores"] = f"as recorded in {precision}; the interval was computed in float32"
    facts["base model fingerprint"] = str(run.meta["backbone_fingerprint"])
    facts["sorakit run"] = (
        f"{run.run_id}, stage {row['stage']}, seed {run.config['seed']}, "
        f"method version {run.meta.get('method_version')}"
    )
    return facts


def card_header(
    run: Run, row: Mapping[str, Any], *, base: str | None, interval: ScoreInterval | None
) -> str:
    """Return the metadata of the card, by which the Hub finds a model and shows its scores.

    Args:
        run: The run.
        row: Its stage.
        base: Hub id of the base model; None where the Hub has none.
        interval: As for `card_facts`.
    """
    task = run.config["task"]
    metric = _METRICS.get(str(row["metric"]), str(row["metric"]))
    dataset = task.get("dataset")
    kind = pipeline_tag(run.meta["interface"])
    result = EvalResult(
        task_type=kind,
        dataset_type=dataset or task["name"],
        dataset_name=dataset_label(task),
        dataset_split="held out",
        metric_type=metric,
        metric_value=round(float(row["generalization"]), 6),
        metric_args=None if interval is None else {"low": interval.low, "high": interval.high},
    )
    data = ModelCardData(
        base_model=base,
        datasets=None if dataset is None else [dataset],
        library_name="peft",
        pipeline_tag=kind,
        tags=["sora", "lora"],
        metrics=[metric],
        model_name=f"{dataset_label(task)}, {int(row['num_nonzero_params']):,} parameters",
        eval_results=[result],
    )
    return data.to_yaml()


def how_it_was_made(run: Run, stage: int) -> list[str]:
    """Return the lines of the card that say with which commands and versions it was made."""
    versions = run.meta["versions"]
    git = run.meta.get("git") or {}
    listed = [f"{name} {versions[name]}" for name in _VERSIONS if name in versions]
    if git.get("sha"):
        listed[0] += f" (commit {git['sha'][:12]}{', changed' if git.get('dirty') else ''})"
    return [
        f"With {', '.join(listed)}. `{CONFIG_FILE}` is the whole configuration.",
        "",
        "```sh",
        f"sorakit run --config {CONFIG_FILE} --out_dir run",
        f"sorakit export run --stage {stage} --out adapter",
        "```",
    ]


def shown_yaml(run: Run) -> str:
    """Return the configuration of a run without what is of this machine, as YAML."""
    return yaml.safe_dump(shown_config(run.config), sort_keys=False)


def _score(value: float) -> str:
    return f"{float(value):.4f}"


def _count(number: int, full: int) -> str:
    share = f", {100 * number / full:.3g} % of the full adapter" if full else ""
    return f"{number:,} of {full:,}{share}"
