"""How far the inflection can be trusted: `python -m experiments.inflection_validation`.

Simulates curves as the records of this repository show them (points, range, rise, noise) with a
break, without one, and with a smooth bend, with errors that are independent or AR(1) along x. Every
row is appended to `results/inflection_validation/table.csv` when it is done; rows that are there
are not simulated again. `table.md` explains the columns.
"""

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from analysis.slope_changepoint import (
    ALPHA,
    BreakProfile,
    FloatArray,
    ar1_factor,
    drop_fits,
    find_slope_changepoint,
    null_distribution,
)
from analysis.smooth import inflections, knees, smoother
from experiments import RESULTS

OUT = RESULTS / "inflection_validation"
TRIALS = 5000
SEEDS = (3, 5, 10)
INTERVAL_CURVES = 500
"""Curves a row for the interval of one curve, which simulates 398 curves of its own; at the ends of
the range of correlations only."""
NOISE = 0.016
"""Standard deviation of a point: 0.012 to 0.017 in the records of the controls and of MRPC."""
SEED_SPREAD = 0.1
"""Standard deviation of the true break over seeds, decades."""

_EVEN = (np.log10(384), np.log10(104_064))  # range of the controls, evenly spaced in log10
_MRPC = (
    9600, 13440, 21120, 21504, 30336, 57216, 89088, 117888, 130944, 196224, 245376, 326784, 331776,
)  # fmt: skip
DESIGNS: dict[str, FloatArray] = {
    "10 even": np.linspace(*_EVEN, 10),
    "13 of MRPC": np.log10(np.array(_MRPC, dtype=float)),
    "15 even": np.linspace(*_EVEN, 15),
}
"""Name -> log10 of non-zero parameters of the points, rising."""
CORRELATIONS = {
    "line": (0.0, 0.3, 0.6, 0.8),  # 0.8: beyond the range that the test protects
    "broken": (0.0, 0.3, 0.6),
    "logistic": (0.0, 0.3, 0.6),
    "broken, weak": (0.0, 0.3, 0.6),
    "levelling": (0.0, 0.6),
}
"""Shape -> correlations of neighbouring errors."""


@dataclass(frozen=True)
class Scenario:
    """One row: a shape, the points of the curve, the correlation of neighbouring errors."""

    shape: str
    design: str
    rho: float

    @property
    def x(self) -> FloatArray:
        """Points, log10 of non-zero parameters."""
        return DESIGNS[self.design]

    def centre(self) -> float:
        """Return the mean over seeds of the break, or of the centre of the sigmoid."""
        share = {"logistic": 0.5, "levelling": 0.34}.get(self.shape, 0.66)
        return float(self.x[0] + share * np.ptp(self.x))

    def curves(self, centres: FloatArray) -> FloatArray:
        """Return curves without noise `(points, curves)`, one a centre.

        broken falls by 0.17 a decade below its break (memorization of the controls: 0.27 in all),
        weak by 0.10 (their generalization: 0.16); line and sigmoid rise by as much as broken, and
        levelling is broken upside down: it has no drop.
        """
        x = self.x[:, None]
        if self.shape == "line":
            return np.repeat(0.9 - 0.11 * (x[-1] - x), len(centres), axis=1)
        if self.shape == "logistic":
            return 0.63 + 0.27 / (1 + np.exp(-(x - centres) / (0.12 * np.ptp(x))))
        if self.shape == "levelling":
            return 0.63 + 0.17 * np.maximum(0.0, x - centres)
        change = 0.17 if self.shape == "broken" else 0.10
        return 0.9 - change * np.maximum(0.0, centres - x)


def scenarios() -> list[Scenario]:
    """Return every row of the table."""
    return [
        Scenario(shape, design, rho)
        for shape, correlations in CORRELATIONS.items()
        for design in DESIGNS
        for rho in correlations
    ]


def measure(
    scenario: Scenario, *, trials: int = TRIALS, interval_curves: int = INTERVAL_CURVES
) -> dict[str, object]:
    """Simulate one row of the table; seeded by its place in the table.

    Args:
        scenario: What to simulate.
        trials: Data sets of ten seeds.
        interval_curves: Curves for the interval of one curve; 0 leaves it out.
    """
    rng = np.random.default_rng([0, scenarios().index(scenario)])
    most = max(SEEDS)
    centres = scenario.centre() + SEED_SPREAD * rng.standard_normal(trials * most)
    truth = _truth(scenario)
    drops, p, shapes, naive = _fits_and_tests(scenario, centres, rng)
    detected = (p <= ALPHA) & (shapes != 1)
    error = drops - truth["drop"]
    row: dict[str, object] = {
        "shape": scenario.shape,
        "points": scenario.design,
        "rho": scenario.rho,
        "trials": trials,
        "line_rejected": (p <= ALPHA).mean(),
        "detected": detected.mean(),
        **naive,
        "chosen_drop": (shapes == 0).mean(),
        "chosen_sigmoid": (shapes == 2).mean(),
        "truth": truth["drop"],
        "bias": _mean(error[np.isfinite(error)]),
        "sd": float(np.std(error[np.isfinite(error)])) if np.isfinite(error).any() else np.nan,
        "bias_detected": _mean(error[detected & np.isfinite(error)]),
    }
    by_trial = [values.reshape(trials, most) for values in (drops, p, shapes)]
    for seeds in SEEDS:
        row |= _coverage(*(v[:, :seeds] for v in by_trial), truth["drop"])
    row |= _interval_of_one_curve(scenario, interval_curves, rng)
    row |= _landmarks(scenario, centres[:trials], truth, rng)
    return row


def _fits_and_tests(
    scenario: Scenario, centres: FloatArray, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray, np.ndarray, dict[str, float]]:
    """Return drop, p value and chosen shape of every curve, and what ordinary tests find."""
    profile = BreakProfile(scenario.x)
    points = len(scenario.x)
    null = null_distribution(tuple(scenario.x.tolist()))
    drops, p, shapes, largest = [], [], [], []
    for part in np.array_split(centres, max(1, len(centres) // 2500)):
        fits = profile.fit(_noisy(scenario, part, rng))
        shapes.append(null.shapes(fits))
        used = drop_fits(fits, shapes[-1])
        drops.append(np.take_along_axis(fits.drop, used[None], axis=0)[0])
        p.append(null.p_values(fits))
        largest.append(fits.sup_f[:2].max(axis=0))
    sup_f = np.concatenate(largest)
    # one break: F(2, n - 4) of a break and a change of slope; BIC with two parameters more
    ordinary = stats.f.sf(sup_f / 2, 2, points - 4) <= ALPHA
    bic = points * np.log1p(sup_f / (points - 4)) > 2 * np.log(points)
    naive = {"ordinary_f": float(ordinary.mean()), "bic": float(bic.mean())}
    return np.concatenate(drops), np.concatenate(p), np.concatenate(shapes), naive


def _coverage(
    drops: FloatArray, p: FloatArray, shapes: np.ndarray, truth: float
) -> dict[str, float]:
    """Return how often the Student-t interval over seeds holds the truth.

    Of all seeds in every trial; of all seeds where Fisher's test over the seeds rejects the line
    and most seeds have a shape with a drop; of the detected seeds alone, where there are two.
    """
    seeds = drops.shape[1]
    known = np.isfinite(drops)
    covered = _t_covers(drops, known, truth)
    fisher = stats.chi2.sf(-2 * np.log(p).sum(axis=1), 2 * seeds) <= ALPHA
    fisher &= (shapes != 1).sum(axis=1) > seeds / 2
    detected = (p <= ALPHA) & (shapes != 1)
    alone = _t_covers(drops, detected, truth)
    return {
        f"detected_{seeds}": float(fisher.mean()),
        f"coverage_{seeds}": _mean(covered[known.sum(axis=1) >= 2]),
        f"coverage_given_detection_{seeds}": _mean(covered[fisher]),
        f"coverage_detected_seeds_{seeds}": _mean(alone[detected.sum(axis=1) >= 2]),
    }


def _t_covers(breaks: FloatArray, used: np.ndarray, truth: float) -> np.ndarray:
    if np.isnan(truth):
        return np.full(len(breaks), np.nan)
    count = np.maximum(used.sum(axis=1), 2)
    mean = np.where(used, breaks, 0.0).sum(axis=1) / count
    squares = np.where(used, (breaks - mean[:, None]) ** 2, 0.0).sum(axis=1)
    half = stats.t.ppf(0.975, count - 1) * np.sqrt(squares / (count - 1) / count)
    return np.abs(mean - truth) <= half


def _interval_of_one_curve(
    scenario: Scenario, curves: int, rng: np.random.Generator
) -> dict[str, float]:
    unknown = scenario.shape in ("line", "levelling") or scenario.rho not in (0.0, 0.6)
    if curves == 0 or unknown:
        return {"interval_coverage": np.nan, "interval_width": np.nan, "interval_open": np.nan}
    centres = np.full(curves, scenario.centre())  # one seed: its own break, not the mean over seeds
    truth = _drop_without_noise(scenario, centres[:1])
    y = _noisy(scenario, centres, rng)
    found = [find_slope_changepoint(scenario.x, values) for values in y.T]
    found = [f for f in found if np.isfinite(f.drop)]
    return {
        "interval_coverage": _mean(np.array([f.low <= truth <= f.high for f in found])),
        "interval_width": float(np.median([f.high - f.low for f in found])),
        "interval_open": _mean(np.array([f.low_is_open or f.high_is_open for f in found])),
    }


def _landmarks(
    scenario: Scenario, centres: FloatArray, truth: dict[str, float], rng: np.random.Generator
) -> dict[str, float]:
    maps = smoother(scenario.x)
    fitted = maps.fit(_noisy(scenario, centres, rng))
    row: dict[str, float] = {}
    for name, find in (("knee", knees), ("inflection", inflections)):
        at = scenario.x[0] + np.ptp(scenario.x) * find(maps, fitted)
        found = at[np.isfinite(at)]
        row |= {
            f"{name}_found": len(found) / len(at),
            f"{name}_bias": _mean(found) - truth[name],
            f"{name}_sd": float(found.std()) if len(found) else np.nan,
        }
    return row


def _truth(scenario: Scenario) -> dict[str, float]:
    """Return what each detector estimates, by its own definition.

    A sigmoid has no break: there it is the mean drop of the curves without noise.
    """
    centre = scenario.centre()
    if scenario.shape in ("line", "levelling"):
        return dict.fromkeys(("drop", "knee", "inflection"), np.nan)
    if scenario.shape != "logistic":
        return {"drop": centre, "knee": centre, "inflection": np.nan}
    spread = stats.norm.ppf((np.arange(400) + 0.5) / 400)
    grid = np.linspace(scenario.x[0], scenario.x[-1], 20_001)
    unit = (grid - grid[0]) / np.ptp(grid)
    sigmoid = 1 / (1 + np.exp(-(grid - centre) / (0.12 * np.ptp(grid))))
    first = np.gradient(sigmoid / np.ptp(sigmoid), unit)
    bend = -np.gradient(first, unit) / (1 + first**2) ** 1.5
    return {
        "drop": _drop_without_noise(scenario, centre + SEED_SPREAD * spread),
        "knee": float(grid[bend.argmax()]),
        "inflection": centre,
    }


def _drop_without_noise(scenario: Scenario, centres: FloatArray) -> float:
    """Return the mean drop of the best shape; of a broken line, its break."""
    if scenario.shape != "logistic":
        return float(centres.mean())
    fits = BreakProfile(scenario.x).fit(scenario.curves(centres))
    return float(fits.drop[2].mean())


def _noisy(scenario: Scenario, centres: FloatArray, rng: np.random.Generator) -> FloatArray:
    points = len(scenario.x)
    noise = ar1_factor(scenario.rho, points) @ rng.standard_normal((points, len(centres)))
    return scenario.curves(centres) + NOISE * noise


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


_MARKDOWN_HEAD = """\
# How far the inflection can be trusted

`python -m experiments.inflection_validation`; every number is in `table.csv`. A row is 5,000
data sets of ten seeds, 50,000 curves; noise 0.016 a point, true breaks spread by 0.1 decades
over seeds. `rho`: correlation of neighbouring errors. Records of this repository agree with 0;
the test protects up to 0.6, and 0.8 shows what lies beyond.

* **straight**: `false drops` is what a curve without inflection is said to have; `ordinary F`
  and `BIC` are the usual tests of one break, on the same curves.
* **drops**: share of single curves in which the drop is detected, and of data sets of 3 and 5
  seeds (Fisher's test).
* **coverage**: how often the 95 % Student-t interval over 3 / 5 / 10 seeds holds the mean true
  drop: always; where the data set's test detects; from the detected seeds alone (not used: it
  covers less). `one curve`: the profile interval of a curve.
* **bias**, **sd**: of the drop of a curve, decades. For logistic curves the truth is the drop
  of the curve without noise.

"""


def markdown(table: pd.DataFrame) -> str:
    """Return the table as Markdown."""
    flat = table[table["shape"].isin(["line", "levelling"])]
    lines = [
        "| shape | points | rho | false drops, one curve | 3 seeds | 5 seeds | ordinary F | BIC |"
    ]
    lines.append("|" + "---|" * 8)
    for row in flat.to_dict("records"):
        values = [row[k] for k in ("detected", "detected_3", "detected_5", "ordinary_f", "bic")]
        naive = row["shape"] == "line"  # a levelling is a break, and they are right to find it
        cells = [f"{100 * v:.1f} %" for v in values[:3]]
        cells += [f"{100 * v:.1f} %" if naive else "" for v in values[3:]]
        lines.append(f"| {row['shape']} | {row['points']} | {row['rho']:g} | {' | '.join(cells)} |")
    names = "detected: one curve / 3 / 5 seeds | bias | sd | coverage, 3 / 5 / 10 seeds"
    lines += [
        "",
        f"| shape | points | rho | {names} | given detection | detected seeds | one curve |",
    ]
    lines.append("|" + "---|" * 10)
    for row in table[~table["shape"].isin(["line", "levelling"])].to_dict("records"):
        detected = " / ".join(f"{row[k]:.2f}" for k in ("detected", "detected_3", "detected_5"))
        coverage = [
            " / ".join(f"{100 * row[f'{kind}_{seeds}']:.1f}" for seeds in SEEDS)
            for kind in ("coverage", "coverage_given_detection", "coverage_detected_seeds")
        ]
        one = row["interval_coverage"]
        cells = [str(row[name]) for name in ("shape", "points")] + [f"{row['rho']:g}", detected]
        cells += [f"{row['bias']:+.3f}", f"{row['sd']:.3f}", *coverage]
        cells.append("" if pd.isna(one) else f"{100 * one:.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "Landmarks of the smoothing spline: share of curves that have one, bias and sd, decades.",
    ]
    lines += [
        "",
        "| shape | points | rho | knee | bias | sd | steepest | bias | sd |",
        "|" + "---|" * 9,
    ]
    for row in table.to_dict("records"):
        cells: list[str] = []
        for name in ("knee", "inflection"):
            bias = row[f"{name}_bias"]
            cells += [f"{row[f'{name}_found']:.2f}", "" if pd.isna(bias) else f"{bias:+.3f}"]
            cells.append(f"{row[f'{name}_sd']:.3f}")
        lines.append(f"| {row['shape']} | {row['points']} | {row['rho']:g} | {' | '.join(cells)} |")
    return _MARKDOWN_HEAD + "\n".join(lines) + "\n\n" + _MISSES


_MISSES = """\
## Where the aims are missed, and why

* **Coverage below 93 % at ten seeds** for weak breaks and for logistic curves of ten points:
  the estimate is biased by up to 0.11 decades towards the middle, because a break must leave
  three points on either side, and ten seeds make the interval narrower than the bias. At three
  and five seeds it is 92.6 to 96.2 %.
* **From the detected seeds alone** logistic curves cover 81 to 95 %: the seeds that are
  detected are those whose noise bends the curve. So the interval is over all seeds once the
  data set's test detects.
* **False drops above 5 %** in single curves that level off, of ten points, at rho 0.6 (8.5 %;
  5.5 % with more points): the straight line is rightly rejected, and noise of that correlation
  draws a second bend. Over three seeds it is 3.2 % at most.
* **The profile interval of one curve** covers 92 % for weak breaks at rho 0.6, and up to 99 %
  at rho 0: one threshold serves all correlations. It is open at one end for most curves with a
  weak break.
* **Errors correlated by more than 0.6**: up to 7.6 % false drops in one curve, 16 % over five
  seeds. Nothing protects there.
* **Power is what the protection costs**: at rho 0, where an ordinary F-test would hold its
  size, a drop like memorization's is seen in 29 to 80 % of single curves and in 64 to 100 % of
  data sets of three seeds; a weak one over 1.5 decades (13 of MRPC) hardly at all.
* **Seeds are taken as independent.** Seeds that share their examples share part of their
  errors; their common offset does not matter, what bends does.
"""


def main() -> None:
    """Simulate the rows that are missing, append them to the table, and write it as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "table.csv"
    done: set[tuple[object, ...]] = set()
    if file.exists():
        table = pd.read_csv(file)
        done = set(table[["shape", "points", "rho"]].itertuples(index=False, name=None))
    for scenario in scenarios():
        if (scenario.shape, scenario.design, scenario.rho) in done:
            continue
        row = {
            key: round(value, 5) if isinstance(value, float) else value
            for key, value in measure(scenario).items()
        }
        with file.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(row), lineterminator="\n")
            if stream.tell() == 0:
                writer.writeheader()
            writer.writerow(row)
        print(*(row[key] for key in ("shape", "points", "rho", "detected")), flush=True)
    (args.out / "table.md").write_text(markdown(pd.read_csv(file)), "utf-8")


if __name__ == "__main__":
    main()
