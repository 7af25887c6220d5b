"""Figures and tables of the paper: from committed tables alone, without torch, always the same."""

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from analysis import style
from paper_figs import (
    fig2_curves,
    fig3_rank_maps,
    fig_frontier,
    fig_lasso,
    fig_memory,
    table1,
    table2,
    table3,
    table4,
    tables,
)

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "paper_figs"
OUT = FOLDER / "out"
TABLES = [tables, table1, table2, table3, table4]
SCRIPTS = [fig2_curves, fig3_rank_maps, fig_frontier, fig_lasso, fig_memory, *TABLES]
BLOCKED = ("torch", "lightning", "transformers", "datasets", "peft", "wandb")
_DRAW = f"""
import sys
from pathlib import Path
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Block())
from paper_figs import fig2_curves, fig3_rank_maps, fig_frontier, fig_lasso, fig_memory
from paper_figs import table1, table2, table3, table4, tables
data, out = Path("paper_figs/data"), Path(sys.argv[1])
for script in (fig2_curves, fig3_rank_maps, fig_frontier, fig_lasso, fig_memory):
    script.main(data, out, out)
for script in (tables, table1, table2, table3, table4):
    script.main(data, out)
"""


@pytest.fixture(scope="module")
def redrawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything drawn again by an interpreter that cannot import torch."""
    out = tmp_path_factory.mktemp("out")
    done = subprocess.run(
        [sys.executable, "-c", _DRAW, str(out)], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


def committed() -> list[Path]:
    return sorted(path for path in OUT.iterdir() if path.suffix in {".pdf", ".tex", ".md"})


@pytest.mark.parametrize("file", committed(), ids=lambda file: file.name)
def test_committed_file_is_what_its_script_makes_without_torch(file: Path, redrawn: Path) -> None:
    assert (redrawn / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    "name",
    [
        "fig2_curves.png",
        "fig3_rank_maps.png",
        "fig_frontier.png",
        "lasso_path.png",
        "fig_forgetting.png",
        "fig_bits.png",
        "fig_membership.png",
    ],
)
def test_image_of_the_documentation_is_what_its_script_makes(redrawn: Path, name: str) -> None:
    assert (redrawn / name).read_bytes() == (ROOT / "docs" / "images" / name).read_bytes()


def test_every_committed_file_has_a_script(redrawn: Path) -> None:
    assert {file.name for file in OUT.iterdir()} == {
        file.name for file in redrawn.iterdir() if file.suffix != ".png"
    }


@pytest.mark.parametrize("file", [f for f in committed() if f.suffix == ".pdf"], ids=str)
def test_pdf_has_the_width_of_a_page_and_truetype_fonts(file: Path) -> None:
    content = file.read_bytes()
    (width,) = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+) ", content)
    inches = round(float(width) / 72, 3)
    assert inches in (style.COLUMN_WIDTH, style.TEXT_WIDTH)
    assert b"/FontFile2" in content  # TrueType, embedded
    assert b"/Type3" not in content


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_script_has_less_than_forty_lines(script: object) -> None:
    assert len(Path(str(vars(script)["__file__"])).read_text().splitlines()) < 40


def test_every_script_is_drawn_by_the_package() -> None:
    names = {file.stem for file in FOLDER.glob("*.py")} - {"__init__", "__main__"}
    assert names == {script.__name__.rpartition(".")[2] for script in SCRIPTS}
    main = (FOLDER / "__main__.py").read_text()
    assert all(name in main for name in names)


def test_requirements_are_what_the_scripts_import() -> None:
    named = {
        line for line in (FOLDER / "requirements.txt").read_text().splitlines() if line[0] != "#"
    }
    modules = {"pyyaml": "yaml"}
    for name in named:
        importlib.import_module(modules.get(name, name))
    code = (
        "import sys, paper_figs.tables, paper_figs.fig2_curves, paper_figs.fig3_rank_maps, "
        "paper_figs.fig_frontier, paper_figs.fig_lasso, paper_figs.fig_memory; "
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert {modules.get(name, name) for name in named} <= loaded
    assert not loaded & set(BLOCKED)


@pytest.mark.slow
def test_latex_of_every_table_compiles(tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("needs pdflatex (Debian: texlive-latex-recommended)")
    names = sorted(file.name for file in OUT.glob("*.tex"))
    parts = [rf"\begin{{table}}\tiny\input{{{OUT / name}}}\end{{table}}" for name in names]
    text = [
        r"\documentclass{article}",
        r"\usepackage{booktabs}",
        r"\begin{document}",
        *parts,
        r"\end{document}",
    ]
    (tmp_path / "page.tex").write_text("\n".join(text))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
