"""Run folders written without training, for tests of the reader and the analysis only."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from sorakit.config import (
    METHOD_VERSION,
    BackboneConfig,
    MethodConfig,
    RunConfig,
    StageConfig,
    TaskConfig,
)
from sorakit.records import (
    SCHEMA_VERSION,
    RankRecord,
    RunWriter,
    StageRecord,
    State,
    run_id,
)
from sorakit.training.inputs import input_stamps
from sorakit.variants import MEASURES

Kind = Literal["path", "floor", "hold_dense"]

HIDDEN = 128
MATRICES = {
    "attention.self.query": (HIDDEN, HIDDEN),
    "attention.self.key": (HIDDEN, HIDDEN),
    "attention.self.value": (HIDDEN, HIDDEN),
    "attention.output.dense": (HIDDEN, HIDDEN),
    "intermediate.dense": (HIDDEN, 4 * HIDDEN),
    "output.dense": (4 * HIDDEN, HIDDEN),
}
ALIVE_SHARES = [1.0, 0.82, 0.55, 0.33, 0.17, 0.08, 0.03, 0.0]
"""Share of gates alive in each stage of a path run."""
FLOOR_SCORES = (0.55, 0.51)
DENSE_SCORES = (0.97, 0.64)


def fake_config(
    kind: Kind = "path", *, task: str | TaskConfig = "pydoc_topic", seed: int = 0, **changes: Any
) -> RunConfig:
    """Return the configuration of a fake run; `changes` replace sections of it."""
    sections: dict[str, Any] = {
        "task": TaskConfig(name=task) if isinstance(task, str) else task,
        "backbone": BackboneConfig(),
        "method": MethodConfig(name="head_only" if kind == "floor" else "sora"),
        "stage": StageConfig(control="hold_dense" if kind == "hold_dense" else "none"),
        **changes,
    }
    return RunConfig(seed=seed, **sections)


def fake_meta(config: RunConfig, *, num_layers: int = 2, **changes: Any) -> dict[str, Any]:
    """Return what the trainer writes to `meta.json`; `changes` replace keys of it."""
    per_rank = sum(sum(shape) for shape in MATRICES.values())
    return {
        "schema_version": SCHEMA_VERSION,
        "method_version": METHOD_VERSION,
        "run_id": run_id(config),
        "git": {"sha": "0" * 40, "dirty": False},
        "versions": {"sorakit": "0.1.0"},
        "data_fingerprint": f"data of {config.task.name}",
        "backbone_fingerprint": "backbone",
        "inputs": input_stamps(config),
        "hardware": {"device": "cpu"},
        "started": "2026-01-01T00:00:00+00:00",
        "model": {
            "num_layers": num_layers,
            "hidden_size": HIDDEN,
            "num_adapter_params": num_layers * config.method.r * per_rank,
        },
        **changes,
    }


def write_run(
    root: Path,
    kind: Kind = "path",
    *,
    task: str | TaskConfig = "pydoc_topic",
    seed: int = 0,
    num_stages: int | None = None,
    num_layers: int = 2,
    state: State = "completed",
    error: str | None = None,
    meta: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """Write one run folder below `root` and return it.

    Args:
        root: Folder above; made if needed.
        kind: path (8 stages by default), floor (1) or hold_dense (8).
        num_stages: Number of stages, the dense one included, up to 8.
        meta: Changes to `meta.json`.
        changes: Sections of the configuration, for example `backbone=BackboneConfig(...)`.
    """
    config = fake_config(kind, task=task, seed=seed, **changes)
    path = root / run_id(config)
    path.mkdir(parents=True)
    writer = RunWriter(path)
    writer.write_config(config)
    writer.write_meta(fake_meta(config, num_layers=num_layers, **(meta or {})))
    writer.write_status("running")
    wanted = (1 if kind == "floor" else len(ALIVE_SHARES)) if num_stages is None else num_stages
    for stage in range(wanted):
        append_fake_stage(writer, config, stage, kind=kind, num_layers=num_layers)
    writer.write_status(state, error)
    return path


def append_fake_stage(
    writer: RunWriter,
    config: RunConfig,
    stage: int,
    *,
    kind: Kind = "path",
    num_layers: int = 2,
    measures: Mapping[str, int | float | None] | None = None,
) -> None:
    """Append a stage whose counts follow `ALIVE_SHARES` and whose scores fall with them."""
    ranks = [] if kind == "floor" else fake_ranks(config, stage, kind=kind, num_layers=num_layers)
    writer.append_stage(
        fake_stage(config, stage, ranks),
        ranks=ranks,
        examples=fake_examples(stage),
        timing={"seconds": 1.0},
        measures=fake_measures(stage, ranks, **(measures or {})),
    )


def fake_ranks(
    config: RunConfig, stage: int, *, kind: Kind = "path", num_layers: int = 2
) -> list[RankRecord]:
    """Return one record a matrix; the strongest gates survive, more of them in higher layers."""
    r = config.method.r
    names = [(layer, matrix) for layer in range(num_layers) for matrix in MATRICES]
    generator = np.random.default_rng(config.seed)
    strengths = generator.gamma(2.0, size=(len(names), r))
    strengths *= np.array([1 + layer / num_layers for layer, _ in names])[:, None]
    share = 1.0 if kind == "hold_dense" else ALIVE_SHARES[stage]
    num_alive = round(share * strengths.size)
    alive = np.zeros(strengths.size, dtype=bool)
    alive[np.argsort(-strengths, axis=None, kind="stable")[:num_alive]] = True
    kept = np.where(alive.reshape(strengths.shape), strengths, 0.0)
    return [
        RankRecord(
            stage=stage,
            module=f"bert.encoder.layer.{layer}.{matrix}",
            layer=layer,
            matrix=matrix,
            in_features=MATRICES[matrix][0],
            out_features=MATRICES[matrix][1],
            r=r,
            nonzero_rank=int((row > 0).sum()),
            strengths=row.tolist(),
        )
        for (layer, matrix), row in zip(names, kept, strict=True)
    ]


def fake_stage(
    config: RunConfig, stage: int, ranks: list[RankRecord], **changes: Any
) -> StageRecord:
    """Return a stage record that agrees with `ranks`; `changes` replace fields of it."""
    size = {rank.module: rank.in_features + rank.out_features for rank in ranks}
    nonzero = sum(rank.nonzero_rank * size[rank.module] for rank in ranks)
    full = sum(rank.r * size[rank.module] for rank in ranks)
    share = nonzero / full if full else 0.0
    wiggle = 0.004 * np.cos(3.0 * stage + config.seed)
    scores = [
        round(floor + (dense - floor) * np.tanh(speed * share) / np.tanh(speed) + wiggle, 4)
        for floor, dense, speed in zip(FLOOR_SCORES, DENSE_SCORES, (3.0, 12.0), strict=True)
    ]
    first = [round(dense + 0.004 * np.cos(config.seed), 4) for dense in DENSE_SCORES]
    percent = [100 * score / dense for score, dense in zip(scores, first, strict=True)]
    xi = 1e-4 if stage == 0 else 2e-3 * 1.3 ** (stage - 1)
    fields: dict[str, Any] = {
        "stage": stage,
        "xi": xi,
        "lambda_": xi / config.gates.gate_lr,
        "num_nonzero_params": nonzero,
        "num_adapter_params": full,
        "num_nonzero_gates": sum(rank.nonzero_rank for rank in ranks),
        "metric": "accuracy",
        "memorization": scores[0],
        "generalization": scores[1],
        "test": None,
        "memorization_percent": percent[0],
        "generalization_percent": percent[1],
        "extra_metrics": {"generalization": {"f1": scores[1]}},
        "train_loss": 1.5 - scores[0],
        "memorization_loss": 1.4 - scores[0],
        "generalization_loss": 1.6 - scores[1],
        "epochs": 1.0,
        "optimizer_steps": 100,
        "stopped_by": "length" if stage else "converged",
    }
    return StageRecord(**{**fields, **changes})


def fake_measures(stage: int, ranks: list[RankRecord], **changes: Any) -> dict[str, Any]:
    """Return the measures of a stage, null where they need a model; `changes` replace some."""
    return {
        **dict.fromkeys(MEASURES.names),
        "released_count": sum(2 * HIDDEN * rank.nonzero_rank for rank in ranks),
        "gates_flickering": stage % 3,
        "sum_of_strengths": float(sum(sum(rank.strengths) for rank in ranks)),
        **changes,
    }


def fake_examples(stage: int) -> pd.DataFrame:
    """Return four rows of `examples.parquet`."""
    return pd.DataFrame(
        {
            "stage": stage,
            "split": ["memorization", "memorization", "generalization", "generalization"],
            "index": [0, 1, 0, 1],
            "loss": [0.1, 0.2, 0.3, 0.4],
            "correct": [True, True, True, False],
            "margin": [2.0, 1.0, 0.5, -0.5],
        }
    )
