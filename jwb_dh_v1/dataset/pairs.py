"""From a folder of generated videos and the real data to samples, paired by name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from jwb_dh_v1.errors import DataNotFound
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.metrics.sample import Sample

VIDEOS = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".m4v", ".gif")
FOOTER = 1 << 16


@dataclass(frozen=True)
class Pairs:
    """An iterable of samples that can be walked more than once; nothing is decoded by walking.

    Attributes:
        size: number of samples, or None where only the end of a stream tells.
        data: fingerprint of the real data, for the plan.
        unmatched: generated files that belong to no sample.

    """

    source: Any
    generated: Mapping[str, Path]
    folder: Path
    size: int | None
    data: str
    unmatched: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Names and sizes of the generated files: finished shards of other files must not be taken for these."""
        facts = "\n".join(f"{path.name} {self.sizes[name]}" for name, path in self.generated.items())
        return hashlib.sha256(facts.encode()).hexdigest()

    @cached_property
    def sizes(self) -> Mapping[str, int | None]:
        """Bytes of the generated files when this was first asked for: a run fails clips that change later."""
        return {name: _size(path) for name, path in self.generated.items()}

    def __iter__(self) -> Iterator[Sample]:
        """Yield the samples in the data's order."""
        for row in self.source():
            sample_id = row["sample_id"]
            # A missing file is a failed sample, found out when it is opened.
            path = self.generated.get(sample_id, self.folder / f"{sample_id}.mp4")
            clip = Clip(path)
            clip.expected = self.sizes.get(sample_id)
            yield Sample(sample_id, clip, **row["rest"])


def _size(path: Path) -> int | None:
    """Bytes of a file; None for one that cannot be reached (its sample says why when it is opened)."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def videos_in(folder: Path) -> dict[str, Path]:
    """The videos of a folder by name without ending, sorted.

    Raises:
        DataNotFound: no such folder, or no video in it.

    """
    return files_in(folder, VIDEOS, "videos")


def files_in(folder: Path, endings: Sequence[str], what: str) -> dict[str, Path]:
    """The files of a folder with one of some endings, by name without ending, sorted; hidden ones are passed over.

    Raises:
        DataNotFound: no such folder, or no such file in it.

    """
    if not folder.is_dir():
        raise DataNotFound(f"{folder} is not a folder of {what}.")
    found = {p.stem: p for p in sorted(folder.iterdir()) if p.suffix.lower() in endings and not p.name.startswith(".")}
    if not found:
        raise DataNotFound(f"{folder} holds no {what} ({', '.join(endings)}).")
    return found


def pair(generated: str | Path, data: str | Path, split: str | None = None, revision: str | None = None) -> Pairs:
    """Pair generated videos with real ones by name.

    Args:
        generated: folder of `<sample_id>.mp4` (or another video ending).
        data: a plain folder of real videos (`<sample_id>.mp4`, transcript in `<sample_id>.txt`), a dataset folder
            or a Hub name for `load_dataset`.
        split: of the dataset; its only one, or `evaluation`, by default.
        revision: of a Hub dataset.

    Raises:
        DataNotFound: one of the two is missing, or not one name fits.

    """
    folder = Path(generated)
    ours = videos_in(folder)
    place = Path(data)
    if place.is_dir() and not any(place.rglob("*.parquet")):
        return _plain(ours, folder, place)
    return _dataset(ours, folder, str(data), split or "evaluation", revision)


def _matching(ours: Mapping[str, Path], names: list[str], folder: Path, data: object) -> tuple[str, ...]:
    known = set(names)
    if not known & set(ours):
        raise DataNotFound(
            f"No file in {folder} is named like a sample of {data}: there {sorted(known)[0]!r}, here {min(ours)!r}."
        )
    return tuple(name for name in ours if name not in known)


def _plain(ours: Mapping[str, Path], folder: Path, place: Path) -> Pairs:
    theirs = videos_in(place)
    unmatched = _matching(ours, list(theirs), folder, place)

    def rows() -> Iterator[dict[str, Any]]:
        for name, path in theirs.items():
            words = path.with_suffix(".txt")
            text = words.read_text(encoding="utf-8").strip() if words.is_file() else None
            reference = Clip(path)
            reference.expected = sizes[name]
            yield {"sample_id": name, "rest": {"reference": reference, "transcript": text}}

    sizes = {name: _size(path) for name, path in theirs.items()}
    facts = "\n".join(f"{name} {size}" for name, size in sizes.items())
    return Pairs(rows, ours, folder, len(theirs), "folder:" + hashlib.sha256(facts.encode()).hexdigest(), unmatched)


def _dataset(ours: Mapping[str, Path], folder: Path, data: str, split: str, revision: str | None) -> Pairs:
    from jwb_dh_v1.dataset.load import commit_of, load_dataset
    from jwb_dh_v1.dataset.schema import annotations_of

    revision = commit_of(data, revision)  # a branch may move while a run goes on, or between two that are compared
    ids = load_dataset(data, split=split, streaming=True, columns=["sample_id"], revision=revision)
    names = [row["sample_id"] for row in ids]
    unmatched = _matching(ours, names, folder, data)

    def rows() -> Iterator[dict[str, Any]]:
        for row in load_dataset(data, split=split, streaming=True, revision=revision):
            rest = {
                "reference": Clip(row["video"], annotations=partial(annotations_of, row)),
                "transcript": row["transcript"]["text"],
                "language": row["transcript"]["language"] or "en",
                "person_id": row["identity_id"],
            }
            yield {"sample_id": row["sample_id"], "rest": rest}

    return Pairs(rows, ours, folder, len(names), _fingerprint(data, split, revision, names), unmatched)


def _fingerprint(data: str, split: str, revision: str | None, names: list[str]) -> str:
    """Content of a local dataset by its Parquet footers (they hold the statistics of every column), or the revision."""
    digest = hashlib.sha256("\n".join([split, *names]).encode())
    files = sorted(Path(data).rglob("*.parquet")) if Path(data).is_dir() else []
    for path in files:
        with path.open("rb") as handle:
            size = path.stat().st_size
            handle.seek(max(0, size - FOOTER))
            digest.update(f"{path.name} {size}".encode() + handle.read())
    kind = "parquet" if files else f"hub {data}@{revision}"
    return f"{kind}:{digest.hexdigest()}"
