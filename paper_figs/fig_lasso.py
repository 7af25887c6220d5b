"""Lasso oracle: the path of SoRA's gates with A and B frozen, beside scikit-learn's."""

from pathlib import Path

from analysis import style
from analysis.frozen import read_frozen
from analysis.lasso import LEVELS_FILE, PATH_FILE, lasso_figure

HERE = Path(__file__).parent
IMAGES = HERE.parent / "docs" / "images"


def main(data: Path = HERE / "data", out: Path = HERE / "out", images: Path = IMAGES) -> list[Path]:
    """Draw the figure from frozen tables and return the files written."""
    figure = lasso_figure(read_frozen(data / PATH_FILE), read_frozen(data / LEVELS_FILE))
    out.mkdir(exist_ok=True)
    return [
        *style.save(figure, out / "fig_lasso", formats=["pdf"]),
        *style.save(figure, images / "lasso_path", formats=["png"]),
    ]


if __name__ == "__main__":
    print(*main(), sep="\n")
