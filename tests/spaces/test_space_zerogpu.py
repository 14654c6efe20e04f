"""ZeroGPU's package `spaces`, by a stand-in: its decorator is used where it is there, and only then."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("gradio", reason="the Space needs gradio: pip install -e '.[demo]'")

from space_server import DEMO, write_video

from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.scoring.run import score

# As ZeroGPU does, it hands arguments and what is yielded to another process, here by pickling them.
STAND_IN = """
import pickle
asked, calls = [], []

def GPU(duration=60):
    asked.append(duration)
    def decorate(function):
        def generate(*args):
            calls.append(function.__name__)
            for found in function(*pickle.loads(pickle.dumps(args))):
                yield pickle.loads(pickle.dumps(found))
        return generate
    return decorate
"""


def scoring(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The Space's module, loaded anew."""
    monkeypatch.syspath_prepend(str(DEMO))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    spec = importlib.util.spec_from_file_location("space_scoring", DEMO / "scoring.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "space_scoring", module)  # dataclasses and pickles look for it there
    spec.loader.exec_module(module)
    return module


def test_work_goes_through_the_decorator_and_the_numbers_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "spaces.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    monkeypatch.delitem(sys.modules, "spaces", raising=False)
    module = scoring(monkeypatch, tmp_path)
    import spaces

    monkeypatch.delitem(sys.modules, "spaces")
    clips = [write_video(tmp_path / f"{codec}.mp4", 12, codec=codec) for codec in ("mpeg4", "libx264")]
    sample = Sample("a", Clip(clips[0]), Clip(clips[1]), "hello")
    found = module.run([sample], ["psnr"], ["body"], "lite", tmp_path / "out", tmp_path / "film", lambda *_, **__: None)
    assert spaces.asked == [120] and spaces.calls == ["compute"]
    core = score([Sample("a", Clip(clips[0]), Clip(clips[1]))], ["psnr"], ["body"], protocol="lite")
    values = {(one["metric"], one["region"]): one["value"] for one in found["document"]["scores"]}
    assert values == {("psnr", "body"): core["psnr", "body"].value}
    assert len(list((tmp_path / "film" / "generated").iterdir())) == 12


def test_nothing_is_decorated_without_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Beside a checkout `spaces` is a folder, which Python imports as an empty package."""
    monkeypatch.delitem(sys.modules, "spaces", raising=False)
    monkeypatch.syspath_prepend(str(DEMO.parent.parent))
    module = scoring(monkeypatch, tmp_path)
    monkeypatch.delitem(sys.modules, "spaces", raising=False)
    assert module.on_gpu(len) is len
    assert module.compute.__module__ == "space_scoring"
