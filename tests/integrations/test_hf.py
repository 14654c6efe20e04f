"""The `evaluate` modules: the core's numbers, whatever form the videos come in; each clip decoded once per process."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from media import moving, write_mp4

from jwb_dh_v1 import Clip, Sample, load_dataset, score
from jwb_dh_v1.dataset.schema import annotations_of
from jwb_dh_v1.errors import JwbError, SampleError, SetupError
from jwb_dh_v1.integrations.hf_inputs import MEMORY, InputError, Memory, clip_of, media
from jwb_dh_v1.media import clip
from jwb_dh_v1.media.annotations import Annotations

decord = pytest.importorskip("decord")
evaluate = pytest.importorskip("evaluate")
METRICS = Path(__file__).parents[2] / "metrics"
SIX = ("ssim", "psnr", "subject_consistency", "background_consistency", "motion_smoothness", "dynamic_degree")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("hf")
    paths = {}
    for name, crf in (("real", 10), ("made", 35)):
        paths[name] = [str(root / f"{name}{n}.mp4") for n in range(2)]
        for n, path in enumerate(paths[name]):
            write_mp4(path, moving(12, 160, 120, seed=n), 25, crf=crf)
    return paths["made"], paths["real"]


@pytest.fixture(autouse=True)
def offline(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("HF_EVALUATE_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def load(name):
    return evaluate.load(str(METRICS / name))


def core(name, videos, protocol):
    samples = [Sample(f"{n:06d}", Clip(a), Clip(b)) for n, (a, b) in enumerate(zip(*videos, strict=True))]
    return score(samples, [name], ["body"], protocol=protocol).scores[0]


@pytest.mark.parametrize(
    ("name", "protocol"),
    [("ssim", "standard"), ("psnr", "standard"), ("ssim", "paper"), ("psnr", "paper"), ("csim", "paper")],
)
def test_modules_equal_the_core_to_the_last_bit(name, protocol, videos):
    found = load(name).compute(predictions=videos[0], references=videos[1], protocol=protocol, region="body")
    expected = core(name, videos, protocol)
    assert found[name] == expected.value
    assert (found["n"], found["skipped"], found["failed"]) == (2, 0, 0)
    assert found["protocol"] == f"{protocol}/1"
    assert found["ci95"] == expected.ci95


# ------------------------------------------------------------------------------------------------------------ inputs


def test_paths_bytes_rows_and_added_batches_agree(videos, tmp_path, monkeypatch):
    made, real = videos
    module = load("ssim")
    expected = module.compute(predictions=made, references=real)["ssim"]
    content = [Path(p).read_bytes() for p in made]
    assert module.compute(predictions=content, references=real)["ssim"] == expected
    rows = [{"bytes": c, "path": None} for c in content]
    assert module.compute(predictions=rows, references=[{"bytes": None, "path": p} for p in real])["ssim"] == expected
    whole = [{"sample_id": "a", "video": row, "fps": 25.0} for row in rows]
    assert module.compute(predictions=whole, references=[Path(p) for p in real])["ssim"] == expected
    # A row's bytes are what counts, also where a file of the row's name lies about; `datasets` would read that one.
    write_mp4(tmp_path / "a.mp4", moving(12, 160, 120, seed=9), 25)
    monkeypatch.chdir(tmp_path)
    named = [{"bytes": c, "path": "a.mp4"} for c in content]
    assert module.compute(predictions=named, references=real)["ssim"] == expected
    module.add_batch(predictions=made[:1], references=real[:1])
    module.add(prediction=made[1], reference=real[1])
    assert module.compute()["ssim"] == expected


def test_arrays_are_frames(videos):
    made, real = videos
    module = load("ssim")
    frames = [[Clip(path).frames for path in side] for side in videos]
    found = module.compute(predictions=frames[0], references=np.stack(frames[1]), fps=25)
    assert found["ssim"] == module.compute(predictions=made, references=real)["ssim"]
    module.add(prediction=frames[0][0], reference=real[0])
    module.add(prediction=made[1], reference=frames[1][1])
    assert module.compute(fps=25)["ssim"] == found["ssim"]
    speed = load("dynamic_degree")
    slow, fast = (
        speed.compute(predictions=frames[0], fps=fps, protocol="lite", return_samples=True) for fps in (8, 25)
    )
    assert len(slow["samples"][0]["curve"]) != len(fast["samples"][0]["curve"])  # the rate is used


def test_many_videos_pass_in_several_writes(videos):
    made, real = videos
    found = load("psnr").compute(predictions=made * 5, references=real * 5, return_samples=True)
    assert found["n"] == 10
    assert [s["value"] for s in found["samples"]] == [s["value"] for s in found["samples"][:2]] * 5


def test_samples_on_request(videos):
    found = load("psnr").compute(predictions=videos[0], references=videos[1], return_samples=True)
    assert [s["video"] for s in found["samples"]] == [0, 1]
    assert all(len(s["curve"]) == 12 for s in found["samples"])
    assert sum(s["value"] for s in found["samples"]) / 2 == pytest.approx(found["psnr"], abs=1e-12)  # one rounding


# ------------------------------------------------------------------------------------------------- one decode per clip


class Decodes:
    """Counts what opens a file, by content, while the real decoders do their work."""

    def __init__(self, monkeypatch):
        self.frames, self.opened, self.probed = Counter(), 0, Counter()
        decode, reader, facts = clip._decode, decord.VideoReader, clip.probe

        def decoding(source, info, n, bounded):
            for chunk in decode(source, info, n, bounded):
                self.frames[self.content(source)] += len(chunk)
                yield chunk

        def opening(*args, **kwargs):
            self.opened += 1
            return reader(*args, **kwargs)

        def probing(source):
            self.probed[self.content(source)] += 1
            return facts(source)

        monkeypatch.setattr(clip, "_decode", decoding)
        monkeypatch.setattr(decord, "VideoReader", opening)
        monkeypatch.setattr(clip, "probe", probing)

    @staticmethod
    def content(source):
        return hash(source if isinstance(source, bytes) else Path(source).read_bytes())


@pytest.mark.teaser
def test_six_combined_modules_decode_each_clip_once(videos, monkeypatch):
    made, real = videos
    MEMORY.forget()
    seen = Decodes(monkeypatch)
    six = evaluate.combine([str(METRICS / name) for name in SIX])
    found = six.compute(predictions=made, references=real, protocol="lite")
    contents = {Decodes.content(path) for path in (*made, *real)}
    assert seen.frames == dict.fromkeys(contents, 12)
    assert seen.probed == dict.fromkeys(contents, 1)
    assert seen.opened == 4
    assert {f"{name}_n" for name in SIX} <= set(found)
    for name in SIX:  # the core decodes for itself
        assert found[name] == core(name, videos, "lite").value
    assert seen.opened == 4 + sum(2 if name in {"ssim", "psnr"} else 1 for name in SIX) * 2
    # Bytes of the same content are the same clip.
    before = seen.opened
    load("psnr").compute(predictions=[Path(p).read_bytes() for p in made], references=real)
    assert seen.opened == before


def test_combined_modules_take_what_is_added(videos):
    both = evaluate.combine([str(METRICS / "ssim"), str(METRICS / "psnr")])
    both.add_batch(predictions=videos[0][:1], references=videos[1][:1])
    both.add(prediction=videos[0][1], reference=videos[1][1])
    found = both.compute()
    assert found["ssim"] == core("ssim", videos, "standard").value
    assert found["psnr"] == core("psnr", videos, "standard").value
    assert (found["ssim_n"], found["psnr_n"]) == (2, 2)


def walk(memory, keys, made, size=10):
    memory.begin()
    for key in keys:
        found = memory.get(key, lambda key=key: made.append(key) or np.full(size, key, np.uint8))
        assert found[0] == key


def test_memory_is_bounded_and_serves_sets_that_are_larger():
    memory, made = Memory(50), []
    walk(memory, range(8), made)
    assert memory.bytes == 50
    walk(memory, range(8), made)
    walk(memory, range(8), made)
    assert Counter(made) == {**dict.fromkeys(range(5), 1), **dict.fromkeys(range(5, 8), 3)}
    walk(memory, range(20, 25), made)  # another set takes the place at once
    made.clear()
    walk(memory, range(20, 25), made)
    assert made == []
    walk(memory, [99], made, size=60)  # what is larger than all of it is not kept, and displaces nothing
    walk(memory, range(20, 25), made)
    assert made == [99]
    assert memory.bytes == 50
    memory.forget()
    assert memory.bytes == 0


def test_a_clip_that_failed_is_tried_again(videos, tmp_path):
    path = tmp_path / "a.mp4"
    module, real = load("ssim"), videos[1]
    with pytest.raises(SampleError, match=r"none of 1 videos; video 0: failed: Unreadable: .*No such file"):
        module.compute(predictions=[path], references=real[:1])
    path.write_bytes(Path(videos[0][0]).read_bytes())
    assert module.compute(predictions=[path], references=real[:1])["n"] == 1
    path.write_bytes(Path(real[0]).read_bytes())  # remembered by content, not by name
    assert module.compute(predictions=[path], references=real[:1])["ssim"] == 1.0


# ------------------------------------------------------------------------------------------------------- annotations


@pytest.fixture(scope="module")
def row(teaser_dir):
    """One real person with the boxes that came with the data."""
    rows = load_dataset(str(teaser_dir), split="evaluation", streaming=True)
    return next(row for row in rows if row["sample_id"] == "carphone-1")


@pytest.fixture(scope="module")
def made(row, tmp_path_factory):
    """The same frames, recompressed, at their size and at twice that size."""
    folder = tmp_path_factory.mktemp("made")
    frames = Clip(row["video"]).frames
    write_mp4(folder / "same.mp4", frames, row["fps"], crf=35)
    write_mp4(folder / "twice.mp4", frames.repeat(2, axis=1).repeat(2, axis=2), row["fps"], crf=35)
    return folder


def by_core(name, generated, reference, row, region, boxes):
    known = annotations_of(row)
    sample = Sample("a", Clip(generated), Clip(reference, annotations=known))
    return score([sample], [name], [region], protocol="lite", boxes=boxes).scores[0].value


@pytest.mark.teaser
def test_annotations_of_the_data_are_used(row, made):
    shared = {"predictions": [made / "same.mp4"], "region": "face", "protocol": "lite"}
    ssim, subject = load("ssim"), load("subject_consistency")
    expected = by_core("ssim", made / "same.mp4", row["video"], row, "face", "annotations")
    given = ssim.compute(references=[row["video"]], annotations=[row], **shared)
    assert (given["ssim"], given["boxes"]) == (expected, "annotations")
    assert ssim.compute(references=[row], boxes="annotations", **shared)["ssim"] == expected
    known = annotations_of(row)
    assert ssim.compute(references=[row["video"]], annotations=[known], **shared)["ssim"] == expected
    far = Annotations({"face": known.boxes["face"] + np.float32(20)}, {"face": known.scores["face"]}, "someone")
    moved = ssim.compute(references=[row["video"]], annotations=[far], **shared)
    assert moved["ssim"] != expected
    # The same detector made them, so that they stand for it.
    by_detector = by_core("ssim", made / "same.mp4", row["video"], row, "face", None)
    assert ssim.compute(references=[row], **shared)["ssim"] == by_detector
    assert ssim.compute(references=[row], **shared)["boxes"] == "mediapipe/1"
    # A metric without references takes the real clip's boxes, scaled to its own.
    expected = by_core("subject_consistency", made / "twice.mp4", row["video"], row, "face", "annotations")
    shared["predictions"] = [made / "twice.mp4"]
    assert subject.compute(references=[row], boxes="annotations", **shared)["subject_consistency"] == expected
    alone = subject.compute(predictions=[row], annotations=[row], region="face", protocol="lite")
    assert alone["subject_consistency"] == by_core(
        "subject_consistency", row["video"], row["video"], row, "face", "annotations"
    )
    with pytest.raises(SampleError, match="BadBox: The boxes are of 176x144 pixels"):
        subject.compute(annotations=[row], **shared)
    with pytest.raises(SampleError, match="no boxes were given"):
        subject.compute(boxes="annotations", **shared)


# ---------------------------------------------------------------------------------------------------------- mistakes


def test_a_broken_video_is_reported_and_the_rest_scored(videos, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_text("no video")
    made, real = videos
    found = load("ssim").compute(predictions=[made[0], str(broken)], references=real)
    assert (found["n"], found["failed"]) == (1, 1)
    assert found["problems"][0].startswith("video 1: failed: NotAVideo")
    with pytest.raises(SampleError, match="none of 1 videos"):
        load("ssim").compute(predictions=[str(broken)], references=real[:1])


A = np.zeros((4, 32, 32, 3), np.uint8)


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        ("p", {}, "compares with real videos: pass references="),
        ("r", {}, "pass predictions="),
        ("", {}, "nothing to score: pass predictions="),
        ("pr", {"region": "feet"}, "not on 'feet'"),
        ("pr", {"protocol": "mine"}, "no protocol 'mine'"),
        ("pr", {"boxes": "mine", "region": "face"}, "no box source 'mine'"),
        ("pr", {"regoin": "face"}, "no argument 'regoin' here; there are predictions, references, region, protocol"),
        ("pr", {"annotations": []}, "2 videos and 0 annotations"),
        ("pr", {"annotations": [{"box": 1}, None]}, "column 'boxes', this one is a row with box"),
        ("pr", {"annotations": ["a", None]}, "not a str"),
        ("pr", {"annotations": {"boxes": {}}}, "annotations= takes a list"),
        ("pr", {"references": ["a"]}, "2 predictions and 1 references"),
        ("pr", {"predictions": "a.mp4"}, "predictions= takes a list with one entry per video, not a single str"),
        ("pr", {"predictions": b"a"}, "not a single bytes"),
        ("pr", {"predictions": [], "references": []}, "predictions= is empty"),
        ("pr", {"predictions": [A, A]}, "pass fps="),
        ("pr", {"predictions": [A / 255, A]}, r"uint8 \[T, H, W, 3\] in RGB, not float64 \[4, 32, 32, 3\]"),
        ("pr", {"predictions": A[:2]}, r"not uint8 \[32, 32, 3\]"),
        ("pr", {"predictions": [None, "a"]}, "A video is a path, bytes, .* not None"),
        ("pr", {"predictions": [{"text": "a"}, "a"]}, "not a row with text"),
        ("pr", {"predictions": [{"video": None}, "a"]}, "not None"),
        ("pr", {"predictions": [{"bytes": None, "path": None}, "a"]}, "not a row with bytes, path"),
        ("pr", {"device": "tpu:x"}, "no device 'tpu:x'"),
        ("pr", {"weights": {"mine": "a"}}, "No weight file is named 'mine'"),
    ],
)
def test_mistakes_are_one_sentence(inputs, options, message, videos):
    given = {"predictions": videos[0]} if "p" in inputs else {}
    given |= {"references": videos[1]} if "r" in inputs else {}
    module = load("ssim")
    with pytest.raises((SetupError, ValueError), match=message) as caught:
        module.compute(**{**given, **options})
    said = str(caught.value)
    assert isinstance(caught.value, JwbError)
    assert "\n" not in said and "arrow" not in said.lower() and "Value(" not in said
    # Nothing is left behind: the same module scores the next set.
    assert module.compute(predictions=videos[0], references=videos[1])["n"] == 2
    assert module._held == {}


def test_regions_and_protocols_that_a_metric_lacks(videos):
    made, real = videos
    with pytest.raises(SetupError, match="defined on face"):
        load("csim").compute(predictions=made, references=real, protocol="lite", region="hands")
    with pytest.raises(SetupError, match="lite/1 has no aesthetic_quality: no small network"):
        load("aesthetic_quality").compute(predictions=made, protocol="lite")


def test_what_was_added_outlives_a_mistake(videos):
    module = load("ssim")
    module.add_batch(predictions=videos[0], references=videos[1])
    for wrong in ({"regoin": "face"}, {"region": "feet"}, {"annotations": [None]}):
        with pytest.raises(SetupError):
            module.compute(**wrong)
    with pytest.raises(InputError, match="compares with real videos"):
        module.add(prediction=videos[0][0])
    with pytest.raises(InputError, match="no argument 'region' here; there are predictions, references"):
        module.add(prediction=videos[0][0], reference=videos[1][0], region="face")
    with pytest.raises(InputError, match="1 predictions and 2 references"):
        module.add_batch(predictions=videos[0][:1], references=videos[1])
    assert module.compute()["n"] == 2


@pytest.mark.teaser
def test_a_set_metric_says_that_one_clip_is_too_few(videos):
    made, real = videos
    one = {"predictions": made[:1], "references": real[:1], "protocol": "lite"}
    message = "fvd of lite/1 is a distance between two sets, and 1 video.* fewer than two features on a side"
    with pytest.raises(SampleError, match=message):
        load("fvd").compute(**one)
    found = load("fid").compute(**one)  # many frames are a set, if a small one
    assert found["fid"] > 0 and "biased upwards" in found["note"]


def test_errors_leave_no_file_and_no_lock(videos, tmp_path):
    module = evaluate.load(str(METRICS / "ssim"), cache_dir=str(tmp_path))
    for _ in range(2):
        with pytest.raises(SampleError, match="none of 1 videos"):
            module.compute(predictions=["nowhere.mp4"], references=videos[1][:1])
        assert [path for path in tmp_path.rglob("*.arrow") if path.parent.name == "default"] == []
        assert not module.filelock


def test_several_processes_share_paths_only(videos):
    module = evaluate.load(str(METRICS / "ssim"), num_process=2, process_id=1, experiment_id="a")
    with pytest.raises(InputError, match="with num_process > 1 pass paths or bytes"):
        module.add_batch(predictions=[A], references=videos[1][:1])


def test_clips_of_unknown_things_are_refused():
    assert media({"bytes": b"a", "path": "b"}) == ({"bytes": b"a", "path": None}, None)
    assert clip_of(A, None, 12.0).fps == 12.0
    with pytest.raises(InputError, match="not a list"):
        media([A])


@pytest.mark.teaser
def test_faces_of_real_people():
    from jwb_dh_v1.networks.weights import resolve

    clip = str(resolve("carphone"))
    found = load("ssim").compute(predictions=[clip], references=[clip], region="face")
    assert (found["ssim"], found["n"], found["region"]) == (1.0, 1, "face")
    assert load("csim").compute(predictions=[clip], references=[clip], protocol="lite")["csim"] == 1.0
