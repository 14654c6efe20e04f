"""The `evaluate` modules give the core's numbers, whatever form the videos come in."""

from pathlib import Path

import pytest
from media import moving, write_mp4

from jwb_dh_v1 import Clip, Sample, score
from jwb_dh_v1.errors import SampleError, SetupError

evaluate = pytest.importorskip("evaluate")
METRICS = Path(__file__).parent.parent / "metrics"


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
    assert tuple(found["ci95"]) == expected.ci95


def test_paths_bytes_rows_and_added_batches_agree(videos):
    made, real = videos
    module = load("ssim")
    expected = module.compute(predictions=made, references=real)["ssim"]
    content = [Path(p).read_bytes() for p in made]
    assert module.compute(predictions=content, references=real)["ssim"] == expected
    rows = [{"bytes": c, "path": None} for c in content]
    assert module.compute(predictions=rows, references=[{"bytes": None, "path": p} for p in real])["ssim"] == expected
    module.add_batch(predictions=made[:1], references=real[:1])
    module.add(prediction=made[1], reference=real[1])
    assert module.compute()["ssim"] == expected


def test_combine(videos):
    both = evaluate.combine([str(METRICS / "ssim"), str(METRICS / "psnr")]).compute(
        predictions=videos[0], references=videos[1]
    )
    assert both["ssim"] == core("ssim", videos, "standard").value
    assert both["psnr"] == core("psnr", videos, "standard").value


def test_samples_on_request(videos):
    found = load("psnr").compute(predictions=videos[0], references=videos[1], return_samples=True)
    assert [s["video"] for s in found["samples"]] == [0, 1]
    assert all(len(s["curve"]) == 12 for s in found["samples"])
    assert sum(s["value"] for s in found["samples"]) / 2 == pytest.approx(found["psnr"], abs=1e-12)  # one rounding


def test_a_broken_video_is_reported_and_the_rest_scored(videos, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_text("no video")
    made, real = videos
    found = load("ssim").compute(predictions=[made[0], str(broken)], references=real)
    assert (found["n"], found["failed"]) == (1, 1)
    assert found["problems"][0].startswith("video 1: failed: NotAVideo")
    with pytest.raises(SampleError, match="none of 1 videos"):
        load("ssim").compute(predictions=[str(broken)], references=real[:1])


def test_mistakes_are_one_sentence(videos):
    made, real = videos
    with pytest.raises(ValueError, match="pass references="):
        load("ssim").compute(predictions=made)
    for wrong, message in (
        ({"region": "feet"}, "not on 'feet'"),
        ({"protocol": "mine"}, "no protocol 'mine'"),
    ):
        with pytest.raises(SetupError, match=message):
            load("ssim").compute(predictions=made, references=real, **wrong)
    with pytest.raises(SetupError, match="defined on face"):
        load("csim").compute(predictions=made, references=real, protocol="lite", region="hands")


@pytest.mark.teaser
def test_faces_of_real_people():
    from jwb_dh_v1.weights import resolve

    clip = str(resolve("carphone"))
    found = load("ssim").compute(predictions=[clip], references=[clip], region="face")
    assert (found["ssim"], found["n"], found["region"]) == (1.0, 1, "face")
    assert load("csim").compute(predictions=[clip], references=[clip], protocol="lite")["csim"] == 1.0
