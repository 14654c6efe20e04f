"""What a packed folder holds and how its files are called: `manifest.json`, shards, and the README's header."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from jwb_dh_v1.dataset.parquet import Written
from jwb_dh_v1.dataset.schema import SCHEMA_VERSION

MANIFEST = "manifest.json"
SPLIT = "evaluation"
PER_FOLDER = 1024  # files; the Hub refuses 10,000


@dataclass(frozen=True)
class Failure:
    """A clip that is not in the dataset, and why: the type of the error and its message."""

    sample_id: str
    video: str
    error: str
    message: str


@dataclass(frozen=True)
class Manifest:
    """What a packed folder holds: facts of each file by its path, and the clips that failed."""

    files: Mapping[str, Written]
    failed: tuple[Failure, ...] = ()
    schema_version: int = SCHEMA_VERSION

    @property
    def rows(self) -> int:
        """Rows in all files."""
        return sum(file.rows for file in self.files.values())

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.bytes for file in self.files.values())

    def splits(self) -> dict[str, dict[str, Written]]:
        """The files of each split (the first folder of their path)."""
        found: dict[str, dict[str, Written]] = {}
        for path, file in self.files.items():
            found.setdefault(path.split("/")[0], {})[path] = file
        return found

    def to_json(self) -> str:
        """The text of `manifest.json`; the same for the same rows."""
        totals = {
            split: {"files": len(files), "rows": sum(f.rows for f in files.values())}
            | {"bytes": sum(f.bytes for f in files.values())}
            for split, files in self.splits().items()
        }
        content = {
            "schema_version": self.schema_version,
            "rows": self.rows,
            "bytes": self.bytes,
            "splits": totals,
            "files": {path: asdict(file) for path, file in self.files.items()},
            "failed": [asdict(failure) for failure in self.failed],
        }
        return json.dumps(content, indent=1) + "\n"


def shard_count(rows: int, mean_bytes: float) -> int:
    """How many files a split is cut into: 2^k or 3 * 2^k, so that most numbers of nodes and workers divide it.

    192 for 20,000 clips of 3 MB (312 MB a file), 6144 for 2 million (1 GB a file): files grow with the fourth root of
    the whole, between few files and enough of them for everyone who reads. A file has 64 rows at least.

    Args:
        rows: number of clips.
        mean_bytes: mean size of a clip.

    """
    wanted = 190 * (rows * mean_bytes / 60e9) ** 0.75
    ladder: list[int] = sorted({2**k for k in range(15)} | {3 * 2**k for k in range(13)})
    fitting = [count for count in ladder if count <= max(rows // 64, 1)]
    return next((count for count in fitting if count >= wanted), fitting[-1])


def shard_name(split: str, number: int, count: int) -> str:
    """The path of a shard in the dataset; more than 1,024 files go into sub-folders of so many."""
    folder = split if count <= PER_FOLDER else f"{split}/{number // PER_FOLDER:03d}"
    return f"{folder}/{split}-{number:05d}-of-{count:05d}.parquet"


def config_header(name: str, split: str, path: str, content: str, default: bool = False) -> str:
    """One entry of `configs` in the YAML header that `datasets` reads.

    `datasets` 5 knows a prepared local folder by its name and this header alone: without the content's hash in it, a
    folder made again (or another one of the name) gives the rows of the first.

    Args:
        name: of the configuration.
        split: its only split.
        path: glob of its files.
        content: a sha256 that moves when a file does.
        default: whether it is the one that is loaded without a name.

    """
    return (
        f"- config_name: {name}\n"
        + ("  default: true\n" if default else "")
        + f"  description: content sha256 {content}\n"
        + f'  data_files: [{{split: {split}, path: "{path}"}}]'
    )


def readme(manifest: Manifest, title: str) -> str:
    """The text of `README.md`: one configuration per split in its header, and a table of their sizes."""
    splits = manifest.splits()
    default = SPLIT if SPLIT in splits else min(splits)
    configs, lines = [], []
    for split, files in splits.items():
        content = hashlib.sha256("".join(f"{path} {file.sha256}\n" for path, file in files.items()).encode())
        glob = f"{split}/*/*.parquet" if len(files) > PER_FOLDER else f"{split}/*.parquet"
        named = SPLIT if split == "teaser" else split
        configs.append(config_header(split, named, glob, content.hexdigest(), split == default))
        size = sum(file.bytes for file in files.values()) / 1e9
        lines.append(f"| `{split}` | {sum(file.rows for file in files.values())} | {len(files)} | {size:.3f} GB |")
    sizes = ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M"))
    category = next((name for most, name in sizes if manifest.rows < most), "10M<n<100M")
    return "\n".join(
        [
            *("---", f"pretty_name: {title}", "license: other", f"size_categories: [{category}]"),
            *("tags: [video, audio, digital-human, avatar, benchmark]", "configs:", *configs, "---", ""),
            *(f"# {title}", "", "| configuration | clips | files | size |", "|---|---|---|---|", *lines, ""),
            f"Packed by jwb-dh-v1 (schema {SCHEMA_VERSION}); `manifest.json` holds the sha256 of every file.",
            f"{len(manifest.failed)} clips could not be packed; the manifest says why." if manifest.failed else "",
        ]
    )
