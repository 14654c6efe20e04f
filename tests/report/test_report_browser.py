"""The report in a real browser: curves and video go together, words light up, and no request leaves the page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from report_pages import run

pytest.importorskip("playwright", reason="the browser test needs playwright (pip install playwright)")

from playwright.sync_api import Browser, Page, sync_playwright

from jwb_dh_v1.report.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
LOOKS = [(width, scheme) for width in (1200, 400) for scheme in ("light", "dark")]
NOW = "document.querySelector('.player video').currentTime"
LENGTH = 24 / 25

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this system")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    result, samples = run(folder, "blurred", 3)
    words = {s.id: [{"word": "now<b>", "start": 0.5, "end": 0.7}, {"word": "x", "start": None}] for s in samples}
    write_report(result, samples, folder / "report.html", words)
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as play:
        found = play.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield found
        found.close()


def until(page: Page, condition: str) -> None:
    """Wait for something to hold; playwright's own waiting needs `eval`, which the page's policy forbids."""
    for _ in range(200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never: {condition}")


@pytest.fixture
def visit(browser: Browser, report: Path) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(report.as_uri())
    until(page, "document.querySelector('.player video').readyState >= 2")
    yield page
    assert not wrong
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    context.close()


def test_a_click_on_the_curve_moves_the_video(visit: Page) -> None:
    curve = visit.locator(".player").first.locator(".curve").first
    curve.scroll_into_view_if_needed()
    box = curve.bounding_box()
    assert box is not None and visit.evaluate(NOW) == 0
    length = float(visit.locator(".player").first.get_attribute("data-length") or 0)
    assert length == pytest.approx(LENGTH)
    for share in (0.6, 0.25):
        curve.click(position={"x": share * box["width"], "y": box["height"] / 2})
        assert visit.evaluate(NOW) == pytest.approx(share * length, abs=0.01)
        until(visit, "!document.querySelector('.player video').seeking")
        left = visit.locator(".player .cursor").first.evaluate("e => parseFloat(e.style.left)")
        assert left == pytest.approx(100 * share, abs=1)
    # The number beside the curve is that of the moment.
    lane = visit.locator(".player .lane").first
    times, values = (visit.evaluate("e => JSON.parse(e)", lane.get_attribute(f"data-{k}")) for k in ("times", "values"))
    near = min(range(len(times)), key=lambda i: abs(times[i] - 0.25 * length))
    assert float(lane.locator("output").inner_text()) == pytest.approx(values[near], abs=1e-3)


def test_keys_words_and_playing(visit: Page) -> None:
    track = visit.locator(".player .track").first
    track.focus()
    visit.keyboard.press("ArrowRight")
    assert visit.evaluate(NOW) == pytest.approx(1.5 / 25, abs=1e-3)  # the second frame
    word = visit.locator(".player .word").first
    assert word.inner_text() == "now<b>" and "now" not in (word.get_attribute("class") or "").split()
    box, word_box = track.bounding_box(), word.bounding_box()
    assert box is not None and word_box is not None
    assert (word_box["x"] - box["x"]) / box["width"] == pytest.approx(0.5 / LENGTH, abs=0.01)
    visit.keyboard.press("End")
    assert visit.evaluate(NOW) == pytest.approx(23.5 / 25, abs=1e-3)
    visit.evaluate("document.querySelector('.player video').currentTime = 0.6")
    until(visit, "document.querySelector('.word.now') !== null")
    visit.evaluate("document.querySelector('.player video').muted = true")
    visit.evaluate("document.querySelector('.player video').play()")
    until(visit, "parseFloat(document.querySelector('.player .cursor').style.left) > 70")
    assert track.get_attribute("role") == "slider" and "seconds" in (track.get_attribute("aria-valuetext") or "")


def test_no_script_but_ours_runs_and_nothing_is_fetched(browser: Browser, report: Path) -> None:
    context = browser.new_context()
    page = context.new_page()
    asked: list[str] = []
    page.on("requestfinished", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    blocked = page.evaluate(
        """async () => {
          const seen = [];
          document.addEventListener("securitypolicyviolation", (e) => seen.push(e.effectiveDirective));
          const script = document.createElement("script");
          script.textContent = "window.broken = true";
          document.body.append(script);
          const picture = document.createElement("img");
          picture.src = "https://example.invalid/x.png";
          document.body.append(picture);
          await new Promise((done) => setTimeout(done, 200));
          return [seen.sort(), window.broken === true];
        }"""
    )
    assert blocked == [["img-src", "script-src-elem"], False]
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    context.close()


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_it_fits_every_screen(browser: Browser, report: Path, tmp_path: Path, width: int, scheme: str) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(report.as_uri())
    until(page, "document.querySelector('.player video').readyState >= 2")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    kept = Path(os.environ.get("JWB_ARTIFACTS") or tmp_path)
    page.screenshot(path=kept / f"report-{width}-{scheme}.png", full_page=True)
    context.close()


def test_without_script_it_is_still_read(browser: Browser, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.get_by_text("Without JavaScript the clips play").is_visible()
    assert page.locator(".player polyline").count() >= 2 and page.locator(".sheet img").first.is_visible()
    assert not page.locator(".cursor").first.is_visible()
    context.close()
