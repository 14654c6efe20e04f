"""The teaser and its systems, made once for all tests that need them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, and before torch is imported
WHISPER = ("whisper-tiny.en", "whisper-tiny.en/config.json", "whisper-tiny.en/tokenizer.json")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--run-slow`."""
    parser.addoption("--run-slow", action="store_true", help="also run what takes minutes of CPU time")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what is slow unless asked for, and say so."""
    if not config.getoption("--run-slow"):
        skip = pytest.mark.skip(reason="slow: run `make test-all` (pytest --run-slow)")
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(skip)


def _quiet(_: str) -> None:
    """Tests print nothing."""


@pytest.fixture(scope="session")
def teaser_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `.../jwb-dh-v1`: that of JWB_TEASER if it is complete, else one made for this session."""
    from jwb_dh_v1.dataset.build.teaser import make_teaser, teaser_is_complete

    given = os.environ.get("JWB_TEASER")
    if given and teaser_is_complete(Path(given)):
        return Path(given).resolve()
    folder = tmp_path_factory.mktemp("teaser") / "jwb-dh-v1"
    make_teaser(folder, _quiet)
    return folder


@pytest.fixture(scope="session")
def systems_dir(teaser_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the six systems: `systems` beside the teaser if it is complete, else one made for this session."""
    from jwb_dh_v1.dataset.build.systems import make_systems, systems_are_complete

    beside = teaser_dir.parent / "systems"
    if systems_are_complete(teaser_dir, beside):
        return beside
    folder = tmp_path_factory.mktemp("systems")
    make_systems(teaser_dir, folder, _quiet)
    return folder


@pytest.fixture(scope="session")
def whisper():  # type: ignore[no-untyped-def]
    """Whisper tiny.en, loaded once."""
    from jwb_dh_v1.networks.weights import resolve_all
    from jwb_dh_v1.networks.whisper import load_tiny_en

    return load_tiny_en(resolve_all(WHISPER))
