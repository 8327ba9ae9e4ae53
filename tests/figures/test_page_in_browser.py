"""report.html in a real browser: wide, on a phone, on paper, its curves drawn, and nothing to complain of."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from issgd_cli.claims import Runs, judge
from issgd_cli.figures import outputs, page
from tests.figures import browser

pytestmark = pytest.mark.long

WIDE, NARROW = 1280, 390
OVERFLOW = "document.scrollingElement.scrollWidth - document.documentElement.clientWidth"
DRAWN = "[...document.querySelectorAll('#panels canvas')].filter(one => one.width > 100 && one.height > 100).length"


@pytest.fixture(scope="module")
def report(experiment: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page with its real figures."""
    place = tmp_path_factory.mktemp("report")
    paths = outputs.plot_experiment(experiment, place, "steps")
    pictures = [(path.stem, path) for path in paths if path.suffix == ".png"]
    (place / "report.html").write_text(page.page(experiment, judge(experiment), pictures), encoding="utf-8")
    return place / "report.html"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Tab]:
    with browser.tab(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_the_page_is_shown_without_a_complaint_and_fits_its_window(tab: browser.Tab, report: Path, width: int) -> None:
    tab.open(report, width)
    (report.parent / f"report-{width}.png").write_bytes(tab.picture())
    assert tab.value(DRAWN) == 2  # a panel a setting
    assert tab.value(OVERFLOW) <= 0
    tab.value("document.querySelectorAll('details').forEach(one => one.open = true)")
    (report.parent / f"report-{width}-unfolded.png").write_bytes(tab.picture())
    assert tab.value(OVERFLOW) <= 0
    assert tab.complaints == []


def test_every_view_of_the_curves_can_be_drawn(tab: browser.Tab, report: Path) -> None:
    tab.open(report, WIDE)
    views = tab.value(
        """(() => {
            const change = (one) => one.dispatchEvent(new Event("change", { bubbles: true }));
            const quantity = document.getElementById("quantity");
            const drawn = [];
            for (const option of quantity.querySelectorAll("option")) {
                quantity.value = option.value;
                change(quantity);
                for (const axis of ["steps", "seconds", "examples"]) {
                    document.querySelector(`input[value=${axis}]`).click();
                    document.getElementById("logarithmic").click();
                    const panels = document.querySelectorAll("#panels canvas").length;
                    drawn.push(`${option.textContent}, ${axis}: ${panels}`);
                }
            }
            return drawn;
        })()"""
    )
    assert len(views) == 2 * 4 * 3
    assert all(view.endswith(": 2") for view in views)
    assert tab.complaints == []


def test_a_method_can_be_taken_out_and_the_values_under_the_cursor_are_told(tab: browser.Tab, report: Path) -> None:
    tab.open(report, WIDE)
    tab.value("document.querySelector('input[value=SGD]').click()")
    rows = "[...document.querySelectorAll('#panels table')[0].querySelectorAll('.u-series')]"
    assert tab.value(f"{rows}.filter(row => row.classList.contains('u-off')).length") == 3  # its median and quartiles
    place = tab.value("document.querySelector('#panels .u-over').getBoundingClientRect().toJSON()")
    middle = {"x": place["x"] + place["width"] / 2, "y": place["y"] + place["height"] / 2}
    tab.call("Input.dispatchMouseEvent", type="mouseMoved", **middle)
    tab.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    step, loss = tab.value(f"{rows}.slice(0, 2).map(row => Number(row.querySelector('.u-value').textContent))")
    assert step == pytest.approx(1500, abs=250)
    assert 0 < loss < 2.3


def test_the_page_is_whole_without_its_script(tab: browser.Tab, report: Path) -> None:
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.open(report, WIDE)
        (report.parent / "report-no-script.png").write_bytes(tab.picture())
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)
    assert tab.value("document.querySelectorAll('#headline img').length") == 1
    assert tab.value("document.getElementById('curves').getBoundingClientRect().height") == 0


def test_all_that_is_folded_is_printed(tab: browser.Tab, report: Path) -> None:
    tab.open(report, WIDE)
    tab.call("Emulation.setEmulatedMedia", media="print")
    try:
        hidden = "[...document.querySelectorAll('details > *')].filter(one => !one.checkVisibility()).length"
        assert tab.value(hidden) == 0
        assert tab.value("document.getElementById('curves').checkVisibility()") is False
        content = tab.paper()
    finally:
        tab.call("Emulation.setEmulatedMedia", media="")
    (report.parent / "report.pdf").write_bytes(content)
    assert content.startswith(b"%PDF")
