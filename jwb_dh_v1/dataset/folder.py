"""Folders that are made once: a manifest, written last, says that every file is there and what it was made from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jwb_dh_v1.files import sha256_of

PARQUET = "evaluation/evaluation-00000-of-00001.parquet"  # where the teaser's rows are


def write_text(path: Path, text: str) -> None:
    """Replace a text file in one step."""
    partial = path.with_name(f".{os.getpid()}.part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def write_manifest(folder: Path, name: str, facts: Mapping[str, Any], files: Iterable[str]) -> None:
    """Write `folder/name`: facts and the sha256 of each file. It comes last and says that the folder is complete."""
    content = {**facts, "files": {file: sha256_of(folder / file) for file in files}}
    write_text(folder / name, json.dumps(content, indent=1, sort_keys=True) + "\n")


def is_complete(folder: Path, name: str, facts: Mapping[str, Any]) -> bool:
    """Whether the manifest `folder/name` tells of these facts and every file it names is there, unaltered."""
    try:
        told = json.loads((folder / name).read_text(encoding="utf-8"))
        files = told.pop("files")
        return bool(told == facts and all(sha256_of(folder / f) == digest for f, digest in files.items()))
    except (OSError, ValueError, KeyError, AttributeError):  # no manifest, half of one, or a file is gone
        return False
