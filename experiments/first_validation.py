"""Is the answer to "what goes first" right? Simulated curves of memorization and generalization.

Both scores follow tanh(speed * share of the parameters), with noise at every stage and on the
floor, independent over stages and seeds. In `same`, both keep the same share of their gain
everywhere, and any verdict is false; in `memorization`, memorization needs more parameters. Gains
are 0.3 and 0.1, counts those of a path by target. 5,000 simulations a row; the table goes to
`experiments/results/first_validation`.
"""

from itertools import product

import numpy as np
import pandas as pd
from tqdm import tqdm

from analysis.compare import FIRST_BY_AREA, FIRST_BY_COUNT
from analysis.compressibility import RetentionPoints, area_of, fewest_params
from analysis.intervals import student_t_interval
from experiments import RESULTS

SIMULATIONS = 5000
SHARES = np.array([0.004, 0.009, 0.016, 0.024, 0.04, 0.06, 0.1, 0.155, 0.25, 0.4, 0.63, 1.0])
GAINS = (0.3, 0.1)
SPEEDS = {"same": (5.0, 5.0), "memorization": (2.0, 8.0)}
SEEDS = (3, 5, 10)
NOISES = (0.005, 0.01)
DENSE = 1e5
POINTS = RetentionPoints(
    counts=DENSE * SHARES, weights=np.ones(12), averages=np.eye(12), dense=DENSE
)


def measured(speed: float, gain: float, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Return log10 of d90 of the gain, and the area under its share, of one simulated curve."""
    scores = gain * np.tanh(speed * SHARES) / np.tanh(speed) + rng.normal(0, noise, len(SHARES))
    floor = rng.normal(0, noise)
    retained = (scores - floor) / (scores[-1] - floor)
    return np.array(
        [np.log10(fewest_params(POINTS, retained, [0.9])[0]), area_of(POINTS, retained)]
    )


def verdicts(first: str, seeds: int, noise: float) -> list[dict[str, object]]:
    """Return how often each measure names memorization or generalization: one row a measure."""
    rng = np.random.default_rng([seeds, round(1e4 * noise), list(SPEEDS).index(first)])
    counts = np.zeros((2, 2), dtype=int)
    for _ in tqdm(range(SIMULATIONS), desc=f"{first}, {seeds} seeds, noise {noise}"):
        both = [
            [measured(s, gain, noise, rng) for s, gain in zip(SPEEDS[first], GAINS, strict=True)]
            for _ in range(seeds)
        ]
        differences = np.array([memorization - held_out for memorization, held_out in both])
        for measure, sign in enumerate((1.0, -1.0)):  # the smaller area goes first
            interval = student_t_interval((sign * differences[:, measure]).tolist())
            counts[measure] += (interval.low > 0, interval.high < 0)
    return [
        {
            "goes first": first,
            "seeds": seeds,
            "noise": noise,
            "measure": measure,
            "memorization": row[0] / SIMULATIONS,
            "generalization": row[1] / SIMULATIONS,
            "not told apart": 1 - row.sum() / SIMULATIONS,
        }
        for measure, row in zip((FIRST_BY_COUNT, FIRST_BY_AREA), counts, strict=True)
    ]


def main() -> None:
    """Simulate everything; print the table and write it."""
    rows = [row for case in product(SPEEDS, SEEDS, NOISES) for row in verdicts(*case)]
    table = pd.DataFrame(rows)
    folder = RESULTS / "first_validation"
    folder.mkdir(exist_ok=True)
    table.to_csv(folder / "table.csv", index=False, lineterminator="\n", float_format="%.4f")
    cells = [[str(name) for name in table], ["---"] * len(table.columns)]
    cells += [
        [f"{cell:.3f}" if name in table.columns[4:] else str(cell) for name, cell in row.items()]
        for row in rows
    ]
    text = "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n"
    (folder / "table.md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
