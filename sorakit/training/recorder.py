"""Writes what a stage left: scores, counts, ranks, per-example results, the pruned adapter."""

import resource
import socket
import time
from dataclasses import asdict, fields
from typing import Any

import lightning.pytorch as pl
import pandas as pd
import torch

from sorakit.config import RunConfig
from sorakit.measures import StageView, measures_of
from sorakit.method.kkt import Residuals
from sorakit.method.prune import (
    count_nonzero_ranks,
)
from sorakit.method.targets import layer_names
from sorakit.method.tuner import AdaptedMatrix
from sorakit.metric_names import (
    CLEAN_LABEL,
    COPIES,
    GENERALIZATION_SPLIT,
    INDEX,
    IS_NOISY,
    LEFT_OUT_SPLIT,
    MEMORIZATION_SPLIT,
    POOL_INDEX,
    TEST_SPLIT,
)
from sorakit.records import RankRecord, RunWriter, StageRecord, read_dense_stage
from sorakit.tasks.base import Task
from sorakit.training.evaluation import SplitResult
from sorakit.training.module import AdaptationModule
from sorakit.training.stationarity import Stationarity
from sorakit.training.xi_scheduler import PhaseEnd, StageEnd, prox_optimizer

_RESIDUALS = tuple(field.name for field in fields(Residuals))


class StageRecorder:
    """Appends a stage to the run folder; a listener of `XiScheduler`.

    Args:
        writer: Run folder.
        config: Resolved configuration.
        task: The task, for noisy-label flags.
        task_type: PEFT task type of the exported adapters.
        stationarity: Returns the residuals of a module at a lambda.
        hidden_size: Width of the backbone, for the released count.
    """

    def __init__(
        self,
        writer: RunWriter,
        *,
        config: RunConfig,
        task: Task,
        task_type: str | None,
        stationarity: Stationarity,
        hidden_size: int,
    ) -> None:
        self._writer = writer
        self._config = config
        self._task = task
        self._task_type = task_type
        self._stationarity = stationarity
        self._hidden_size = hidden_size
        self._started = time.perf_counter()
        self._cpu_started = time.process_time()

    def __call__(self, trainer: pl.Trainer, module: pl.LightningModule, end: StageEnd) -> None:
        """Write the stage; its line in `stages.jsonl` comes last."""
        assert isinstance(module, AdaptationModule)
        adapter = self._config.method.adapter
        matrices = adapter.matrices(module.model)
        # The residuals are of the weights that xi acted on; every process takes part in them.
        if matrices:
            residuals = end.penalised or asdict(self._residuals(trainer, module, end.chosen))
        else:
            residuals = asdict(Residuals())
        if not trainer.is_global_zero:
            return
        record = self._record(module, matrices, end)
        examples = self._examples(module.results, end.stage)
        measures = measures_of(
            StageView(
                model=module.model,
                matrices=matrices,
                hidden_size=self._hidden_size,
                xi=record.xi,
                lambda_=record.lambda_,
                residuals=Residuals(**{key: residuals[key] for key in _RESIDUALS}),
                gates_flickering=end.chosen.gates_flickering,
                gates_revived=end.chosen.gates_revived,
                examples=examples,
            )
        )
        adapter.export(
            module.model,
            self._writer.adapter_path(end.stage),
            base_model_name_or_path=self._config.backbone.name,
            task_type=self._task_type,
        )
        self._writer.append_stage(
            record,
            ranks=rank_records(matrices, end.stage),
            examples=examples,
            timing=self._timing(),
            measures=measures,
        )

    def ranks_chosen(
        self, trainer: pl.Trainer, module: pl.LightningModule, end: PhaseEnd
    ) -> dict[str, float | None]:
        """Return what the record says of the penalised weights, before a refit changes them."""
        assert isinstance(module, AdaptationModule)
        memorization = module.results[MEMORIZATION_SPLIT]
        generalization = module.results[GENERALIZATION_SPLIT]
        return {
            "penalised_memorization": memorization.score,
            "penalised_generalization": generalization.score,
            "penalised_memorization_loss": memorization.loss,
            "penalised_generalization_loss": generalization.loss,
            **asdict(self._residuals(trainer, module, end)),
        }

    def _residuals(self, trainer: pl.Trainer, module: AdaptationModule, end: PhaseEnd) -> Residuals:
        lambda_ = self._config.gates.lambda_of(end.applied_xi)
        return self._stationarity(module, prox_optimizer(trainer), lambda_)

    def _record(
        self, module: AdaptationModule, matrices: list[AdaptedMatrix], end: StageEnd
    ) -> StageRecord:
        results = module.results
        memorization, generalization = results[MEMORIZATION_SPLIT], results[GENERALIZATION_SPLIT]
        dense = read_dense_stage(self._writer.path) if end.stage > 0 else None
        dense_memorization = dense["memorization"] if dense else memorization.score
        dense_generalization = dense["generalization"] if dense else generalization.score
        chosen = end.chosen
        test = results.get(TEST_SPLIT)
        return StageRecord(
            stage=end.stage,
            xi=chosen.xi,
            applied_xi=chosen.applied_xi,
            lambda_=self._config.gates.lambda_of(chosen.xi),
            num_nonzero_params=self._config.method.adapter.count(module.model),
            num_adapter_params=self._config.method.adapter.count_all(module.model),
            num_nonzero_gates=count_nonzero_ranks(matrices),
            metric=self._task.metric,
            memorization=memorization.score,
            generalization=generalization.score,
            test=None if test is None else test.score,
            memorization_percent=_percent(memorization.score, dense_memorization),
            generalization_percent=_percent(generalization.score, dense_generalization),
            extra_metrics={name: result.extra for name, result in results.items() if result.extra},
            train_loss=end.train_loss,
            memorization_loss=memorization.loss,
            generalization_loss=generalization.loss,
            epochs=end.epochs,
            optimizer_steps=end.steps,
            stopped_by=chosen.stopped_by,
            refit_epochs=end.refit_epochs,
            refit_stopped_by=end.refit_stopped_by,
            **{key: value for key, value in end.penalised.items() if key not in _RESIDUALS},
        )

    def _examples(self, results: dict[str, SplitResult], stage: int) -> pd.DataFrame:
        tables = []
        for split, result in results.items():
            table = result.examples.copy()
            table.insert(0, "stage", stage)
            table.insert(1, "split", split)
            tables.append(with_task_columns(table, self._task, split))
        return pd.concat(tables, ignore_index=True)

    def _timing(self) -> dict[str, Any]:
        now = time.perf_counter()
        seconds, self._started = now - self._started, now
        cpu = time.process_time()
        cpu_seconds, self._cpu_started = cpu - self._cpu_started, cpu
        return {
            "seconds": round(seconds, 3),
            "cpu_seconds": round(cpu_seconds, 3),
            "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "host": socket.gethostname(),
        }


def with_task_columns(table: pd.DataFrame, task: Task, split: str) -> pd.DataFrame:
    """Return the examples of a split with what the task says of them.

    `is_noisy` always; `clean_label` and `copies` where the task has them. With a subset, `index` is
    the position among the examples that it was drawn from, the same in every run.

    Args:
        table: Rows of `examples.parquet`, with the position in the split as `index`.
        task: The task.
        split: Which of its splits they are of.
    """
    source = {MEMORIZATION_SPLIT: task.train, LEFT_OUT_SPLIT: task.left_out}.get(split)
    if source is None:
        return table.assign(**{IS_NOISY: False})
    rows = source.select_columns(
        [name for name in (IS_NOISY, CLEAN_LABEL, COPIES, POOL_INDEX) if name in source.features]
    )[table[INDEX].tolist()]
    index = rows.pop(POOL_INDEX, table[INDEX])
    return table.assign(**{INDEX: index, **rows})


def _percent(score: float, dense: float) -> float | None:
    return 100 * score / dense if dense > 0 else None


def rank_records(matrices: list[AdaptedMatrix], stage: int) -> list[RankRecord]:
    """Return the lines of a model's adapted matrices at the end of a stage."""
    places = layer_names([matrix.name for matrix in matrices])
    return [
        RankRecord(
            stage=stage,
            module=matrix.name,
            layer=places[matrix.name][0],
            matrix=places[matrix.name][1],
            in_features=matrix.lora_A.shape[1],
            out_features=matrix.lora_B.shape[0],
            r=matrix.gate.numel(),
            nonzero_rank=int(torch.count_nonzero(matrix.gate)),
            strengths=[float(value) for value in matrix.strengths()],
        )
        for matrix in matrices
    ]
