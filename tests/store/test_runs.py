"""Whole runs whose steps lie in a bucket: the same results, nothing computed again, evidence found for an export."""

from __future__ import annotations

from pathlib import Path

import pytest

import amb
from amb.errors import StoreError
from amb.plugin.manager import Manager
from amb.results.bundle import own_runs
from amb.store.store import Store
from tests.conftest import QUICK


def run(output: Path, store: str | None) -> amb.Results:
    return amb.run(QUICK, ["prune40"], suite="toy", output_dir=output, store=store, quiet=True)


def test_a_run_with_its_store_in_a_bucket(
    manager: Manager, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = run(tmp_path / "here", None), run(tmp_path / "there", bucket)
    assert not (tmp_path / "there" / "store").exists()
    assert [cell.digests for cell in there.cells] == [cell.digests for cell in here.cells], "the same, digest by digest"
    monkeypatch.setenv("AMB_STORE_CACHE", str(tmp_path / "elsewhere"))
    again = run(tmp_path / "again", bucket)
    assert all(cell.cached for cell in again.cells if cell.status == "ok"), "another machine computes nothing"
    assert [cell.digests for cell in again.cells] == [cell.digests for cell in here.cells]
    assert own_runs(tmp_path / "again", store=bucket)[0].errors.keys() == own_runs(tmp_path / "here")[0].errors.keys()
    with pytest.raises(StoreError, match="The evidence of .* is not in"):
        own_runs(tmp_path / "again")


def test_kinds_of_entries_are_the_same_on_both(manager: Manager, bucket: str, tmp_path: Path) -> None:
    run(tmp_path / "here", None)
    run(tmp_path / "there", bucket)
    here, there = Store(tmp_path / "here" / "store").place, Store(bucket).place
    assert here.list_kinds() == there.list_kinds()
    assert all(here.list_digests(kind) == there.list_digests(kind) for kind in here.list_kinds())
