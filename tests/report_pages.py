"""Real runs on small clips and a reader of pages, for the tests of the report."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np

from jwb_dh_v1 import Clip, Result, score
from jwb_dh_v1.media.annotations import Annotations
from jwb_dh_v1.media.audio import Audio
from jwb_dh_v1.media.video import write_mp4
from jwb_dh_v1.metrics.sample import Sample

FRAMES, HEIGHT, WIDTH = 24, 96, 128
BAD_FRAME = 9
HOSTILE = "<script>alert(1)</script>"
MEDIA = ("data:image/jpeg;base64,", "data:video/mp4;base64,")
VOID = {"meta", "link", "br", "img", "hr", "input"}


def picture(seed: int) -> np.ndarray:
    """A clip with large shapes that move, so that blur and wrong frames show."""
    rng = np.random.default_rng(seed)
    still = cv2.resize(
        rng.integers(0, 255, (12, 16, 3), dtype=np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC
    )
    return np.stack([np.roll(still, 2 * t, axis=1) for t in range(FRAMES)])


def boxes() -> Annotations:
    face = np.tile(np.array([40, 20, 80, 60], np.float32), (FRAMES, 1))
    return Annotations({"face": face}, {"face": np.ones(FRAMES, np.float32)}, "dataset")


def make_samples(folder: Path, blur: float) -> list[Sample]:
    """Three good samples, the last one with a black frame; one without reference; one whose file is missing."""
    found = []
    for seed in range(3):
        real = picture(seed)
        path, reference = folder / f"clip-{seed}-{blur}.mp4", folder / f"real-{seed}.mp4"
        fake = np.stack([cv2.GaussianBlur(frame, (0, 0), blur) for frame in real])
        if seed == 2:
            fake[BAD_FRAME] = 0
        sound = Audio(0.2 * np.sin(np.arange(16000, dtype=np.float32))[None], 16000)
        write_mp4(path, fake, 25, sound if seed == 1 else None, crf=10)
        write_mp4(reference, real, 25, crf=10)
        found.append(
            Sample(f"clip-{seed}", Clip(path), Clip(reference, annotations=boxes()), person_id=f"person-{seed}")
        )
    found.append(Sample("no reference", Clip(picture(5))))
    found.append(Sample(HOSTILE, Clip(folder / "<b>gone & lost.mp4"), Clip(folder / "real-0.mp4")))
    return found


def run(folder: Path, name: str, blur: float, protocol: str = "standard") -> tuple[Result, list[Sample]]:
    samples = make_samples(folder, blur)
    regions = ("body", "face") if protocol == "standard" else ("body",)
    metrics = ("ssim", "psnr") if protocol == "standard" else ("ssim", "psnr", "csim")  # what needs no weights
    result = score(samples, metrics, regions, protocol=protocol, boxes="annotations", device="cpu", name=name,
                   out=folder / name)  # fmt: skip
    return result, samples


class Page(HTMLParser):
    """Everything a check wants to know about a page; raises where elements are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.source, self.open = text, [""]
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == [""], f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, key, value or "") for key, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}> at {self.getpos()}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for tag in set(self.open[1:]):
            self.texts[tag][-1] += data

    def all(self, key: str) -> list[str]:
        return [value for _, name, value in self.attributes if name == key]


def page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def check_sound(found: Page) -> None:
    """Self-contained, ids unique, links that lead somewhere, drawings described for those who cannot see them."""
    assert "link" not in found.tags and "iframe" not in found.tags and found.tags["script"] <= 1
    policy = next(v for _, name, v in found.attributes if name == "content" and v.startswith("default-src 'none'"))
    for script in found.texts.get("script", []):  # ours alone: the policy names it by its hash
        assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert "://" not in policy and "'unsafe-inline'" not in policy.partition("script-src")[2]
    assert not [name for _, name, _ in found.attributes if name.startswith("on")]
    targets = [
        v for _, name, v in found.attributes if name in {"src", "href", "xlink:href", "srcset", "data", "action"}
    ]
    assert targets and all(t.startswith(("#", *MEDIA)) or "://" not in t for t in targets)
    assert not re.search(r"@import|url\((?!#)", found.source)
    ids = found.all("id")
    assert len(ids) == len(set(ids))
    inside = {t[1:] for t in targets if t.startswith("#")} | set(re.findall(r"url\(#([^)]+)\)", found.source))
    assert inside and inside | set(found.all("aria-labelledby")) <= set(ids)
    drawings = [dict(group) for group in _by_element(found, "svg")]
    assert drawings and all(d["role"] == "img" and len(d["aria-label"]) > 10 for d in drawings)
    assert found.tags["th"] == found.all("scope").count("col") + sum(
        found.all("scope").count(kind) for kind in ("row", "rowgroup")
    )
    assert found.tags["h1"] == 1 and ("html", "lang", "en") in found.attributes


def _by_element(found: Page, tag: str) -> list[list[tuple[str, str]]]:
    groups: list[list[tuple[str, str]]] = []
    for name, key, value in found.attributes:
        if name != tag:
            continue
        if not groups or key in dict(groups[-1]):
            groups.append([])
        groups[-1].append((key, value))
    return groups


def shown(found: Page) -> Counter[str]:
    return Counter(value for tag, name, value in found.attributes if tag == "data" and name == "value")


def jpegs(found: Page, described: str) -> list[np.ndarray]:
    """The pictures whose description begins so, as RGB frames."""
    frames = []
    for text in re.findall(rf'aria-label="{re.escape(described)}[^>]*>.*?base64,([^"]+)"', found.source):
        data = np.frombuffer(base64.b64decode(text), np.uint8)
        frames.append(cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))
    return frames
