"""Freeze the tables behind the figures of memorization, from committed records.

python -m experiments.memory_tables
"""

from pathlib import Path

from analysis.frozen import table_csv
from analysis.load import load_runs
from analysis.memory.verbs import MEMORY_VERBS, memory_examples

HERE = Path(__file__).parent
OUT = HERE.parent / "paper_figs" / "data"
RECORDS = (HERE / "results" / "small_curves", HERE / "results" / "random_labels")
VERBS = ("forgetting", "bits", "membership")


def memory_texts() -> dict[str, str]:
    """Return file -> text of the table that each figure draws."""
    runs = load_runs(RECORDS, with_ranks=False)
    examples = memory_examples(runs)
    return {
        f"{name}.csv": table_csv(next(iter(MEMORY_VERBS[name].tables(runs, examples).values())))
        for name in VERBS
    }


if __name__ == "__main__":
    for name, text in memory_texts().items():
        (OUT / name).write_text(text, "utf-8")
        print(OUT / name)
