"""What bf16 and fp16 change: every metric whose network may run in half precision, against float32.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/precision.py [--device cuda] [metrics...]

Two golden clips and their degraded partners (`tests/golden/clips.py`). Networks of standard/1 carry seeded weights
where the real ones are not here, MobileNetV2 of lite/1 its real ones. Seeded networks are rougher than trained ones, so
the deviations of standard/1 are an indication only.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from jwb_dh_v1 import Clip, Sample, score
from jwb_dh_v1.metrics import PROTOCOLS
from jwb_dh_v1.networks.weights import resolve

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from goldens import CHECKPOINTS, clips, seeded_file

CELLS = {
    "standard": ("subject_consistency", "background_consistency", "fid", "fvd"),
    "lite": ("subject_consistency", "background_consistency", "fid", "fvd"),
}
NAMES = ("pan", "odd_size")


def main() -> None:
    """Print value by precision, the deviation and the seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("metrics", nargs="*")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16", "fp16"])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as room:
        for protocol, metrics in CELLS.items():
            for metric in metrics:
                if args.metrics and metric not in args.metrics:
                    continue
                names = PROTOCOLS[protocol].metrics[metric].weights
                files = {n: seeded_file(n, Path(room)) if n in CHECKPOINTS else resolve(n) for n in names}
                values = []
                for precision in args.precisions:
                    begun = time.perf_counter()
                    samples = [
                        Sample(name, Clip(made, fps=fps), Clip(real, fps=fps), person_id=name)
                        for name in NAMES
                        for made, real, fps in [clips.make_pair(name)]
                    ]
                    result = score(samples, [metric], ["body"], protocol=protocol, weights=files, other_weights=True,
                                   device=args.device, precision=precision)  # fmt: skip
                    values.append(result.scores[0].value)
                    print(f"{protocol}/1 {metric} {precision} {values[-1]:.6f} {values[-1] - values[0]:+.1e} "
                          f"{time.perf_counter() - begun:.1f} s", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
