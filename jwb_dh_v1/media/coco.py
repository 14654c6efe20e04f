"""COCO's conventions: the order of the 133 whole-body key points, and run-length encoded masks.

Key points: https://github.com/jin-s13/COCO-WholeBody (`data/COCO-Wholebody-readme`): body 0-16, feet 17-22 (big toe,
small toe, heel; left first), face 23-90 in iBUG order, left hand 91-111, right hand 112-132. Left and right are the
person's own. Masks: the compressed form of `common/maskApi.c` in https://github.com/cocodataset/cocoapi.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

FACE = slice(23, 91)
LEFT_HAND = slice(91, 112)
RIGHT_HAND = slice(112, 133)
NOSE = 0

# COCO point <- MediaPipe pose landmark (the list in mediapipe/modules/pose_landmark/pose_landmark_cpu.pbtxt). The
# small toes, 18 and 21, have no counterpart there and stay absent.
BODY_FROM_POSE: Mapping[int, int] = dict(
    zip(range(17), (0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28), strict=True)
) | {17: 31, 19: 29, 20: 32, 22: 30}

# The 68 iBUG points on the 468-point mesh, in iBUG order. The jaw line and the choice for nose and brows follow the
# tables in public use (mesh points 127, 234, 132 ... of the face oval); the mesh itself is drawn in
# mediapipe/modules/face_geometry/data/canonical_face_model_uv_visualization.png.
IBUG_FROM_MESH = np.array([
    127, 234, 132, 58, 172, 150, 149, 148, 152, 377, 378, 379, 397, 288, 361, 454, 356,  # jaw, from the right ear
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,  # right brow, left brow
    168, 197, 5, 4, 98, 97, 2, 326, 327,  # nose, bridge then nostrils
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,  # right eye, left eye
    61, 39, 37, 0, 267, 269, 291, 321, 314, 17, 84, 91,  # outer lips
    78, 81, 13, 311, 308, 402, 14, 178,  # inner lips
])  # fmt: skip


def rle_encode(mask: np.ndarray) -> dict[str, object]:
    """A mask as COCO's compressed run-length encoding, byte for byte as `pycocotools.mask.encode` gives it.

    Args:
        mask: bool or 0/1, [H, W].

    Returns:
        `{"size": [H, W], "counts": bytes}`: lengths of the runs down the columns, beginning with zeros; from the
        fourth on as differences to the one two before; 5 bits a character, low ones first, sign-extended.

    """
    flat = np.asarray(mask, bool).ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])) if flat.size else np.zeros(0, int)
    counts = [0, *runs.tolist()] if flat.size and flat[0] else runs.tolist()
    out = bytearray()
    for i, count in enumerate(counts):
        rest = count - counts[i - 2] if i > 2 else count
        while True:
            bits, rest = rest & 31, rest >> 5
            more = rest != (-1 if bits & 16 else 0)
            out.append(48 + bits + 32 * more)
            if not more:
                break
    return {"size": [int(mask.shape[0]), int(mask.shape[1])], "counts": bytes(out)}


def rle_decode(rle: Mapping[str, object]) -> np.ndarray:
    """The mask, bool [H, W], of a compressed run-length encoding (`rle_encode`); `counts` may be bytes or str.

    Raises:
        ValueError: the encoding is no mask of that size.

    """
    size, text = rle["size"], rle["counts"]
    data = text.encode("ascii") if isinstance(text, str) else text
    if not isinstance(size, list | tuple) or len(size) != 2 or not isinstance(data, bytes):
        raise ValueError("an encoded mask needs `size` [height, width] and compressed `counts`")
    counts: list[int] = []
    value = shift = 0
    for char in data:
        bits = char - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value = shift = 0
    height, width = int(size[0]), int(size[1])
    if shift or sum(counts) != height * width or min(counts, default=0) < 0:
        raise ValueError(f"the runs of an encoded mask fill {sum(counts)} of {height}x{width} pixels")
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return flat.reshape((height, width), order="F")
