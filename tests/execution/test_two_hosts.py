"""Two drivers of one sweep at once, on two machines with one store: every step is computed once, and both have every result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.execution.other_host import HERE, can_be_made, command_there, forwarding, other_host
from tests.execution.toy_sweep import SWEEP, WITNESS, find_repeated, write_site
from tests.store.servers import start_server
from tests.tracking.kills import read_table

pytestmark = pytest.mark.skipif(not can_be_made(), reason="namespaces take root, `ip` and `unshare`")

COMMAND = (sys.executable, "-m", "amb", "sweep", "--device", "cpu", "--store")


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_drivers_on_two_machines_compute_every_step_once(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_site(tmp_path, WITNESS)
    monkeypatch.chdir(tmp_path)
    for name, order in (("here", 1), ("there", -1)):  # in other orders, so that each comes first to some steps
        axes = {axis: SWEEP[axis][::order] for axis in ("attacks", "seeds")}
        Path(f"{name}.yaml").write_text(json.dumps({**SWEEP, **axes}))
    with other_host(), stores(kind, tmp_path, monkeypatch) as (store, at):
        here = start((*COMMAND, store, "here.yaml", "--output-dir", "here"), at["here"])
        there = start(command_there(*COMMAND, store, "there.yaml", "--output-dir", "there"), at["there"])
        said = {name: driver.communicate(timeout=300)[0] for name, driver in (("here", here), ("there", there))}
    assert (here.returncode, there.returncode) == (0, 0), said
    assert find_repeated(Path("steps.log")) == []
    assert set(Counter(Path("steps.log").read_text().splitlines()).values()) == {1}, "a step was begun twice"
    assert read_table("here") == read_table("there")
    assert {cell["status"] for cell in read_table("here")} <= {"ok", "skipped"}
    both = [driver for driver in ("here", "there") if "to attack" in said[driver]]
    assert both == ["here", "there"], f"one computed nothing: {said}"


@contextmanager
def stores(
    kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, Mapping[str, Mapping[str, str]]]]:
    """A store, and what the environment says of it on each of the two machines."""
    if kind == "folder":
        yield str(folder / "store"), {"here": {}, "there": {}}
        return
    with start_server() as server:
        import fsspec

        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        fsspec.filesystem("s3").clear_instance_cache()
        fsspec.filesystem("s3").mkdir("two-hosts")
        with forwarding(server.port) as port:
            caches = {name: {"AMB_STORE_CACHE": str(folder / f"cache-{name}")} for name in ("here", "there")}
            there = {**server.environment, **caches["there"], "AWS_ENDPOINT_URL": f"http://{HERE}:{port}"}
            yield "s3://two-hosts/store", {"here": {**server.environment, **caches["here"]}, "there": there}


def start(command: Any, more: Mapping[str, str]) -> subprocess.Popen[str]:
    """A driver that sees the plugin and writes down its steps."""
    path = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    own = {"PYTHONPATH": path, "AMB_DISABLE_PLUGINS": "mlflow", "WITNESS": str(Path("steps.log").resolve())}
    return subprocess.Popen(
        command, env={**os.environ, **own, **more}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
