"""What is said under the tables."""

from __future__ import annotations

from pathlib import Path

from jwb_dh_v1 import Result
from jwb_dh_v1.report.tables import remarks

SYSTEMS = Path(__file__).parents[1] / "golden" / "systems"


def test_a_score_without_interval_has_its_reason() -> None:
    run = Result.load(SYSTEMS / "blurred")
    said = "\n".join(remarks([run]))
    without = {(s.metric, s.region) for s in run.scores if s.value is not None and s.ci95 is None}
    assert without == {("e_fid", "face"), ("ssim", "hands"), ("psnr", "hands"), ("wer", "speech")}
    assert "No interval for SSIM (hands), PSNR (hands): 2 identities are too few for an interval that covers." in said
    assert "No interval for E-FID (face): 3 identities" in said and "No interval for WER: 4 identities" in said
    both = "\n".join(remarks([run, Result.load(SYSTEMS / "copy")]))
    assert "No interval of copy for FID (body), FID (face)" in both and "the identities do not differ" in both
