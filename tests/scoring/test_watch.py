"""Files that move while their sample is scored: written anew with the same content is nothing, other content counts."""

import os
from pathlib import Path

import pytest

from jwb_dh_v1 import Clip, Sample
from jwb_dh_v1.scoring.change_guard import ChangeGuard
from jwb_dh_v1.scoring.result import Row

ROW = Row("a", "a", "psnr", "body", 1.0, 1, None, "ok")


@pytest.mark.parametrize(("content", "hashed", "status"), [
    (b"the same bytes", True, "ok"), (b"the same bytes", False, "failed"),
    (b"other contents", True, "failed"), (b"more bytes than before", True, "failed"), (None, True, "failed"),
])  # fmt: skip
def test_what_counts_as_disturbed(tmp_path: Path, content: bytes | None, hashed: bool, status: str) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"the same bytes")
    os.utime(path, (1, 1))
    watch = ChangeGuard([Sample("a", Clip(path))])
    (sample,) = watch
    if hashed:
        assert len(sample.generated.sha256) == 64
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    ((row, _, _),) = watch.checked(sample, [(ROW, None, 0.0)])
    assert row.status == status and (row.error == "Disturbed") == (status == "failed")
