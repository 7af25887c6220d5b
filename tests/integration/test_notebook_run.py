"""docs/tutorial.ipynb from its first cell to its last, at a small size."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
SMALL = """
seeds = 1
options |= {
    "task.train_examples": 64, "xi.num_stages": 3, "dense.max_epochs": 2, "refit.max_epochs": 1,
    "stage.max_epochs": 4.0,
}
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_notebook_runs_from_an_empty_folder(tmp_path: Path) -> None:
    notebook = nbformat.read(ROOT / "docs" / "tutorial.ipynb", as_version=4)
    [parameters] = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    parameters.source += SMALL
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=800, kernel_name="python3", resources=where).execute()
    assert (tmp_path / "studies" / "tutorial" / "report.html").is_file()
