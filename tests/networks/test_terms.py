"""Files under terms to be accepted, files of the user's own, and what clips without a score count as in a run."""

import hashlib
import json

import numpy as np
import pytest
from media import moving
from test_weights import CONTENT, SHA, server  # noqa: F401 - a fixture

from jwb_dh_v1 import Clip, Sample, score
from jwb_dh_v1.cli import main
from jwb_dh_v1.errors import MissingWeights, SetupError, TermsNotAccepted, WrongHash
from jwb_dh_v1.networks import weights
from jwb_dh_v1.networks.weights_table import FILES, TERMS, File, Url


@pytest.fixture(autouse=True)
def table(monkeypatch, tmp_path, server):  # noqa: F811
    """Two files on a loopback server, one of them under terms; a file without a public hash; an empty cache."""
    monkeypatch.setenv("JWB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("JWB_WEIGHTS", raising=False)
    source = (Url(f"{server}/net.bin"),)
    files = {
        "free": File("free", SHA, len(CONTENT), "MIT", "tests", source),
        "closed": File("closed", SHA, len(CONTENT), "own terms", "tests", source, terms="lab"),
        "unknown": File("unknown", "", 0, "own terms", "tests", (), terms="lab"),
    }
    monkeypatch.setattr(weights, "FILES", files)
    monkeypatch.setattr(weights, "TERMS", {"lab": "for research only, see the lab's page"})


def test_terms_are_accepted_once(capsys):
    # The cache is by content, so `free` would bring `closed` along: fetch the closed one alone first.
    with pytest.raises(TermsNotAccepted, match="for research only") as error:
        weights.fetch(["closed"])
    assert "jwb-dh weights fetch closed --accept lab" in str(error.value)
    assert not weights.cached(weights.FILES["closed"]).exists()
    with pytest.raises(MissingWeights, match="jwb-dh weights fetch closed --accept lab"):
        weights.resolve_all(["closed"])
    assert main(["weights", "list"]) == 0
    assert "--accept lab" in " ".join(capsys.readouterr().out.split())
    assert main(["weights", "fetch", "closed", "--accept", "lab"]) == 0
    assert weights.resolve("closed").read_bytes() == CONTENT
    weights.resolve("closed").unlink()
    assert weights.fetch(["closed"])["closed"].read_bytes() == CONTENT  # remembered
    assert "lab (accepted)" in (main(["weights", "list"]), capsys.readouterr().out)[1]
    with pytest.raises(SetupError, match="lab"):
        weights.accept(["labs"])


def test_what_is_free_is_fetched_beside_what_is_not(monkeypatch, server):  # noqa: F811
    wrong = hashlib.sha256(b"altered").hexdigest()
    other = File("closed", wrong, 7, "own terms", "tests", (Url(f"{server}/wrong/net.bin"),), terms="lab")
    monkeypatch.setattr(weights, "FILES", {**weights.FILES, "closed": other})
    with pytest.raises(TermsNotAccepted):
        weights.fetch(["closed", "free"])
    assert weights.resolve("free").read_bytes() == CONTENT


def test_own_files_are_taken_when_said_so(tmp_path):
    own = tmp_path / "mine.bin"
    own.write_bytes(b"mine")
    with pytest.raises(WrongHash, match="--other-weights"):
        weights.resolve("free", {"free": own})
    assert weights.resolve("free", {"free": own}, other=True) == own
    assert weights.own_hashes(["free"], {"free": own}) == {"free": hashlib.sha256(b"mine").hexdigest()}
    # Without a public hash there is nothing to differ from; what it was stands in the result.
    assert weights.resolve("unknown", {"unknown": own}) == own
    assert weights.own_hashes(["unknown"], {"unknown": own}) == {"unknown": hashlib.sha256(b"mine").hexdigest()}
    with pytest.raises(MissingWeights, match="Give your own copy by --weights unknown=PATH"):
        weights.resolve("unknown")
    with pytest.raises(MissingWeights, match="no such file"):
        weights.resolve("unknown", {"unknown": tmp_path / "none"})


def test_the_real_table_names_terms_that_exist():
    for file in FILES.values():
        assert not file.terms or file.terms in TERMS
        if not file.sha256 or not file.sources:
            assert file.terms, "what cannot be fetched or checked says under which terms it stands"


def samples():
    real = [moving(16, 96, 64, seed=n) for n in range(3)]
    made = [np.clip(clip.astype(int) + 9, 0, 255).astype(np.uint8) for clip in real]
    pairs = [Sample(f"{n}", Clip(made[n]), Clip(real[n]), person_id=f"p{n}") for n in range(3)]
    return [*pairs, Sample("gone", Clip("no_such_file.mp4"), Clip(real[0]), person_id="p3")]


def test_failures_count_as_the_run_says(tmp_path):
    by = {
        policy: score(samples(), ["ssim", "psnr"], ["body"], protocol="lite", failures=policy, allow_failures=1)
        for policy in ("strict", "zero", "worst", "protocol")
    }
    strict, zero = by["strict"]["psnr", "body"], by["zero"]["psnr", "body"]
    assert (strict.n, strict.failed, strict.failures) == (3, 1, "strict")
    assert (zero.n, zero.failed, zero.failures) == (3, 1, "zero")
    assert zero.value == pytest.approx(strict.value * 3 / 4, rel=1e-14)  # the same sum over four
    assert zero.ci95[0] < strict.ci95[0]  # the lost person is drawn, too
    assert by["worst"]["ssim", "body"].value == by["zero"]["ssim", "body"].value
    assert by["protocol"]["psnr", "body"] == strict
    with pytest.raises(SetupError, match="policy"):
        score(samples(), ["ssim"], ["body"], protocol="lite", failures="ignore")
    out = tmp_path / "run"
    score(samples(), ["ssim"], ["body"], protocol="lite", failures="zero", allow_failures=1, out=out)
    assert json.loads((out / "plan.json").read_text())["failures"] == "zero"
    with pytest.raises(SetupError, match="failures: 'zero' there, 'strict' now"):
        score(samples(), ["ssim"], ["body"], protocol="lite", failures="strict", out=out)
