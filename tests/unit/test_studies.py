"""A study's folder as tables, from records as a sweep leaves them."""

import subprocess
import sys
from pathlib import Path

import pytest

import sorakit
from sorakit.studies.conclusion import conclude, missing_packages
from tests.support.fake_runs import write_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "study.yaml").write_text("grid: {seed: [0, 1]}\n")
    for seed in (0, 1):
        write_run(tmp_path / "runs", seed=seed)
    return tmp_path


def test_curves_are_the_stages_of_every_run(folder):
    curves = sorakit.load_study(folder).curves()
    [path] = curves.loc[curves["seed"] == 1, "run_id"].unique()
    one = sorakit.load_run(folder / "runs" / path).stages
    mine = curves[curves["seed"] == 1].reset_index(drop=True)
    assert set(curves["role"]) == {"path"}
    assert mine["memorization"].equals(one["memorization"])
    assert mine["share"].equals(one["num_nonzero_params"] / one["num_adapter_params"])


def test_runs_and_ranks_name_their_run(folder):
    study = sorakit.load_study(folder)
    assert sorted(study.runs()["seed"]) == [0, 1]
    assert study.ranks()["run_id"].nunique() == 2
    assert study.specification == {"grid": {"seed": [0, 1]}}


def test_study_that_has_not_begun_has_empty_tables(tmp_path):
    (tmp_path / "study.yaml").write_text("grid: {seed: [0]}\n")
    study = sorakit.load_study(tmp_path)
    assert study.curves().empty
    assert study.runs().empty
    assert study.ranks().empty


def test_tables_that_are_not_there_say_how_to_get_them(folder):
    with pytest.raises(ValueError, match=r"without tables/frontier\.csv\. Run `sorakit study` "):
        sorakit.load_study(folder).frontier()


def test_folder_without_a_study_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^`path` must be the folder of a study \(with study"):
        sorakit.load_study(tmp_path)


def test_reading_a_study_imports_no_torch(folder):
    code = f"""
import sys, sorakit
sorakit.load_study({str(folder)!r}).curves()
sorakit.study
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_packages_of_the_analysis_that_are_not_there_are_named(monkeypatch):
    assert missing_packages() == []
    there = {name: object() for name in ("analysis", "altair", "jinja2", "matplotlib")}
    monkeypatch.setattr("sorakit.studies.conclusion.importlib.util.find_spec", there.get)
    assert missing_packages() == ["seaborn", "vl_convert"]


def test_what_could_not_be_made_is_told_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setattr("sorakit.studies.conclusion.VERBS", {"summary": None})  # a process is slow
    (tmp_path / "runs").mkdir()
    conclusion = conclude(tmp_path, tmp_path / "runs", lambda text: None)
    [failure] = conclusion.failures
    assert failure.startswith("summary: `RUNS` must hold")
    assert not (tmp_path / "report.html").exists()
