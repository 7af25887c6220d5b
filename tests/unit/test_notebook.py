"""docs/tutorial.ipynb: its cells run on committed records, and its outputs are those of a run."""

import json
import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import pytest

import sorakit
from analysis.cli import main
from sorakit.records import find_packed_runs, load_run
from sorakit.records.packing import pack_runs

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"
TASK = "pydoc_order"
RECORDS = ROOT / "experiments" / "results" / "small_curves"


def code_cells() -> list[Any]:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture
def study_folder(tmp_path: Path) -> Path:
    """A folder as the study of the notebook leaves it: committed runs of its task, and tables."""
    folder = tmp_path / "studies" / "tutorial"
    pack = folder / "runs" / "pack"
    folder.mkdir(parents=True)
    of_task = [
        run
        for run in find_packed_runs(RECORDS)
        if (config := load_run(run).config)["task"]["name"] == TASK and config["seed"] == 0
    ]
    assert len(pack_runs(of_task, pack).added) > 4
    (folder / "tables").mkdir()
    (folder / "study.yaml").write_text(f"task.name: {TASK}\n")
    table = folder / "tables" / "frontier.csv"
    assert main(["frontier", str(folder / "runs"), "--csv", str(table)]) == 0
    return folder


def test_cells_after_the_study_run_on_committed_records(study_folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"sorakit": sorakit, "study": sorakit.load_study(study_folder)}
    cells = [c for c in code_cells() if "study" not in c.metadata.get("tags", [])]
    assert len(cells) > 6
    for cell in cells:
        exec(cell.source, names)
        plt.close("all")  # as a notebook does after every cell
    assert set(names["curves"]["role"]) >= {"path", "floor", "random_mask", "lora"}
    assert [len(ax.lines) > 4 for ax in names["grid"].axes.flat] == [True]  # one seed
    assert names["table"].shape == (4, 6)  # layers, matrices


def test_outputs_are_those_of_one_run_without_a_path_of_its_machine():
    cells = code_cells()
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output.output_type for cell in cells for output in cell.outputs}
    assert "error" not in kinds
    text = json.dumps([cell.outputs for cell in cells])
    assert '"image/png"' in text
    assert re.findall(r"/(?:root|home|tmp|work|Users)/", text) == []
