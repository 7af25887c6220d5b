"""Table 2: LoRA of a rank beside SoRA with as many parameters."""

from pathlib import Path

from analysis.frozen import read_frozen
from analysis.method_tables import METHODS_FILE, ranks_table

HERE = Path(__file__).parent


def main(data: Path = HERE / "data", out: Path = HERE / "out") -> list[Path]:
    """Write the table in LaTeX and in Markdown and return the files written."""
    table = ranks_table(read_frozen(data / METHODS_FILE))
    out.mkdir(exist_ok=True)
    files = {out / "table2.tex": table.latex(), out / "table2.md": table.markdown()}
    for file, text in files.items():
        file.write_text(text, "utf-8")
    return list(files)


if __name__ == "__main__":
    print(*main(), sep="\n")
