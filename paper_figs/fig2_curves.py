"""Fig. 2: memorization and generalization against non-zero adapter parameters."""

from pathlib import Path

from analysis import style
from analysis.compare_text import inflections_of
from analysis.figures import curve_figure
from analysis.frozen import COMPARE_FILE, CURVES_FILE, read_frozen

HERE = Path(__file__).parent
IMAGES = HERE.parent / "docs" / "images"


def main(data: Path = HERE / "data", out: Path = HERE / "out", images: Path = IMAGES) -> list[Path]:
    """Draw the figure from frozen tables and return the files written."""
    drops = inflections_of(read_frozen(data / COMPARE_FILE))
    figure = curve_figure(read_frozen(data / CURVES_FILE), drops)
    out.mkdir(exist_ok=True)
    return [
        *style.save(figure, out / "fig2_curves", formats=["pdf"]),
        *style.save(figure, images / "fig2_curves", formats=["png"]),
    ]


if __name__ == "__main__":
    print(*main(), sep="\n")
