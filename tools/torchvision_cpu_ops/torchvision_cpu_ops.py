"""Let torchvision be imported where its compiled operators cannot be loaded.

A torchvision wheel built against CUDA does not load its operators beside a CPU build of torch, and its import then
stops at `operator torchvision::nms does not exist`. This declares the schemas of the missing operators, so that
transforms, models and roi_align work; nms, deform_conv2d and JPEG decoding do not. torch calls `declare` at the end of
every `import torch` (entry-point group `torch.backends`). It repairs an environment, so `make` installs it only where
`import torchvision` fails; it is no part of jwb_dh_v1.
"""

import importlib.util
from pathlib import Path

SCHEMAS = ("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
           "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # fmt: skip
_keep = []  # a torch.library.Library undoes its definitions when it is collected


def declare() -> None:
    """Declare the operators, unless torchvision's own compiled ones can be loaded."""
    import torch

    found = importlib.util.find_spec("torchvision")
    if found is None or not found.submodule_search_locations:
        return
    for library in Path(found.submodule_search_locations[0]).glob("_C*.so"):
        try:
            torch.ops.load_library(str(library))
            return
        except OSError:
            continue  # built for CUDA libraries that are not here: that is what this repairs
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in SCHEMAS:
        library.define(schema)
    _keep.append(library)
