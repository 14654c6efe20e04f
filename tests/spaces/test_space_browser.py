"""The demo Space in a real browser: by mouse, by keyboard, wide and narrow, light and dark."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the Space needs gradio: pip install -e '.[demo]'")
pytest.importorskip("playwright", reason="the browser test needs playwright (pip install playwright)")

from judge_server import JudgeServer
from playwright.sync_api import Browser, Page, expect, sync_playwright
from space_server import Server, running
from test_space import clips, real  # noqa: F401 - fixtures

expect.set_options(timeout=40_000)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
TABS = ("Score", "Batch", "Speech and judge", "Leaderboard")
LOOKS = [(width, scheme) for width in (1600, 400) for scheme in ("light", "dark")]

pytestmark = [
    pytest.mark.teaser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this system"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, teaser_dir: Path, systems_dir: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("data")
    (folder / "jwb-dh-v1").symlink_to(teaser_dir)
    (folder / "systems").symlink_to(systems_dir)
    extra = {"JWB_DEMO_DATA": str(folder / "jwb-dh-v1"), "JWB_DEMO_ALLOW_BASE_URL": "1"}
    with running(tmp_path_factory.mktemp("space"), extra) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as play:
        found = play.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield found
        found.close()


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots are kept."""
    folder = Path(os.environ.get("JWB_ARTIFACTS") or tmp_path_factory.mktemp("artifacts"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Visit:
    """A page with all that went wrong in it."""

    def __init__(self, browser: Browser, server: Server, width: int = 1600, scheme: Any = "light") -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 1000},
            color_scheme=scheme,
            accept_downloads=True,
            reduced_motion="reduce",
        )
        self.context.set_default_timeout(40_000)
        self.page: Page = self.context.new_page()
        self.troubles: list[str] = []
        self.page.on("request", lambda request: self._request(request.url, server.url))
        self.page.on("pageerror", lambda error: self.troubles.append(f"script: {error}"))
        self.page.on("console", lambda m: self.troubles.append(m.text) if m.type == "error" else None)
        with self.page.expect_request(re.compile("heartbeat")):  # the page is alive
            self.page.goto(server.url)
        expect(self.page.locator("#score")).to_be_enabled()

    def _request(self, url: str, own: str) -> None:
        if not url.startswith((own, "data:", "blob:")):
            self.troubles.append(f"asks {url}")

    def upload(self, pair: tuple[Path, Path]) -> None:
        for name, path in zip(("video", "reference"), pair, strict=True):
            self.page.set_input_files(f"#{name} input[type=file]", path)
        for name in ("video", "reference"):
            expect(self.page.locator(f"#{name} video")).to_be_visible()

    def open(self, tab: str) -> None:
        """Open a tab, from the menu where there is no room for all."""
        button = self.page.get_by_role("tab", name=tab, exact=True)
        if not button.is_visible():
            self.page.locator(".overflow-menu > button").click()
            self.page.locator(".overflow-dropdown button", has_text=tab).click()
        else:
            button.click()


def test_a_visitor_scores_a_pair(
    browser: Browser, server: Server, shots: Path, clips: tuple[Path, Path]  # noqa: F811
) -> None:  # fmt: skip
    visit = Visit(browser, server)
    page = visit.page
    visit.upload(clips)
    page.get_by_label("WER", exact=True).uncheck()
    page.locator("#score").click()
    expect(page.get_by_text(re.compile("Scoring, "))).to_be_visible()
    rows = page.locator("table.scores tbody tr")
    expect(rows.first).to_be_visible()
    lines = [row.locator("th, td").all_inner_texts() for row in rows.all()]
    assert ["PSNR", "body"] in [line[:2] for line in lines]

    with page.expect_download() as download:
        page.locator("#score-json").click()
    document = json.loads(Path(download.value.path()).read_text())
    scores = {(s["metric"], s["region"]): s["value"] for s in document["scores"]}
    assert len(scores) == len(lines)
    psnr = next(line for line in lines if line[:2] == ["PSNR", "body"])
    assert abs(float(psnr[2].split()[0]) - scores["psnr", "body"]) < 0.01
    with page.expect_download() as download:
        page.locator("#score-csv").click()
    assert "motion_smoothness,body" in Path(download.value.path()).read_text()

    expect(page.locator("figure.radar svg")).not_to_have_count(0)
    frames = page.locator("#frame figure svg")
    expect(frames).to_have_count(2)
    expect(page.locator("#frame")).to_contain_text("frame 0")
    page.locator("#curve svg.curve").click(position={"x": 500, "y": 60})  # about half of the curve
    expect(page.locator("#frame")).to_contain_text(re.compile("generated, frame (8|9|10|11)"))
    page.get_by_label("Curve").click()
    page.get_by_role("option", name="PSNR, body").click()
    expect(page.locator("#frame")).to_contain_text("PSNR, body: ")
    page.wait_for_timeout(500)
    page.screenshot(path=shots / "score-1600-light.png", full_page=True)

    for tab in TABS[1:]:
        visit.open(tab)
        expect(page.get_by_role("tab", name=tab, exact=True)).to_have_attribute("aria-selected", "true")
    page.locator("#board-region").get_by_label("Hands").check()
    expect(page.locator("#board")).to_contain_text("Step")
    assert not visit.troubles
    visit.context.close()


def test_by_keyboard_alone(browser: Browser, server: Server, clips: tuple[Path, Path]) -> None:  # noqa: F811
    visit = Visit(browser, server)
    page = visit.page
    visit.upload(clips)  # the system's own dialogue chooses files; from here on there is only the keyboard

    def tab_to(name: str, most: int = 60) -> None:
        for _ in range(most):
            page.keyboard.press("Tab")
            if page.evaluate(f"document.activeElement?.closest({json.dumps(name)}) !== null"):
                return
        raise AssertionError(f"Tab does not reach {name}")

    page.locator("body").click(position={"x": 2, "y": 2})
    tab_to("#transcript")
    page.keyboard.type("hello")
    tab_to("#baseline")
    # A button of the page opens the dialogue; the browser lets it only within 5 s of the key, too short for a busy CI.
    assert page.evaluate("document.activeElement.matches('button[aria-label*=upload]')")
    tab_to("#to-judge")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("toast-body")).to_contain_text("Choose the generated video and the baseline speech")
    tab_to("#score-regions")
    for _ in range(2):  # leave the body out
        page.keyboard.press("Space")
        page.keyboard.press("Space")
    page.keyboard.press("Space")
    expect(page.locator("#score-regions").get_by_label("Body")).not_to_be_checked()
    tab_to("#score")
    page.keyboard.press("Enter")
    expect(page.locator("table.scores")).to_be_visible()
    assert "body" not in page.locator("table.scores td:nth-child(2)").all_inner_texts()
    tab_to("#frame-number input[type=range]")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#frame")).to_contain_text("frame 3")
    page.get_by_role("tab", name="Score", exact=True).focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("tab", name="Batch", exact=True)).to_have_attribute("aria-selected", "true")
    assert not visit.troubles
    visit.context.close()


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_fits_every_screen(
    browser: Browser, server: Server, shots: Path, clips: tuple[Path, Path], width: int, scheme: str  # noqa: F811
) -> None:  # fmt: skip
    visit = Visit(browser, server, width, scheme)
    page = visit.page
    page.screenshot(path=shots / f"start-{width}-{scheme}.png", full_page=True)
    visit.upload(clips)
    for name in ("FID", "FVD", "E-FID", "CSIM", "WER", "Dynamic degree"):
        page.locator("#score-metrics").get_by_label(name, exact=True).uncheck()
    page.locator("#score").click()
    expect(page.locator("table.scores")).to_be_visible()
    expect(page.locator("#frame figure")).to_have_count(2)
    page.wait_for_timeout(500)
    page.screenshot(path=shots / f"result-{width}-{scheme}.png", full_page=True)
    for tab in TABS:
        visit.open(tab)
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, tab
        if tab != "Score":
            page.screenshot(path=shots / f"{tab.split()[0].lower()}-{width}-{scheme}.png", full_page=True)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = sum(map(int, re.findall(r"\d+", background)[:3])) > 3 * 128
    assert light == (scheme == "light")
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, input, textarea')].filter(e => e.offsetParent && "
        "!(e.innerText || e.ariaLabel || e.title || e.labels?.length || e.placeholder || e.type == 'file' || "
        "e.closest('label'))).map(e => e.outerHTML.slice(0, 120))"
    )
    assert not unnamed
    assert not visit.troubles
    visit.context.close()


def test_from_an_example_to_the_judges_verdict(browser: Browser, server: Server, shots: Path) -> None:
    """A click on an example fills all fields; its video is scored, and goes on to the judge without another upload."""
    visit = Visit(browser, server)
    page = visit.page
    page.locator(".gallery-item, .tr-body").first.click()
    for name in ("video", "reference"):
        expect(page.locator(f"#{name} video")).to_be_visible()
    expect(page.locator("#baseline")).to_contain_text(re.compile(r"\.mp4"))
    text = page.locator("#transcript textarea").input_value()
    assert len(text.split()) > 3
    for region in ("Face", "Hands"):
        page.locator("#score-regions").get_by_label(region).uncheck()
    for box in page.locator("#score-metrics input").all():
        box.uncheck()
    page.locator("#score-metrics").get_by_label("PSNR", exact=True).check()
    page.locator("#score").click()
    speech = page.locator("table.speech tbody tr")
    expect(speech).to_have_count(2, timeout=240_000)  # two recordings are heard
    rates = [float(row.locator("td").nth(2).inner_text().rstrip(" %")) for row in speech.all()]
    assert rates[0] < rates[1], "the example's baseline is the system that garbles its words"
    page.wait_for_timeout(500)
    page.screenshot(path=shots / "example-1600-light.png", full_page=True)

    page.locator("#to-judge").click()
    expect(page.get_by_role("tab", name="Speech and judge", exact=True)).to_have_attribute("aria-selected", "true")
    for name in ("judge-ours", "judge-theirs"):
        expect(page.locator(f"#{name}")).to_contain_text(re.compile(r"\.mp4"))
    expect(page.locator("#judge-text textarea")).to_have_value(text)
    key = "sk-browser-0815"
    with JudgeServer({0: "401"}) as judge:
        page.locator("#judge-key input").fill(key)
        page.locator("#judge-address").locator("input, textarea").fill(judge.url)
        page.locator("#judge").click()
        toast = page.get_by_test_id("toast-body")
        expect(toast).to_contain_text("The provider does not accept this key for gemini-2.5-pro")
        page.get_by_test_id("toast-close").click()
        page.locator("#judge").click()
        words = page.locator("#judge-words")
        expect(words).to_contain_text(re.compile("in both orders|Unclear"))
        expect(words).to_contain_text("Generated first")
        expect(words).to_contain_text("Baseline first")
        assert len(judge.requests) == 3
    page.screenshot(path=shots / "judge-1600-light.png", full_page=True)
    assert key not in page.content().replace(page.locator("#judge-key").inner_html(), "")
    assert key not in server.log.read_text()
    assert not visit.troubles
    visit.context.close()


def test_an_error_is_one_sentence_without_markup(browser: Browser, server: Server, tmp_path: Path) -> None:
    import zipfile

    visit = Visit(browser, server)
    page = visit.page
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("<img src=x onerror=document.title=1>.mp4", b"x")
    visit.open("Batch")
    page.set_input_files("#generated input[type=file]", tmp_path / "a.zip")
    expect(page.locator("#generated")).to_contain_text(
        re.compile(r"a\s*\.zip")
    )  # the ending stands in an element of its own
    page.locator("#score-all").click()
    toast = page.get_by_test_id("toast-body")
    expect(toast).to_contain_text("<img src=x onerror=document.title=1>")
    expect(toast.locator("img")).to_have_count(0)
    assert page.title() == "JWB-DH-V1: scores for digital humans"
    visit.context.close()
