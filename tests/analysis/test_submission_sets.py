"""Distances of sets in a submission: computed again from the shards of its run, or said not to be."""

from __future__ import annotations

import io
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import made, written
from test_paired_sets import FVD, feature_states

from jwb_dh_v1 import Result
from jwb_dh_v1.analysis.submission import SubmissionProblem, check_submission

PEOPLE = ["p", "p", "q", "r", "s", "s"]
SHARD = Path("shards") / "000000.npz"


def handed_in(folder: Path, shift: float = 0.2, width: int = 400, **score: Any) -> Result:
    """A run with features and whatever score its owner wrote down."""
    states = feature_states(np.random.default_rng(5), PEOPLE, shift, width)
    run = made("mine", {}, PEOPLE, {FVD: states}, folder, metrics=())
    run = replace(run, scores=tuple(replace(s, **score) for s in run.scores))
    written(folder, run)
    return run


def about_sets(folder: Path) -> list[SubmissionProblem]:
    return [p for p in check_submission(folder) if p.rule in ("rows", "tampered")]


@pytest.mark.parametrize("width", [400, 5])
def test_distances_are_computed_again_from_features_or_their_sums(width: int, tmp_path: Path) -> None:
    """Twelve frames: 400 dimensions keep them singly, 5 keep sums and a subset for the interval."""
    run = handed_in(tmp_path / "mine", width=width)
    assert run.scores[0].ci95 is not None
    assert about_sets(tmp_path / "mine") == []
    value = run.scores[0].value
    assert value is not None and value > 0.1
    handed_in(tmp_path / "better", width=width, value=0.999 * value)
    (found,) = about_sets(tmp_path / "better")
    assert found.severe and found.rule == "tampered" and f"{value!r}"[:8] in found.message


def test_an_interval_is_computed_again(tmp_path: Path) -> None:
    run = handed_in(tmp_path / "mine")
    assert run.scores[0].ci95 is not None
    low, high = run.scores[0].ci95
    for i, ci95 in enumerate([(low + 1, high - 1), None]):
        handed_in(tmp_path / str(i), ci95=ci95)
        (found,) = about_sets(tmp_path / str(i))
        assert found.severe and "interval" in found.message


def test_without_shards_a_note_says_what_was_not_computed_again(tmp_path: Path) -> None:
    handed_in(tmp_path / "mine")
    shutil.rmtree(tmp_path / "mine" / "shards")
    (found,) = about_sets(tmp_path / "mine")
    assert not found.severe and "not computed again" in found.message and "fvd on body" in found.message
    (tmp_path / "mine" / "shards").mkdir()
    (found,) = about_sets(tmp_path / "mine")
    assert not found.severe


def test_shards_of_another_run_are_found(tmp_path: Path) -> None:
    handed_in(tmp_path / "mine")
    handed_in(tmp_path / "other", shift=0.3)
    shutil.copy(tmp_path / "other" / SHARD, tmp_path / "mine" / SHARD)
    assert {p.rule for p in about_sets(tmp_path / "mine") if p.severe} == {"tampered"}
    # Twice the same shard is twice as many parts.
    handed_in(tmp_path / "twice")
    shutil.copy(tmp_path / "twice" / SHARD, tmp_path / "twice" / "shards" / "000001.npz")
    (found,) = about_sets(tmp_path / "twice")
    assert "12 parts, its rows count 6" in found.message


def test_features_of_strangers_are_found(tmp_path: Path) -> None:
    handed_in(tmp_path / "mine")
    with np.load(tmp_path / "mine" / SHARD) as shard:
        arrays = {key: shard[key] for key in shard.files}
    groups = arrays["fvd/body/generated.groups"]
    arrays["fvd/body/generated.groups"] = np.where(groups == "q", "x", groups)
    np.savez(tmp_path / "mine" / SHARD, **arrays)  # type: ignore[arg-type]
    (found,) = about_sets(tmp_path / "mine")
    assert found.severe and "people that no row has: x" in found.message
    handed_in(tmp_path / "sums", width=5)
    with np.load(tmp_path / "sums" / SHARD) as shard:
        arrays = {key: shard[key] for key in shard.files}
    arrays["fvd/body/generated.subset.everyone"] = arrays["fvd/body/generated.subset.everyone"] + np.uint64(1)
    np.savez(tmp_path / "sums" / SHARD, **arrays)  # type: ignore[arg-type]
    (found,) = about_sets(tmp_path / "sums")
    assert found.severe and "people that no row has" in found.message


@pytest.mark.parametrize("harm", ["no zip", "cut off", "text", "pickle", "no counts", "a bomb"])
def test_hostile_shards_are_refused_without_an_accident(
    harm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed_in(tmp_path / "mine")
    path = tmp_path / "mine" / SHARD
    content = path.read_bytes()
    with np.load(path) as shard:
        arrays = {key: shard[key] for key in shard.files}
    if harm == "no zip":
        path.write_bytes(b"PK no")
    elif harm == "cut off":
        path.write_bytes(content[: len(content) // 2])
    elif harm == "text":
        np.savez(path, **(arrays | {"fvd/body/generated.rows": np.array("x")}))  # type: ignore[arg-type]
    elif harm == "pickle":
        np.savez(path, **(arrays | {"fvd/body/generated.rows": np.array([Path()], dtype=object)}))  # type: ignore[arg-type]
    elif harm == "no counts":
        np.savez(path, **{k: v for k, v in arrays.items() if not k.endswith("frechet")})  # type: ignore[arg-type]
    else:  # a header that promises more than any shard has
        monkeypatch.setattr("jwb_dh_v1.scoring.shard.MOST_BYTES", 1000)
        assert zipfile.is_zipfile(io.BytesIO(content))
    (found,) = about_sets(tmp_path / "mine")
    assert found.severe and ("cannot be read" in found.message or found.rule == "tampered")
