"""Means in W&B are those of `analysis`: committed runs of several seeds, sent by the real client.

What the server has received is averaged by W&B's own rules: over the runs of a group, at each x
value by itself, and in the buckets into which W&B divides an x axis.
"""

import itertools
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import wandb

from analysis.curve_table import COLUMNS, curve_table
from analysis.load import load_runs
from sorakit.cli import main
from sorakit.curve_grid import LOG10_SHARES
from sorakit.metric_names import (
    CURVE_COLUMNS,
    CURVE_LOG10_SHARE,
    CURVE_PERCENT,
    CURVE_RUNS,
)
from sorakit.records import find_runs, load_run
from sorakit.records.packing import pack_runs
from sorakit.tracking.report import TITLE
from tests.support.wandb_server import ENTITY, Stored, WandbServer

ROOT = Path(__file__).parents[2]
PACK = ROOT / "experiments" / "results" / "glue_seeds"
SEEDS = (0, 1, 2)

Group = list[Stored]


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Paths and floors of one dataset from the committed records, without their many steps."""
    folder = tmp_path_factory.mktemp("means") / "pack"
    runs = [load_run(path, with_ranks=False) for path in find_runs(PACK)]
    wanted = [
        run.path
        for run in runs
        if run.config["task"]["name"] == "cola" and run.config["stage"]["control"] == "none"
    ]
    assert len(wanted) == 2 * len(SEEDS)
    pack_runs(wanted, folder)
    for table in ("steps.parquet", "ranks.parquet"):  # not what is averaged, and seconds to send
        (folder / table).unlink()
    return folder


@pytest.fixture(scope="module")
def server(pack: Path) -> Iterator[WandbServer]:
    """A server that holds the runs of `pack`, sent by `sorakit sync`."""
    before = dict(os.environ)
    with WandbServer().running() as running:
        os.environ.update(running.environment())
        wandb.teardown()
        try:
            with pytest.raises(SystemExit) as stop:
                main(["sync", str(pack)])
            assert stop.value.code == 0
            yield running
        finally:
            wandb.teardown()
            os.environ.clear()
            os.environ.update(before)


def groups(server: WandbServer) -> dict[str, Group]:
    """Return the paths by W&B's key of the grouping of the panels."""
    found: dict[str, Group] = {}
    for stored in server.runs.values():
        if stored.upsert["jobType"] == "path":
            found.setdefault(stored.config["curve"]["value"], []).append(stored)
    return found


def values(stored: Stored, key: str) -> dict[float, float]:
    """Return x -> value of one run, from the rows that have both, as W&B reads them."""
    rows = stored.rows()
    return {row[CURVE_LOG10_SHARE]: row[key] for row in rows if key in row}


def grouped(group: Group, key: str) -> dict[float, list[float]]:
    """Return x -> values of the runs of a group that have one there."""
    found: dict[float, list[float]] = {}
    for stored in group:
        for x, value in values(stored, key).items():
            found.setdefault(x, []).append(value)
    return found


def bucketed(group: Group, key: str, *, buckets: int) -> dict[float, list[float]]:
    """Return the same with x in buckets of equal width, of which a run's last value counts."""
    of_runs = [values(stored, key) for stored in group]
    edges = np.linspace(min(LOG10_SHARES), max(LOG10_SHARES), buckets + 1)
    found: dict[float, list[float]] = {}
    for run in of_runs:
        last: dict[int, tuple[float, float]] = {}
        for x in sorted(run):
            last[int(np.clip(np.searchsorted(edges, x, "right") - 1, 0, buckets - 1))] = (x, run[x])
        for x, value in last.values():
            found.setdefault(x, []).append(value)
    return found


def assert_is_the_table(found: dict[float, list[float]], table: pd.DataFrame) -> None:
    """Assert that means, standard errors and N of what was received are the rows of a table."""
    assert sorted(found) == sorted(table["log10_share"]), "no more shares, and no fewer"
    for row in table.to_dict("records"):
        received = found[row["log10_share"]]
        assert len(received) == row["seeds"]
        assert np.mean(received) == pytest.approx(row["mean"], rel=1e-12, abs=1e-14)
        if len(received) > 1:
            error = np.std(received, ddof=1) / math.sqrt(len(received))
            assert error == pytest.approx(row["standard_error"], rel=1e-9, abs=1e-14)


@pytest.fixture(scope="module")
def table(pack: Path) -> pd.DataFrame:
    return curve_table(load_runs([pack], with_ranks=False).stages)


@pytest.mark.parametrize("column", COLUMNS)
def test_mean_of_a_group_is_the_row_of_the_table(column, server, table):
    [group] = groups(server).values()
    assert len(group) == len(SEEDS)
    own = table[table["column"] == column]
    assert not own.empty
    assert_is_the_table(grouped(group, CURVE_COLUMNS[column]), own)
    for buckets in (60, 100, 500, 1500):
        assert_is_the_table(bucketed(group, CURVE_COLUMNS[column], buckets=buckets), own)


def test_sum_of_runs_is_n(server, table):
    [group] = groups(server).values()
    own = table[table["column"] == "memorization"].set_index("log10_share")["seeds"]
    counted = {x: sum(ones) for x, ones in grouped(group, CURVE_RUNS).items()}
    assert counted == own.to_dict()
    assert len(set(counted.values())) > 1, "N falls where a seed was not measured"


def test_means_of_measured_stages_would_not_be_those_of_the_table(server, table):
    # why there is a grid: counts differ from seed to seed, and a bucket holds some of them
    [group] = groups(server).values()
    found: dict[int, list[float]] = {}
    for stored in group:
        for row in stored.rows():
            if "memorization/score" in row:
                found.setdefault(row["gate/num_nonzero_params"], []).append(
                    row["memorization/score"]
                )
    assert [len(values) for values in found.values()].count(len(SEEDS)) < len(found) / 2


def test_rows_of_the_grid_come_once_and_in_order(server):
    for stored in server.runs.values():
        shares = [row[CURVE_LOG10_SHARE] for row in stored.rows() if CURVE_LOG10_SHARE in row]
        assert shares == sorted(set(shares), reverse=True)
        assert set(shares) <= set(LOG10_SHARES)
        if stored.upsert["jobType"] == "floor":
            assert shares == [], "a floor has no curve"
    [row, *_] = [
        row
        for stored in server.runs.values()
        for row in stored.rows()
        if row.get(CURVE_LOG10_SHARE) == -1.0
    ]
    assert row[CURVE_PERCENT] == pytest.approx(10.0)


def lines(panels: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        panel["config"]["metrics"][0]: panel["config"]
        for panel in panels
        if panel["viewType"] == "Run History Line Plot"
    }


def assert_panels_of_means(panels: Sequence[dict[str, Any]]) -> None:
    found = lines(panels)
    for column in COLUMNS:
        config = found[CURVE_COLUMNS[column]]
        assert config["xAxis"] == CURVE_LOG10_SHARE
        assert not config.get("xLogScale")
        assert config["groupBy"] == "curve.value"
        assert (config["groupAgg"], config["groupArea"]) == ("mean", "stderr")
    assert (found[CURVE_RUNS]["groupAgg"], found[CURVE_RUNS]["groupArea"]) == ("sum", "none")


GROUPING = ["group", "backbone.value.name", "method.value.name"]


def test_workspace_shows_means_of_the_grid_and_no_others(server):
    [view] = server.views.values()
    spec = json.loads(view["spec"])
    sections = spec["section"]["panelBankConfig"]["sections"]
    panels = [panel for section in sections for panel in section["panels"]]
    assert_panels_of_means(panels)
    for key, config in lines(panels).items():
        if not key.startswith("curve/"):
            assert config["groupBy"] == "name", "a line a run: x differs from run to run"
    [runs] = spec["section"]["runSets"]
    assert [key["name"] for key in runs["grouping"]] == GROUPING


def test_report_says_what_the_means_are_and_shows_them(server):
    [report] = server.reports.values()
    assert (report["displayName"], report["type"]) == (TITLE, "runs")
    assert (report["entityName"], report["projectName"]) == (ENTITY, "sorakit")
    spec = json.loads(report["spec"])
    text = json.dumps(spec["blocks"])
    assert "the mean over the seeds of one curve" in text
    grids = [block for block in spec["blocks"] if block["type"] == "panel-grid"]
    first = grids[0]["metadata"]
    assert_panels_of_means(first["panelBankSectionConfig"]["panels"])
    [runs] = first["runSets"]
    assert [key["name"] for key in runs["grouping"]] == GROUPING
    assert "path" in json.dumps(runs["filters"])
    assert runs["project"]["name"] == "sorakit"


def test_report_and_workspace_are_written_over_not_doubled(server, pack, capsys):
    sent = server.operations["UpsertBucket"]
    with pytest.raises(SystemExit) as stop:
        main(["sync", str(pack)])
    assert stop.value.code == 0
    assert server.operations["UpsertBucket"] == sent
    assert (len(server.views), len(server.reports)) == (1, 1)
    printed = capsys.readouterr().out
    assert f"Report: {server.url}/{ENTITY}/sorakit/reports/" in printed
    [(first, second)] = itertools.pairwise(
        line.split(": ")[0] for line in printed.splitlines()[-2:]
    )
    assert (first, second) == ("Dashboard", "Report")
