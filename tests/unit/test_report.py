import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import vl_convert

from analysis.cli import main
from analysis.compare import compare
from analysis.compare_text import control_sentences
from analysis.controls import missing_controls
from analysis.count_axis import count_axis
from analysis.curves import SCORES, mean_curve, with_gain_retained, with_gap
from analysis.load import KEYS, load_runs
from analysis.ranking_table import dataset_names, ranking_rows
from analysis.ranks import Criterion, mean_map, rank_maps, stages_at
from analysis.report import look
from analysis.report.glyphs import glyph
from analysis.report.page import report
from analysis.report.rank_chart import rank_map_series
from analysis.report.sentences import what_you_see
from analysis.report.series import CURVES, MEASURES, series
from sorakit.config import BackboneConfig, GatesConfig, StageConfig, XiConfig
from tests.support.fake_runs import write_run


class Elements(HTMLParser):
    """Names and attributes of every element of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def write_controls(root: Path, seed: int) -> None:
    for kind in ("path", "floor", "hold_dense"):
        write_run(root, kind, seed=seed)
    masked = StageConfig(control="random_mask")
    write_run(root, "path", seed=seed, stage=masked, xi=XiConfig(spacing="target"))


def loaded(*roots: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    runs = load_runs(list(roots))
    return with_gap(with_gain_retained(runs.stages)), runs.ranks


def data_of(html: str) -> dict[str, Any]:
    (text,) = re.findall(r'id="data">(.*?)</script>', html, flags=re.DOTALL)
    return json.loads(text)


def lead(root: Path) -> str:
    runs = load_runs([root])
    return " ".join(what_you_see(compare(runs), runs, runs.stages))


# the page


def test_report_writes_one_file_and_says_how_large(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "runs", "path")
    write_run(tmp_path / "runs", "path", seed=7, num_stages=0, state="failed", error="no memory")
    out = tmp_path / "report.html"
    assert main(["report", str(tmp_path / "runs"), "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1 runs used (1 path, 0 floor, 0 hold_dense), 1 left out"
    assert lines[1].endswith(": failed, no finished stage: no memory")
    assert lines[-1] == f"wrote {out} ({out.stat().st_size / 1e6:.2f} MB)"
    assert {file.name for file in tmp_path.iterdir()} == {"runs", "report.html"}


def test_report_in_a_missing_folder_exits_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "runs", "path")
    out = tmp_path / "nowhere" / "report.html"
    assert main(["report", str(tmp_path / "runs"), "--out", str(out)]) == 2
    assert capsys.readouterr().err == (
        f"error: `--out` must be a file in an existing folder, got {str(out)!r}.\n"
    )


def test_thirty_runs_fit_in_two_megabytes(tmp_path: Path) -> None:
    for seed in range(5):
        for task in ("cola", "mrpc", "rte"):
            write_run(tmp_path, "path", task=task, seed=seed, num_layers=12)
            write_run(tmp_path, "floor", task=task, seed=seed)
    page = report(load_runs([tmp_path]))
    assert len(page.used) == 30
    assert len(page.html.encode()) < 2e6


def test_page_names_nothing_to_fetch(tmp_path: Path) -> None:
    write_run(tmp_path, "path")
    elements = Elements(report(load_runs([tmp_path])).html).found
    addresses = [
        value
        for _, attributes in elements
        for name, value in attributes.items()
        if name in {"src", "href", "data", "action", "poster", "srcset"} and value
    ]
    assert addresses
    assert all(address.startswith(("#", "data:")) for address in addresses)
    (policy,) = [a["content"] for _, a in elements if "http-equiv" in a]
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "http" not in policy


def test_markup_in_names_ends_no_element(tmp_path: Path) -> None:
    name = "m/<script>alert(1)</script"  # the part behind the last slash is shown
    write_run(tmp_path, "path", backbone=BackboneConfig(name=name))
    write_run(tmp_path, "path", task="</script><b>")
    html = report(load_runs([tmp_path])).html
    assert [tag for tag, _ in Elements(html).found].count("script") == 3
    assert "</script><b>" not in html
    assert {"d0", "d1"} == set(data_of(html)["curves"])


def test_excluded_runs_are_named_with_their_reason(tmp_path: Path) -> None:
    write_run(tmp_path, "path")
    single = write_run(tmp_path, "path", seed=1, num_stages=1)
    failed = write_run(tmp_path, "path", seed=2, num_stages=0, state="failed", error="no memory")
    page = report(load_runs([tmp_path]))
    assert dict(page.excluded) == {
        single: "single stage: no curve",
        failed: "failed, no finished stage: no memory",
    }
    assert "1 runs used (1 path), 2 left out." in page.html
    assert all(f'<td class="path">{path}</td>' in page.html for path in (single, failed))


def test_every_lacking_control_is_said(tmp_path: Path) -> None:
    write_run(tmp_path, "path")
    runs = load_runs([tmp_path])
    sentences = missing_controls(runs.stages)
    assert len(sentences) == 3
    html = report(runs).html
    assert all(f"<li>{sentence}</li>" in html for sentence in sentences)


def test_dataset_with_all_controls_lacks_nothing(tmp_path: Path) -> None:
    write_controls(tmp_path, seed=0)
    assert '<ul class="missing">' not in report(load_runs([tmp_path])).html


def test_page_says_how_far_a_path_is_from_its_controls(tmp_path: Path) -> None:
    for seed in range(2):
        write_controls(tmp_path, seed)
    comparison = compare(load_runs([tmp_path]))
    sentences = control_sentences(comparison.controls, comparison.table[KEYS].iloc[0].tolist())
    assert [text.split(" at ")[0] for text in sentences] == [
        "path minus hold_dense", "path minus random_mask",
    ]  # fmt: skip
    html = report(load_runs([tmp_path])).html
    assert all(f"<li>P{sentence[1:]}</li>" in html for sentence in sentences)


def test_page_and_terminal_rank_datasets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for task in ("cola", "mrpc"):
        for seed in range(3):
            write_run(tmp_path, "path", task=task, seed=seed, num_layers=2 + (task == "mrpc"))
    comparison = compare(load_runs([tmp_path]))
    (row,) = ranking_rows(comparison.ranking, dataset_names(comparison.table))
    html = report(load_runs([tmp_path])).html
    (table,) = re.findall(r'<table id="ranking">.*?</table>', html, flags=re.DOTALL)
    main(["compare", str(tmp_path)])
    printed = " ".join(capsys.readouterr().out.split())
    assert row[0] == "cola and mrpc"
    for text in (part for cell in row for part in cell.split("\n") if part != "-"):
        assert text.replace("<", "&lt;") in table
        assert text in printed


def test_page_is_the_same_when_made_again(tmp_path: Path) -> None:
    write_controls(tmp_path, seed=0)
    assert report(load_runs([tmp_path])).html == report(load_runs([tmp_path])).html


# what you see


def test_lead_of_one_seed_claims_nothing_about_another(tmp_path: Path) -> None:
    write_run(tmp_path, "path")
    text = lead(tmp_path)
    assert text.startswith("1 dataset: pydoc_topic; 1 seed each. There is one seed of each")
    assert "first" not in text
    assert "no answer can be given for pydoc_topic" in text


def test_lead_says_what_goes_first(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path, "path", seed=seed)
        write_run(tmp_path, "floor", seed=seed)
    # memorization falls with speed 3, generalization with speed 12 (tests/support/fake_runs.py)
    text = lead(tmp_path)
    assert "memorization is lost before generalization in pydoc_topic" in text
    assert "bands their 95 % Student-t intervals: where bands overlap" in text


def test_lead_says_how_many_drops_chance_gives(tmp_path: Path) -> None:
    write_run(tmp_path, "path")
    runs = load_runs([tmp_path])
    comparison = compare(runs)
    drop = comparison.dataset_inflections.iloc[:1].assign(
        seeds_tested=1, p_value=0.01, drop=4.0, drop_low=3.5, drop_high=5.5
    )
    rows = [drop.assign(detected=index < 2) for index in range(40)]
    many = replace(comparison, dataset_inflections=pd.concat(rows))
    (sentence,) = [s for s in what_you_see(many, runs, runs.stages) if "begin to drop" in s]
    text = "memorization" if "memorization" in sentence else "generalization"
    one = (
        f"{text} of pydoc_topic below 10k parameters [3.16k, 316k] (p = 0.01, a place hardly known)"
    )
    assert sentence == (
        "2 of 40 curves begin to drop (each tested at 5 %; of 40 without any drop, up to 2 would "
        f"be expected to): {one} and {one}."
    )


def test_lead_counts_what_is_left_out_and_unfinished(tmp_path: Path) -> None:
    write_run(tmp_path, "path", state="running")
    write_run(tmp_path, "path", seed=1, num_stages=1)
    assert lead(tmp_path).endswith("1 run is left out and 1 path has not finished (see Runs).")


def test_lead_with_many_datasets_names_some(tmp_path: Path) -> None:
    for task in ("cola", "mrpc", "pydoc_order", "rte", "sst2"):
        write_run(tmp_path, "path", task=task)
    text = lead(tmp_path)
    assert text.startswith("5 datasets; 1 seed each.")
    assert "no answer can be given for cola, mrpc, pydoc_order and 2 more" in text


def test_names_hold_what_tells_datasets_apart(tmp_path: Path) -> None:
    write_run(tmp_path, "path", task="mrpc")
    write_run(tmp_path, "path", task="cola", gates=GatesConfig(gate_lr=0.1))
    write_run(tmp_path, "path", task="cola", gates=GatesConfig(gate_lr=0.3))
    names = dataset_names(compare(load_runs([tmp_path])).table)
    assert list(names.values()) == ["cola #1", "cola #2", "mrpc"]


# tables behind the curves


def test_means_are_those_of_the_curves(tmp_path: Path) -> None:
    for seed in range(3):
        write_controls(tmp_path, seed)
    stages, _ = loaded(tmp_path)
    means = series(stages, undefined_gains=set()).means
    for role in ("path", "random_mask"):
        expected = mean_curve(stages[stages["role"] == role], "memorization_percent")
        rows = means[(means["role"] == role) & (means["curve"] == "memorization")]
        drawn = rows[rows["num_nonzero_params"] > 0]
        for column, name in (("percent", "mean"), ("percent_low", "low"), ("percent_high", "high")):
            np.testing.assert_allclose(drawn[column], expected[name])


def test_one_seed_is_drawn_as_measured_without_interval(tmp_path: Path) -> None:
    write_run(tmp_path, "path")
    stages, _ = loaded(tmp_path)
    means = series(stages, undefined_gains=set()).means
    rows = means[means["curve"] == "generalization"].sort_values("num_nonzero_params")
    measured = stages.sort_values("num_nonzero_params")
    np.testing.assert_allclose(rows["num_nonzero_params"], measured["num_nonzero_params"])
    np.testing.assert_allclose(rows["raw"], measured["generalization"])
    assert rows[["raw_low", "raw_high"]].isna().all(axis=None)


def test_floor_is_in_percent_of_the_dense_path(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path, "path", seed=seed)
        write_run(tmp_path, "floor", seed=seed)
    stages, _ = loaded(tmp_path)
    references = series(stages, undefined_gains=set()).references
    floor = references[references["role"] == "floor"].set_index("curve")
    first = stages[stages["stage"] == 0].set_index("role")
    for score in SCORES:
        of_floor, of_path = (first.loc[[r], score].to_numpy(float) for r in ("floor", "path"))
        shares = 100 * of_floor / of_path  # both by seed
        assert floor.loc[score, "percent"] == pytest.approx(np.mean(shares))
        assert floor.loc[score, "gain"] == 0


def test_undefined_gain_is_not_drawn(tmp_path: Path) -> None:
    for kind in ("path", "floor"):
        write_run(tmp_path, kind)
    stages, _ = loaded(tmp_path)
    tables = series(stages, undefined_gains={"generalization"})
    for table in (tables.points, tables.means, tables.references):
        is_known = table["gain"].notna().groupby(table["curve"]).any()
        assert not is_known["generalization"]
        assert is_known["memorization"]


def test_gap_has_its_own_measure_only(tmp_path: Path) -> None:
    write_run(tmp_path, "path")
    stages, _ = loaded(tmp_path)
    points = series(stages, undefined_gains=set()).points
    gap = points[points["curve"] == "gap"]
    assert gap[[m for m in MEASURES if m != "gap"]].isna().all(axis=None)
    np.testing.assert_allclose(gap["gap"], stages["memorization"] - stages["generalization"])


def test_zero_parameters_stand_left_of_the_break() -> None:
    axis = count_axis([0.0, 500.0, 40_000.0])
    assert axis.left < axis.zero < axis.zero_break < axis.low == 500
    assert not count_axis([500.0, 40_000.0]).has_zero


# rank maps


def test_mean_map_of_every_stage_is_that_of_ranks(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path, "path", seed=seed)
    stages, ranks = loaded(tmp_path)
    maps = rank_map_series(ranks, stages)
    assert [one.label for one in maps.series] == ["mean of 3 paths", "seed 0", "seed 1", "seed 2"]
    for stage in range(8):
        expected = mean_map(
            rank_maps(ranks, stages_at(stages, Criterion(kind="stage", value=stage)))
        )
        np.testing.assert_allclose(maps.series[0].ranks[stage], expected.to_numpy())
    assert maps.layers == [0, 1]
    assert maps.matrices == ["Q", "K", "V", "O", "F1", "F2"]


def test_mean_map_ends_with_the_shortest_path(tmp_path: Path) -> None:
    write_run(tmp_path, "path")
    write_run(tmp_path, "path", seed=1, num_stages=3, state="running")
    stages, ranks = loaded(tmp_path)
    assert [len(one.ranks) for one in rank_map_series(ranks, stages).series] == [3, 8, 3]


# without colour


def test_curves_and_controls_differ_without_colour() -> None:
    for looks in (look.CURVE_SHAPES, look.CONTROL_SHAPES, look.CONTROL_DASHES):
        values = [str(value) for value in looks.values()]
        assert len(set(values)) == len(values)
    assert look.CURVE_DASHES["memorization"] != look.CURVE_DASHES["generalization"]
    names = [*CURVES, *look.CONTROL_SHAPES, "floor", "hold_dense"]
    drawn = [re.sub(r'"#\w+"', "", glyph(name)) for name in names]
    assert len(set(drawn)) == len(names)


def test_chart_follows_the_curves_of_two_seeds(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path, seed=seed)
    runs = load_runs([tmp_path])
    stages = runs.stages
    for score in SCORES:  # an interval of 0.3 on either side
        stages[score] = stages[score].astype(float) + 0.05 * stages["seed"].astype(float)
    labels = [float(text) for text in y_labels(report(runs).html)]
    assert labels
    scores = stages[SCORES].to_numpy(dtype=float)
    assert scores.min() - 0.2 < min(labels)
    assert max(labels) < scores.max() + 0.2


def y_labels(html: str) -> list[str]:
    """Return the labels of the y axis of the first chart of a page, drawn."""
    data = data_of(html)
    (curves,) = data["curves"].values()
    spec = data["curve_spec"]
    spec["params"] = [
        {**param, "value": curves["values"].get(param["name"], param["value"])}
        for param in spec["params"]
    ]
    spec["datasets"] = {
        name: pd.DataFrame(columns).astype(object).replace({np.nan: None}).to_dict("records")
        for name, columns in curves["tables"].items()
    }
    svg = vl_convert.vegalite_to_svg({**spec, "width": 400})
    (axis,) = re.findall(r'aria-label="Y-axis[^>]*>.*?role-axis-label.*?</g>', svg, flags=re.DOTALL)
    texts = re.findall(r">([^<]+)</text>", axis)
    return [text.replace("\N{MINUS SIGN}", "-") for text in texts]


def test_page_shows_the_frontier_where_there_is_a_rival(tmp_path: Path) -> None:
    write_run(tmp_path / "alone")
    assert 'class="frontier"' not in report(load_runs([tmp_path / "alone"])).html
    for seed in range(2):
        write_controls(tmp_path / "matched", seed)
    html = report(load_runs([tmp_path / "matched"])).html
    (table,) = re.findall(r'<table class="frontier">(.*?)</table>', html, flags=re.DOTALL)
    cells = re.findall(r"<td>([^<]*)</td>", table)
    assert cells[:6] == ["memorization", "SoRA path", "", "random_mask", "", "best"]
