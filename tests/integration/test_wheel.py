"""What `pip install sorakit` installs: the wheel, built and used."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[2]
SOURCES = {".py", ".css", ".js", ".jinja", ".json", ".safetensors", ".csv"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the content of the wheel, as pip lays it into site-packages."""
    folder = tmp_path_factory.mktemp("wheel")
    [wheel] = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def run_installed(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=installed.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_wheel_holds_every_file_of_both_packages_and_nothing_else(installed):
    packages = {path.name for path in installed.iterdir() if path.suffix != ".dist-info"}
    assert packages == {"sorakit", "analysis"}
    for package in packages:
        wanted, found = (
            {
                file.relative_to(root)
                for file in (root / package).rglob("*")
                if file.is_file() and file.suffix in SOURCES
            }
            for root in (ROOT, installed)
        )
        assert found == wanted


def test_extra_that_is_not_installed_is_one_sentence(installed):
    code = "import runpy, sys; sys.modules['matplotlib'] = None; "
    code += "runpy.run_module('analysis.__main__')"
    done = run_installed(installed, "-c", code)
    assert done.returncode == 2
    assert done.stderr == (
        "python -m analysis: error: `matplotlib` must be installed for tables and figures, got "
        "none. Install it with: pip install 'sorakit[analysis]'\n"
    )


@pytest.mark.slow
def test_installed_analysis_and_command_line_say_what_they_can(installed):
    where = run_installed(installed, "-c", "import analysis, sorakit; print(analysis, sorakit)")
    assert where.stdout.count(str(installed)) == 2
    for arguments in (("-m", "analysis", "--help"), ("-m", "sorakit", "--help")):
        done = run_installed(installed, *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("usage: ")
