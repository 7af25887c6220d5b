from collections import Counter

import pytest
import yaml

from sorakit.sweep import data_check
from sorakit.sweep.data_check import require_data
from sorakit.sweep.plan import Job, plan_sweep
from tests.support.tiny_hub import write_task


def jobs_of(folder, grid: dict, **options) -> list[Job]:
    task = {"task.name": "files", "task.data_dir": str(folder / "task")}
    files = {"task.train_file": "train.csv", "task.validation_file": "validation.csv"}
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump({**task, **files, **options, "grid": grid}))
    return plan_sweep([file], out=folder / "out", threads_per_run=1).jobs


@pytest.fixture
def loaded(tmp_path, monkeypatch) -> Counter:
    """Write the task and count how often each is loaded."""
    write_task(tmp_path / "task")
    counts = Counter()
    load_task = data_check.load_task

    def counted(config, *, seed):
        counts[config] += 1
        return load_task(config, seed=seed)

    monkeypatch.setattr(data_check, "load_task", counted)
    return counts


def test_data_are_loaded_once_for_each_task(tmp_path, loaded):
    grid = {"seed": [0, 1, 2], "task.label_noise": [0.0, 0.2], "task.train_examples": [20, 30]}
    require_data(jobs_of(tmp_path, grid))
    assert sorted(loaded.values()) == [1, 1]


def test_completed_runs_need_no_data(tmp_path, loaded):
    jobs = jobs_of(tmp_path, {"seed": [0, 1]})
    for job in jobs:
        job.state = "completed"
    require_data(jobs)
    assert not loaded


def test_point_with_missing_data_is_named(tmp_path, loaded):
    jobs = jobs_of(tmp_path, {"task.train_file": ["train.csv", "none.csv"]})
    with pytest.raises(ValueError, match=r"^Point task\.train_file=none\.csv: `task\.train_file` "):
        require_data(jobs)
