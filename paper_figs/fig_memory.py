"""What is memorised: forgetting, bits a parameter and membership over the number of parameters."""

from pathlib import Path

from analysis import style
from analysis.frozen import read_frozen
from analysis.memory.figures import bits_figure, forgetting_figure, membership_figure

HERE = Path(__file__).parent
IMAGES = HERE.parent / "docs" / "images"
FIGURES = {
    "forgetting": forgetting_figure,
    "bits": bits_figure,
    "membership": membership_figure,
}


def main(data: Path = HERE / "data", out: Path = HERE / "out", images: Path = IMAGES) -> list[Path]:
    """Draw the figures from frozen tables and return the files written."""
    files: list[Path] = []
    for name, draw in FIGURES.items():
        figure = draw(read_frozen(data / f"{name}.csv"))
        files += style.save(figure, out / f"fig_{name}", formats=["pdf"])
        files += style.save(figure, images / f"fig_{name}", formats=["png"])
    return files


if __name__ == "__main__":
    print(*main(), sep="\n")
