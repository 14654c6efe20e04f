"""The Hub's side of `jwb-dh publish`: what a Space there has, and the push in one commit with its tag."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jwb_dh_v1.errors import SetupError
from jwb_dh_v1.hub import writing_to
from jwb_dh_v1.integrations.publish import Space

Say = Callable[[str], None]


@dataclass(frozen=True)
class FileDifference:
    """A Space against what the Hub has: paths that are new, changed, and no longer there."""

    new: tuple[str, ...]
    changed: tuple[str, ...]
    gone: tuple[str, ...]

    def __str__(self) -> str:
        """`3 new, 1 changed`, or `as here`."""
        counts = {"new": self.new, "changed": self.changed, "gone": self.gone}
        return ", ".join(f"{len(paths)} {word}" for word, paths in counts.items() if paths) or "as here"


def compare(space: Space, revision: str | None = None) -> FileDifference:
    """A Space against the Hub's.

    Raises:
        SetupError, DataNotFound: the Hub refused, or cannot be reached.

    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    with writing_to(space.repo_id):
        try:
            info = HfApi(library_name="jwb-dh-v1").space_info(space.repo_id, revision=revision, files_metadata=True)
        except (RepositoryNotFoundError, RevisionNotFoundError):
            return FileDifference(tuple(space.files), (), ())
    there = {one.rfilename: one.lfs.sha256 if one.lfs else one.blob_id for one in info.siblings or ()}
    there.pop(".gitattributes", None)  # the Hub's own
    return FileDifference(
        tuple(path for path in space.files if path not in there),
        tuple(p for p, content in space.files.items() if p in there and there[p] not in _hashes(content)),
        tuple(path for path in there if path not in space.files),
    )


def _hashes(content: bytes) -> tuple[str, str]:
    """Git's name of a content, and its sha256."""
    git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
    return git.hexdigest(), hashlib.sha256(content).hexdigest()


def push(space: Space, *, revision: str | None = None, private: bool = True, say: Say | None = None) -> str:
    """Send a Space in one commit, and set the tag that `evaluate` asks for.

    Files that the Space on the Hub has beyond ours go. The tag moves: `evaluate` would go on loading the old module.

    Args:
        space: from `assemble`.
        revision: the branch to send to, made if it is missing; no tag is set then. `main` by default.
        private: of a new Space. One that is there stays as it is.
        say: takes what is done, line by line.

    Returns:
        The address of the commit.

    Raises:
        SetupError: no token, or the Hub refused.
        DataNotFound: the Hub cannot be reached.

    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

    if not get_token():
        raise SetupError(
            "There is no token of the Hub: log in by `hf auth login` (one that may write), or set HF_TOKEN. "
            "Nothing was sent."
        )
    api = HfApi(library_name="jwb-dh-v1")
    with writing_to(space.repo_id):
        api.create_repo(space.repo_id, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(space.repo_id, repo_type="space", branch=revision, exist_ok=True)
        operations: list[Any] = [CommitOperationAdd(path, content) for path, content in space.files.items()]
        operations += [CommitOperationDelete(path) for path in compare(space, revision).gone]
        commit = api.create_commit(
            space.repo_id, operations, commit_message="Published by jwb-dh-v1", repo_type="space", revision=revision
        )
        if space.tag and revision is None:
            tags = {ref.name for ref in api.list_repo_refs(space.repo_id, repo_type="space").tags}
            if space.tag in tags:
                api.delete_tag(space.repo_id, tag=space.tag, repo_type="space")
            api.create_tag(space.repo_id, tag=space.tag, revision=commit.oid, repo_type="space")
    if say is not None:
        say(f"sent: {commit.commit_url}" + (f", tag {space.tag}" if space.tag and revision is None else ""))
    return str(commit.commit_url)
