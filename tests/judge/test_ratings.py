"""The ratings file and the study: what is written is read, formulas are none, items spread evenly."""

import csv
import re
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rating_items import HEADER, items_of, tone

from jwb_dh_v1.errors import DataNotFound, MissingPackage, SampleError, SetupError
from jwb_dh_v1.judge.people.page import rating_page
from jwb_dh_v1.judge.people.ratings import Rating, append_rating, panel_of, read_ratings, write_ratings
from jwb_dh_v1.judge.people.study import RatingItem, Study, degraded
from jwb_dh_v1.media.audio import decode_audio

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
