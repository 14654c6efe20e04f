"""`data push`: a packed dataset to a Hub repository, after a check, and as a plan first.

`huggingface_hub` does the work: it splits the files into commits, sends what the Hub does not have yet, and a push that
broke off goes on where it was when the same command runs again.
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

from jwb_dh_v1.hub import check_repo_id, writing_to
from jwb_dh_v1.dataset.build.card import OPEN, open_decisions
from jwb_dh_v1.dataset.check import check, shards
from jwb_dh_v1.errors import DataNotFound, SetupError

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
