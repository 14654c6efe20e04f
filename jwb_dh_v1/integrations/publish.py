"""`jwb-dh publish`: a Space per metric and the demo, put together from a checkout (`publish_hub` sends them).

A Space builds its environment before its files are there: `pip` sees `requirements.txt` and nothing else (build logs in
gradio-app/gradio#7376). A wheel beside it would not be found, and the package is on no index, so each Space carries the
package itself, as the folder `jwb_dh_v1/`, and its requirements are the exact versions of what that needs. The same
checkout and owner give the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from jwb_dh_v1.errors import SetupError
from jwb_dh_v1.hub import check_repo_id
from jwb_dh_v1.metrics.protocols import described

JUDGED = ("lalm_win_rate",)  # in no protocol: the judge and its rubric are part of the name
METRICS = (*described(), *JUDGED)  # those that have a page, and so a Space
DEMO = "demo"
NAMES = (*METRICS, DEMO)
DEMO_REPO = "jwb-dh-v1"  # the demo's name on the Hub
PACKAGE = "jwb_dh_v1"
PYTHON = "3.11"  # of the metric Spaces: what constraints.txt was run with
HUB = "https://huggingface.co"  # in links; where a push goes is huggingface_hub's HF_ENDPOINT
KINDS = {".py", ".md", ".txt", ".csv", ".j2", ".typed"}
HEADER = ("title", "sdk", "sdk_version", "python_version", "app_file", "tags")
MAX_FILE = 10 * 2**20  # more would need large-file storage, and nothing of ours is so large
LINK = re.compile(r"(\[[^\]\n]*\])\(([^)\s]+)\)")
TOKENS = re.compile(
    rb"hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|AIza[\w-]{30,}|AKIA[A-Z0-9]{16}|BEGIN [A-Z ]*PRIVATE KEY"
)


@dataclass(frozen=True)
class Space:
    """A Space as it will be.

    Attributes:
        name: of `NAMES`.
        repo_id: `OWNER/NAME` on the Hub.
        files: content by path, sorted by path.
        tag: what `evaluate.load` asks for first; empty for the demo.

    """

    name: str
    repo_id: str
    files: Mapping[str, bytes]
    tag: str

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(map(len, self.files.values()))

    @property
    def sha256(self) -> str:
        """Of the paths and contents of all files."""
        lines = (f"{hashlib.sha256(content).hexdigest()}  {path}\n" for path, content in self.files.items())
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def chosen(names: Iterable[str]) -> list[str]:
    """The names of Spaces in their order; `all` are all.

    Raises:
        SetupError: there is no such Space.

    """
    names = list(names)
    if wrong := [name for name in names if name not in {*NAMES, "all"}]:
        raise SetupError(f"There is no Space {wrong[0]!r}; there are {', '.join(NAMES)}, all.")
    return [name for name in NAMES if name in names or "all" in names]


def assemble(name: str, owner: str, source: str | Path = ".") -> Space:
    """Put a Space together.

    Args:
        name: of `NAMES`.
        owner: user or organisation on the Hub.
        source: a checkout of this repository.

    Raises:
        SetupError: no such Space, owner or checkout; a card without a field that a Space needs; a requirement without a
            version in `constraints.txt`; a link to a file that no Space has; or a file that must not be published.

    """
    chosen([name])
    repo_id = f"{owner}/{DEMO_REPO if name == DEMO else name}"
    check_repo_id(repo_id, f"{owner!r} is no owner on the Hub")
    root = Path(source)
    pins = _pins(root)
    found = {f"{PACKAGE}/{path}": content for path, content in _tree(root / PACKAGE)}
    found["LICENSE"] = _read(root / "LICENSE").encode()
    if name == DEMO:
        found |= dict(_tree(root / "spaces" / DEMO))
    else:
        pages = dict(_tree(root / "spaces" / "metric"))
        found |= _shared(root / "spaces" / DEMO, pages.values()) | pages
        found |= dict(_tree(root / "metrics" / name))
        if f"{name}.py" not in found:
            raise SetupError(f"{root / 'metrics' / name} has no {name}.py, the module.")
        found["METRICS.md"] = _page(_read(root / "metrics" / "README.md"), owner, name).encode()
    found["README.md"] = _card(found.get("README.md", b"").decode(), owner, name, pins).encode()
    found["requirements.txt"] = _requirements(found.get("requirements.txt", b"").decode(), root, pins).encode()
    files = dict(sorted(found.items()))
    _refuse_leaks(name, files, root)
    return Space(name, repo_id, files, "" if name == DEMO else f"v{pins['evaluate']}")


def write(space: Space, folder: str | Path) -> Path:
    """Write a Space's files to `folder/NAME`, which must be empty or missing; returns that place."""
    place = Path(folder) / space.repo_id.partition("/")[2]
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise SetupError(f"{place} is not empty; remove it or name another folder.")
    for path, content in space.files.items():
        target = place / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return place


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise SetupError(
            f"{path} cannot be read ({error.strerror or error}): name a checkout of jwb-dh-v1 with --source."
        ) from None


def _tree(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Path and content of each file, without hidden ones and Python's caches."""
    if not folder.is_dir():
        raise SetupError(f"There is no folder {folder}: name a checkout of jwb-dh-v1 with --source.")
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        if any(part.startswith(".") or part == "__pycache__" for part in inner.parts) or path.is_dir():
            continue
        if path.is_symlink() or path.suffix not in KINDS or path.stat().st_size > MAX_FILE:
            raise SetupError(
                f"{path} is not what a Space is made of: plain files that end in {', '.join(sorted(KINDS))}."
            )
        yield inner.as_posix(), path.read_bytes()


def _shared(folder: Path, pages: Iterable[bytes]) -> dict[str, bytes]:
    """The demo's files that a page imports, and those that these import."""
    found: dict[str, bytes] = {}
    left = list(pages)
    while left:
        for module in re.findall(rb"^(?:from|import) (\w+)", left.pop(), re.MULTILINE):
            path = f"{module.decode()}.py"
            if path not in found and (folder / path).is_file():
                found[path] = _read(folder / path).encode()
                left.append(found[path])
    return found


def _pins(root: Path) -> dict[str, str]:
    """The versions of `constraints.txt` by normalised name."""
    from packaging.utils import canonicalize_name

    lines = (line.partition("#")[0].strip() for line in _read(root / "constraints.txt").splitlines())
    pairs = (line.partition("==") for line in lines if line)
    return {canonicalize_name(name): version for name, _, version in pairs}


def _requirements(template: str, root: Path, pins: Mapping[str, str]) -> str:
    """The template's requirements, ours replaced by what it needs, each with its one version."""
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    try:
        project = tomllib.loads(_read(root / "pyproject.toml"))["project"]
        lines = [line for line in (raw.partition("#")[0].strip() for raw in template.splitlines()) if line]
        found: dict[tuple[str, str], set[str]] = {}
        while lines:
            one = Requirement(lines.pop(0))
            name: str = canonicalize_name(one.name)
            if name == canonicalize_name(project["name"]):
                extras = project["optional-dependencies"]
                lines = [*project["dependencies"], *(line for extra in sorted(one.extras) for line in extras[extra]),
                         *lines]  # fmt: skip
                continue
            if name not in pins:
                raise SetupError(f"constraints.txt has no version of {one.name}, which a Space needs.")
            if pins[name] not in one.specifier:
                raise SetupError(f"constraints.txt has {one.name}=={pins[name]}, but a Space asks for {one}.")
            found.setdefault((name, str(one.marker or "")), set()).update(one.extras)
    except (InvalidRequirement, KeyError, tomllib.TOMLDecodeError) as error:
        raise SetupError(f"The requirements of a Space cannot be made: {error}.") from None
    made = ["# Made by `jwb-dh publish`; the package itself is the folder jwb_dh_v1/."]
    for (name, marker), extras in sorted(found.items()):
        asked = f"[{','.join(sorted(extras))}]" if extras else ""
        made.append(f"{name}{asked}=={pins[name]}" + (f"; {marker}" if marker else ""))
    return "\n".join(made) + "\n"


def _card(text: str, owner: str, name: str, pins: Mapping[str, str]) -> str:
    """A card with a complete header, and links that hold on the Hub."""
    import yaml  # type: ignore[import-untyped]

    parts = re.match(r"---\n(.*?)\n---\n(.*)", text, re.DOTALL)
    try:
        header: dict[str, Any] = yaml.safe_load(parts[1]) if parts else {}
    except yaml.YAMLError as error:
        raise SetupError(f"The header of {name}'s README.md is no YAML: {str(error).splitlines()[0]}.") from None
    if parts is None or not isinstance(header, dict):
        raise SetupError(f"The README.md of {name} has no YAML header, which a Space needs.")
    if name != DEMO:
        header.setdefault("python_version", PYTHON)
        header.setdefault("license", "apache-2.0")
    if missing := [field for field in HEADER if not header.get(field)]:
        raise SetupError(f"The header of {name}'s README.md lacks {', '.join(missing)}.")
    if (header["sdk"], header["sdk_version"], header["app_file"]) != ("gradio", pins["gradio"], "app.py"):
        raise SetupError(f"The header of {name}'s README.md must say gradio, {pins['gradio']} and app.py.")
    told = yaml.safe_dump(header, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{told}---\n{_page(parts[2], owner, name)}"


def _page(text: str, owner: str, name: str) -> str:
    """Markdown of the checkout as it reads in the Space of `name`."""
    here = DEMO_REPO if name == DEMO else name
    spaces = f"{HUB}/spaces/{owner}"

    def link(match: re.Match[str]) -> str:
        label, target = match.groups()
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        path, hash_, part = target.partition("#")
        known = PurePosixPath(path.removeprefix("../"))
        if known == PurePosixPath("README.md"):
            return (
                f"{label.replace('metrics/README.md', 'METRICS.md')}({spaces}/{here}/blob/main/METRICS.md{hash_}{part})"
            )
        if known.name == "README.md" and len(known.parts) == 2 and known.parts[0] in METRICS:
            return f"{label}({spaces}/{known.parts[0]})"
        raise SetupError(f"A page of {name} links to {target}, which is in no Space.")

    text = LINK.sub(link, text)
    return text.replace('evaluate.load("metrics/', f'evaluate.load("{owner}/').replace('"ORG/', f'"{owner}/')


def _refuse_leaks(name: str, files: Mapping[str, bytes], root: Path) -> None:
    """Refuse secrets, and paths of this machine."""
    from jwb_dh_v1.judge.log import SECRET_NAMES, SHORTEST_SECRET

    home = str(Path.home())
    places = {str(root.resolve()), home, os.environ.get("VIRTUAL_ENV", "")}
    # With the slash: a bare name such as that of root's home also stands in addresses.
    local = [f"{place}/".encode() for place in places if len(place) > 1]
    secrets = [value.encode() for variable, value in os.environ.items()
               if SECRET_NAMES.search(variable) and len(value) >= SHORTEST_SECRET]  # fmt: skip
    for path, content in files.items():
        if TOKENS.search(content) or any(secret in content for secret in secrets):
            raise SetupError(f"{path} of {name} holds what looks like a key or token; nothing was published.")
        if any(place in content for place in local):
            raise SetupError(f"{path} of {name} names a folder of this machine; nothing was published.")
