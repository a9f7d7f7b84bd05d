"""One bundle for all tests of the server that only read it, and a server over it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from live_server import make_bundle, running


@pytest.fixture(scope="session")
def bundle(tiny_base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 documents; not to be changed."""
    return make_bundle(tmp_path_factory.mktemp("served"), tiny_base)


@pytest.fixture
def own_bundle(bundle: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def address(bundle: Path) -> Iterator[str]:
    """Of a server that only reads."""
    with running(bundle, read_only=True) as address:
        yield address


@pytest.fixture
def client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address) as client:
        yield client
