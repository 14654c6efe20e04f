"""E-FID: whether the set of facial expressions is that of real people.

The name comes from EMO (Tian et al. 2024), without a formula; EchoMimic and Hallo use it too. Computed is in practice
the Fréchet distance of expression coefficients of single frames, with no network on top. `standard` takes the 64
coefficients that Deep3DFaceRecon gives; `lite` takes 16 distances on MediaPipe's face mesh. What the benchmark's
authors call E-FID is the FID of Canny edges (`paper_efid`). Values of the three cannot be compared.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jwb_dh_v1.errors import NotApplicable
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.metrics.feature_statistics import Frechet
from jwb_dh_v1.metrics.fidelity.fid import paper_frechet
from jwb_dh_v1.metrics.fidelity.set_distance import frechet_of
from jwb_dh_v1.metrics.metric import INF, REFERENCE, Metric, set_metric
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.metrics.state import Mean
from jwb_dh_v1.networks import face_mesh
from jwb_dh_v1.networks.face_mesh import LEFT_EYE, RIGHT_EYE
from jwb_dh_v1.networks.pool import models_of
from jwb_dh_v1.networks.preprocessing import BATCH

# Pixels per unit of the standard face: eyes 6 pixels apart. What is smaller shows no expression, and enlarging the
# picture until its eyes are 63 pixels apart would take gigabytes.
SMALLEST = 10.0


def coefficients(clip: Clip) -> np.ndarray:
    """Deep3DFaceRecon's coefficients of every frame with a face, float32 [n, 257].

    The face is that of `scrfd.five_points`. Frames without one, or with one that is smaller than `SMALLEST`,
    are left out.

    Raises:
        NotApplicable: no frame has a face.

    """

    def make() -> np.ndarray:
        import torch

        from jwb_dh_v1.networks import deep3d, scrfd

        points, net, device = scrfd.five_points(clip), models_of(clip).get(deep3d.NETWORK), models_of(clip).device
        height = clip.size[1]
        seen = [bool(np.isfinite(five).all()) and deep3d.pose(five, height)[0] >= SMALLEST for five in points]
        found, at = [], 0
        with torch.inference_mode():
            for chunk in clip.chunks(BATCH):
                crops = [deep3d.align(frame, points[i]) for i, frame in enumerate(chunk, at) if seen[i]]
                if crops:
                    found.append(net(deep3d.picture(np.stack(crops)).to(device)).float().cpu().numpy())
                at += len(chunk)
        if not found:
            raise NotApplicable(f"no face: {clip.name} shows none in any of its {len(points)} frames")
        return np.concatenate(found)

    return clip.feature("deep3d", make)


def expression(clip: Clip) -> np.ndarray:
    """The 64 expression coefficients of every frame with a face, float32 [n, 64]; errors as `coefficients`."""
    from jwb_dh_v1.networks import deep3d

    return coefficients(clip)[:, deep3d.EXPRESSION]


def efid(sample: Sample) -> Frechet:
    """E-FID on Deep3DFaceRecon's expression coefficients of all frames of all clips that show a face.

    Raises:
        NotApplicable: no reference, or no face in one of the clips.

    """
    return frechet_of(sample, expression)


def efid_facts(sample: Sample) -> dict[str, Any]:
    """How many frames `efid` rests on: with a face (`frames`) and in all (`of`), the reference's likewise."""
    found = {"frames": len(coefficients(sample.generated)), "of": len(sample.generated)}
    if sample.reference is not None:
        found |= {"reference_frames": len(coefficients(sample.reference)), "reference_of": len(sample.reference)}
    return found


def paper_efid(sample: Sample) -> Mean:
    """The authors' E-FID: `paper_fid` of Canny edge pictures."""
    return paper_frechet(sample, edges=True)


# lite: distances on the face mesh

FRAMES = 32  # per clip part, evenly spaced

# Each row: two mesh points, and the distance in a usual face at rest, in distances of the outer eye corners. Between
# points of the mouth and the nose, the eyes or the chin (the lips' own thickness tells pursed from pressed), of the
# lids, and of the brows and the corners of the eyes. The points of the mesh are numbered in mediapipe
# `modules/face_geometry/data/canonical_face_model_uv_visualization.png`.
DISTANCES = {
    "mouth opening": (13, 14, 0.1),
    "mouth width": (61, 291, 0.6),
    "right mouth corner to eye": (61, 33, 0.8),
    "left mouth corner to eye": (291, 263, 0.8),
    "upper lip to nose": (0, 2, 0.15),
    "jaw drop": (168, 152, 1.4),
    "lower lip to chin": (17, 152, 0.4),
    "upper lip thickness": (0, 13, 0.1),
    "lower lip thickness": (14, 17, 0.1),
    "right eye opening": (159, 145, 0.1),
    "left eye opening": (386, 374, 0.1),
    "right inner brow height": (107, 133, 0.3),
    "right outer brow height": (70, 33, 0.2),
    "left inner brow height": (336, 362, 0.3),
    "left outer brow height": (300, 263, 0.2),
    "brow gap": (55, 285, 0.3),
}
TENTHS = 10.0


def mesh_expression(mesh: np.ndarray) -> np.ndarray:
    """An expression as 16 numbers that shift, turn and scale of the face do not change.

    Distances in space, so that a turned head changes them less than distances in the picture (the length of the nose
    then varies a quarter less over the sample clips). The unit is a tenth of the distance of the outer eye corners.
    A usual face's distance is subtracted from each, which cancels in a Fréchet distance and keeps the sums of
    `FeatureStatistics` exact for a million frames (in percent of it, and without the subtraction, a hundred).

    Args:
        mesh: float [468, 3], x, y, z in any one unit.

    Returns:
        float64 [16] in the order of `DISTANCES`, about -3..3.

    """
    pairs = np.array([(a, b) for a, b, _ in DISTANCES.values()])
    usual = np.array([rest for _, _, rest in DISTANCES.values()])
    lengths = np.linalg.norm(mesh[pairs[:, 0]] - mesh[pairs[:, 1]], axis=1)
    return np.asarray(TENTHS * (lengths / np.linalg.norm(mesh[RIGHT_EYE] - mesh[LEFT_EYE]) - usual))


def lite_expression(clip: Clip) -> np.ndarray:
    """`mesh_expression` of up to 32 evenly spaced frames of a face part, float64 [n, 16], without those with no face.

    Raises:
        NotApplicable: none of them shows a face.

    """

    def make() -> np.ndarray:
        moments = _moments(clip)
        meshes = face_mesh.meshes(clip, moments)
        found = [mesh_expression(mesh) for mesh in meshes if mesh is not None]
        if not found:
            raise NotApplicable(f"no face: {clip.name} shows none in {len(moments)} frames")
        return np.stack(found)

    return clip.feature(("face-mesh-expression", FRAMES), make)


def _moments(clip: Clip) -> np.ndarray:
    return np.unique(np.linspace(0, len(clip) - 1, FRAMES).round().astype(int))


def lite_efid(sample: Sample) -> Frechet:
    """E-FID's formula on 16 distances of MediaPipe's face mesh, 32 frames a clip.

    They hold the shape of the face as well as its expression (Deep3DFaceRecon's coefficients are meant to tell the two
    apart), so that the distance between two people is far above 0 whatever they do.

    Raises:
        NotApplicable: no reference, or no face in one of the clips.

    """
    return frechet_of(sample, lite_expression)


def lite_efid_facts(sample: Sample) -> dict[str, Any]:
    """How many frames `lite_efid` rests on: with a face (`frames`) and looked at (`of`), the reference's likewise."""
    found = {"frames": len(lite_expression(sample.generated)), "of": len(_moments(sample.generated))}
    if sample.reference is not None:
        found["reference_frames"] = len(lite_expression(sample.reference))
        found["reference_of"] = len(_moments(sample.reference))
    return found


METRICS = {
    "standard": (
        set_metric(
            "e_fid",
            efid,
            weights=("scrfd", "deep3d"),
            networks="SCRFD-10G, Deep3DFaceRecon expression (64)",
            regions=("body", "face"),
            facts=efid_facts,
        ),
    ),
    "paper": (
        Metric(
            "e_fid",
            paper_efid,
            higher_is_better=False,
            range=(0, INF),
            needs=REFERENCE,
            weights=("inception-v3",),
            networks="Inception v3 (torchvision) on Canny edges",
        ),
    ),
    "lite": (
        set_metric(
            "e_fid",
            lite_efid,
            weights=("face-mesh",),
            networks="MediaPipe face mesh, 16 distances",
            regions=("face",),
            facts=lite_efid_facts,
        ),
    ),
}
