"""The modules about speech: word error rate of texts and recordings, and the win rate before a judge."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from judge_server import JudgeServer
from media import moving, tone, write_mp4

from jwb_dh_v1 import Clip, Sample, load_dataset, score
from jwb_dh_v1.errors import JudgeUnavailable, JwbError, SampleError, SetupError
from jwb_dh_v1.integrations.hf_inputs import InputError
from jwb_dh_v1.judge.log import records
from jwb_dh_v1.judge.question import judged
from jwb_dh_v1.judge.summary import summarise
from jwb_dh_v1.media.audio import Audio
from jwb_dh_v1.metrics.wer import corpus_of

evaluate = pytest.importorskip("evaluate")
METRICS = Path(__file__).parents[2] / "metrics"
SAID = ["It was the best of times.", "It was the worst of times.", "We had nothing before us, and more words."]
HEARD = ["it was the best of times", "it was worst off times", None]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_EVALUATE_OFFLINE", "1")
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def wer():
    return evaluate.load(str(METRICS / "wer"))


@pytest.fixture
def win_rate():
    return evaluate.load(str(METRICS / "lalm_win_rate"))


# --------------------------------------------------------------------------------------------------- word error rate


@pytest.mark.parametrize("profile", ["jwb_v1", "none", "seed_tts"])
def test_texts_give_the_statistics_of_the_core(wer, profile):
    found = wer.compute(predictions=HEARD, references=SAID, profile=profile, return_samples=True)
    expected = corpus_of(SAID, HEARD, profile=profile)
    assert found["wer"] == expected.value == (expected.micro if profile == "none" else expected.macro)
    assert (found["macro"], found["micro"], found["median"]) == (expected.macro, expected.micro, expected.median)
    assert found["ci95"] == (expected.estimate.interval if expected.estimate else None)
    counts = {name: found[name] for name in ("substitutions", "deletions", "insertions")}
    assert counts == {name: getattr(expected.counts, name) for name in counts}
    assert found["words"] == expected.counts.units == sum(len(text.split()) for text in SAID)
    assert (found["n"], found["skipped"], found["failed"], found["asr"]) == (3, 0, 0, None)
    assert found["profile"].startswith(profile)
    assert [sample["value"] for sample in found["samples"]][-1] == 1.0  # nothing was generated
    assert found["samples"][1]["facts"]["hypothesis"] == "it was worst off times"


def test_texts_may_be_added_and_have_languages_of_their_own(wer):
    wer.add_batch(predictions=HEARD[:2], references=SAID[:2])
    wer.add(prediction="你好", reference="你们好")
    found = wer.compute(language=["en", "en", "zh"])
    assert found["wer"] == corpus_of([*SAID[:2], "你们好"], [*HEARD[:2], "你好"], ["en", "en", "zh"]).macro
    assert found["by_language"]["zh"]["unit"] == "character"
    assert found["by_language"]["zh"]["macro"] == 1 / 3


def test_empty_transcripts_are_skipped(wer):
    found = wer.compute(predictions=["a", "b c"], references=["...", "b"])
    assert (found["n"], found["skipped"], found["wer"]) == (1, 1, 1.0)
    assert found["problems"] == ["clip 0: skipped: NotApplicable: the transcript has no words"]
    with pytest.raises(SampleError, match="none of 1 clips; clip 0: skipped"):
        wer.compute(predictions=["a"], references=[""])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"predictions": ["a"]}, "what should be said: pass references="),
        ({"predictions": ["a"], "references": ["a", "b"]}, "1 predictions and 2 references"),
        ({"predictions": "a", "references": "a"}, "predictions= takes a list"),
        ({"predictions": ["a"], "references": [b"a"]}, "references= of wer are texts, not a bytes"),
        ({"predictions": [3], "references": ["a"]}, "not a int"),
        ({"predictions": ["a"], "references": ["a"], "profile": "mine"}, "no WER profile 'mine'"),
        ({"predictions": ["a"], "references": ["a"], "asr": "mine"}, "no recogniser 'mine'"),
        ({"predictions": ["a"], "references": ["a"], "region": "face"}, "defined on speech, not on 'face'"),
        ({"predictions": ["a"], "references": ["a"], "language": ["en", "de"]}, "1 pairs and 2 language"),
        ({"predictions": ["a"], "references": ["a"], "langauge": "en"}, "no argument 'langauge' here"),
        ({"predictions": [np.zeros((2, 8, 8, 3), np.uint8)], "references": ["a"]}, "have no sound"),
    ],
)
def test_mistakes_about_words_are_one_sentence(wer, given, message):
    with pytest.raises(SetupError, match=message) as caught:
        wer.compute(**given)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """A video with a tone, one without sound, one with silence, and a sound without a picture."""
    folder = tmp_path_factory.mktemp("spoken")
    write_mp4(folder / "tone.mp4", moving(4, 64, 48), 25, tone(0.3))
    write_mp4(folder / "mute.mp4", moving(4, 64, 48), 25)
    write_mp4(folder / "silent.mp4", moving(4, 64, 48), 25, Audio(np.zeros((1, 4800), np.float32), 16000))
    (folder / "tone.wav").write_bytes(tone(0.3).wav())
    return folder


def test_recordings_are_heard_in_every_form(wer, spoken):
    heard = []

    def ear(samples, language):
        heard.append((samples.dtype, samples.ndim, language))
        return "one two" if len(samples) < 8000 else "one two three"

    paths = [str(spoken / name) for name in ("tone.mp4", "tone.wav")]
    content = [Path(path).read_bytes() for path in paths]
    forms = [
        paths,
        [Path(path) for path in paths],
        content,
        [{"bytes": one, "path": None} for one in content],
        [{"sample_id": "a", "video": {"bytes": content[0], "path": None}}, {"audio": {"bytes": content[1]}}],
    ]
    for form in forms:
        found = wer.compute(predictions=form, references=["one three", "one two"], asr=ear, language="fr")
        assert (found["wer"], found["n"], found["substitutions"]) == (0.25, 2, 1)
        assert found["asr"].endswith("ear")
    assert heard == [(np.float32, 1, "fr")] * 10
    # What cannot be heard was not said, and is not asked; what cannot be read has failed.
    silent = [spoken / name for name in ("mute.mp4", "silent.mp4", "nowhere.mp4")]
    found = wer.compute(predictions=[*silent, None], references=["one two"] * 4, asr=ear)
    assert (found["wer"], found["n"], found["failed"], found["empty_hypotheses"]) == (1.0, 3, 1, 3)
    assert found["problems"][0].startswith("clip 2: failed: Unreadable")
    assert len(heard) == 10


def test_paths_are_not_taken_for_words(wer, spoken):
    with pytest.raises(InputError, match=r"tone.mp4' is a file: pass asr= to have it heard"):
        wer.compute(predictions=[str(spoken / "tone.mp4")], references=["one two"])
    assert wer.compute(predictions=["nowhere.mp4"], references=["nowhere mp4"])["n"] == 1  # that may be words


@pytest.mark.teaser
def test_real_speech_gives_the_number_of_the_core(wer, teaser_dir, spoken):
    rows = list(load_dataset(str(teaser_dir), split="evaluation"))
    rows = [row for row in rows if row["sample_id"] in {"obama-1", "carphone-1"}]
    assert len(rows) == 2
    videos, said = [row["video"] for row in rows], [row["transcript"]["text"] for row in rows]
    said[0] = f"{said[0]} And more."
    samples = [Sample(f"{n:06d}", Clip(video), transcript=said[n]) for n, video in enumerate(videos)]
    expected = score(samples, ["wer"], protocol="lite").scores[0]
    found = wer.compute(predictions=videos, references=said, protocol="lite")
    assert found["wer"] == expected.value > 0
    assert (found["n"], found["ci95"]) == (expected.n, expected.ci95)
    assert found["asr"] == "whisper-tiny.en"
    assert wer.compute(predictions=rows, references=said, asr="whisper-tiny.en")["wer"] == expected.value
    foreign = wer.compute(predictions=[*rows, spoken / "tone.mp4"], references=[*said, "un"], protocol="lite",
                          language=["en", "en", "fr"])  # fmt: skip
    assert (foreign["wer"], foreign["skipped"]) == (found["wer"], 1)


# ---------------------------------------------------------------------------------------------------------- win rate


def sound(path, hertz, seconds=0.3):
    at = np.arange(round(16000 * seconds)) / 16000
    path.write_bytes(Audio((0.3 * np.sin(2 * np.pi * hertz * at)).astype(np.float32)[None], 16000).wav())
    return str(path)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Six pairs: the judge of the tests prefers the brighter sound. Three wins, a loss, the same sound, and silence."""
    folder = tmp_path_factory.mktemp("pairs")
    ours, theirs = [], []
    for number, (one, two) in enumerate([(3000, 300), (2900, 310), (2800, 320), (330, 2700)]):
        ours.append(sound(folder / f"a{number}.wav", one))
        theirs.append(sound(folder / f"b{number}.wav", two))
    write_mp4(folder / "mute.mp4", moving(4, 64, 48), 25)
    return [*ours, theirs[0], str(folder / "mute.mp4")], [*theirs, theirs[0], theirs[1]]


TEXTS = [f"Text {number}." for number in range(6)]


def test_a_judge_is_asked_once_and_its_log_replayed(win_rate, pairs, tmp_path):
    ours, theirs = pairs
    log = tmp_path / "answers.jsonl"
    shared = {"texts": TEXTS, "log": log}
    with JudgeServer() as server:
        how = {"judge": "openai", "model": "audio-model", "settings": {"base_url": server.openai_url}}
        found = win_rate.compute(predictions=ours, references=theirs, return_samples=True, **how, **shared)
        # Wins 3, a tie for the same sound, losses for the duller one and for silence.
        assert found["lalm_win_rate"] == 3.5 / 6
        assert (found["n"], found["skipped"], found["failed"], found["problems"]) == (6, 0, 0, [])
        assert (found["wins"], found["ties"], found["losses"]) == (6, 2, 4)  # both orders
        assert found["by_rule"] == {"no_speech": 2, "same_audio": 2}
        assert (found["calls"], found["reused"], found["model"]) == (8, 0, "audio-model")
        assert found["same_after_swap"] == 1.0
        assert len(found["samples"]) == 12
        ((who, ones),) = judged(records(log)).items()
        core = summarise(who, ones)
        (rate,) = core.rates
        assert (found["lalm_win_rate"], *found["ci95"]) == (rate.rate.value, rate.rate.low, rate.rate.high)
        assert found["bounds"] == (rate.as_losses.value, rate.as_wins.value)
        assert found["rubric"] == core.rubric
        again = win_rate.compute(predictions=ours, references=theirs, **how, **shared)
        assert (again["calls"], again["reused"]) == (0, 8)
        assert len(server.requests) == 8
    # Without a judge the log answers, and stays as it is, in whatever form the recordings come.
    before = log.read_bytes()
    rows = [{"bytes": Path(path).read_bytes(), "path": None} for path in ours]
    replayed = win_rate.compute(predictions=rows, references=theirs, **shared)
    assert {**replayed, "served": 0} == {**again, "served": 0}
    assert log.read_bytes() == before
    win_rate.add(prediction=ours[0], reference=theirs[0])
    win_rate.add(prediction=ours[3], reference=theirs[3])
    some = win_rate.compute(texts=[TEXTS[0], TEXTS[3]], log=log, ids=["x", "y"], identities=["p", "q"])
    assert (some["lalm_win_rate"], some["n"]) == (0.5, 2)
    # Another text is another question.
    other = win_rate.compute(predictions=ours[:2], references=theirs[:2], texts=[TEXTS[0], "No."], log=log)
    assert (other["lalm_win_rate"], other["n"], other["failed"]) == (1.0, 1, 1)
    assert other["problems"] == ["2 judgement(s) failed: api_error: the log holds no answer to this question; it "
                                 "was not asked"]  # fmt: skip
    assert other["bounds"] == (0.5, 1.0)


def test_recordings_that_cannot_be_judged_are_counted(win_rate, pairs, tmp_path):
    ours, theirs = pairs
    with JudgeServer() as server:
        how = {"judge": "openai", "model": "audio-model", "settings": {"base_url": server.openai_url}}
        found = win_rate.compute(
            predictions=[ours[0], "nowhere.wav", ours[2]],
            references=[theirs[0], theirs[1], ours[5]],
            texts=TEXTS[:3],
            log=tmp_path / "log.jsonl",
            **how,
        )
    assert (found["n"], found["skipped"], found["failed"], found["lalm_win_rate"]) == (1, 1, 1, 1.0)
    assert found["problems"][0].startswith("000001: failed: Unreadable")
    assert found["problems"][1] == "000002: skipped: the baseline has no audio"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"references": None}, "a baseline's speech: pass references="),
        ({"log": None}, "Pass log="),
        ({"texts": None}, "pass texts="),
        ({"texts": ["a"]}, "6 pairs and 1 texts"),
        ({"texts": "a"}, "texts= takes a list"),
        ({"texts": [1] * 6}, "texts= takes strings, not a int"),
        ({"judge": "mine"}, "no judge 'mine'"),
        ({"judge": "openai"}, "needs a model"),
        ({"log": "nowhere.jsonl"}, "nowhere.jsonl cannot be read"),
        ({"log": "empty"}, "holds no answer"),
        ({"log": "two"}, "answers of 2 judges or settings .*by its model"),
        ({"log": "two", "model": "c"}, "holds no answer of c"),
        ({"rubric": "mine"}, "no argument 'rubric' here"),
    ],
)
def test_mistakes_about_judges_are_one_sentence(win_rate, pairs, tmp_path, change, message):
    facts = {"key": "a", "status": "ok", "source": "judge", "format": 1, "backend": "openai", "settings": {}}
    (tmp_path / "empty").write_text("")
    (tmp_path / "two").write_text("".join(json.dumps({**facts, "model": name}) + "\n" for name in "ab"))
    given = {"predictions": pairs[0], "references": pairs[1], "texts": TEXTS, "log": "empty", **change}
    if given["log"]:
        given["log"] = tmp_path / given["log"]
    with pytest.raises(SetupError, match=message) as caught:
        win_rate.compute(**given)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "nowhere.jsonl").exists()


def test_a_judge_that_refuses_is_said(win_rate, pairs, tmp_path):
    given = {"predictions": pairs[0][:1], "references": pairs[1][:1], "texts": TEXTS[:1], "log": tmp_path / "log"}
    with JudgeServer(faults="always:404") as server, pytest.raises(JudgeUnavailable):
        win_rate.compute(judge="openai", model="m", settings={"base_url": server.openai_url}, **given)
    with JudgeServer(faults="always:invalid") as server, pytest.raises(JwbError, match="none of 1 pairs was judged"):
        win_rate.compute(judge="openai", model="m", settings={"base_url": server.openai_url}, **given)
