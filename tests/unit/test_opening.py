"""The opening of the report: five sentences and a row a dataset."""

import re
from pathlib import Path

import pandas as pd
import pytest

from analysis.compare import compare
from analysis.curves import with_gain_retained
from analysis.frontier import frontier
from analysis.load import load_runs
from analysis.report.opening import Opening, opening
from analysis.report.page import report
from sorakit.config import StageConfig, XiConfig
from tests.support.fake_runs import write_run

ROOT = Path(__file__).parents[2]


def opened(*roots: Path) -> Opening:
    runs = load_runs(list(roots))
    stages = with_gain_retained(runs.stages)
    return opening(compare(runs), runs, frontier(stages))


def test_one_seed_gives_leads_and_says_what_is_not_known(tmp_path: Path) -> None:
    write_run(tmp_path, "path")
    made = opened(tmp_path)
    assert made.sentences == (
        "1 curve from 1 run, one seed each: these are leads, and nothing here says what another "
        "seed would give; stages were not refitted, so they are curves of a schedule, not of the "
        "data.",
        "It is not known that the adapter adds anything to generalization: no gain over a floor "
        "is told from 0.",
        "So how few parameters keep what it adds cannot be said.",
        "What is lost first, memorization or generalization, has no answer here.",
        "No other adapter of as few parameters was measured beside the paths, so nothing says "
        "that these ranks are needed.",
    )
    [row] = made.rows
    assert (row.floor, row.needed, row.first, row.rivals) == (("-", "-"), "-", "-", "-")


def test_three_seeds_with_floor_and_rival_are_told_in_five_sentences(tmp_path: Path) -> None:
    masked = StageConfig(control="random_mask")
    for seed in range(3):
        write_run(tmp_path, "path", seed=seed)
        write_run(tmp_path, "floor", seed=seed)
        write_run(tmp_path, "path", seed=seed, stage=masked, xi=XiConfig(spacing="target"))
    made = opened(tmp_path)
    first, added, few, goes, _ = made.sentences
    assert first.startswith("1 curve from 9 runs, 3 seeds each; stages were not refitted, so ")
    assert added == "The adapter adds to generalization here."
    assert re.fullmatch(
        r"90 % of what it adds is kept by [\d.]+ % of the dense stage's parameters "
        r"\(pydoc_topic\)\.",
        few,
    )
    # memorization falls with speed 3, generalization with speed 12 (tests/support/fake_runs.py)
    assert goes == "Memorization is lost before generalization here."
    [row] = made.rows
    assert (row.seeds, row.first) == (3, "memorization")
    assert 0 < row.share < 1


def test_comparisons_with_rivals_are_counted_and_chance_is_said(tmp_path: Path) -> None:
    write_run(tmp_path, "path")
    runs = load_runs([tmp_path])
    comparison = compare(runs)
    keys = comparison.table.iloc[0][["task", "backbone", "setting", "variant"]].to_dict()
    verdicts = ["path"] * 3 + ["lora"] * 2 + ["not told apart"] * 25 + ["not measured"] * 9
    places = pd.DataFrame([{**keys, "role": "lora", "verdict": verdict} for verdict in verdicts])
    made = opening(comparison, runs, places)
    assert made.sentences[4] == (
        "At equal numbers of parameters the path is better than another adapter in 3 of 30 "
        "comparisons, worse in 2, and not told apart in 25; chance alone would tell about 2 apart."
    )
    assert made.rows[0].rivals == "better in 3, worse in 2 of 30"


@pytest.mark.parametrize("experiment", ["small_curves"])
def test_committed_records_open_with_what_their_page_says(experiment: str) -> None:
    made = opened(ROOT / "experiments" / "results" / experiment)
    assert "not refitted" not in made.sentences[0]
    assert all(len(sentence) < 180 for sentence in made.sentences)
    assert [row.title for row in made.rows] == sorted(row.title for row in made.rows)
    order = next(row for row in made.rows if row.title == "pydoc_order")
    page = (ROOT / "docs" / "results.md").read_text("utf-8")
    [said] = re.findall(r"`pydoc_order` \(seeds 0, 1, 2: dense (.*?); floor (.*?)\):", page)
    for shown, of_seeds in zip((order.dense, order.floor), said, strict=True):
        scores = [list(map(float, seed.split(" / "))) for seed in of_seeds.split(", ")]
        means = [sum(score) / 3 for score in zip(*scores, strict=True)]
        assert list(map(float, shown)) == pytest.approx(means, abs=0.0011)


def test_page_shows_five_sentences_and_folds_the_rest(tmp_path: Path) -> None:
    write_run(tmp_path, "path")
    html = report(load_runs([tmp_path])).html
    [listed] = re.findall(r'<ol class="lead" id="opening">(.*?)</ol>', html, re.DOTALL)
    assert listed.count("<li>") == 5
    assert '<details id="what-you-see">' in html  # closed
    assert html.index('id="glance"') < html.index('id="what-you-see"')
