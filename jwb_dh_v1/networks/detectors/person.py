"""From all that was seen in a clip (`Sighting`) to the annotations of its main person, for the detector `mediapipe`.

Everyone's faces and hands are tracked; the person with the largest face is kept, and the hands that are nearer to
that face than to any other. The rules are our own and part of `mediapipe/1`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from jwb_dh_v1.media import coco
from jwb_dh_v1.media.annotations import KEYPOINTS, Annotations
from jwb_dh_v1.networks.detectors import tracks

SOURCE = "mediapipe/1"
ARM = 7.0  # farthest centre of a hand from that of the face, in face sizes (a stretched arm is about 5)
# A hand's track counts when its presence once reaches 0.9, and only so sure a hand is followed without a palm: on the
# sample clips a hand in full view stays above 0.93, and a chandelier in the background comes up to 0.89.
HAND_SURE = 0.9
UNSURE = 0.25  # a track's mean handedness this near to 0.5 may give way to a surer hand


@dataclass(frozen=True)
class Hand:
    """One hand: 21 points [21, 2] in pixels, presence 0..1, `right` 0..1 (1: the person's right hand), box [4]."""

    points: np.ndarray
    presence: float
    right: float
    box: np.ndarray


@dataclass
class Sighting:
    """What one frame showed.

    Attributes:
        frame: its number.
        faces: float64 [n, 17]: box, score, six points (`litert.Ssd`).
        hands: everyone's.
        meshes: float64 [n, 68, 3] (x, y, score), one a face; score 0 where there is none. Only in full.
        pose: float64 [33, 3] (x, y, score) and `body`, its box [4], or None. Only in full.
        mask: run-length encoded, everyone. Only in full.

    """

    frame: int
    faces: np.ndarray
    hands: list[Hand]
    meshes: np.ndarray | None = None
    pose: np.ndarray | None = None
    body: np.ndarray | None = None
    mask: dict[str, object] | None = field(default=None, repr=False)


def assemble(looks: list[Sighting], length: int, fps: float, size: tuple[int, int], full: bool) -> Annotations:
    """Annotations of the main person over `length` frames of `size` (width, height)."""
    frames = np.array([look.frame for look in looks], int)
    step = int(frames[1] - frames[0]) if len(frames) > 1 else 1
    gap = max(1, int(tracks.LONGEST_GAP * fps / step))
    rows = [look.faces[:, :5] for look in looks]
    faces = tracks.lasting(tracks.link(rows, gap, reach=1.0), len(looks))
    main = tracks.main_person(faces, rows)

    def dense(chosen: list[tracks.Track], values: list[np.ndarray], width: int, sigma: float = 0.0) -> np.ndarray:
        return tracks.fill_tracks(chosen, values, frames, length, fps, width, sigma)

    face = dense(main, rows, 5, tracks.SIGMA)
    found = {"face": face}
    others = [dense([t], rows, 5)[frames] for t in faces if t not in main]
    hands = [_own_hands(look, face[look.frame], [o[i] for o in others]) for i, look in enumerate(looks)]
    # Per hand: box, presence, 21 points.
    values = [np.array([[*h.box, h.presence, *h.points.ravel()] for h in own]).reshape(-1, 47) for own in hands]
    sides = hand_sides(hands, gap)
    for side, chosen in sides.items():
        found[side] = dense(chosen, values, 5 + 42, tracks.SIGMA_HANDS)[:, :5]
    bodies: list[tracks.Track] = []
    if full:
        body = [_own_body(look, face[look.frame]) for look in looks]
        # A body counts when its face is seen at least once: the pose network also finds people in lettering.
        bodies = [t for t in tracks.link(body, gap, reach=1.0) if any(np.isfinite(face[frames[s]]).all() for s, _ in t)]
        found["body"] = dense(bodies, body, 5, tracks.SIGMA)
    finished = {part: tracks.finish(v[:, :4], v[:, 4], *size) for part, v in found.items()}
    boxes, scores = {k: v[0] for k, v in finished.items()}, {k: v[1] for k, v in finished.items()}
    if not full:
        return Annotations(boxes, scores, SOURCE)
    points = np.zeros((length, KEYPOINTS, 3), np.float32)
    landmarks = [look.pose.reshape(1, 99) if look.pose is not None else np.zeros((0, 99)) for look in looks]
    seen = dense(bodies, landmarks, 99).reshape(length, 33, 3)
    for target, source in coco.BODY_FROM_POSE.items():
        points[:, target] = seen[:, source]
    meshes = [look.meshes.reshape(-1, 204) if look.meshes is not None else np.zeros((0, 204)) for look in looks]
    points[:, coco.FACE] = dense(main, meshes, 204).reshape(length, 68, 3)
    for side, where in (("left_hand", coco.LEFT_HAND), ("right_hand", coco.RIGHT_HAND)):
        hand = dense(sides[side], values, 47)
        points[:, where, :2] = hand[:, 5:].reshape(length, 21, 2)
        points[:, where, 2] = hand[:, 4:5]
    absent = ~np.isfinite(points).all(axis=2) | ~(points[..., 2] > 0)
    points[absent] = 0
    return Annotations(boxes, scores, SOURCE, points, _masks(looks, boxes, length, size))


def _own_hands(look: Sighting, face: np.ndarray, others: list[np.ndarray]) -> list[Hand]:
    """The hands nearer to the main face [5] than to another one, in face sizes; all when no face is to be seen."""
    people = np.array([p[:4] for p in [face, *others]])
    if np.isnan(people).all():
        return look.hands
    centres, sizes = tracks.centre_size(people)
    own = []
    for hand in look.hands:
        away = np.linalg.norm((hand.box[:2] + hand.box[2:]) / 2 - centres, axis=1) / np.maximum(sizes, 1e-9)
        if np.nanargmin(away) == 0 and away[0] <= ARM:
            own.append(hand)
    return own


def _own_body(look: Sighting, face: np.ndarray) -> np.ndarray:
    """Body box and score, [0 or 1, 5], none when its nose is far from the main face [5]; the score is the mean of the
    points that are seen.
    """
    if look.pose is None or look.body is None:
        return np.zeros((0, 5))
    if np.isfinite(face).all():
        centres, sizes = tracks.centre_size(face[None, :4])
        if np.linalg.norm(look.pose[coco.NOSE, :2] - centres[0]) > 1.5 * sizes[0]:
            return np.zeros((0, 5))
    good = look.pose[:, 2] > 0.5
    return np.array([[*look.body, look.pose[good, 2].mean() if good.any() else 0.5]])


def hand_sides(hands: list[list[Hand]], gap: int) -> dict[str, list[tracks.Track]]:
    """Tracks of the left and of the right hand from everything seen of one person, the surest first.

    A track's side is the mean of its hands' handedness. Where two tracks of one side share time, the less sure one
    moves to the other side if it was unsure and that side is free, or else is left out: a person has one of each.
    """
    seen = [np.array([h.box for h in own]).reshape(-1, 4) for own in hands]
    traits = [np.array([h.right for h in own]) for own in hands]
    # 8 times a second a hand at 2 m/s moves 25 cm, more than its own size; but a step to a hand of the other side is
    # made only when it is no step at all, so that a track does not change hands where they meet.
    found = tracks.lasting(tracks.link(seen, gap, reach=2.0, traits=[2 * t for t in traits]), len(hands))
    found = [t for t in found if max(hands[s][r].presence for s, r in t) >= HAND_SURE]

    def mean(track: tracks.Track) -> float:
        return float(np.mean([traits[s][r] for s, r in track]))

    sides: dict[str, list[tracks.Track]] = {"left_hand": [], "right_hand": []}
    for track in sorted(found, key=lambda t: abs(mean(t) - 0.5) * len(t), reverse=True):
        order = ["right_hand", "left_hand"] if mean(track) > 0.5 else ["left_hand", "right_hand"]
        for side in order[: 2 if abs(mean(track) - 0.5) < UNSURE else 1]:
            if len(tracks.apart([*sides[side], track])) > len(sides[side]):
                sides[side].append(track)
                break
    return sides


def _masks(
    looks: list[Sighting], boxes: dict[str, np.ndarray], length: int, size: tuple[int, int]
) -> list[dict[str, object]]:
    """Per frame the mask of the nearest look; an empty one where neither face nor body is seen."""
    frames = np.array([look.frame for look in looks])
    empty = coco.rle_encode(np.zeros((size[1], size[0]), bool))
    there = np.isfinite(boxes["face"][:, 0]) | np.isfinite(boxes["body"][:, 0])
    masks = []
    for t in range(length):
        mask = looks[int(np.argmin(np.abs(frames - t)))].mask
        masks.append(dict(mask) if mask is not None and there[t] else dict(empty))
    return masks
