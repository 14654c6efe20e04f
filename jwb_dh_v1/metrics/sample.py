"""What is scored: a generated clip with whatever it is compared to, and its parts by region."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jwb_dh_v1.errors import LengthMismatch, NotApplicable, SizeMismatch
from jwb_dh_v1.media.annotations import Annotations
from jwb_dh_v1.media.clip import CHUNK, Clip
from jwb_dh_v1.metrics.region import PARTS, Crop, CropRule, Region, crop
from jwb_dh_v1.networks.pool import models_of


@dataclass(frozen=True)
class Sample:
    """One generated clip and what belongs to it.

    Attributes:
        id: unique name in the set; generated files are paired by it.
        generated: the clip to be scored; a path, bytes, a dataset row or frames become a `Clip`.
        reference: the real clip, if the metric compares; likewise.
        transcript: the words that should be heard.
        person_id: the person; confidence intervals resample persons, not clips.
        language: of the transcript, ISO 639-1.
        hypothesis: the words heard in the generated clip, if a recogniser was run before; WER then asks none.

    """

    id: str
    generated: Clip
    reference: Clip | None = None
    transcript: str | None = None
    person_id: str | None = None
    language: str = "en"
    hypothesis: str | None = None

    def __post_init__(self) -> None:
        for name in ("generated", "reference"):
            if isinstance(source := getattr(self, name), str | Path | bytes | Mapping | np.ndarray):
                object.__setattr__(self, name, Clip(source))

    def crop(self, region: Region, rule: CropRule = "track", same_boxes: bool = False) -> list[Sample]:
        """The samples of a region's parts: body 1 (this sample), face 0..1, hands 0..2 (1 by the `paper` rule).

        Args:
            region: the region.
            rule: how parts are cut out.
            same_boxes: cut the generated clip where the reference shows the part, so that pixels are compared in place.
                Otherwise each clip is cut by its own boxes, and a part that the reference lacks gives a sample
                without reference.

        Raises:
            NotApplicable: none of the parts is shown; the message says what was looked for.
            BadBox: a given box is no box.

        """
        if region in {"body", "speech"}:
            return [self]
        names = PARTS[region] if rule == "track" else (region,)
        shown, reasons = {}, []
        for part in names:
            try:
                shown[part] = _cut(self.generated, self.annotations(self.generated, same_boxes), part, rule)
            except NotApplicable as reason:
                reasons.append(str(reason))
        if not shown:
            raise NotApplicable("; ".join(reasons))
        # Detectors take one hand for the other: a hand whose counterpart is missing may meet the other one.
        others = [part for part in names if part not in shown]
        return [
            replace(self, generated=generated, reference=self._counterpart([part, *others], rule))
            for part, generated in shown.items()
        ]

    def _counterpart(self, parts: list[str], rule: CropRule) -> Crop | None:
        """The first of some parts that the reference shows."""
        if self.reference is not None:
            for part in parts:
                try:
                    return _cut(self.reference, self.annotations(self.reference), part, rule)
                except NotApplicable:
                    continue
        return None

    def annotations(self, clip: Clip, same_boxes: bool = False) -> Annotations:
        """The boxes of one of this sample's clips as the plan says: its own by the plan's detector, or the reference's.

        Raises:
            NotApplicable: the plan wants given boxes and there are none.
            BadBox, Truncated: they cannot be read, or the clip cannot be decoded.

        """
        models = models_of(clip) if clip.models is not None else None
        if models is not None and models.boxes != "annotations":
            if same_boxes and self.reference is not None and clip is not self.reference:
                return _onto(models.annotations(self.reference), self.reference, clip)
            return models.annotations(clip)
        source = (
            self.reference
            if self.reference is not None and self.reference.provided_annotations is not None
            else self.generated
        )
        if source.provided_annotations is None:
            raise NotApplicable("no boxes were given and no detector was asked for")
        return source.provided_annotations if source is clip else _onto(source.provided_annotations, source, clip)

    def pairs(self, n: int = CHUNK) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Chunks of generated and reference frames that belong to the same moments, uint8 [k, H, W, 3] each.

        Frames are paired by number; clips may differ by two frames or 5 % in length (the shorter one counts). Of
        tracked parts, the moments seen in both clips are used.

        Raises:
            SizeMismatch, LengthMismatch: the whole clips cannot be compared frame by frame.
            NotApplicable: no reference, or no moment in which both show the part.

        """
        start, stop = self.frame_overlap()
        generated, reference = self.generated, self.reference
        assert reference is not None
        ours = generated.chunks(n, start - generated.start, stop - generated.start)
        yield from zip(ours, reference.chunks(n, start - reference.start, stop - reference.start), strict=True)

    def frame_overlap(self) -> tuple[int, int]:
        """First and one past the last frame number that both clips hold; errors as `pairs`."""
        if self.reference is None:
            raise NotApplicable("there is no reference to compare with")
        ours, theirs = self.generated.root, self.reference.root
        if ours.size != theirs.size:
            raise SizeMismatch(
                f"generated is {ours.size[0]}x{ours.size[1]}, reference {theirs.size[0]}x{theirs.size[1]}; resize one "
                "of them first (the paper protocol resizes by itself)."
            )
        short, long = sorted((len(ours), len(theirs)))
        if long - short > max(2, 0.05 * long) or abs(ours.fps - theirs.fps) > 0.01 * theirs.fps:
            raise LengthMismatch(
                f"generated has {len(ours)} frames at {ours.fps:.3f} fps, reference {len(theirs)} at "
                f"{theirs.fps:.3f}; frames cannot be paired by number."
            )
        start = max(self.generated.start, self.reference.start)
        stop = min(self.generated.stop, self.reference.stop)
        if stop <= start:
            raise NotApplicable("generated and reference never show the part at the same moment")
        return start, stop


def _cut(clip: Clip, annotations: Annotations, part: str, rule: CropRule) -> Crop:
    return clip.memo(("crop", part, rule, annotations.source), lambda: crop(clip, annotations, part, rule))


def _onto(given: Annotations, source: Clip, clip: Clip) -> Annotations:
    """The reference's boxes on another clip: scaled to its size, taken at its moments."""
    rate = source.fps / clip.fps if clip.fps else 1.0
    moments = np.minimum(np.rint(np.arange(len(clip)) * rate).astype(int), len(source) - 1)
    scale = np.array([clip.size[0] / source.size[0], clip.size[1] / source.size[1]])
    keypoints = given.keypoints
    if keypoints is not None:
        keypoints = keypoints[moments] * np.append(scale, 1)
    return Annotations(
        {part: boxes[moments] * np.tile(scale, 2) for part, boxes in given.boxes.items()},
        {part: scores[moments] for part, scores in given.scores.items()},
        f"{given.source} on the reference",
        keypoints,
    )
