"""The locations that the store is tested on: a folder, and a bucket of a real server that the tests start."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from tests.store.servers import Ceph, Moto, start_server

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def server() -> Iterator[Ceph | Moto]:
    """One server for all tests."""
    with start_server() as found:
        yield found


@pytest.fixture
def bucket(server: Ceph | Moto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty folder of a bucket, reachable from this process and its children."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AMB_STORE_CACHE", str(tmp_path / "cache"))
    fsspec.filesystem("s3").clear_instance_cache()
    files = fsspec.filesystem("s3")
    if not files.exists("amb-tests"):
        files.mkdir("amb-tests")
    return f"s3://amb-tests/{next(_NUMBERS)}/{tmp_path.name}"


@pytest.fixture(params=["folder", "bucket"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Each kind of location."""
    return str(tmp_path / "store") if request.param == "folder" else request.getfixturevalue("bucket")
