"""The same pictures through other people's packages: FID, SSIM and PSNR from files to numbers, CLIP and DINO.

`test_golden_distribution.py` and `test_pixel.py` hold networks, pictures and formulas one by one; here the packages'
own public functions go the whole way. Their networks carry the seeded weights that ours carry.
"""

from __future__ import annotations

import av
import numpy as np
import pytest
import torch
from goldens import NAMES, clips, made, seeded_state
from media import moving, write_mp4
from PIL import Image
from skimage import metrics as skimage_metrics
from torch import nn

from jwb_dh_v1 import Clip, Sample, score
from jwb_dh_v1.metrics.feature_statistics import FeatureStatistics, frechet_distance
from jwb_dh_v1.metrics.fidelity import fid as fid_file
from jwb_dh_v1.networks import clip_image, dino, inception
from jwb_dh_v1.networks.placement import placed
from jwb_dh_v1.networks.pool import NetworkPool
from jwb_dh_v1.networks.preprocessing import batched

pytestmark = [
    pytest.mark.teaser,  # large networks on seeded weights: minutes
    pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning"),  # SciPy to the packages
    pytest.mark.filterwarnings("ignore:Matrix is singular"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
]
CPU = torch.device("cpu")

# FID

# Values of 0.08 to 0.5 from features that agree to 1e-6 and are rounded to 2**-16 (`FeatureStatistics`): a mean is off
# by up to 8e-6 / sqrt(10), times twice the gaps of the means. Another package's resizing moves them by 3e-3 or more.
# Observed: 1.7e-6, and 4e-8 for equal features (what roots of singular products leave).
CLOSE_FID = 2e-5
WIDTH = 64  # features of the 2048, so that the packages' 2048 x 2048 roots (20 s and more) are not needed


@pytest.fixture(scope="module")
def state():
    return seeded_state("inception_fid_2015")


@pytest.fixture(scope="module")
def pair(state):
    """Generated and real pictures of one size: two corners of each of five clips, unlike each other."""
    models = NetworkPool(device="cpu")
    models.put(inception.FID, placed(inception.FID, inception.inception_fid(state), torch.device("cpu")))
    sides = [], []
    for name in NAMES[:5]:
        for side, frames in zip(sides, clips.make_pair(name)[:2], strict=True):
            side += [frames[0, :180, :240], frames[-1, -180:, -240:]]
    return Sample("a", *(Clip(np.stack(side), models=models) for side in sides))


@pytest.fixture(scope="module")
def pick(pair):
    """The features that vary most over the real pictures; many of a seeded network's are 0."""
    return np.argsort(-fid_file.inception_2015(pair.reference).std(axis=0))[:WIDTH].copy()


@pytest.fixture(scope="module")
def folders(pair, tmp_path_factory):
    """The pictures as PNG, one folder a side."""
    found = []
    for clip in (pair.generated, pair.reference):
        folder = tmp_path_factory.mktemp("pictures")
        for number, frame in enumerate(clip.frames):
            Image.fromarray(frame).save(folder / f"{number:03d}.png")
        found.append(str(folder))
    return found


@pytest.fixture
def weights(state, tmp_path, monkeypatch):
    """The seeded network as a file, and where pytorch-fid looks for its own."""
    theirs = pytest.importorskip("pytorch_fid.inception")
    monkeypatch.setattr(theirs, "load_state_dict_from_url", lambda *a, **k: state)
    torch.save(state, tmp_path / "inception.pth")
    return str(tmp_path / "inception.pth")


class Picked(nn.Module):
    """Some features of a network as a network."""

    def __init__(self, net, pick):
        super().__init__()
        self.net, self.pick, self.num_features = net, torch.from_numpy(pick), len(pick)

    def forward(self, x):
        return self.net(x).flatten(1)[:, self.pick]


def rows(state, pick):
    """Our features of either side, float64 [n, d], as `FeatureStatistics` keeps them."""
    return [side.rows[:, pick] / 2**16 for side in (state.generated, state.reference)]


def by_pytorch_fid(folders, weights, pick):
    fid_score = pytest.importorskip("pytorch_fid.fid_score")
    from pytorch_fid.inception import InceptionV3

    class Net(InceptionV3):
        def forward(self, x):
            return [super().forward(x)[0][:, pick]]

    net = Net([3])
    statistics = [fid_score.compute_statistics_of_path(folder, net, 5, len(pick), "cpu", 0) for folder in folders]
    return fid_score.calculate_frechet_distance(*statistics[0], *statistics[1])


def by_clean_fid(folders, weights, pick):
    fid = pytest.importorskip("cleanfid.fid")
    from pytorch_fid.inception import InceptionV3

    # clean-fid's own network is a program that would have to be fetched; pytorch-fid's has the same layers.
    net = InceptionV3([3], resize_input=False, normalize_input=False).eval()
    picked = Picked(lambda x: net((x - 128) / 128)[0], pick)
    return fid.compare_folders(*folders, picked, "clean", batch_size=5, device=CPU, verbose=False)


def by_torch_fidelity(folders, weights, pick):
    torch_fidelity = pytest.importorskip("torch_fidelity")
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    class Net(torch_fidelity.FeatureExtractorInceptionV3):
        def forward(self, x):
            return (super().forward(x)[0][:, pick],)

    torch_fidelity.register_feature_extractor("picked", Net)
    try:
        found = torch_fidelity.calculate_metrics(
            input1=folders[0],
            input2=folders[1],
            fid=True,
            feature_extractor="picked",
            feature_extractor_weights_path=weights,
            batch_size=5,
            cuda=False,
            cache=False,
            verbose=False,
        )
    finally:
        del FEATURE_EXTRACTORS_REGISTRY["picked"]
    return found["frechet_inception_distance"]


def by_torchmetrics(folders, weights, pick, antialias=False):
    fid = pytest.importorskip("torchmetrics.image.fid")
    net = fid.NoTrainInceptionV3("inception-v3-compat", ["2048"], weights, antialias=antialias)
    metric = fid.FrechetInceptionDistance(Picked(net, pick))
    for folder, real in zip(folders, (False, True), strict=True):
        frames = np.stack([np.asarray(Image.open(f"{folder}/{number:03d}.png")) for number in range(10)])
        metric.update(torch.from_numpy(frames).permute(0, 3, 1, 2), real=real)
    return metric.compute().item()


PACKAGES = {
    "pytorch-fid": (by_pytorch_fid, fid_file.fid),
    "clean-fid": (by_clean_fid, fid_file.fid_clean),
    "torch-fidelity": (by_torch_fidelity, fid_file.fid_tensorflow),
    "torchmetrics": (by_torchmetrics, fid_file.fid_tensorflow),
}


@pytest.mark.parametrize("package", PACKAGES)
def test_fid_from_pictures_to_number(package, folders, weights, pair, pick):
    theirs, ours = PACKAGES[package]
    value = frechet_distance(*map(FeatureStatistics.of, rows(ours(pair), pick)))
    expected = theirs(folders, weights, pick)
    assert value == pytest.approx(expected, abs=CLOSE_FID)


def test_torchmetrics_resizes_otherwise_unless_told_not_to(folders, weights, pair, pick):
    """Its default samples at pixel centres (and antialiases what shrinks), TensorFlow and torch-fidelity at corners."""
    value = frechet_distance(*map(FeatureStatistics.of, rows(fid_file.fid_tensorflow(pair), pick)))
    expected = by_torchmetrics(folders, weights, pick, antialias=True)
    assert abs(value - expected) > 100 * CLOSE_FID  # seen 3.4e-3


def distance_by_torch_fidelity(a, b):
    fid = pytest.importorskip("torch_fidelity.metric_fid")
    statistics = [fid.fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b)]
    return fid.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]


def distance_by_torchmetrics(a, b):
    fid = pytest.importorskip("torchmetrics.image.fid")
    metric = fid.FrechetInceptionDistance(Picked(nn.Identity(), np.arange(a.shape[1])))
    metric.update(torch.from_numpy(a), real=False)
    metric.update(torch.from_numpy(b), real=True)
    return metric.compute().item()


def distance_by_pytorch_fid(a, b):
    fid_score = pytest.importorskip("pytorch_fid.fid_score")
    moments = [f(x) for x in (a, b) for f in (lambda x: x.mean(axis=0), lambda x: np.cov(x, rowvar=False))]
    return fid_score.calculate_frechet_distance(*moments)


DISTANCES = {
    "pytorch-fid": distance_by_pytorch_fid,
    "clean-fid": lambda a, b: pytest.importorskip("cleanfid.fid").fid_from_feats(a, b),
    "torch-fidelity": distance_by_torch_fidelity,
    "torchmetrics": distance_by_torchmetrics,
}


@pytest.mark.parametrize(("n", "d"), [(10, 64), (10, 8), (5, 8)], ids=["Gram", "sums", "one of each"])
@pytest.mark.parametrize("package", DISTANCES)
def test_distance_of_equal_features(package, n, d, pair, pick):
    a, b = rows(fid_file.fid(pair), pick[:d])
    sides = FeatureStatistics.of(a[:n]), FeatureStatistics.of(b)
    assert [side.rows is not None for side in sides] == [n <= d, len(b) <= d]
    expected = DISTANCES[package](a[:n], b)
    assert frechet_distance(*sides) == pytest.approx(expected, abs=CLOSE_FID)


# SSIM and PSNR


def pictures(path):
    """All frames of a file as PyAV gives them, uint8 [T, H, W, 3] RGB."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A generated file of 18 frames, coded worse, and its reference."""
    folder, frames = tmp_path_factory.mktemp("files"), moving(18, 80, 64)
    write_mp4(folder / "generated.mp4", np.roll(frames, 1, axis=2), 25, crf=38)
    write_mp4(folder / "reference.mp4", frames, 25)
    return folder / "generated.mp4", folder / "reference.mp4"


def scored(files, protocol):
    result = score([Sample("a", *map(Clip, files))], ["ssim", "psnr"], ["body"], protocol=protocol, device="cpu")
    return [result[metric, "body"].value for metric in ("ssim", "psnr")]


def test_ssim_and_psnr_from_files_equal_torchmetrics(files):
    image = pytest.importorskip("torchmetrics.functional.image")
    ours, theirs = (torch.from_numpy(pictures(path)).permute(0, 3, 1, 2).double() for path in files)
    # torchmetrics also counts windows over the border, which it mirrors (SSIM then moves by 0.01 and more); Wang et al.
    # leave these out.
    _, whole = image.structural_similarity_index_measure(
        ours, theirs, gaussian_kernel=True, sigma=1.5, kernel_size=11, data_range=255.0, return_full_image=True
    )
    ssim = whole[..., 5:-5, 5:-5].mean()
    psnr = image.peak_signal_noise_ratio(ours, theirs, data_range=255.0, dim=(1, 2, 3))
    # Observed: 1e-15 for SSIM in float64; 5e-7 dB for PSNR, whose logarithm of the peak torchmetrics has in float32.
    assert scored(files, "standard") == pytest.approx([ssim.item(), psnr.item()], abs=2e-6)


def test_paper_ssim_and_psnr_from_files_equal_scikit_image(files):
    pairs = list(zip(*(pictures(path)[:16] for path in files), strict=True))
    ssim = [skimage_metrics.structural_similarity(a, b, channel_axis=-1, data_range=255) for a, b in pairs]
    psnr = [skimage_metrics.peak_signal_noise_ratio(b, a, data_range=255) for a, b in pairs]
    # float64 sums in another order, as in `test_pixel.py`.
    assert scored(files, "paper") == pytest.approx([np.mean(ssim), np.mean(psnr)], abs=1e-9)


# CLIP and DINO at 224 x 224, where nothing is resized and no position is interpolated


@pytest.fixture(scope="module")
def squares():
    """Three frames of 224 x 224, uint8."""
    return np.stack([made(name)[0][0, :224, :224] for name in ("pan", "flicker", "person_like")])


def renamed(state, names, whole, parts):
    """A state under other names, and each stack of queries, keys and values as three tensors."""
    found = {}
    for key, value in state.items():
        for old, new in names.items():
            key = key.replace(old, new)
        pieces = zip(parts, value.chunk(3), strict=True) if whole in key else [(whole, value)]
        found |= {key.replace(whole, part): tensor.float() for part, tensor in pieces}
    return found


CLIP_NAMES = {
    "visual.transformer.resblocks.": "vision_model.encoder.layers.",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.": "vision_model.embeddings.patch_embedding.",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.": "vision_model.pre_layrnorm.",
    "visual.ln_post.": "vision_model.post_layernorm.",
    ".attn.out_proj.": ".self_attn.out_proj.",
    ".ln_": ".layer_norm",
    ".c_fc.": ".fc1.",
    ".c_proj.": ".fc2.",
}
DINO_NAMES = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj.": "embeddings.patch_embeddings.projection.",
    "blocks.": "layers.",
    ".norm1.": ".layernorm_before.",
    ".norm2.": ".layernorm_after.",
    ".attn.proj.": ".attention.o_proj.",
}


def test_clip_equals_transformers(squares):
    transformers = pytest.importorskip("transformers", "5")
    state = seeded_state("clip_vit_b32", only=("visual.",))
    ours = batched(clip_image.from_state(state), [squares], clip_image.pictures)

    projection = state.pop("visual.proj").T.float()
    parts = [f".self_attn.{name}_proj." for name in "qkv"]
    theirs = renamed(state, {**CLIP_NAMES, ".in_proj_": ".in_proj."}, ".attn.in_proj.", parts)
    net = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(patch_size=32)).eval()
    net.load_state_dict({**theirs, "visual_projection.weight": projection})
    pictures = transformers.CLIPImageProcessor()(list(squares), return_tensors="pt")
    check_features(ours, lambda: net(**pictures).image_embeds, net.vision_model.encoder.layers, "activation_fn")


def test_dino_equals_transformers_and_timm(squares):
    transformers, timm = pytest.importorskip("transformers", "5"), pytest.importorskip("timm")
    state = seeded_state("dino_vitbase16")
    ours = batched(dino.from_state(state), [squares], dino.pictures)

    net = timm.create_model("vit_base_patch16_224.dino", pretrained=False, num_classes=0).eval()
    net.load_state_dict(state)
    mean, std = (torch.tensor(net.pretrained_cfg[name]).view(3, 1, 1) for name in ("mean", "std"))
    pictures = (torch.from_numpy(squares).permute(0, 3, 1, 2) / 255 - mean) / std
    check_features(ours, lambda: net(pictures), [block.mlp for block in net.blocks], "act")

    config = transformers.ViTConfig(layer_norm_eps=net.norm.eps)
    net = transformers.ViTModel(config, add_pooling_layer=False).eval()
    parts = [f".attention.{name}_proj." for name in "qkv"]
    theirs = renamed(state, DINO_NAMES, ".attn.qkv.", parts)
    net.load_state_dict(
        {key.replace("norm.", "layernorm.") if key[:5] == "norm." else key: v for key, v in theirs.items()}
    )
    check_features(ours, lambda: net(pictures).last_hidden_state[:, 0])


# Components of up to 4 in features of norm 28 after 12 layers in float32, summed in another order.
# Observed: 7e-6 for CLIP, and no difference at all for DINO on one machine; the tanh in place of the exact or the quick
# GELU moves 1.7e-3 or more.
CLOSE_FEATURE = 1e-4


def check_features(ours, theirs, layers=(), activation=""):
    """Features are equal; and not any more, once the package's layers compute another GELU."""
    with torch.inference_mode():
        expected = theirs().numpy()
        for layer in layers:
            setattr(getattr(layer, "mlp", layer), activation, nn.GELU("tanh"))
        other = theirs().numpy()
    assert ours == pytest.approx(expected, abs=CLOSE_FEATURE)
    if layers:
        assert np.abs(ours - other).max() > 10 * CLOSE_FEATURE
