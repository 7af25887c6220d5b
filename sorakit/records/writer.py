"""Writing a run folder.

A stage is complete when its line stands in `stages.jsonl`, which is written last.
"""

import json
import math
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from sorakit.config import RunConfig
from sorakit.records.durable import (
    append_lines,
    dump_line,
    read_lines,
    replace_parquet,
    replace_text,
)
from sorakit.records.examples import read_examples
from sorakit.records.identity import config_to_dict
from sorakit.records.schema import (
    ADAPTERS_DIR,
    CONFIG_FILE,
    EXAMPLES_FILE,
    META_FILE,
    RANKS_FILE,
    STAGES_FILE,
    STATUS_FILE,
    STEPS_FILE,
    TIMINGS_FILE,
    RankRecord,
    StageRecord,
    State,
    StepRecord,
    stage_columns,
    stage_name,
)


class RunWriter:
    """Writes one run folder.

    Args:
        path: The run folder. It must exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write_config(self, config: RunConfig) -> None:
        """Write `config.yaml`, resolved."""
        text = yaml.safe_dump(config_to_dict(config), sort_keys=False, allow_unicode=True)
        replace_text(self.path / CONFIG_FILE, text)

    def write_meta(self, meta: Mapping[str, Any]) -> None:
        """Write `meta.json`; `meta` names the schema version, the method version and the run id."""
        replace_text(self.path / META_FILE, json.dumps(meta, indent=2, allow_nan=False) + "\n")

    def write_status(self, state: State, error: str | None = None) -> None:
        """Replace `status.json`."""
        status = {"state": state, "error": error, "host": socket.gethostname(), "pid": os.getpid()}
        replace_text(self.path / STATUS_FILE, json.dumps(status, indent=2) + "\n")

    def adapter_path(self, stage: int) -> Path:
        """Return where the pruned adapter of a stage belongs."""
        return self.path / ADAPTERS_DIR / stage_name(stage)

    def append_stage(
        self,
        record: StageRecord,
        *,
        ranks: Iterable[RankRecord],
        examples: pd.DataFrame,
        timing: Mapping[str, Any],
        measures: Mapping[str, int | float | None] | None = None,
    ) -> None:
        """Append one complete stage; the line in `stages.jsonl` comes last.

        Args:
            record: The stage.
            ranks: One record per adapted matrix.
            examples: Rows of `examples.parquet`, with the column `stage`.
            timing: What may differ between two equal runs: seconds, memory, host.
            measures: Further columns of the stage's line, name -> value.

        Raises:
            ValueError: If a number of the record or a measure is not finite: training has diverged.
        """
        added = measures or {}
        assert not set(added) & set(stage_columns()), "a measure has the name of another column"
        line = {**_rename(asdict(record), "lambda_", "lambda"), **added}
        for name, value in line.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(
                    f"`{name}` of stage {record.stage} must be finite, got {value}. "
                    "Training has diverged; lower `optim.lr` or `gates.gate_lr`."
                )
        previous = read_examples(self.path)
        table = examples if previous is None else pd.concat([previous, examples], ignore_index=True)
        replace_parquet(self.path / EXAMPLES_FILE, table)
        append_lines(self.path / RANKS_FILE, [asdict(rank) for rank in ranks])
        append_lines(self.path / TIMINGS_FILE, [{"stage": record.stage, **timing}])
        append_lines(self.path / STAGES_FILE, [line])

    def append_step(self, record: StepRecord) -> None:
        """Append one line to `steps.jsonl`, flushed; `keep_steps` has made sure of whole lines."""
        with (self.path / STEPS_FILE).open("a", encoding="utf-8") as stream:
            stream.write(dump_line(asdict(record)))

    def keep_steps(self, last: int) -> None:
        """Cut `steps.jsonl` back to the steps up to `last`, before a resumed run goes on."""
        file = self.path / STEPS_FILE
        if file.exists():
            rows = [row for row in read_lines(file) if row["step"] <= last]
            replace_text(file, "".join(dump_line(row) for row in rows))

    def keep_stages(self, num_stages: int) -> None:
        """Cut every table back to `num_stages` stages, before a resumed run goes on."""
        for name in (STAGES_FILE, RANKS_FILE, TIMINGS_FILE):
            file = self.path / name
            if file.exists():
                rows = [row for row in read_lines(file) if row["stage"] < num_stages]
                replace_text(file, "".join(dump_line(row) for row in rows))
        examples = read_examples(self.path)
        if examples is not None:
            kept = examples[examples["stage"] < num_stages].reset_index(drop=True)
            replace_parquet(self.path / EXAMPLES_FILE, kept)


def _rename(row: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    return {new if key == old else key: value for key, value in row.items()}
