"""Ratings: the CSV and its errors, who rates what next, and the page itself in a real browser."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwb_dh_v1.audio import Audio, decode_audio
from jwb_dh_v1.errors import DataNotFound, MissingPackage, SampleError, SetupError
from jwb_dh_v1.judge.rating_page import rating_page
from jwb_dh_v1.judge.rating_study import RatingItem, Study, degraded
from jwb_dh_v1.judge.ratings import COLUMNS, Rating, append_rating, panel_of, read_ratings, write_ratings

HEADER = "item_id,system_a,system_b,order_shown,rater_id,choice"


def tone(frequency, seconds=0.3, rate=16000):
    t = np.arange(int(rate * seconds)) / rate
    return Audio((0.3 * np.sin(2 * np.pi * frequency * t))[None].astype(np.float32), rate)


def items_of(n, systems=("wav2lip", "omnihuman")):
    return [
        RatingItem(f"item-{i}", f"These are the words of {i}.", *systems, tone(300 + i).wav(), tone(600 + i).wav())
        for i in range(n)
    ]


# --- the CSV ---------------------------------------------------------------------------------------------------------

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).map(str.strip).filter(bool)
numbers = st.none() | st.integers(0, 5000).map(float)


@given(
    st.lists(
        st.builds(
            Rating,
            *[names] * 3,
            st.sampled_from(["ab", "ba"]),
            names,
            st.sampled_from(["a", "b", "tie"]),
            category=st.text(st.characters(codec="utf-8"), max_size=5),
            score_a=st.none() | st.integers(-9, 9).map(lambda v: v / 4),
            confidence=numbers,
            rt_ms=numbers,
            rationale=st.text(st.characters(codec="utf-8"), max_size=12)
            | st.sampled_from(["=1+1", "'=1", "-", "'", "\n@"]),
            attention_pass=st.sampled_from([None, True, False]),
        ),
        max_size=4,
        unique_by=lambda one: one.key,
    )
)
def test_what_is_written_is_read(tmp_path_factory, ratings):
    path = tmp_path_factory.mktemp("csv") / "r.csv"
    write_ratings(path, ratings)
    assert read_ratings(path) == ratings


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "\t=1", "＝1", "'=1"])
def test_no_cell_is_a_formula(tmp_path, text):
    path = tmp_path / "r.csv"
    write_ratings(path, [Rating("i", "S", "B", "ab", "r", "a", rationale=text)])
    cell = dict(zip(*csv.reader(path.read_text().splitlines()), strict=True))["rationale"]
    assert cell == "'" + text and read_ratings(path)[0].rationale == text


def test_a_file_from_a_spreadsheet(tmp_path):
    path = tmp_path / "r.csv"
    text = f'{HEADER},Notes,Attention_pass\r\n i1 ,S,B,AB,r1,Tie,"two\r\nlines, ""quoted""",TRUE\r\n,,,,,,,\r\n'
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_ratings(path) == [Rating("i1", "S", "B", "ab", "r1", "tie", attention_pass=True)]


ROW = "i,S,B,ab,r,a"
WRONG = {
    "": "is empty",
    "item_id;system_a;system_b": "semicolons",
    "item_id,system_a\ni,S": "line 1: the columns system_b, order_shown, rater_id, choice",
    f"{HEADER},choice\n": "the column choice is there twice",
    f"{HEADER}\n{ROW}\ni,S,B,ab,r": "line 3: 5 cells, but the header has 6",
    f"{HEADER}\ni,S,B,ab,r,A wins": "line 2, column choice: 'A wins' is none of a, b, tie",
    f"{HEADER}\ni,S,B,first,r,a": "line 2, column order_shown",
    f"{HEADER}\ni,,B,ab,r,a": "line 2, column system_a: it is empty",
    f'{HEADER},rationale,score_a\n{ROW},"a\nb",1\nj,S,B,ab,r,a,,high': "line 4, column score_a: could not convert",
    f"{HEADER},score_a\n{ROW},nan": "column score_a: 'nan' is not finite",
    f"{HEADER},rt_ms\n{ROW},-5": "column rt_ms: '-5' is not finite, or below 0",
    f"{HEADER},attention_pass\n{ROW},maybe": "column attention_pass: 'maybe'",
    f"{HEADER}\n{ROW}\ni,B,S,ba,r,b": "line 3, column rater_id: 'r' rated 'i' of these systems on line 2 already",
    f'{HEADER}\n"i,S,B,ab,r,a\n': "line 2: it cannot be read as CSV",
}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: WRONG[text][:30])
def test_wrong_files_are_named_by_line_and_column(tmp_path, text):
    path = tmp_path / "r.csv"
    path.write_text(text)
    with pytest.raises(SetupError, match=re.escape(WRONG[text])):
        read_ratings(path)


def test_no_file_and_no_text(tmp_path):
    with pytest.raises(DataNotFound):
        read_ratings(tmp_path / "none.csv")
    (tmp_path / "utf16.csv").write_bytes(HEADER.encode("utf-16"))
    with pytest.raises(SetupError, match="UTF-8"):
        read_ratings(tmp_path / "utf16.csv")
    with pytest.raises(SampleError):
        Rating("i", "S", "B", "ab", "r", "A")


def test_panel_turns_ratings_round():
    rows = [
        Rating("1", "S", "B", "ab", "r", "a", score_a=2.0),
        Rating("1", "B", "S", "ab", "q", "a", score_a=2.0),
        Rating("2", "B", "S", "ba", "q", "tie", category="x"),
    ]
    got = panel_of(rows, [("S", "B")], {"1": "person"})
    one, other, third = got.judgements["r"][0], *got.judgements["q"]
    assert (one.system, one.outcome, one.order, one.score_system, one.identity_id) == (
        "S",
        "win",
        "system_first",
        2.0,
        "person",
    )
    assert (other.system, other.outcome, other.order, other.score_baseline) == ("S", "loss", "baseline_first", 2.0)
    assert (third.outcome, third.order, third.identity_id) == ("tie", "system_first", "2")
    assert got.categories == {("1", "S", "B"): "", ("2", "S", "B"): "x"}
    assert panel_of(rows).judgements["r"][0].system == "B"  # no match is known: the alphabet


def test_rows_that_failed_attention_are_left_out():
    rows = [Rating(str(i), "S", "B", "ab", "r", "a", attention_pass=i > 0) for i in range(4)]
    got = panel_of(rows)
    assert (got.failed_rows, got.excluded, len(got.judgements["r"])) == (1, {}, 3)


def _appends(path, rater):
    return sum(
        append_rating(path, Rating(f"{i % 40}", "S", "B", "ab", rater, "a", rationale="x\ny")) for i in range(60)
    )


def test_processes_and_threads_append_at_once(tmp_path):
    path = tmp_path / "r.csv"
    with get_context("spawn").Pool(2) as pool, ThreadPoolExecutor(4) as threads:
        others = pool.starmap_async(_appends, [(path, "p1"), (path, "p2")])
        # Four threads are one rater in four windows: each pair is written once.
        mine = sum(threads.map(lambda _: _appends(path, "t"), range(4)))
        assert others.get(120) == [40, 40] and mine == 40
    found = read_ratings(path)
    assert Counter(one.rater_id for one in found) == {"p1": 40, "p2": 40, "t": 40}
    assert len(path.read_text().splitlines()) == 121 and found[0].rationale == "x y"


def test_append_mends_a_missing_line_end_and_refuses_other_columns(tmp_path):
    path = tmp_path / "r.csv"
    append_rating(path, Rating("1", "S", "B", "ab", "r", "a"))
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert append_rating(path, Rating("2", "S", "B", "ab", "r", "a"))
    assert len(read_ratings(path)) == 2
    path.write_text(HEADER + "\n")
    with pytest.raises(SetupError, match="other columns"):
        append_rating(path, Rating("3", "S", "B", "ab", "r", "a"))


# --- who rates what --------------------------------------------------------------------------------------------------


def rated(study, rater, stop=None, choice="first"):
    """Rate all of one rater's trials, or `stop` of them."""
    trials = []
    while (stop is None or len(trials) < stop) and (trial := study.next(rater)):
        assert study.rate(rater, trial, choice)
        trials.append(trial)
    return trials


def test_items_get_raters_evenly_and_in_both_orders(tmp_path):
    study = Study(items_of(12), tmp_path / "r.csv", per_rater=6, checks=0)
    runs = [rated(study, f"r{k}") for k in range(8)]
    assert all(len({t.item_id for t in run}) == 6 for run in runs)
    shown = Counter((t.item_id, t.order) for run in runs for t in run)
    assert set(shown.values()) == {2} and len(shown) == 24  # 48 ratings: four an item, two in each order
    assert len({tuple(t.item_id for t in run) for run in runs}) == 8  # each rater in an order of their own


def test_one_rater_hears_each_system_first_about_as_often(tmp_path):
    study = Study(items_of(20), tmp_path / "r.csv", checks=0)
    orders = Counter(t.order for t in rated(study, "r"))
    assert orders == {"ab": 10, "ba": 10}


def test_pairs_that_are_open_count(tmp_path):
    study = Study(items_of(4), tmp_path / "r.csv", checks=0)
    assert len({study.next(f"r{k}").item_id for k in range(4)}) == 4
    assert study.next("r0") == study.next("r0")  # a reload shows the same


def test_a_killed_study_goes_on(tmp_path):
    whole = rated(Study(items_of(6), tmp_path / "whole.csv", seed=3), "r")
    parts = [rated(Study(items_of(6), tmp_path / "parts.csv", seed=3), "r", stop=3) for _ in range(3)]
    assert [one.item_id for part in parts for one in part] == [one.item_id for one in whole]
    assert [one.number for one in whole] == list(range(1, 9)) and {one.total for one in whole} == {8}
    assert [r.rt_ms for r in read_ratings(tmp_path / "parts.csv")] == [None] * 8
    assert [t.item_id for t in rated(Study(items_of(6), tmp_path / "other.csv", seed=4), "r")] != [
        t.item_id for t in whole
    ]


def test_the_choice_is_about_the_system_wherever_it_was(tmp_path):
    study = Study(items_of(8), tmp_path / "r.csv", checks=0)
    orders = {t.item_id: t.order for t in rated(study, "r", choice="first")}
    assert set(orders.values()) == {"ab", "ba"}
    for one in read_ratings(tmp_path / "r.csv"):
        assert one.order_shown == orders[one.item_id] and one.choice == one.order_shown[0]
        assert (one.system_a, one.system_b, one.attention_pass) == ("wav2lip", "omnihuman", None)


def test_sounds_follow_the_order_and_carry_no_tags(tmp_path):
    tagged = tone(440).wav() + b"LIST\x16\x00\x00\x00INFOISFT\x0a\x00\x00\x00wav2lip-v1"
    item = RatingItem("i", "words", "wav2lip", "omnihuman", tagged, tone(880).wav())
    study = Study([item], tmp_path / "r.csv", checks=0)
    for rater in ("r0", "r1"):
        (trial,) = rated(study, rater)
        sounds = study.sounds(trial)
        assert not any(b"wav2lip" in sound for sound in sounds)
        first = decode_audio(sounds[0]).samples[0]
        heard = np.argmax(np.abs(np.fft.rfft(first))) * 16000 / len(first)
        assert heard == pytest.approx(440 if trial.order == "ab" else 880, abs=5)


def test_checks_are_due_within_the_run_and_judged(tmp_path):
    study = Study(items_of(5), tmp_path / "r.csv", checks=4)
    trials = [t for k in range(12) for t in rated(study, f"r{k}", choice="tie")]
    checks = [t for t in trials if t.kind != "pair"]
    assert Counter(t.kind for t in checks) == {"identical": 24, "degraded": 24}
    assert Counter(t.order for t in checks if t.kind == "degraded").keys() == {"ab", "ba"}
    assert len({t.number for t in checks}) > 4  # not at one place
    rows = [one for one in read_ratings(tmp_path / "r.csv") if one.is_check]
    assert all(one.attention_pass == ("identical" in one.item_id) for one in rows) and len(rows) == 48
    alike = study.sounds(next(t for t in checks if t.kind == "identical"))
    assert alike[0] == alike[1]
    trial = next(t for t in checks if t.kind == "degraded")
    assert study.rate("late", trial, "first" if trial.order == "ab" else "second")  # the clean one
    assert read_ratings(tmp_path / "r.csv")[-1].attention_pass is True
    clean, damaged = (decode_audio(s).samples for s in study.sounds(trial)[:: 1 if trial.order == "ab" else -1])
    assert np.corrcoef(clean[0], damaged[0])[0, 1] == pytest.approx(1 / np.sqrt(2), abs=0.05)  # 0 dB
    assert np.std(damaged) == pytest.approx(np.std(clean), rel=0.05)
    assert not np.array_equal(degraded(tone(300)).samples, tone(300).samples)


def test_threads_of_one_study(tmp_path):
    study = Study(items_of(10), tmp_path / "r.csv", per_rater=5, checks=1)
    threads = [threading.Thread(target=rated, args=(study, f"r{k}")) for k in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    pairs = [one for one in read_ratings(tmp_path / "r.csv") if not one.is_check]
    assert len(pairs) == 30 and len({one.key for one in pairs}) == 30
    # Three each; off by one or two where the rater whose turn it is has rated the ones that lack.
    assert set(Counter(one.item_id for one in pairs).values()) <= {2, 3, 4}


def test_who_may_rate(tmp_path):
    study = Study(items_of(1), tmp_path / "r.csv", raters=["r1"])
    assert study.admit(" r1 ") == "r1"
    for typed in ("", "r2", "=1", "x" * 41, "a b", "r1\n<b>"):
        with pytest.raises(SampleError, match="rater code"):
            study.admit(typed)


def test_studies_that_cannot_be(tmp_path):
    items = items_of(2)
    wrong = {
        "nothing to rate": [],
        "there twice": [items[0], items[0]],
        "no pair of two systems": items_of(1, ("S", "S")),
    }
    for message, given_items in wrong.items():
        with pytest.raises(SetupError, match=message):
            Study(given_items, tmp_path / "r.csv")
    with pytest.raises(SetupError, match="nowhere"):
        Study(items, tmp_path / "nowhere" / "r.csv")
    with pytest.raises(SampleError):
        Study([RatingItem("i", "", "S", "B", tmp_path / "none.wav", tone(300).wav())], tmp_path / "r.csv")
    (tmp_path / "r.csv").write_text(HEADER + "\ncut,off")
    with pytest.raises(SetupError, match="line 2"):
        Study(items, tmp_path / "r.csv")


def test_without_gradio_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(MissingPackage, match=r"jwb-dh-v1\[demo\]"):
        rating_page(items_of(1), tmp_path / "r.csv")


# --- the page --------------------------------------------------------------------------------------------------------

SERVER = """
import sys
from test_rating_page import items_of
from jwb_dh_v1.judge.rating_page import launch, rating_page
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
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "GRADIO_ANALYTICS_ENABLED": "False"}
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
