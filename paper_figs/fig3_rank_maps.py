"""Fig. 3: non-zero rank by layer and matrix, mean over seeds, at the stages chosen by `freeze`."""

from pathlib import Path

from analysis import style
from analysis.figures import rank_map_figure
from analysis.frozen import RANK_MAPS_FILE, read_frozen

HERE = Path(__file__).parent
IMAGES = HERE.parent / "docs" / "images"


def main(data: Path = HERE / "data", out: Path = HERE / "out", images: Path = IMAGES) -> list[Path]:
    """Draw the figure from frozen tables and return the files written."""
    figure = rank_map_figure(read_frozen(data / RANK_MAPS_FILE))
    out.mkdir(exist_ok=True)
    return [
        *style.save(figure, out / "fig3_rank_maps", formats=["pdf"]),
        *style.save(figure, images / "fig3_rank_maps", formats=["png"]),
    ]


if __name__ == "__main__":
    print(*main(), sep="\n")
