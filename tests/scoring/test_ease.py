"""What people write in Python is understood: paths, views, one name, torch's devices, tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from media import moving, write_mp4

import jwb_dh_v1
from jwb_dh_v1 import Clip, Sample, score


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("ease")
    paths = folder / "ours.mp4", folder / "theirs.mp4"
    for path, crf in zip(paths, (40, 10), strict=True):
        write_mp4(path, moving(12, 160, 120), 25, crf=crf)
    return paths


def value(sample: Sample, metrics: object = "psnr", regions: object = "body", **options: object) -> float | None:
    result = score([sample], metrics, regions, **options)  # type: ignore[arg-type]
    return result["psnr", "body"].value


def test_paths_are_clips_and_one_name_is_a_list(pair: tuple[Path, Path]) -> None:
    expected = value(Sample("a", Clip(pair[0]), Clip(pair[1])), ["psnr"], ["body"])
    assert expected is not None
    assert value(Sample("a", str(pair[0]), pair[1])) == expected  # type: ignore[arg-type]
    assert value(Sample("a", pair[0].read_bytes(), {"bytes": None, "path": str(pair[1])})) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), "auto"])
def test_a_device_is_a_name_or_torchs_own(device: object, pair: tuple[Path, Path]) -> None:
    result = score([Sample("a", pair[0], pair[1])], "psnr", "body", device=device)  # type: ignore[arg-type]
    assert result.device == ("cuda" if device == "auto" and torch.cuda.is_available() else "cpu")


def test_a_view_of_frames_is_scored_as_its_copy(pair: tuple[Path, Path]) -> None:
    """OpenCV's BGR turned round is a view with a negative stride, which torch refuses; so is a flipped clip."""
    frames = Clip(pair[0]).frames
    for view in (frames[..., ::-1], frames[:, :, ::-1], frames[::2]):
        clip = Clip(view)
        assert torch.from_numpy(clip.frames).shape == view.shape
        assert np.array_equal(clip.frames, view)


def test_scores_as_a_table(pair: tuple[Path, Path]) -> None:
    result = score([Sample("a", pair[0], pair[1])], ["ssim", "psnr"], "body", name="mine")  # type: ignore[arg-type]
    table = result.to_pandas()
    assert table[["system", "protocol", "metric", "region", "n"]].values.tolist() == [
        ["mine", "standard/1", "ssim", "body", 1],
        ["mine", "standard/1", "psnr", "body", 1],
    ]
    assert table["value"].tolist() == [s.value for s in result.scores] and table["ci_low"].isna().all()


def test_public_names_are_listed() -> None:
    assert set(jwb_dh_v1.__all__) <= set(dir(jwb_dh_v1))
