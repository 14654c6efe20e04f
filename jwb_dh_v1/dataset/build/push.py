"""`data push`: a packed dataset to a Hub repository, after a check, and as a plan first.

`huggingface_hub` does the work: it splits the files into commits, sends what the Hub does not have yet, and a push that
broke off goes on where it was when the same command runs again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from jwb_dh_v1.dataset.check import read_manifest, shards, split_of
from jwb_dh_v1.dataset.schema import features
from jwb_dh_v1.errors import DataNotFound, SetupError
from jwb_dh_v1.files import sha256_of, write_atomically
from collections.abc import Callable
from fnmatch import fnmatch
from jwb_dh_v1.hub import check_repo_id, writing_to
from jwb_dh_v1.dataset.check import check, shards

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
    write_atomically(place, fill_card(folder, card))
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


Say = Callable[[str], None]
HIDDEN = [".*", "*/.*", "*.part"]  # `.packing/`, `.cache/`, half-written files; `*` also stands for `/` here
MAX_FILES, MAX_IN_FOLDER, MAX_BYTES = 100_000, 10_000, 200 * 10**9  # what the Hub asks repositories to keep to


def plan_push(folder: str | Path, repo_id: str) -> list[tuple[str, int]]:
    """What `push` would send: (path in the repository, bytes), sorted. No network is used.

    Raises:
        DataNotFound: no shard in the folder.
        SetupError: a name that the Hub does not take, more or larger files than it allows, or no `README.md`, without
            which `datasets` does not know the configurations.

    """
    place = Path(folder)
    shards(place)
    check_repo_id(repo_id, f"{repo_id!r} is no name of a repository")
    if "/" not in repo_id:
        raise SetupError(f"{repo_id!r} names no owner; write OWNER/{repo_id}.")
    if not (place / "README.md").is_file():
        raise SetupError(f"{place} has no README.md; `jwb-dh data card {place} dataset_card.md` makes it.")
    every = ((path.relative_to(place).as_posix(), path) for path in sorted(place.rglob("*")) if path.is_file())
    plan = [(name, path.stat().st_size) for name, path in every if not _hidden(name)]
    _fits(plan)
    return plan


def _hidden(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in HIDDEN)


def _fits(plan: list[tuple[str, int]]) -> None:
    folders: dict[str, int] = {}
    for name, size in plan:
        home = name.rpartition("/")[0]
        folders[home] = folders.get(home, 0) + 1
        if size > MAX_BYTES:
            raise SetupError(
                f"{name} has {size / 1e9:.0f} GB; pack into more shards, the Hub takes up to 200 GB a file."
            )
    fullest = max(folders, key=lambda home: folders[home])
    if len(plan) > MAX_FILES or folders[fullest] > MAX_IN_FOLDER:
        raise SetupError(
            f"{len(plan)} files, {folders[fullest]} of them in one folder: the Hub takes {MAX_FILES} and "
            f"{MAX_IN_FOLDER}; pack into fewer shards."
        )


def push(
    folder: str | Path,
    repo_id: str,
    *,
    revision: str | None = None,
    private: bool = True,
    dry_run: bool = True,
    workers: int = 1,
    say: Say | None = None,
) -> list[tuple[str, int]]:
    """Check a packed dataset and send it to a dataset repository on the Hub.

    The check leaves the media alone but for their hashes (`check(decode="none")`); run `jwb-dh data check --decode all`
    before. A new repository is private; who may see and ask for it is decided on its settings page afterwards.

    Args:
        folder: with shards, `README.md` and, from the packer, `manifest.json`. Hidden files stay here.
        repo_id: `OWNER/NAME`; made if it is missing, left as private or public as it is otherwise.
        revision: the branch to send to, made if it is missing; `main` by default.
        private: of a new repository. A public one, new or old, is refused while the card leaves decisions to the owner.
        dry_run: say what would be sent, and send nothing; no network is used.
        workers: processes of the check.
        say: takes the plan and what is done, line by line.

    Returns:
        The plan.

    Raises:
        DataNotFound, SetupError: see `plan_push`; or the check found something, the Hub refused (no token, no right to
            write), or it cannot be reached.

    """
    told = say or (lambda _: None)
    place = Path(folder)
    plan = plan_push(place, repo_id)
    report = check(place, decode="none", workers=workers)
    if not report.ok:
        raise SetupError(
            f"{place} breaks {len(report.counts)} rules ({', '.join(report.counts)}), e.g. {report.problems[0]}. "
            "Nothing was sent; see `jwb-dh data check`."
        )
    left = open_decisions((place / "README.md").read_text(encoding="utf-8"))
    if left and not private:
        raise SetupError(_undecided(left))
    size = sum(size for _, size in plan)
    told(f"{len(plan)} files, {size / 1e9:.3f} GB, {report.rows} rows, to {repo_id} ({revision or 'main'})")
    for name, count in plan:
        told(f"  {count:>15,} {name}")
    if left:
        told(f"README.md still holds {left} times {OPEN!r}")
    if dry_run:
        told("dry run: nothing was sent")
        return plan
    _send(place, repo_id, revision, private, left, told)
    return plan


def _undecided(left: int) -> str:
    return f"README.md holds {left} times {OPEN!r}: settle these before the data are public. Nothing was sent."


def _send(place: Path, repo_id: str, revision: str | None, private: bool, left: int, told: Say) -> None:
    from huggingface_hub import HfApi

    api = HfApi(library_name="jwb-dh-v1")
    with writing_to(repo_id):
        api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        if left and not api.repo_info(repo_id, repo_type="dataset").private:  # it was there before
            raise SetupError(_undecided(left))
        if revision is not None:
            api.create_branch(repo_id, repo_type="dataset", branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=place,
            repo_type="dataset",
            revision=revision,
            ignore_patterns=HIDDEN,
            commit_message="Data packed by jwb-dh-v1",
        )
    told(f"sent: {commit.commit_url}")
