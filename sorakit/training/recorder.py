"""Writes what a stage left: scores, counts, ranks, per-example results, the pruned adapter."""

import math
import resource
import socket
import time
from typing import Any

import lightning.pytorch as pl
import pandas as pd
import torch

from sorakit.config import RunConfig
from sorakit.method.kkt import kkt_residual
from sorakit.method.prune import (
    export_lora,
    num_adapter_params,
    num_nonzero_params,
    released_count,
)
from sorakit.method.targets import split_layer
from sorakit.method.tuner import AdaptedMatrix, adapted_matrices
from sorakit.metric_names import GENERALIZATION_SPLIT, MEMORIZATION_SPLIT, TEST_SPLIT
from sorakit.records import RankRecord, RunWriter, StageRecord
from sorakit.tasks.base import Task
from sorakit.training.data import AdaptationData
from sorakit.training.evaluation import SplitResult
from sorakit.training.module import AdaptationModule
from sorakit.training.xi_scheduler import StageEnd

TASK_TYPE = "SEQ_CLS"


class StageRecorder:
    """Appends a stage to the run folder; a listener of `XiScheduler`.

    Args:
        writer: Run folder.
        config: Resolved configuration.
        task: The task, for noisy-label flags.
        data: Tokenised splits, for the KKT residual.
        hidden_size: Width of the backbone, for the released count.

    Attributes:
        dense_scores: Memorization and generalization of the dense stage; set it when a run resumes
            after that.
    """

    def __init__(
        self,
        writer: RunWriter,
        *,
        config: RunConfig,
        task: Task,
        data: AdaptationData,
        hidden_size: int,
    ) -> None:
        self._writer = writer
        self._config = config
        self._task = task
        self._data = data
        self._hidden_size = hidden_size
        self.dense_scores: tuple[float, float] | None = None
        self._started = time.perf_counter()

    def __call__(self, _: pl.Trainer, module: pl.LightningModule, end: StageEnd) -> None:
        """Write the stage; its line in `stages.jsonl` comes last."""
        assert isinstance(module, AdaptationModule)
        matrices = adapted_matrices(module.model)
        record = self._record(module, matrices, end)
        export_lora(
            module.model,
            self._writer.adapter_path(end.stage),
            base_model_name_or_path=self._config.backbone.name,
            task_type=TASK_TYPE,
        )
        self._writer.append_stage(
            record,
            ranks=[_rank_record(matrix, end.stage) for matrix in matrices],
            examples=self._examples(module.results, end.stage),
            timing=self._timing(),
        )

    def _record(
        self, module: AdaptationModule, matrices: list[AdaptedMatrix], end: StageEnd
    ) -> StageRecord:
        results = module.results
        memorization, generalization = results[MEMORIZATION_SPLIT], results[GENERALIZATION_SPLIT]
        if self.dense_scores is None:
            self.dense_scores = (memorization.score, generalization.score)
        dense_memorization, dense_generalization = self.dense_scores
        lambda_ = end.xi / self._config.gates.gate_lr
        residual, standard_error = self._kkt(module, matrices, lambda_)
        test = results.get(TEST_SPLIT)
        return StageRecord(
            stage=end.stage,
            xi=end.xi,
            lambda_=lambda_,
            num_nonzero_params=num_nonzero_params(module.model),
            num_adapter_params=num_adapter_params(module.model),
            num_nonzero_gates=sum(int(torch.count_nonzero(m.gate)) for m in matrices),
            released_count=released_count(module.model, hidden_size=self._hidden_size),
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
            kkt_residual=residual,
            kkt_residual_se=standard_error,
            gates_flickering=end.gates_flickering,
            sum_of_strengths=math.fsum(float(m.strengths().double().sum()) for m in matrices),
            epochs=end.epochs,
            optimizer_steps=end.steps,
            stopped_by=end.stopped_by,
        )

    def _kkt(
        self, module: AdaptationModule, matrices: list[AdaptedMatrix], lambda_: float
    ) -> tuple[float | None, float | None]:
        """Return the KKT residual over memorization examples and its split-half standard error."""
        count = self._config.stage.kkt_examples
        if count == 0 or not matrices:
            return None, None
        batches = self._data.batches_of(
            MEMORIZATION_SPLIT,
            max_examples=self._config.task.memorization_examples if count < 0 else count,
            batch_size=self._config.optim.batch_size,
        )
        halves = [_gate_gradient(module, matrices, half) for half in (batches[::2], batches[1::2])]
        gate = torch.cat([m.gate.detach() for m in matrices])
        total = sum(weight for _, weight in halves)
        mean = sum((gradient * weight for gradient, weight in halves), torch.zeros_like(gate))
        residual = kkt_residual(gate, mean / total, lambda_=lambda_)
        if any(weight == 0 for _, weight in halves):  # a single batch has no second half
            return residual, None
        first, second = (kkt_residual(gate, gradient, lambda_=lambda_) for gradient, _ in halves)
        return residual, abs(first - second) / 2

    def _examples(self, results: dict[str, SplitResult], stage: int) -> pd.DataFrame:
        tables = []
        noisy = self._task.train["is_noisy"]
        for split, result in results.items():
            table = result.examples.copy()
            table.insert(0, "stage", stage)
            table.insert(1, "split", split)
            is_train = split == MEMORIZATION_SPLIT
            table["is_noisy"] = [bool(noisy[i]) if is_train else False for i in table["index"]]
            tables.append(table)
        return pd.concat(tables, ignore_index=True)

    def _timing(self) -> dict[str, Any]:
        now = time.perf_counter()
        seconds, self._started = now - self._started, now
        return {
            "seconds": round(seconds, 3),
            "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "host": socket.gethostname(),
        }


def _percent(score: float, dense: float) -> float | None:
    return 100 * score / dense if dense > 0 else None


def _rank_record(matrix: AdaptedMatrix, stage: int) -> RankRecord:
    layer, name = split_layer(matrix.name)
    return RankRecord(
        stage=stage,
        module=matrix.name,
        layer=layer,
        matrix=name,
        in_features=matrix.lora_A.shape[1],
        out_features=matrix.lora_B.shape[0],
        r=matrix.gate.numel(),
        nonzero_rank=int(torch.count_nonzero(matrix.gate)),
        strengths=[float(value) for value in matrix.strengths()],
    )


def _gate_gradient(
    module: AdaptationModule, matrices: list[AdaptedMatrix], batches: list[dict[str, torch.Tensor]]
) -> tuple[torch.Tensor, int]:
    """Return the evaluation-mode gradient of the mean loss in all gates, and the examples."""
    was_training = module.training
    module.eval()
    gates = [m.gate for m in matrices]
    total = gates[0].new_zeros(sum(g.numel() for g in gates))
    count = 0
    with torch.enable_grad(), torch.autocast(module.device.type, enabled=False):
        for batch in batches:
            moved = {name: value.to(module.device) for name, value in batch.items()}
            size = len(moved["label"])
            gradients = torch.autograd.grad(module.loss(moved), gates)
            total += torch.cat([g.flatten() for g in gradients]) * size
            count += size
    module.train(was_training)
    return total / max(count, 1), count
