"""The networks of standard/1 and paper/1 through the whole machinery, with seeded weights in the official layouts.

The numbers of the networks themselves are held in `test_golden_vbench.py` and `test_golden_distribution.py`; here the
way from a weight file and a plan to a result is. Seeded files have hashes of their own, so the table is told these.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from goldens import seeded_state
from media import moving

from jwb_dh_v1 import Clip, Sample, score, weights
from jwb_dh_v1 import plan as plan_module
from jwb_dh_v1.errors import MissingWeights
from jwb_dh_v1.metrics import PROTOCOLS

# name in our table -> checkpoint specification, part of it that is used
NETS = {
    "dino-vitb16": ("dino_vitbase16", None),
    "clip-vit-b-32": ("clip_vit_b32", ("visual.",)),
    "inception-2015": ("inception_fid_2015", None),
    "inception-v3": ("inception_v3_torchvision", None),
    "i3d": ("i3d_k400", None),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The seeded checkpoints as files, by name."""
    folder, found = tmp_path_factory.mktemp("seeded"), {}
    for name, (spec, only) in NETS.items():
        state = seeded_state(spec, only=only)
        found[name] = folder / f"{name}.pth"
        torch.save(state, found[name])
    return found


@pytest.fixture
def table(files, monkeypatch, tmp_path):
    """Our table with the seeded files' hashes, and an empty cache."""
    told = {name: replace(weights.FILES[name], sha256=weights.sha256_of(path)) for name, path in files.items()}
    for module in (weights, plan_module):
        monkeypatch.setattr(module, "FILES", {**weights.FILES, **told})
    monkeypatch.setenv("JWB_CACHE", str(tmp_path))
    monkeypatch.delenv("JWB_WEIGHTS", raising=False)


def samples():
    real = [moving(16, 160, 128, seed=n) for n in range(2)]
    made = [np.roll(255 - clip, 5, axis=2) for clip in real]
    return [Sample(f"{n}", Clip(made[n]), Clip(real[n]), identity=f"p{n}") for n in range(2)]


def test_both_protocols_run_from_files_to_results(table, files):
    from jwb_dh_v1.metrics import distribution, vbench

    for name, metrics in (
        ("standard", ("subject_consistency", "background_consistency", "fid", "fid_clean", "fvd")),
        ("paper", ("fid", "fvd", "e_fid")),
    ):
        result = score(samples(), metrics, ["body"], protocol=name, device="cpu", weights=files)
        assert result.complete, list(result.rows())
        for metric in metrics:
            cell = result[metric, "body"]
            assert cell.n == 2 and cell.value is not None and np.isfinite(cell.value)
        used = {weight for metric in metrics for weight in PROTOCOLS[name].metrics[metric].weights}
        assert dict(result.plan["weights"]) == {n: weights.sha256_of(files[n]) for n in sorted(used)}
        if name == "standard":
            # The same functions on the same networks, added by hand: only the order of rounding could differ.
            from jwb_dh_v1.models import Models

            models, by_hand = Models(files, "cpu"), None
            for sample in samples():
                for clip in (sample.generated, sample.reference):
                    clip.models = models
                by_hand = distribution.fid(sample) if by_hand is None else by_hand + distribution.fid(sample)
            assert result["fid", "body"].value == pytest.approx(by_hand.value(), rel=1e-9)
            assert 0 < vbench.subject(sample).value() <= 1
            assert result["fid", "body"].value != result["fid_clean", "body"].value


def test_missing_weights_stop_or_are_left_out(table, files):
    some = {"inception-2015": files["inception-2015"]}
    with pytest.raises(MissingWeights, match="dino-vitb16"):
        score(samples(), regions=["body"], device="cpu", weights=some)
    result = score(samples(), regions=["body"], device="cpu", weights=some, allow_missing=True)
    assert [cell.metric for cell in result.scores] == ["fid", "fid_clean", "ssim", "psnr"]
    assert set(result.plan["weights"]) == {"inception-2015"}
    with pytest.raises(MissingWeights, match="i3d"):
        score(samples(), ["fvd"], ["body"], device="cpu", weights=some, allow_missing=True)
