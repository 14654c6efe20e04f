"""The authors' own script on deterministic clips: `golden/jwb_paired.json` holds what FID_calculate.py returned.

`golden/clips.py` makes the clips without any codec; their hashes are checked first.
"""

import pytest
from goldens import clips, golden

from jwb_dh_v1 import Clip, Sample
from jwb_dh_v1.metrics.fidelity import csim, pixel

GOLDEN = golden("jwb_paired")["pairs"]


def pair(name):
    if name == "pan_swapped_to_other_clip":
        return clips.make_pair("still")[0], clips.make("pan")[0]
    generated, reference, _ = clips.make_pair(
        name.removesuffix("_half_size_generated").removesuffix("_9_frames_generated")
    )
    if name == "pan_half_size_generated":
        generated = generated[:, ::2, ::2]
    if name == "pan_9_frames_generated":
        generated = generated[:9]
    return generated, reference


@pytest.mark.parametrize("name", GOLDEN)
def test_paper_pixel_metrics_equal_the_authors(name):
    expected = GOLDEN[name]
    generated, reference = pair(name)
    assert clips.sha256(generated) == expected["generated_sha256"]
    assert clips.sha256(reference) == expected["reference_sha256"]
    sample = Sample(name, Clip(generated), Clip(reference))
    # Same pixels, same formula in float64: 1e-9 is what two summation orders leave. With a stretched frame OpenCV's
    # bilinear resize is the same call.
    assert pixel.PAPER_PSNR.score(sample).value() == pytest.approx(expected["PSNR"], abs=1e-9)
    assert pixel.PAPER_SSIM.score(sample).value() == pytest.approx(expected["SSIM"], abs=1e-9)
    assert csim.METRICS["paper"][0].score(sample).value() == pytest.approx(expected["CSIM"], abs=1e-9)
    # The golden curves are printed to seven digits.
    assert pixel.paper_ssim_curve(sample) == pytest.approx(expected["per_frame"]["structural_similarity"], abs=1e-6)
