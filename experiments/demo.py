"""`make demo`: Algorithm 1 on the three embedded tasks, their floors, the figures and a table.

Real text (docstrings of the installed packages) and the encoder that this project pre-trained on
it: nothing is downloaded.
"""

import argparse
import time
from pathlib import Path

from analysis.cli import main as analysis_main
from experiments.runner import below, floor_of, run_all
from sorakit.cli import parse_run_config
from sorakit.config import RunConfig

CONFIG = Path(__file__).parent / "embedded.yaml"
TASKS = ("pydoc_topic", "pydoc_pair", "pydoc_order")


def configs(out: Path) -> list[RunConfig]:
    """Return the runs of the demo: for every task the path of Algorithm 1 and the floor."""
    runs = []
    for name in TASKS:
        path = parse_run_config(["--config", str(CONFIG), f"--task.name={name}"])
        runs += [path, floor_of(path)]
    return [below(out, config) for config in runs]


def main() -> None:
    """Run the demo; finished runs are not repeated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="Folder of the demo.")
    out: Path = parser.parse_args().out
    began = time.perf_counter()
    run_all(configs(out))
    minutes = (time.perf_counter() - began) / 60
    analysis_main(["summary", str(out)])
    analysis_main(["figures", str(out), "--out", str(out / "figures")])
    print(f"\n{minutes:.1f} minutes of training. Look at {out / 'figures' / 'curves.png'} first,")
    print("and at README.md, 'How to read the curve'.")


if __name__ == "__main__":
    main()
