"""The report in headless Chromium: it draws, it answers, it asks for nothing."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.cli import main
from analysis.load import load_runs
from analysis.report.page import report
from sorakit.config import BackboneConfig, StageConfig, XiConfig
from tests.support.browser import Browser, open_browser
from tests.support.fake_runs import write_run

MARKUP = "<img src=x onerror=document.title='broken'>&amp;'\""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two datasets with three seeds, one of them with a name that is markup, and a failed run."""
    folder = tmp_path_factory.mktemp("report")
    root = folder / "runs <b>bold</b>"
    named = BackboneConfig(name=f"models/{MARKUP}")
    for seed in range(3):
        for kind in ("path", "floor", "hold_dense"):
            write_run(root, kind, seed=seed)
            write_run(root, kind, seed=seed, task="mrpc", backbone=named)
        write_run(
            root,
            "path",
            seed=seed,
            stage=StageConfig(control="random_mask"),
            xi=XiConfig(spacing="target"),
        )
    write_run(
        root, "path", seed=7, num_stages=0, state="failed", error=f"died of {MARKUP}</script>"
    )
    assert main(["report", str(root), "--out", str(folder / "report.html")]) == 0
    return folder / "report.html"


@pytest.fixture
def page(browser: Browser, file: Path) -> Browser:
    browser.resize(1440)
    browser.open(file)
    return browser


def text(page: Browser, selector: str) -> list[str]:
    return page.run(f"return [...document.querySelectorAll({selector!r})].map(e => e.textContent)")


def shown_points(page: Browser, chart: str) -> int:
    """Return the marks of a chart that are to be seen."""
    return page.run(
        f"return [...document.querySelectorAll('#{chart} .mark-symbol path')]"
        ".filter(e => e.getAttribute('opacity') !== '0').length"
    )


def click(page: Browser, value: str) -> None:
    page.run(f"document.querySelector('input[value=\"{value}\"]').click()")
    page.settle()


def test_console_is_silent(page: Browser) -> None:
    page.console()
    for measure in ("percent", "gain", "loss", "gap", "raw"):
        click(page, measure)
    assert page.console() == []


def test_no_request_leaves_the_page(browser: Browser, file: Path) -> None:
    browser.requests()
    browser.open(file)
    browser.settle()
    addresses = [a for a in browser.requests() if not a.startswith(("chrome:", "data:"))]
    assert addresses == [file.resolve().as_uri()]


@pytest.mark.parametrize("width", [1440, 800])
def test_every_chart_is_drawn_within_the_page(page: Browser, width: int) -> None:
    page.resize(width)
    charts = page.run(
        "return [...document.querySelectorAll('.chart')].map(e => {"
        "  const svg = e.querySelector('svg');"
        "  return [e.id, svg && svg.querySelectorAll('path, text, rect').length,"
        "          svg && svg.getBoundingClientRect().right];})"
    )
    assert [chart for chart, _, _ in charts] == ["curve-d0", "curve-d1", "map-d0", "map-d1"]
    assert all(marks > 20 for _, marks, _ in charts)
    assert all(right <= width for _, _, right in charts)
    assert page.run("return document.documentElement.scrollWidth") == width


def test_slider_moves_the_rank_map(page: Browser) -> None:
    def ranks() -> list[str]:
        return text(page, "#map-d1 .role-mark.mark-text text")

    def move_to(stage: int) -> None:
        page.run(
            f"const s = document.getElementById('stage'); s.value = {stage};"
            "s.dispatchEvent(new Event('input'))"
        )
        page.settle()

    move_to(0)
    assert ranks() == ["8"] * 12  # 2 layers of 6 matrices, dense
    assert text(page, "#caption-d1")[0].startswith("stage 0 · ")
    move_to(4)
    middle = ranks()
    assert middle != ["8"] * 12
    assert text(page, "#stage-number") == ["4"]
    move_to(7)
    assert ranks() == ["0"] * 12


def test_map_of_one_seed_can_be_chosen(page: Browser) -> None:
    page.run(
        "const s = document.querySelector('select[data-map=d1]'); s.value = 2;"
        "s.dispatchEvent(new Event('change'))"
    )
    page.settle()
    numbers = text(page, "#map-d1 .role-mark.mark-text text")
    assert numbers
    assert all(number == str(int(number)) for number in numbers)


def test_switch_changes_what_is_drawn(page: Browser) -> None:
    titles = []
    for measure in ("raw", "percent", "gain"):
        click(page, measure)
        titles += text(page, "#curve-d1 .role-title-text text")
    assert titles == [
        "Accuracy",
        "Accuracy, percent of the dense score",
        "Gain retained: (score - floor) / (dense - floor)",
    ]


def test_controls_are_shown_and_hidden(page: Browser) -> None:
    # 3 seeds of 8 stages, two scores, for the path and for random_mask; two ends of hold_dense
    before = shown_points(page, "curve-d1")
    click(page, "random_mask")
    assert before - shown_points(page, "curve-d1") == 3 * 8 * 2
    click(page, "hold_dense")
    assert before - shown_points(page, "curve-d1") == 3 * 8 * 2 + 2


def test_dataset_can_be_hidden_and_shown(page: Browser) -> None:
    def visible() -> list[str]:
        return page.run(
            "return [...document.querySelectorAll('article, tbody')]"
            ".filter(e => e.dataset.dataset && e.offsetParent).map(e => e.dataset.dataset)"
        )

    assert set(visible()) == {"d0", "d1"}
    click(page, "d0")
    assert set(visible()) == {"d1"}
    click(page, "d0")
    assert set(visible()) == {"d0", "d1"}
    assert page.run("return document.querySelector('#curve-d0 svg').clientWidth") > 400


def test_point_tells_its_run(page: Browser) -> None:
    x, y = page.run(
        "const point = [...document.querySelectorAll('#curve-d1 .mark-symbol path')]"
        ".find(e => (e.getAttribute('aria-label') || '').includes('run: '));"
        "point.scrollIntoView({block: 'center'});"
        "const box = point.getBoundingClientRect();"
        "return [box.x + box.width / 2, box.y + box.height / 2]"
    )
    page.point_at(x, y)
    keys = text(page, "#vg-tooltip-element .key")
    assert keys[:7] == [
        "run",
        "schedule",
        "seed",
        "stage",
        "xi",
        "parameters",
        "of the full adapter",
    ]


def test_names_with_markup_are_text(page: Browser) -> None:
    assert page.run("return document.title") == "sorakit report"
    assert (
        page.run("return document.querySelectorAll('img, b:not(summary b, .hint b)').length") == 0
    )
    assert any(MARKUP in sentence for sentence in text(page, "#curves .facts"))
    assert text(page, "#excluded td:last-child") == [
        f"failed, no finished stage: died of {MARKUP}</script>"
    ]
    assert text(page, "#excluded td:first-child")[0].count("runs <b>bold</b>") == 1


def test_scores_before_the_refit_are_drawn_on_request(browser: Browser, tmp_path: Path) -> None:
    write_run(tmp_path / "runs")
    runs = load_runs([tmp_path / "runs"])
    refitted_stages = runs.stages["stage"] > 0
    before = {
        f"penalised_{name}": runs.stages[name].astype(float).where(refitted_stages) - lower
        for name, lower in {
            "memorization": 0.5,
            "generalization": 0.0,
            "memorization_loss": 0.0,
            "generalization_loss": 0.0,
        }.items()
    }
    stages = runs.stages.assign(**before)
    file = tmp_path / "report.html"
    file.write_text(report(replace(runs, stages=stages)).html)
    browser.open(file)
    browser.console()
    refitted = marks(browser)
    click(browser, "penalised")
    penalised = marks(browser)
    assert sum(a != b for a, b in zip(refitted, penalised, strict=True)) > len(refitted) / 3
    click(browser, "curves")
    assert marks(browser) == refitted
    assert browser.console() == []


def marks(page: Browser) -> list[str]:
    """Return where the marks of the first chart stand."""
    return page.run(
        "return [...document.querySelectorAll('#curve-d0 .mark-symbol path')]"
        ".map(e => e.getAttribute('transform'))"
    )
