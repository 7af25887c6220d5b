"""Follows a run folder into an open W&B run: every line once, in the order of the run."""

import json
from collections import deque
from pathlib import Path
from typing import Any

import pandas as pd
import wandb

from sorakit.metric_names import (
    CURVE_COLUMNS,
    CURVE_LOG10_SHARE,
    CURVE_PERCENT,
    CURVE_RUNS,
    GAP,
    NUM_NONZERO_PARAMS,
    OPTIMIZER_STEP,
    RANKS,
    RANKS_TABLE,
    STRENGTHS,
    stage_keys,
)
from sorakit.records import (
    ADAPTERS_DIR,
    STAGES_FILE,
    STEPS_FILE,
    Run,
    is_packed,
    load_run,
    read_steps,
    stage_name,
)
from sorakit.tracking.client import path_without_home, staging_in
from sorakit.tracking.rows import (
    GAINS,
    RANK_COLUMNS,
    STEP_KEYS,
    Scores,
    curve_rows,
    rank_rows,
    stage_row,
    step_row,
    strengths,
    summary,
    without_home,
)

ADAPTER_TYPE = "adapter"
HEATMAP = "sorakit_rank_heatmap"
"""Name of the custom chart; `sorakit sync` makes it from rank_heatmap.json."""


class Mirror:
    """Logs what a run folder holds and has not been logged yet.

    Nothing else is ever logged, so a run that is followed live, one that is resumed and one that is
    sent afterwards have the same rows.

    Args:
        path: Run folder.
        tracked: The open W&B run.
        folder: Where wandb may stage files.
        floor: Memorization and generalization of the floor, where it is known.
        log_adapters: Send the adapter of every stage.
    """

    def __init__(
        self,
        path: Path,
        tracked: wandb.Run,
        *,
        folder: Path,
        floor: Scores | None,
        log_adapters: bool,
    ) -> None:
        self._path = path
        self._tracked = tracked
        self._folder = folder
        self._floor = floor
        self._log_adapters = log_adapters
        self._steps_size = 0
        self._steps: deque[dict[str, Any]] = deque()  # read and not yet logged
        self._num_stages = 0
        self._stages_size = -1
        self._define_metrics()

    def update(self) -> None:
        """Log whatever is new in the run folder."""
        size = _size(self._path / STAGES_FILE)
        if size != self._stages_size:
            run = load_run(self._path)  # before the steps: those of its stages are written by then
            self._read_steps()
            stages = [{str(k): v for k, v in row.items()} for row in run.stages.to_dict("records")]
            for stage in stages[self._num_stages :]:
                self._log_steps()
                with staging_in(self._folder):
                    self._log_stage(run, stage, dense=stages[0])
                self._num_stages += 1
            self._tracked.summary.update(summary(run, self._floor))
            self._stages_size = size
        self._read_steps()
        self._log_steps()

    def finish(self, *, exit_code: int) -> None:
        """Log what is left, then the curve on the grid of all runs, and end the W&B run.

        Raises:
            TimeoutError: If the server has not taken everything in time.
        """
        self.update()
        run = load_run(self._path)
        for row in curve_rows(run, self._floor):
            self._tracked.log(row)
        self._tracked.summary.update(summary(run, self._floor))
        self._tracked.finish(exit_code=exit_code)

    def _read_steps(self) -> None:
        """Read the lines that are new: all of them, twice a second, would cost a long run dear."""
        if is_packed(self._path):
            rows = read_steps(self._path)
            self._steps.extend(rows[self._steps_size :])
            self._steps_size = len(rows)
            return
        file = self._path / STEPS_FILE
        if not file.exists():
            return
        with file.open("rb") as stream:
            stream.seek(self._steps_size)
            content = stream.read()
        whole = content[: content.rfind(b"\n") + 1]  # the last line may be half written
        self._steps.extend(json.loads(line) for line in whole.splitlines())
        self._steps_size += len(whole)

    def _log_steps(self) -> None:
        """Log the steps that are not of a stage after the current one."""
        while self._steps and self._steps[0]["stage"] <= self._num_stages:
            self._tracked.log(step_row(self._steps.popleft()))

    def _define_metrics(self) -> None:
        axes = {
            NUM_NONZERO_PARAMS: [
                *stage_keys().values(),
                *GAINS.values(),
                GAP,
                STRENGTHS,
                RANKS_TABLE,
            ],
            OPTIMIZER_STEP: list(STEP_KEYS.values()),
            CURVE_LOG10_SHARE: [CURVE_PERCENT, CURVE_RUNS, *CURVE_COLUMNS.values()],
        }
        for axis, keys in axes.items():
            self._tracked.define_metric(axis)
            for key in keys:
                if key != axis:
                    self._tracked.define_metric(key, step_metric=axis, step_sync=False)
        # what `extra_metrics` become; names given in full come first
        for pattern in ("memorization/*", "generalization/*", "test/*"):
            self._tracked.define_metric(pattern, step_metric=NUM_NONZERO_PARAMS, step_sync=False)

    def _log_stage(self, run: Run, stage: dict[str, Any], *, dense: dict[str, Any]) -> None:
        row = stage_row(stage, dense=dense, floor=self._floor)
        ranks: pd.DataFrame = run.ranks[run.ranks["stage"] == stage["stage"]]
        if not ranks.empty:
            table = wandb.Table(columns=[*RANK_COLUMNS], data=[*rank_rows(ranks)])
            row[RANKS] = wandb.plot_table(
                f"{self._tracked.entity}/{HEATMAP}" if self._tracked.entity else HEATMAP,
                table,
                {column: column for column in RANK_COLUMNS},
                {"title": f"Ranks, stage {stage['stage']}"},
            )
            alive = strengths(ranks)
            if alive:
                row[STRENGTHS] = wandb.Histogram(alive)
        self._tracked.log(row)
        if self._log_adapters:
            self._log_adapter(run, stage)

    def _log_adapter(self, run: Run, stage: dict[str, Any]) -> None:
        name = stage_name(int(stage["stage"]))
        folder = run.path / ADAPTERS_DIR / name
        if not folder.is_dir():  # records without weights
            return
        artifact = wandb.Artifact(
            f"adapter-{run.run_id}",
            ADAPTER_TYPE,
            metadata={
                key: stage[key]
                for key in ("stage", "num_nonzero_params", "memorization", "generalization")
            },
        )
        for file in sorted(folder.iterdir()):
            if file.suffix == ".json":  # names the backbone, which may be a local folder
                with artifact.new_file(file.name) as stream:
                    stream.write(without_home(file.read_text("utf-8")))
            else:
                # The stage is complete, so it needs no copy; but wandb tells a server where it lay.
                in_place = self._tracked.offline and path_without_home(file) is not None
                policy = "immutable" if in_place else "mutable"
                artifact.add_file(str(file), policy=policy, skip_cache=True)
        self._tracked.log_artifact(artifact, aliases=[name])


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
