"""Tables: how few parameters keep how much, and what goes first, for LaTeX."""

from pathlib import Path

from analysis.frozen import COMPARE_FILE, FIRST_FILE, read_frozen
from analysis.latex import first_table, shares_table

HERE = Path(__file__).parent


def main(data: Path = HERE / "data", out: Path = HERE / "out") -> list[Path]:
    """Write the tables from frozen ones and return the files written."""
    texts = {
        "table_shares.tex": shares_table(read_frozen(data / COMPARE_FILE)),
        "table_first.tex": first_table(read_frozen(data / FIRST_FILE)),
    }
    out.mkdir(exist_ok=True)
    for name, text in texts.items():
        (out / name).write_text(text, "utf-8")
    return [out / name for name in texts]


if __name__ == "__main__":
    print(*main(), sep="\n")
