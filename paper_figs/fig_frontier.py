"""The frontier: which adapter of N parameters is best, and by how much."""

from pathlib import Path

from analysis import style
from analysis.frontier_figure import frontier_figure
from analysis.frontier_text import frontier_latex
from analysis.frozen import FRONTIER_FILE, read_frozen

HERE = Path(__file__).parent
IMAGES = HERE.parent / "docs" / "images"


def main(data: Path = HERE / "data", out: Path = HERE / "out", images: Path = IMAGES) -> list[Path]:
    """Draw the figure and write the table from the frozen one; return the files written."""
    table = read_frozen(data / FRONTIER_FILE)
    out.mkdir(exist_ok=True)
    latex = out / "table_frontier.tex"
    latex.write_text(frontier_latex(table), "utf-8")
    figure = frontier_figure(table)
    return [
        latex,
        *style.save(figure, out / "fig_frontier", formats=["pdf"]),
        *style.save(figure, images / "fig_frontier", formats=["png"]),
    ]


if __name__ == "__main__":
    print(*main(), sep="\n")
