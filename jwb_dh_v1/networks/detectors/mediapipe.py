"""The detector `mediapipe`: face and hand boxes, and on demand pose, face mesh, key points and person masks.

MediaPipe's small networks on the TensorFlow Lite interpreter, without the mediapipe package. Thresholds and crops are
those of its graphs (github.com/google-ai-edge/mediapipe, mediapipe/modules, v0.10.21) unless a comment says otherwise;
what is ours, and part of the name `mediapipe/1`: the networks look 8 times a second (`tracks.stride`), a face counts
when a second, closer look confirms it, small faces are looked for in tiles, palms near the face.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from jwb_dh_v1.errors import SetupError
from jwb_dh_v1.media import coco
from jwb_dh_v1.media.annotations import Annotations
from jwb_dh_v1.networks.detectors import ANNOTATE_WEIGHTS, tracks
from jwb_dh_v1.networks.detectors.litert import Square, Ssd, TfliteModel, iou, sigmoid
from jwb_dh_v1.networks.detectors.person import HAND_SURE, SOURCE, Hand, Sighting, assemble

# A face found anywhere is looked at once more in a crop of 3 times its size, by the short-range network, and counts
# from 0.7 on: real faces of the four sample clips then score at least 0.81, lettering and clouds at most 0.54.
FACE_CROP, FACE_SURE = 3.0, 0.7
# Palms are looked for in two overlapping squares of 6 face heights, 1.5 to the left and right of the face and 2 below
# it: together a standing person's reach (a body is about 9 such faces tall). In a close-up they are the whole picture.
PALM_CROP, PALM_ASIDE, PALM_DROP = 6.0, 1.5, 2.0
PRESENT = 0.5
HAND_MARGIN = 0.15  # of the longer side, on each side: the points lie inside the flesh
MOST = 4  # faces and palms looked at in one picture


class MediaPipe:
    """Detector on weight files by name: `DETECTOR_WEIGHTS["mediapipe"]`, and `ANNOTATE_WEIGHTS` for `full=True`.

    Raises:
        MissingPackage: `ai-edge-litert` is not installed (extra `lite`).

    """

    name = SOURCE

    def __init__(self, weights: Mapping[str, Path]) -> None:
        self._short = Ssd(TfliteModel(weights["face-short-range"]), (8, 16, 16, 16), FACE_SURE, low=-1.0)
        # As a proposal only, so lower than the graph's 0.5: the second look decides.
        self._near = Ssd(self._short.model, self._short.strides, 0.4, low=-1.0)
        self._far = Ssd(TfliteModel(weights["face-full-range"]), (4,), 0.6, low=-1.0, per_layer=1)
        self._palm = Ssd(TfliteModel(weights["palm"]), (8, 16, 16, 16), 0.5)
        self._hand = TfliteModel(weights["hand-landmark"])
        self._full: tuple[TfliteModel, Ssd, TfliteModel, TfliteModel] | None = None
        if all(name in weights for name in ANNOTATE_WEIGHTS):
            pose = Ssd(TfliteModel(weights["pose-detection"]), (8, 16, 32, 32, 32), 0.5, low=-1.0)
            mesh, landmark, selfie = (
                TfliteModel(weights[n]) for n in ("face-mesh", "pose-landmark", "selfie-segmentation")
            )
            self._full = mesh, pose, landmark, selfie

    def detect(self, chunks: Iterable[np.ndarray], fps: float, *, full: bool = False) -> Annotations:
        """Annotate the main person of a clip: the one whose face is largest, summed over time.

        Args:
            chunks: consecutive frames, uint8 [n, H, W, 3] RGB, H and W the same throughout.
            fps: frames a second.
            full: also the body box, 133 key points and masks. Without it the `body` is left out.

        Returns:
            Boxes float32 [T, 4] and scores [T] of `face`, `left_hand`, `right_hand` (the person's own left and right);
            all NaN and 0 when no one is there. Key points are not smoothed; a mask is that of the nearest look.

        Raises:
            SetupError: `full` without the weights of `ANNOTATE_WEIGHTS`.

        """
        if full and self._full is None:
            raise SetupError(f"Full annotation with mediapipe needs the weights {', '.join(ANNOTATE_WEIGHTS)}.")
        looks: list[Sighting] = []
        length = width = height = 0
        for number, frame in tracks.sampled(chunks, tracks.stride(fps)):
            length = number + 1
            if frame is not None:
                height, width = frame.shape[:2]
                looks.append(self._look(number, np.ascontiguousarray(frame), looks[-1] if looks else None, full))
        return assemble(looks, length, fps, (width, height), full)

    def _look(self, number: int, frame: np.ndarray, last: Sighting | None, full: bool) -> Sighting:
        faces = self._faces(frame, last)
        look = Sighting(number, faces, self._hands(frame, faces, last))
        if full and self._full is not None:
            mesh, pose, landmark, selfie = self._full
            look.meshes = np.array([face_mesh(mesh, frame, face) for face in faces]).reshape(-1, 68, 3)
            look.pose, look.body = body_pose(pose, landmark, frame, faces)
            look.mask = person_mask(selfie, frame)
        return look

    def _confirm(self, frame: np.ndarray, row: np.ndarray) -> np.ndarray:
        """The face in a crop about a box, [0 or 1, 17]."""
        square = Square.around(*row[:4])
        found = self._short(frame, Square(square.x, square.y, FACE_CROP * square.side))
        return found[iou(row[:4], found[:, :4]) > 0.2][:1]

    def _faces(self, frame: np.ndarray, last: Sighting | None) -> np.ndarray:
        """Faces [n, 17], most sure first: in the whole picture, where they were, and, if still none, small ones."""
        height, width = frame.shape[:2]
        whole = Square.around(0, 0, width, height)
        found = np.zeros((0, 17))

        def add(rows: np.ndarray) -> None:
            nonlocal found
            for row in rows[:MOST]:
                face = self._confirm(frame, row) if not (iou(row[:4], found[:, :4]) > 0.2).any() else found[:0]
                if len(face) and not (iou(face[0, :4], found[:, :4]) > 0.2).any():
                    found = np.concatenate([found, face])

        add(self._near(frame, whole))
        if last is not None:
            add(last.faces)
        if not len(found):
            add(self._far(frame, whole))
        if not len(found):
            for tile in tiles(width, height):
                add(self._far(frame, tile))
        return found[np.argsort(-found[:, 4], kind="stable")]

    def _hands(self, frame: np.ndarray, faces: np.ndarray, last: Sighting | None) -> list[Hand]:
        """Hands that a palm shows, and sure ones still where they were (as in MediaPipe's tracking)."""
        palms = [row for square in palm_squares(frame, faces) for row in self._palm(frame, square)[:MOST]]
        regions = [palm_region(palm) for palm in palms]
        if last is not None:
            regions += [hand_region(hand.points) for hand in last.hands if hand.presence >= HAND_SURE]
        found: list[Hand] = []
        for region in regions:
            hand = self._read_hand(frame, region)
            if hand is not None and hand.presence < HAND_SURE:  # the palm may have placed it badly
                again = self._read_hand(frame, hand_region(hand.points))
                hand = again if again is not None and again.presence > hand.presence else hand
            if hand is not None:
                found.append(hand)
        kept: list[Hand] = []
        for hand in sorted(found, key=lambda h: -h.presence):
            if not (iou(hand.box, np.array([h.box for h in kept]).reshape(-1, 4)) > 0.3).any():
                kept.append(hand)
        return kept

    def _read_hand(self, frame: np.ndarray, region: Square) -> Hand | None:
        raw, presence, handedness, _ = self._hand(region.cut(frame, self._hand.size))
        if presence.item() < PRESENT:
            return None
        points = region.to_picture(raw.reshape(21, 3)[:, :2] / self._hand.size)
        low, high = points.min(axis=0), points.max(axis=0)
        margin = HAND_MARGIN * float((high - low).max())
        # The network's number is high for a right hand in a picture that is not mirrored. MediaPipe itself calls that
        # "Left", since it takes every picture for a selfie camera's mirrored one. Checked by eye on the sample clips:
        # Obama's left hand (cuff and ring to be seen) gives 0.00-0.13 where it is clear, the Pexels woman's right
        # hand at her face 0.89-0.99.
        box = np.concatenate([low - margin, high + margin])
        return Hand(points, float(presence.item()), float(handedness.item()), box)


def tiles(width: int, height: int) -> list[Square]:
    """Half-overlapping upright squares of half the picture's longer side that cover it."""
    side = max(width, height) / 2

    def centres(length: int) -> np.ndarray:
        count = 1 if length <= side else math.ceil((length - side) / (side / 2)) + 1
        return np.linspace(side / 2, length - side / 2, count) if count > 1 else np.array([length / 2])

    return [Square(float(x), float(y), side) for y in centres(height) for x in centres(width)]


def palm_squares(frame: np.ndarray, faces: np.ndarray) -> list[Square]:
    """Where palms are looked for: beside and below the largest face, or in the whole picture; one or two squares."""
    height, width = frame.shape[:2]
    if not len(faces):
        return [Square.around(0, 0, width, height)]
    x1, y1, x2, y2 = largest(faces)[:4]
    unit = float(y2 - y1)
    half, x, y = PALM_CROP * unit / 2, (x1 + x2) / 2, (y1 + y2) / 2 + PALM_DROP * unit
    squares = []
    for centre in (x - PALM_ASIDE * unit, x + PALM_ASIDE * unit):
        left, right = max(0.0, centre - half), min(width, centre + half)
        top, bottom = max(0.0, y - half), min(height, y + half)
        if right > left and bottom > top:
            squares.append(Square.around(left, top, right, bottom))
    # In a close-up one look at everything sees as much.
    return (
        squares
        if squares and max(s.side for s in squares) < 0.9 * max(width, height)
        else [Square.around(0, 0, width, height)]
    )


def largest(faces: np.ndarray) -> np.ndarray:
    """The row of the tallest face."""
    return np.asarray(faces[int(np.argmax(faces[:, 3] - faces[:, 1]))])


def upright(start: np.ndarray, end: np.ndarray) -> float:
    """The turn, in radians, of a square in which the way from start to end goes straight up."""
    return math.atan2(end[1] - start[1], end[0] - start[0]) + math.pi / 2


def palm_region(palm: np.ndarray) -> Square:
    """The hand's square from a palm: wrist (point 0) to middle knuckle (2) upwards, half a palm up, 2.6 palms wide.

    Source: `DetectionsToRects` and `RectTransformation` in `hand_landmark_tracking_cpu` and its subgraphs.
    """
    points = palm[5:].reshape(-1, 2)
    return _raised(Square.around(*palm[:4]), upright(points[0], points[2]), 0.5, 2.6)


def hand_region(points: np.ndarray) -> Square:
    """The square in which to look for a hand again, from its 21 points: twice the palm, a tenth up.

    Source: `hand_landmark_landmarks_to_roi.pbtxt` and `HandLandmarksToRectCalculator`.
    """
    palm = points[[0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18]]
    angle = upright(points[0], (points[5] + points[13]) / 4 + points[9] / 2)
    middle = (palm.min(axis=0) + palm.max(axis=0)) / 2
    turned = Square(0, 0, 1, -angle).to_picture(palm - middle + 0.5)
    low, high = turned.min(axis=0), turned.max(axis=0)
    centre = Square(0, 0, 1, angle).to_picture((low + high) / 2 + 0.5) + middle
    return _raised(Square(centre[0], centre[1], float((high - low).max())), angle, 0.1, 2.0)


def _raised(square: Square, angle: float, up: float, scale: float) -> Square:
    """A square turned, moved along its own upward direction by `up` sides, and scaled."""
    step = up * square.side
    return Square(
        square.x + math.sin(angle) * step, square.y - math.cos(angle) * step, max(1.0, scale * square.side), angle
    )


def face_mesh(model: TfliteModel, frame: np.ndarray, face: np.ndarray) -> np.ndarray:
    """The 68 iBUG points of one face [68, 3] (x, y, score), all zero where the mesh finds none.

    The crop is 1.5 times the box with the eyes level (`face_detection_front_detection_to_roi.pbtxt`).
    """
    eyes = face[5:].reshape(-1, 2)  # the person's right eye first, so left in the picture
    angle = math.atan2(eyes[1, 1] - eyes[0, 1], eyes[1, 0] - eyes[0, 0])
    square = _raised(Square.around(*face[:4]), angle, 0.0, 1.5)
    points, logit = model(square.cut(frame, model.size))
    score = float(sigmoid(logit).item())
    if score < PRESENT:
        return np.zeros((68, 3))
    mesh = points.reshape(468, 3)[coco.IBUG_FROM_MESH, :2] / model.size
    return np.column_stack([square.to_picture(mesh), np.full(68, score)])


def body_pose(
    detector: Ssd, landmark: TfliteModel, frame: np.ndarray, faces: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Pose [33, 3] (x, y, score) and body box [4] of the person with the largest face, or of the surest one.

    The square: about the hips, twice the way to the detector's second point, times 1.25, that way upwards
    (`pose_detection_to_roi.pbtxt`). The box holds the points that are seen and the person's own segmentation, so hair
    and hands too. A point outside the picture has score 0.
    """
    height, width = frame.shape[:2]
    people = detector(frame, Square.around(0, 0, width, height))
    if len(faces) and len(people):  # the detector's box is that of the face
        people = people[np.argsort(-iou(largest(faces)[:4], people[:, :4]), kind="stable")]
    if not len(people):
        return None, None
    hips, end = people[0, 5:9].reshape(2, 2)
    reach = float(np.linalg.norm(end - hips))
    square = Square(hips[0], hips[1], max(1.0, 2 * reach * 1.25), upright(hips, end))
    raw, flag, mask, heat, _ = landmark(square.cut(frame, landmark.size))
    if flag.item() < PRESENT:
        return None, None
    raw = raw.reshape(39, 5)[:33]

    def inside(points: np.ndarray) -> np.ndarray:
        return np.asarray(((points >= 0) & (points < [width, height])).all(axis=1))

    xy = square.to_picture(sharpen(raw[:, :2] / landmark.size, sigmoid(heat[0, :, :, :33])))
    pose = np.column_stack([xy, sigmoid(raw[:, 3]) * inside(xy)])
    y, x = np.nonzero(mask.reshape(mask.shape[1:3]) > 0)  # logits: above 0 is above one half
    shape = square.to_picture((np.column_stack([x, y]) + 0.5) / mask.shape[1])
    shape = shape[inside(shape)]
    seen = [pose[pose[:, 2] > PRESENT, :2]]
    if len(shape):
        seen.append(np.quantile(shape, [0.002, 0.998], axis=0))  # without stray pixels
    points = np.concatenate(seen)
    if not len(points):
        return pose, None
    return pose, np.concatenate([points.min(axis=0), points.max(axis=0)])


def sharpen(points: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Points [n, 2] in 0..1 moved to the centre of mass of the 7x7 cells about them in their heat map [h, w, n].

    A map that stays below 0.5 there leaves its point alone (`RefineLandmarksFromHeatmapCalculator`, kernel 7). On the
    sample clips this moves visible points by 5 to 10 pixels, onto MediaPipe's own result to within about 1.
    """
    out = points.copy()
    high, wide = heat.shape[:2]
    for i, (x, y) in enumerate((points * [wide, high]).astype(int)):
        if not (0 <= x < wide and 0 <= y < high):
            continue
        top, left = max(0, y - 3), max(0, x - 3)
        part = heat[top : y + 4, left : x + 4, i]
        if part.max() >= 0.5:
            # MediaPipe takes a cell's corner for its place; so the mean is in cells, without half a cell added.
            rows, columns = part.sum(axis=1), part.sum(axis=0)
            out[i, 0] = (left + np.average(np.arange(len(columns)), weights=columns)) / wide
            out[i, 1] = (top + np.average(np.arange(len(rows)), weights=rows)) / high
    return out


def person_mask(model: TfliteModel, frame: np.ndarray) -> dict[str, object]:
    """The selfie segmentation above 0.5 in the frame's size, run-length encoded; it shows everyone in the picture."""
    import cv2

    small = cv2.resize(frame, (model.size, model.size), interpolation=cv2.INTER_AREA)
    soft = model(small)[0].reshape(model.size, model.size)
    soft = cv2.resize(soft, (frame.shape[1], frame.shape[0]), interpolation=cv2.INTER_LINEAR)
    return coco.rle_encode(soft > 0.5)
