"""Packing, checking and reading at scale: rate, memory in the number of clips, first sample of 6144 shards.

    python benchmarks/pack_scale.py [--clips 20000] [--workers 2] [--shards 6144] [--folder DIR]

The clips are 200 different small videos (64x64, 25 frames, with sound, 5-10 KB) under many names; a `free` box at the
end of each file makes their bytes differ. Every clip has a transcript and a file of boxes. Memory is the peak resident
size of the packing process and of its largest worker. Each step runs in its own process.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

DISTINCT = 200
PER_PERSON = 10


def make(folder: Path, count: int) -> None:
    """Write `count` clips of `count / 10` people."""
    from jwb_dh_v1.media.audio import Audio
    from jwb_dh_v1.media.video import write_mp4

    rng = np.random.default_rng(0)
    videos = []
    folder.mkdir(parents=True)
    for _ in range(DISTINCT):
        picture = np.kron(rng.integers(0, 256, (4, 12, 3)), np.ones((16, 16, 1))).astype(np.uint8)
        frames = [picture[:, at : at + 64] for at in range(25)]
        tone = 0.3 * np.sin(2 * np.pi * rng.uniform(100, 400) * np.arange(8000) / 8000)
        write_mp4(folder / "new.mp4", frames, 25, Audio(tone.astype(np.float32)[None], 8000), crf=28)
        videos.append((folder / "new.mp4").read_bytes())
    (folder / "new.mp4").unlink()
    print(f"clips of {min(map(len, videos))} to {max(map(len, videos))} bytes")
    boxes = "frame,part,x1,y1,x2,y2,score\n" + "".join(f"{n},face,{n},10,{n + 20},40,0.9\n" for n in range(25))
    for number in range(count):
        person = folder / f"person-{number // PER_PERSON:06d}"
        person.mkdir(exist_ok=True)
        free = b"\0\0\0\x10free%08d" % number
        (person / f"{number % PER_PERSON}.mp4").write_bytes(videos[number % DISTINCT] + free)
        (person / f"{number % PER_PERSON}.txt").write_text(f"this is clip number {number}")
        (person / f"{number % PER_PERSON}.csv").write_text(boxes)


def step_list(clips: str) -> dict[str, object]:
    from jwb_dh_v1.dataset.build.index import Index
    from jwb_dh_v1.dataset.build.rows import items_in

    with tempfile.TemporaryDirectory(dir=Path(clips).parent) as room:
        index = Index(Path(room) / "items.sqlite")
        index.add(items_in(clips))
        index.assign({"evaluation": None})
        ((_, rows, _),) = index.splits()
        index.db.commit()
        return {"rows": rows, "index_bytes_per_item": (Path(room) / "items.sqlite").stat().st_size / rows}


def step_pack(clips: str, out: str, workers: int, shards: int, most: int) -> dict[str, object]:
    from itertools import islice

    from jwb_dh_v1.dataset.build.pack import items_in, pack

    items = islice(items_in(clips, {"licence": "made up"}), most)
    manifest = pack(items, out, shards={"evaluation": shards}, workers=workers)
    return {
        "rows": manifest.rows,
        "files": len(manifest.files),
        "MB": manifest.bytes / 1e6,
        "failed": len(manifest.failed),
    }


def step_check(out: str, workers: int) -> dict[str, object]:
    from jwb_dh_v1.dataset.check import check

    report = check(out, workers=workers)
    return {"problems": len(report.problems)}


def step_scan(out: str) -> dict[str, object]:
    from jwb_dh_v1.dataset.load import load_dataset

    columns = ["sample_id", "identity_id", "num_frames", "transcript", "boxes"]
    rows = load_dataset(out, split="evaluation", streaming=True, columns=columns)
    return {"rows": sum(1 for _ in rows)}


def step_first(out: str) -> dict[str, object]:
    from jwb_dh_v1.dataset.load import load_dataset

    begun = time.perf_counter()
    rows = load_dataset(out, split="evaluation", streaming=True)
    opened = time.perf_counter()
    first = next(iter(rows))
    return {
        "shards": rows.num_shards,
        "load_dataset_s": round(opened - begun, 2),
        "then_first_row_s": round(time.perf_counter() - opened, 2),
        "bytes": len(first["video"]["bytes"]),
    }


def run(step: str, *arguments: object) -> dict[str, object]:
    """One step in a process of its own; what it says, with seconds and peak memory."""
    command = [sys.executable, __file__, "--step", json.dumps([step, *map(str, arguments)])]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{step} {arguments} failed:\n{done.stderr}")
    told: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    print(f"{step:6} {' '.join(f'{key}={value}' for key, value in told.items())}", flush=True)
    return told


def inside(given: str) -> None:
    name, *arguments = json.loads(given)
    begun = time.perf_counter()
    step = {"list": step_list, "pack": step_pack, "check": step_check, "scan": step_scan, "first": step_first}[name]
    told = step(*(int(a) if a.isdigit() else a for a in arguments))
    seconds = time.perf_counter() - begun
    peak = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    facts = {"seconds": round(seconds, 1), "peak_MiB": round(peak[0]), "largest_worker_MiB": round(peak[1])}
    if "rows" in told:
        facts["rows_per_s"] = round(told["rows"] / seconds)
    print(json.dumps({k: round(v, 1) if isinstance(v, float) and v > 10 else v for k, v in {**told, **facts}.items()}))


def main() -> None:
    """Make the clips, run every step, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--shards", type=int, default=6144, help="of the layout whose first sample is waited for")
    parser.add_argument("--folder", help="where to work; a temporary folder by default")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        inside(args.step)
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        room = Path(scratch)
        for count in (args.clips // 10, args.clips):
            clips, out = room / f"clips-{count}", room / f"packed-{count}"
            make(clips, count)
            print(f"--- {count} clips, {args.workers} workers")
            run("list", clips)
            run("pack", clips, out, args.workers, 192, count)
            run("pack", clips, out, args.workers, 192, count)  # finds everything finished
            run("check", out, args.workers)
            run("scan", out)
            run("first", out)
        print(f"--- {args.shards} clips in {args.shards} shards")
        run("pack", clips, room / "many", args.workers, args.shards, args.shards)
        run("first", room / "many")
        run("scan", room / "many")


if __name__ == "__main__":
    main()
