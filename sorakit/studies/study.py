"""The tables of a study, also while it runs. Free of torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sorakit.records import Run, find_runs, load_run, role_of
from sorakit.records.matching import data_of
from sorakit.studies.conclusion import GET_IT, REPORT_FILE, TABLES_DIR
from sorakit.studies.specification import RUNS_DIR, STUDY_FILE
from sorakit.sweep.grid import read_yaml


@dataclass(frozen=True, kw_only=True)
class Study:
    """A folder that `sorakit study` wrote; every call reads it anew.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def specification(self) -> dict[str, Any]:
        """What was asked for: the content of `study.yaml`."""
        return read_yaml(self.path / STUDY_FILE)

    @property
    def report(self) -> Path:
        """The page; it is there when the study is complete."""
        return self.path / REPORT_FILE

    def runs(self) -> pd.DataFrame:
        """Return a row a run: what it is, its state and its folder."""
        rows = [
            {**_identity(run), "state": run.state, "stages": len(run.stages), "path": str(run.path)}
            for run in self._runs()
        ]
        return pd.DataFrame(rows)

    def curves(self) -> pd.DataFrame:
        """Return a row a complete stage of every run.

        `task` (the name of the dataset), `backbone`, `setting`, `role` (path, floor, a control, or
        another method such as lora), `r`, `seed` and `run_id` say of which run. `share` is that of
        the run's own full adapter that is left, 1 of a LoRA of any rank; the other columns are
        those of `stages.jsonl`.
        """
        tables: list[pd.DataFrame] = []
        for run in self._runs():
            if run.stages.empty:
                continue
            share = run.stages["num_nonzero_params"] / run.stages["num_adapter_params"]
            tables.append(run.stages.assign(**_identity(run), share=share))
        if not tables:
            return pd.DataFrame()
        table = pd.concat(tables, ignore_index=True)
        first = ["task", "backbone", "role", "r", "seed", "stage", "num_nonzero_params", "share"]
        first += ["memorization", "generalization"]
        return table[[*first, *(column for column in table if column not in first)]]

    def ranks(self) -> pd.DataFrame:
        """Return a row a (stage, adapted matrix) of every run, columns as in `ranks.jsonl`."""
        tables = [run.ranks.assign(**_identity(run)) for run in self._runs() if len(run.ranks)]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

    def frontier(self) -> pd.DataFrame:
        """Return which adapter of so many parameters is best, and by how much.

        Raises:
            ValueError: If the study is not complete, or was made without the analysis.
        """
        return self._table("frontier")

    def comparison(self) -> pd.DataFrame:
        """Return how few parameters keep how much of every dataset, with intervals.

        Raises:
            ValueError: As `frontier`.
        """
        return self._table("compare")

    def _table(self, name: str) -> pd.DataFrame:
        file = self.path / TABLES_DIR / f"{name}.csv"
        if not file.is_file():
            raise ValueError(
                f"`path` must hold a complete study with its tables, got {str(self.path)!r} "
                f"without {file.relative_to(self.path)}. Run `sorakit study` there to its end; the "
                f"tables need {GET_IT}."
            )
        return pd.read_csv(file)

    def _runs(self) -> list[Run]:
        folder = self.path / RUNS_DIR
        return [load_run(path) for path in find_runs(folder)] if folder.is_dir() else []


def load_study(path: Path | str) -> Study:
    """Return the study in a folder.

    Raises:
        ValueError: If there is none.
    """
    folder = Path(path).expanduser()
    if not (folder / STUDY_FILE).is_file():
        raise ValueError(
            f"`path` must be the folder of a study (with {STUDY_FILE}), got {str(path)!r}."
        )
    return Study(path=folder)


def _identity(run: Run) -> dict[str, Any]:
    method = run.config["method"]
    data = data_of(run.config)
    return {
        **{name: data[name] for name in ("task", "backbone", "setting")},
        "role": role_of(method["name"], run.config["stage"]["control"]),
        "r": method["r"],
        "seed": run.config["seed"],
        "run_id": run.run_id,
    }
