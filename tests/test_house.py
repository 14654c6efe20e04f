"""The house: floors without an upward import, a face for every room, no folder beyond a dozen files."""

from __future__ import annotations

import ast
import doctest
import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "jwb_dh_v1"
ROOMS = sorted(p for p in PACKAGE.iterdir() if (p / "__init__.py").exists())


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """What `make lint` runs, on the copy of the package in `folder`."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    env = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package and of the contracts."""
    folder = tmp_path_factory.mktemp("house")
    shutil.copytree(PACKAGE, folder / "jwb_dh_v1", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_the_floors_hold(copy: Path) -> None:
    done = lint_imports(copy)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "planted",
    [
        "from jwb_dh_v1.scoring import result\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from jwb_dh_v1.scoring import result\n",
        "def inside() -> None:\n    from jwb_dh_v1.scoring import result\n",
    ],
    ids=["at the top", "under TYPE_CHECKING", "inside a function"],
)
def test_an_upward_import_breaks_the_contract(copy: Path, planted: str) -> None:
    file = copy / "jwb_dh_v1" / "media" / "planted.py"
    file.write_text(f'"""Planted."""\n{planted}', encoding="utf-8")
    try:
        done = lint_imports(copy)
    finally:
        file.unlink()
    assert done.returncode != 0
    assert "jwb_dh_v1.media is not allowed to import jwb_dh_v1.scoring" in done.stdout
    assert "jwb_dh_v1.media.planted -> jwb_dh_v1.scoring.result" in done.stdout


def test_a_room_of_no_floor_breaks_the_contract(copy: Path) -> None:
    """`exhaustive`: whoever adds a room says which floor it is on."""
    file = copy / "jwb_dh_v1" / "attic.py"
    file.write_text('"""Of no floor."""\n', encoding="utf-8")
    try:
        done = lint_imports(copy)
    finally:
        file.unlink()
    assert done.returncode != 0
    assert "attic" in done.stdout


def test_no_folder_has_more_than_a_dozen_files() -> None:
    crowded = {
        str(folder.relative_to(ROOT)): n
        for folder in [PACKAGE, *(p for p in PACKAGE.rglob("*") if p.is_dir())]
        if folder.name != "networks" and (n := len(list(folder.glob("*.py")))) > 12
    }
    assert not crowded


@pytest.mark.parametrize("room", ROOMS, ids=lambda p: p.name)
def test_every_room_has_a_face(room: Path) -> None:
    """Its purpose, an example, and its public names: two functions of `cli`, none of `integrations` (each file there
    imports another slow library), five to ten of every other room."""
    tree = ast.parse((room / "__init__.py").read_text(encoding="utf-8"))
    assert ">>> " in (ast.get_docstring(tree) or ""), "no example"
    names = [a.name for node in tree.body if isinstance(node, ast.ImportFrom) for a in node.names]
    low, high = {"cli": (2, 2), "integrations": (0, 0)}.get(room.name, (5, 10))
    assert low <= len(names) <= high, names
    assert doctest.testmod(importlib.import_module(f"jwb_dh_v1.{room.name}")).failed == 0
