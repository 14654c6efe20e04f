"""`data card`: the facts in the YAML header of the dataset card, taken from the data; the text is a person's.

The header is what the Hub and `datasets` read: configurations, features, sizes, languages. Its `description` holds a
hash of the content, because `datasets` 5 knows a prepared local folder by its name and header alone, and would give the
rows of the folder that it saw first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jwb_dh_v1.dataset.check import read_manifest, shards, split_of
from jwb_dh_v1.dataset.folder import write_text
from jwb_dh_v1.dataset.schema import features
from jwb_dh_v1.errors import DataNotFound, SetupError
from jwb_dh_v1.files import sha256_of

ORDER = ("evaluation", "train", "teaser")  # the first that is there is the default configuration
SPLITS = {"teaser": "evaluation"}  # a configuration's only split has its name otherwise
OPEN = "DECISION FOR THE OWNER"  # marks what nobody but the data's owner can say


def fill_card(folder: str | Path, card: str | Path) -> str:
    """The card with `configs`, `dataset_info`, `size_categories` and `language` as the data are; all else as it was.

    Nothing is written. Filling a filled card changes nothing. The hashes are the manifest's where there is one;
    otherwise every shard is read.

    Args:
        folder: a packed dataset.
        card: a Markdown file with a YAML header, e.g. `dataset_card.md`.

    Raises:
        DataNotFound: no shard, or no such card.
        SetupError: a shard cannot be read, or the card's header is no YAML mapping.

    """
    import yaml  # type: ignore[import-untyped]
    from datasets import DatasetInfo
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCard

    place = Path(folder)
    try:
        with Path(card).open(encoding="utf-8", newline="") as file:
            filled = DatasetCard(file.read())
    except OSError as error:
        raise DataNotFound(f"The card {card} cannot be read: {error.strerror or error}.") from None
    except (ValueError, yaml.YAMLError) as error:
        raise SetupError(f"The header of {card} is no YAML mapping: {str(error).splitlines()[0]}.") from None
    facts = _facts(place)
    old = {config.get("config_name"): config for config in filled.data.get("configs") or []}
    filled.data["configs"] = [
        {**old.get(name, {}), **_config(name, told, default=at == 0)} for at, (name, told) in enumerate(facts.items())
    ]
    filled.data["dataset_info"] = None  # of configurations that are not there any more
    infos = {
        name: DatasetInfo(
            features=features(),
            splits={SPLITS.get(name, name): _split(SPLITS.get(name, name), told)},
            download_size=told["bytes"],
            dataset_size=told["size"],
        )
        for name, told in facts.items()
    }
    DatasetInfosDict(infos).to_dataset_card_data(filled.data)
    filled.data["size_categories"] = [size_category(sum(told["rows"] for told in facts.values()))]
    spoken = sorted({language for told in facts.values() for language in told["languages"]})
    if spoken:
        filled.data["language"] = spoken
    return str(filled)


def write_card(folder: str | Path, card: str | Path) -> Path:
    """Write the filled card as the folder's `README.md`, where the Hub and `datasets` look for it; its path."""
    place = Path(folder) / "README.md"
    write_text(place, fill_card(folder, card))
    return place


def open_decisions(text: str) -> int:
    """How many decisions a card leaves to the owner."""
    return text.count(OPEN)


def size_category(rows: int) -> str:
    """The Hub's name for so many rows, e.g. `1M<n<10M`."""
    names = ["1K", "10K", "100K", "1M", "10M", "100M", "1B"]
    for power, name in enumerate(names):
        if rows < 10 ** (power + 3):
            return f"n<{name}" if power == 0 else f"{names[power - 1]}<n<{name}"
    return f"n>{names[-1]}"


def _facts(place: Path) -> dict[str, dict[str, Any]]:
    """Configuration -> files, rows, bytes on disk, bytes in memory, languages, hash; the default one first."""
    names = shards(place)
    loose = [name for name in names if "/" not in name]
    if loose:
        raise SetupError(f"{place / loose[0]} is in no folder named as its split; `jwb-dh data pack` makes them.")
    try:
        manifest = read_manifest(place) or {}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise SetupError(f"The manifest of {place} cannot be read ({error!r}); pack the data again.") from None
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(split_of(name), []).append(name)
    ordered = sorted(found, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    return {name: _of_files(place, found[name], manifest) for name in ordered}


def _of_files(place: Path, names: Sequence[str], manifest: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    import pyarrow as pa
    from pyarrow import parquet

    told: dict[str, Any] = {"files": names, "rows": 0, "bytes": 0, "size": 0, "languages": set()}
    content = hashlib.sha256()
    for name in names:
        path = place / name
        try:
            with parquet.ParquetFile(path) as table:
                told["rows"] += table.metadata.num_rows
                groups = range(table.metadata.num_row_groups)
                told["size"] += sum(table.metadata.row_group(n).total_byte_size for n in groups)
                spoken = table.read(columns=["transcript.language"]).column("transcript").to_pylist()
            told["languages"] |= {cell["language"] for cell in spoken if cell and cell["language"]}
            told["bytes"] += path.stat().st_size
            digest = manifest.get(name, {}).get("sha256") or sha256_of(path)
        except (pa.ArrowException, OSError, KeyError) as error:
            raise SetupError(f"{path} cannot be read ({error}); see `jwb-dh data check`.") from None
        content.update(f"{name} {digest}\n".encode())
    told["content"] = content.hexdigest()
    return told


def _config(name: str, told: Mapping[str, Any], default: bool) -> dict[str, Any]:
    depths = sorted({path.count("/") for path in told["files"]})
    top = told["files"][0].split("/")[0]
    globs = ["/".join([top, *["*"] * (depth - 1), "*.parquet"]) for depth in depths]
    return {
        "config_name": name,
        **({"default": True} if default else {}),
        "description": f"content sha256 {told['content']}",
        "data_files": [{"split": SPLITS.get(name, name), "path": globs[0] if len(globs) == 1 else globs}],
    }


def _split(name: str, told: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "num_bytes": told["size"], "num_examples": told["rows"]}
