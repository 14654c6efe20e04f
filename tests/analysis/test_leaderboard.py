"""The leaderboard: published numbers, the page as a browser shows it, results on the Hub."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from made_runs import (
    BASE,
    CHROMIUM,
    DATA,
    DIFFERENT,
    HOSTILE,
    result_of,
    written,
)

from jwb_dh_v1.analysis.leaderboard import Leaderboard, leaderboard, published_tables, to_html, write_leaderboard
from jwb_dh_v1.analysis.reconcile import published
from jwb_dh_v1.scoring.plan import Plan, make_plan

# ------------------------------------------------------------------------------------------------ published numbers


def test_published_rows_are_a_table_of_their_own(tmp_path: Path) -> None:
    tables = published_tables()
    cells = [(t.region, system, metric, text) for t in tables for system, row in t.rows
             for metric, (text, _) in zip(t.metrics, row, strict=True)]  # fmt: skip
    assert cells == [(c.region, c.system, c.metric, c.text) for c in published()] and len(cells) == 288
    written(tmp_path / "Wan", result_of("Wan", protocol="paper", metrics=("ssim", "psnr"), boxes="annotations"))
    board = leaderboard([tmp_path])
    assert [group.names for group in board.groups] == [("Wan",)]
    page = to_html(board)
    ours, theirs = page.split('<h2 id="published">')
    assert "As published, not recomputed" in theirs and "93.45%" in theirs and "93.45%" not in ours
    tables_of_runs = re.findall(r"<tbody>.*?</tbody>", ours, re.DOTALL)
    assert tables_of_runs and not any("Hun" in table for table in tables_of_runs)
    assert "rank" not in "".join(re.findall(r"<tbody>.*?</tbody>", theirs, re.DOTALL))


def test_verdicts_are_shown_where_they_are_known() -> None:
    text = "region,system,metric,published,verdict\nbody,A,fid,1.0,reproduced\nbody,A,ssim,2%,not reproducible\n"
    (table,) = published_tables(text)
    assert table.rows == (("A", (("1.0", "reproduced"), ("2%", "not reproducible"))),)
    page = to_html(Leaderboard((), (table,), (), 0))
    assert "✓" in page and "✗ other digits (1)" in page


# ---------------------------------------------------------------------------------------------------------- the page


class Page(HTMLParser):
    """Elements and attributes; raises where elements are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "br"}:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag, f"</{tag}> at {self.getpos()}"


def hostile_board(folder: Path) -> Leaderboard:
    for i, name in enumerate(("plain", HOSTILE, "=cmd|' /C calc'!A0", "long " * 60, "模型 Ünïcode")):
        run = result_of(name, i)
        plan = {**run.plan, "decoder": HOSTILE, HOSTILE: HOSTILE} if i == 1 else run.plan
        device = HOSTILE if i == 1 else "cpu"
        written(folder / f"run{i}", replace(run, name=name, plan=plan, device=device))
    bad = folder / "<b onclick=x>"
    bad.mkdir()
    (bad / "results.json").write_text('{"schema": "</code><script>alert(3)</script>"}')
    odd = tuple(replace(s, metric=HOSTILE, region=HOSTILE, unit=HOSTILE) for s in BASE.scores[:1])
    written(folder / "odd", replace(BASE, scores=odd, name="odd"))
    return leaderboard([folder])


def test_the_page_is_sound_and_nothing_of_a_file_becomes_markup(tmp_path: Path) -> None:
    board = hostile_board(tmp_path / "runs")
    assert len(board.refused) == 1
    first = write_leaderboard(board, tmp_path / "site")
    page = first[0].read_text(encoding="utf-8")
    assert first == write_leaderboard(leaderboard([tmp_path / "runs"]), tmp_path / "site")
    assert page == first[0].read_text(encoding="utf-8")  # no date, the same bytes
    found = Page(page)
    names = [tag for tag, _ in found.tags]
    assert names.count("script") == 1 and not {"img", "b onclick", "iframe", "link", "object"} & set(names)
    assert not [key for _, attrs in found.tags for key in attrs if key.startswith("on")]
    targets = [v for _, attrs in found.tags for k, v in attrs.items() if k in {"href", "src"}]
    assert targets and all(t and t.startswith("#") for t in targets)
    ids = [attrs["id"] for _, attrs in found.tags if "id" in attrs]
    assert len(ids) == len(set(ids)) and {t[1:] for t in targets if t} <= set(ids)
    assert "\u202e" not in page
    script = page[page.index("<script>") + 8 : page.index("</script>")]
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{allowed}'" in page
    assert json.loads(first[1].read_text(encoding="utf-8"))["schema"] == "jwb-dh-v1/leaderboard/1"
    scopes = [attrs.get("scope") for tag, attrs in found.tags if tag == "th"]
    assert set(scopes) == {"col", "row"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("board")
    for i, name in enumerate(("alpha", "beta", "gamma", "delta")):
        lost = {("csim", "face"): dict.fromkeys(range(8), "skipped")} if name == "beta" else {}
        written(folder / "runs" / name, result_of(name, i, lost=lost))
    written(folder / "runs" / "lost", result_of("lost", 9, lost={("ssim", "body"): {0: "failed"}}, allow=0))
    written(folder / "runs" / "boxes", DIFFERENT["boxes"])
    return write_leaderboard(leaderboard([folder / "runs"]), folder / "site")[0]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync = pytest.importorskip("playwright.sync_api", reason="the browser test needs playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this system")
    with sync.sync_playwright() as play:
        found = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-quic"])
        yield found
        found.close()


def shown(table: Any, place: int) -> list[str]:
    """A column's values from top to bottom."""
    return [row.locator("th, td").nth(place).inner_text().split("\n")[0] for row in table.locator("tbody tr").all()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_looks(browser: Any, site: Path, width: int, scheme: str, tmp_path: Path) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(site.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == width  # tables scroll, the page does not
    assert page.locator("table.board thead button").count() > 10
    shots = Path(os.environ.get("JWB_ARTIFACTS") or tmp_path)
    page.screenshot(path=shots / f"leaderboard-{width}-{scheme}.png", full_page=True)
    assert not said
    context.close()


def test_sorting_by_mouse_and_keyboard_keeps_missing_values_last(browser: Any, site: Path) -> None:
    page = browser.new_page()
    page.goto(site.as_uri())
    face = page.locator("section").first.locator("table.board").nth(2)
    heads = face.locator("thead th").all_inner_texts()
    place = next(i for i, head in enumerate(heads) if head.startswith("CSIM"))
    names = shown(face, 0)
    button = face.locator("thead th").nth(place).locator("button")
    button.click()
    values = shown(face, place)
    numbers = [float(v.replace("−", "-")) for v in values[:-1]]
    assert values[-1] == "–" and numbers == sorted(numbers, reverse=True)
    assert face.locator("thead th").nth(place).get_attribute("aria-sort") == "descending"
    assert face.locator("th[aria-sort]").count() == 1
    page.keyboard.press("Enter")  # the button has the focus
    values = shown(face, place)
    assert values[-1] == "–" and [float(v.replace("−", "-")) for v in values[:-1]] == sorted(numbers)
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    assert face.locator("thead th").nth(place - 1).get_attribute("aria-sort") is not None
    face.locator("thead th").first.locator("button").click()
    assert shown(face, 0) == sorted(names)


def test_without_javascript_everything_is_there(browser: Any, site: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(site.as_uri())
    assert page.locator("button").count() == 0
    body = page.locator("section").first.locator("table.board").first
    ranked = [float(v) for v in shown(body, 1)[:-1]]
    assert ranked == sorted(ranked) and shown(body, 0)[-1].startswith("lost")
    context.close()


def test_no_script_of_a_file_runs(browser: Any, tmp_path: Path) -> None:
    page = browser.new_page()
    ran: list[str] = []
    page.on("dialog", lambda dialog: (ran.append(dialog.message), dialog.dismiss()))
    page.goto(write_leaderboard(hostile_board(tmp_path / "runs"), tmp_path / "site")[0].as_uri())
    for button in page.locator("thead button:visible").all()[:12]:
        button.click()
    assert not ran and page.locator("img").count() == 0


# ------------------------------------------------------------------------------------------------------------ the Hub


def test_results_on_the_hub(tmp_path: Path) -> None:
    pytest.importorskip("olah", reason="the Hub on loopback needs olah")
    import hub_server

    source = tmp_path / "files"
    for i, name in enumerate(("a", "b")):
        written(source / "results" / name, result_of(name, i))
    (source / "README.md").write_text("results")
    hub_server.commit(tmp_path / "served" / "datasets" / "ORG" / "results", source, "v1")
    code = (
        "import sys; from pathlib import Path; from jwb_dh_v1.analysis.leaderboard import leaderboard\n"
        "from jwb_dh_v1.analysis.find_results import from_hub\n"
        "board = leaderboard(['ORG/results@v1'])\n"
        "print(board.groups[0].names, sorted(p.name for p in from_hub('ORG/results').rglob('*') if p.is_file()))\n"
        "try: leaderboard(['ORG/none'])\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    with hub_server.hub(tmp_path / "olah", tmp_path / "served") as served, served.watched() as log:
        environment = served.environment(tmp_path)
        how: Any = {"capture_output": True, "text": True, "env": environment, "timeout": 120, "cwd": tmp_path}
        done = subprocess.run([sys.executable, "-c", code], **how)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr[-2000:]
    names, files = re.fullmatch(r"(\(.*?\)) (\[.*\])", lines[0]).groups()  # type: ignore[union-attr]
    assert set(names) >= set("ab") and files == "['results.json', 'results.json']"
    assert lines[1].startswith("DataNotFound ORG/none is no folder here, and cannot be had from the Hub")
    assert not any(request.path.endswith((".parquet", "README.md")) for request in log)


def test_plans_of_real_runs_are_accepted() -> None:
    """What `make_plan` gives is what the checks expect, for every protocol."""
    for protocol in ("standard", "paper", "lite"):
        plan = make_plan(protocol, data=DATA)
        assert isinstance(plan, Plan) and set(plan.facts()) == set(BASE.plan)
