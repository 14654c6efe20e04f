"""Seconds per clip of each metric and region under lite/1, and the peak memory of the process.

    python benchmarks/per_metric.py [--data jwb-dh-v1] [--system systems/blurred]

A metric's time includes what it is the first to compute (decoding, boxes, features that later metrics share).
"""

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is imported

from jwb_dh_v1 import score
from jwb_dh_v1.data.pairs import pair


def main() -> None:
    """Score one system from nothing and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="jwb-dh-v1")
    parser.add_argument("--system", default="systems/blurred")
    args = parser.parse_args()
    samples = pair(args.system, args.data)
    with tempfile.TemporaryDirectory() as out:
        begun = time.perf_counter()
        result = score(samples, protocol="lite", device="cpu", out=out, data=samples.data)
        wall = time.perf_counter() - begun
        seconds = json.loads((Path(out) / "timings.json").read_text())["seconds"]
    clips = len({row.sample_id for row in result.rows()})
    print("| metric | region | s/clip | clips |\n|---|---|---|---|")
    for cell in result.scores:
        print(f"| {cell.metric} | {cell.region} | {seconds[f'{cell.metric}/{cell.region}'] / clips:.2f} | {cell.n} |")
    print(f"| all | all | {wall / clips:.2f} | {clips} |")
    print(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB, wall {wall:.1f} s")


if __name__ == "__main__":
    main()
