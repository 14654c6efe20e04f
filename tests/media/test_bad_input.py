"""Twenty and more bad inputs in one run: each ends typed, nothing crashes, and the good samples' rows do not move."""

from dataclasses import asdict

import numpy as np
import pytest
from media import faststart, float_audio, moving, rotated, tone, variable_rate, without_frames, write_mp4

from jwb_dh_v1 import Clip, Sample, errors, score
from jwb_dh_v1.media.annotations import Annotations
from jwb_dh_v1.networks.pool import NetworkPool
from jwb_dh_v1.networks.weights import resolve

REGIONS = ("body", "face", "hands")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bad")


@pytest.fixture(scope="module")
def reference(folder):
    path = folder / "reference.mp4"
    write_mp4(path, moving(), 25, tone(1.2))
    return path


def cases(folder, reference):
    """name -> (generated, reference, expected): expected error on the body, or None where it must be scored."""
    whole = faststart(folder / "whole.mp4").read_bytes()
    found = {}

    def case(name, expected, make=None, theirs=reference, file=None):
        path = folder / (file or f"{name}.mp4")
        if make is not None:
            make(path)
        found[name] = (path, theirs, expected)

    case("missing", errors.Unreadable)
    case("empty", errors.NotAVideo, lambda p: p.write_bytes(b""))
    for tenth in range(1, 11):
        case(f"truncated{tenth}", (errors.Truncated, errors.NotAVideo),
             lambda p, k=tenth: p.write_bytes(whole[: len(whole) * k // 11]))  # fmt: skip
    case("text", errors.NotAVideo, lambda p: p.write_text("this is not a video\n" * 500))
    case(
        "playlist",
        errors.NotAVideo,
        lambda p: p.write_text(f"#EXTM3U\n#EXTINF:1,\nfile://{reference}\n#EXT-X-ENDLIST\n"),
    )
    case("concat", errors.NotAVideo, lambda p: p.write_text(f"ffconcat version 1.0\nfile '{reference}'\n"))
    case("no_frames", errors.NoFrames, without_frames)
    case("one_frame", errors.LengthMismatch, lambda p: write_mp4(p, moving(1), 25))
    one = folder / "one_reference.mp4"
    write_mp4(one, moving(1), 25)
    case("one_frame_each", None, lambda p: write_mp4(p, moving(1), 25), one)
    tiny = folder / "tiny_reference.mp4"
    write_mp4(tiny, moving(30, 2, 2), 25)
    case("two_by_two", errors.TooSmall, lambda p: write_mp4(p, moving(30, 2, 2), 25), tiny)
    odd = folder / "odd_reference.mp4"
    write_mp4(odd, moving(30, 183, 97), 25)
    case("odd_size", None, lambda p: write_mp4(p, moving(30, 183, 97, seed=1), 25), odd)
    case("other_size", errors.SizeMismatch, lambda p: write_mp4(p, moving(30, 160, 120), 25))
    case("other_length", errors.LengthMismatch, lambda p: write_mp4(p, moving(60), 25))
    case("other_rate", errors.LengthMismatch, lambda p: write_mp4(p, moving(30), 50))
    case("black", errors.LengthMismatch, lambda p: write_mp4(p, np.zeros((125, 240, 320, 3), np.uint8), 25))
    case("no_audio", None, lambda p: write_mp4(p, moving(30, seed=2), 25))
    case("nan_audio", None, lambda p: float_audio(p, np.full(16000, np.nan)), file="nan_audio.mov")
    case("rotated", errors.SizeMismatch, lambda p: rotated(p, reference))
    case("variable_rate", errors.VariableFrameRate, variable_rate)
    case("non_ascii", None, lambda p: write_mp4(p, moving(30, seed=3), 25), file="人物 ñ 🎬.mp4")
    case("long_name", errors.Unreadable, file="x" * 300 + ".mp4")
    case("null_byte", errors.Unreadable, file="a\0b.mp4")
    case("folder", errors.Unreadable, lambda p: p.mkdir())
    case("loop", errors.Unreadable, lambda p: p.symlink_to(p))
    case("secret", errors.Unreadable, file="missing/../../nowhere.mp4")
    case("4k", None, lambda p: write_mp4(p, moving(2, 3840, 2160), 25, preset="ultrafast"), folder / "4k.mp4")
    case("lost_reference", errors.Unreadable, lambda p: write_mp4(p, moving(), 25), folder / "nowhere.mp4")
    return found


def good(number):
    name = ("obama-speech", "carphone")[number]
    path = resolve(name)
    return Sample(f"good{number}", Clip(path), Clip(path), transcript="hello there", person_id=name)


@pytest.fixture(scope="module")
def weird(folder, reference):
    return cases(folder, reference)


@pytest.fixture(scope="module")
def models():
    from jwb_dh_v1.networks.weights import resolve_all
    from jwb_dh_v1.scoring.plan import make_plan

    return NetworkPool(resolve_all(make_plan("lite").weights), "cpu")


@pytest.fixture(scope="module")
def rows(weird, models):
    samples = [good(0)]
    for name, (path, theirs, _) in weird.items():
        samples.append(Sample(name, Clip(path), Clip(theirs), transcript="a tone", person_id=name))
    wrong = Clip(weird["non_ascii"][0], annotations=_boxes(np.array([500.0, 10, 400, 90])))
    samples += [Sample("wrong_box", wrong, Clip(weird["non_ascii"][0]), person_id="wrong"), good(1)]
    result = score(samples, protocol="lite", device="cpu", models=models, allow_failures=len(samples))
    assert result.complete
    return list(result.rows())


def _boxes(box):
    boxes = np.tile(box.astype(np.float32), (30, 1))
    return Annotations({"face": boxes}, {"face": np.ones(30, np.float32)}, "mediapipe/1")


def of(rows, sample, metric, region="body"):
    return next(r for r in rows if (r.sample_id, r.metric, r.region) == (sample, metric, region))


@pytest.mark.teaser
def test_every_row_is_there_and_typed(rows, weird):
    samples = {row.sample_id for row in rows}
    assert samples == {*weird, "good0", "good1", "wrong_box"}
    assert len({(r.sample_id, r.metric, r.region) for r in rows}) == len(rows) == len(samples) * (8 * 3 + 3)
    for row in rows:
        assert row.status in {"ok", "skipped", "failed"}
        assert row.error != "Unexpected", row
        assert (row.status == "ok") == (row.error == "")
        assert row.status == "ok" or len(row.message) > 10
        if row.status == "failed":
            assert issubclass(getattr(errors, row.error), errors.SampleError)


@pytest.mark.teaser
def test_each_bad_input_has_its_error(rows, weird):
    for name, (_, _, expected) in weird.items():
        row = of(rows, name, "ssim")
        if expected is None:
            assert row.status == "ok", row
        else:
            assert issubclass(getattr(errors, row.error), expected), row


@pytest.mark.teaser
def test_a_fault_touches_only_what_it_must(rows):
    assert of(rows, "one_frame_each", "subject_consistency").error == "TooShort"
    assert of(rows, "one_frame_each", "dynamic_degree").error == "TooShort"
    assert of(rows, "nan_audio", "wer", "speech").error == "BadAudio"
    assert of(rows, "no_audio", "wer", "speech").value == 1.0  # nothing was said: every word is lost
    assert of(rows, "black", "subject_consistency").status == "ok"
    assert of(rows, "black", "csim", "face").status == "skipped"
    assert of(rows, "lost_reference", "subject_consistency").status == "ok"
    assert of(rows, "rotated", "dynamic_degree").status == "ok"
    assert of(rows, "wrong_box", "subject_consistency", "face").error == "BadBox"
    assert of(rows, "wrong_box", "ssim", "body").value == 1.0
    assert "nowhere.mp4" in of(rows, "lost_reference", "ssim").message


@pytest.mark.teaser
def test_good_samples_do_not_notice(rows, models):
    alone = score([good(0), good(1)], protocol="lite", device="cpu", models=models)
    expected = [asdict(row) for row in alone.rows()]
    assert [asdict(row) for row in rows if row.sample_id.startswith("good")] == expected
    assert all(row["status"] != "failed" for row in expected)


def test_rotation_is_honoured(weird, reference):
    turned = Clip(weird["rotated"][0])
    assert turned.size == (240, 320)
    # A quarter turn clockwise of the same coded pictures.
    assert np.array_equal(turned.frames, np.rot90(Clip(reference).frames, -1, axes=(1, 2)))


def test_too_many_failures_make_a_run_incomplete(weird, reference):
    samples = [Sample("a", Clip(reference), Clip(reference)), Sample("b", Clip(weird["text"][0]), Clip(reference))]
    assert not score(samples, ["ssim"], ["body"]).complete
    result = score(samples, ["ssim"], ["body"], allow_failures=1)
    assert result.complete
    assert (result["ssim", "body"].n, result["ssim", "body"].failed) == (1, 1)


def test_an_error_no_one_foresaw_is_kept_with_its_place(reference, monkeypatch):
    from jwb_dh_v1.metrics.fidelity import pixel

    monkeypatch.setattr(pixel, "C1", "not a number")
    row = next(score([Sample("a", Clip(reference), Clip(reference))], ["ssim"], ["body"], allow_failures=1).rows())
    assert (row.status, row.error) == ("failed", "Unexpected")
    assert row.message.startswith("TypeError") or "UFunc" in row.message
    assert "pixel.py:" in row.message
