"""The rating page as two people use it, blind, by mouse and by keyboard."""

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from jwb_dh_v1.judge.people.ratings import COLUMNS, read_ratings

# --- the page --------------------------------------------------------------------------------------------------------

SERVER = """
import sys
from rating_items import items_of
from jwb_dh_v1.judge.people.page import launch, rating_page
page = rating_page(items_of(3), sys.argv[1], seed=2, checks=1, raters=["r1", "r2"])
print(launch(page, block=False), flush=True)
page.block_thread()
"""
CHROMIUM = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --mute-audio"
CHROMIUM += " --disable-component-update --disable-sync --autoplay-policy=no-user-gesture-required"
# Chromium does not keep the bodies of streams; every other body is in here as well.
LISTEN = """
window.bodies = ''; window.plainFetch = window.fetch;
async function keep(reader) {
  const text = new TextDecoder();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    window.bodies += text.decode(value, { stream: true });
  }
}
window.fetch = async (...given) => {
  const response = await window.plainFetch(...given);
  const copy = response.clone().body;
  if (copy) keep(copy.getReader()).catch(() => {});  // the page cuts its streams off when it has what it wants
  return response;
};
"""
SECRETS = ("wav2lip", "omnihuman", "item-", "check:", "identical", "degraded")


class Server:
    def __init__(self, path):
        self.path = path

    def __enter__(self):
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "GRADIO_ANALYTICS_ENABLED": "False"}
        command = [sys.executable, "-c", SERVER, str(self.path)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        self.url = self.process.stdout.readline().strip()
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


def sit_down(browser, server, rater, traffic):
    page = browser.new_page(viewport={"width": 1000, "height": 800})
    page.on("response", lambda response: traffic.append(response))
    page.on("pageerror", lambda error: traffic.append(error))
    page.add_init_script(LISTEN)
    page.goto(server.url)
    page.get_by_label("Your rater code").fill(rater)
    page.get_by_role("button", name="Start", exact=True).click()
    return page


def listen(page):
    for clip in page.locator("audio").all():
        clip.evaluate("clip => new Promise(done => { clip.onended = done; clip.play(); })")
    page.get_by_role("button", name="Save and go on", exact=True).wait_for()


def answer(page, number, choice, sure="Sure", why=""):
    page.get_by_text(f"Pair {number} of 4", exact=True).wait_for()
    listen(page)
    page.get_by_label(choice, exact=True).check()
    page.get_by_label(sure, exact=True).check()
    page.get_by_label("Why? (may stay empty)").fill(why)
    page.get_by_role("button", name="Save and go on", exact=True).click()


def press_until(page, key, condition, most=25):
    for _ in range(most):
        if page.evaluate(condition):
            return
        page.keyboard.press(key)
    raise AssertionError(f"{key} did not lead to {condition}")


def answer_by_keyboard(page, number):
    """As without a mouse: a blank starts the clip in focus, then Tab, an arrow or a blank, Tab, ..."""
    page.get_by_text(f"Pair {number} of 4", exact=True).wait_for()
    focused = "document.activeElement"
    page.wait_for_function(f"{focused} === document.querySelectorAll('audio')[0]")
    for k in (0, 1):
        press_until(page, "Tab", f"{focused} === document.querySelectorAll('audio')[{k}]")
        page.keyboard.press("Space")
        page.wait_for_function(f"document.querySelectorAll('.heard')[{k}].textContent.includes('✓')")
    page.get_by_role("button", name="Save and go on", exact=True).wait_for()
    for label in ("A is better", "Guessing"):
        press_until(page, "Tab", f"{focused}.closest('label')?.innerText.trim() === '{label}'")
        page.keyboard.press("Space")
    press_until(page, "Tab", f"{focused}.innerText === 'Save and go on'")
    page.keyboard.press("Enter")


@pytest.mark.teaser
@pytest.mark.timeout(180)
def test_two_people_rate_blind_in_a_browser(tmp_path):
    pytest.importorskip("gradio", reason="the page needs gradio")
    api = pytest.importorskip("playwright.sync_api", reason="the page is tested with playwright")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("the page is tested with chromium, which is not installed")
    path, traffic = tmp_path / "ratings.csv", []
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM.split())
        with Server(path) as server:
            page = sit_down(browser, server, "nobody", traffic)
            page.get_by_text("This rater code is not known").wait_for()
            page.get_by_label("Your rater code").fill("r1")
            page.keyboard.press("Enter")
            page.get_by_text("Pair 1 of 4", exact=True).wait_for()
            assert page.get_by_role("button", name="Listen to both recordings first").is_disabled()
            assert page.get_by_label("A is better").is_disabled()  # nothing was heard yet
            page.locator("audio").first.evaluate("clip => new Promise(done => { clip.onended = done; clip.play(); })")
            page.get_by_text("✓ heard").wait_for()
            assert page.get_by_label("A is better").is_disabled()  # only one was
            answer(page, 1, "A is better", "Fairly sure", "=cmd|' /C calc'!A0")
            answer_by_keyboard(page, 2)
            page.get_by_text("Pair 3 of 4", exact=True).wait_for()
            assert len(read_ratings(path)) == 2  # each is on the disk before the next is shown
            first_url = server.url
        with Server(path) as server:  # the first one was killed
            page = sit_down(browser, server, "r1", traffic)
            answer(page, 3, "B is better")
            answer(page, 4, "About equal")
            page.get_by_text("Thank you").wait_for()
            other = sit_down(browser, server, "r2", traffic)
            for number in range(1, 5):
                answer(other, number, "A is better")
            other.get_by_text("Thank you").wait_for()
            seen = "".join(one.content() for one in (page, other))
            for route in ("config", "gradio_api/info", "gradio_api/startup-events"):
                seen += other.request.get(f"{server.url}{route}").text()
            refused = other.request.get(f"{server.url}gradio_api/file={path}")
            assert refused.status in (403, 404)
            assert "endpoints" in other.request.get(f"{server.url}gradio_api/info").text()
            for one in traffic:
                assert not isinstance(one, Exception), one
                assert one.url.startswith((first_url, server.url)), one.url  # nothing leaves
            bodies = "".join(one.evaluate("window.bodies") for one in (page, other))
            seen += bodies + "".join(one.url for one in traffic)
        browser.close()
    assert "These are the words of" in bodies and "data:audio/wav" in bodies  # this is where the trials came
    assert not [word for word in SECRETS if word in seen]
    found = read_ratings(path)
    assert tuple(path.read_text().splitlines()[0].split(",")) == COLUMNS
    assert Counter(one.rater_id for one in found) == {"r1": 4, "r2": 4}
    pairs = {name: [one for one in found if one.rater_id == name and not one.is_check] for name in ("r1", "r2")}
    assert (
        {one.item_id for one in pairs["r1"]} == {one.item_id for one in pairs["r2"]} == {f"item-{i}" for i in range(3)}
    )
    assert [one.item_id for one in pairs["r1"]] != [one.item_id for one in pairs["r2"]]
    sides = {name: {one.item_id: one.order_shown for one in rows} for name, rows in pairs.items()}
    assert all(sides["r1"][item] != sides["r2"][item] for item in sides["r1"])
    one, two, three, four = (one for one in found if one.rater_id == "r1")
    assert (one.choice, one.confidence, one.rationale) == (one.order_shown[0], 2.0, "=cmd|' /C calc'!A0")
    assert (two.choice, two.confidence) == (two.order_shown[0], 1.0)
    assert (three.choice, four.choice) == (three.order_shown[1], "tie")
    assert all(600 <= one.rt_ms < 60_000 for one in found)  # two clips of 0.3 s each
