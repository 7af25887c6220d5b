"""Fig. 3: non-zero rank by layer and matrix at the sparsest stage that keeps 95 % of dense."""

from pathlib import Path

from analysis import style
from analysis.figures import rank_map_figure
from analysis.frozen import CURVES_FILE, RANKS_FILE, read_frozen

HERE = Path(__file__).parent


def main(data: Path = HERE / "data", out: Path = HERE / "out") -> list[Path]:
    """Draw the figure from frozen tables and return the files written."""
    figure = rank_map_figure(read_frozen(data / RANKS_FILE), read_frozen(data / CURVES_FILE))
    out.mkdir(exist_ok=True)
    return style.save(figure, out / "fig3_rank_maps", formats=["pdf"])


if __name__ == "__main__":
    print(*main(), sep="\n")
