"""Fig. 3: non-zero rank by layer and matrix, mean over seeds: fixed xi, and stages of the path."""

from pathlib import Path

from analysis import style
from analysis.figures import rank_map_figure
from analysis.frozen import FIXED_XI_FILE, RANK_MAPS_FILE, read_frozen

HERE = Path(__file__).parent
IMAGES = HERE.parent / "docs" / "images"
FIGURES = {"fig3_fixed_xi": FIXED_XI_FILE, "fig3_rank_maps": RANK_MAPS_FILE}


def main(data: Path = HERE / "data", out: Path = HERE / "out", images: Path = IMAGES) -> list[Path]:
    """Draw the figures of the tables that are frozen, and return the files written."""
    out.mkdir(exist_ok=True)
    written: list[Path] = []
    for name, file in FIGURES.items():
        if (data / file).exists():
            figure = rank_map_figure(read_frozen(data / file))
            written += style.save(figure, out / name, formats=["pdf"])
            written += style.save(figure, images / name, formats=["png"])
    return written


if __name__ == "__main__":
    print(*main(), sep="\n")
