"""The executor `ray` on a real cluster of three local nodes, one of which dies half-way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import amb
from amb.plugin import manager as plugins
from amb.testing import ExecutorContract
from tests.execution.toy_sweep import SWEEP, install, n_finished, summarise, wait_for

pytest.importorskip("ray", reason="the extra `ray` is not installed")

from amb_ray import RayExecutor

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Three nodes of one CPU each, whose workers have the toy plugin."""
    from ray.cluster_utils import Cluster

    import amb_ray.pool  # noqa: F401 (sets Ray's variables before Ray is imported)

    with pytest.MonkeyPatch.context() as patch:
        install(tmp_path_factory.mktemp("site"), patch)
        patch.setenv("RAY_raylet_start_wait_time_s", "300")  # the machine may be busy with other tests
        patch.setenv("RAY_worker_niceness", "0")  # for the same reason: at Ray's 15 its workers would get no turn
        cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        cluster.add_node(**NODE)
        cluster.add_node(**NODE)
        cluster.wait_for_nodes()
        yield cluster
        cluster.shutdown()
    plugins.manager.cache_clear()


class TestRay(ExecutorContract):
    @pytest.fixture
    def executor(self, cluster: Any) -> RayExecutor:
        return RayExecutor(address=cluster.address)

    def test_declares_itself(self) -> None:
        """An address with a port is no value of a spec: --address says it."""
        self.check_component(RayExecutor(address="auto", cpus=2.0, gpus=0.25, memory=1.5))


def test_a_cluster_that_is_not_there_is_said_in_one_line() -> None:
    with pytest.raises(amb.AmbError, match="No Ray cluster answers at 127.0.0.1:9 .*`ray start --head`") as caught:
        RayExecutor(address="127.0.0.1:9").open(print, amb.Needs())
    assert "\n" not in str(caught.value)
    with pytest.raises(amb.BadParamsError, match="auto, local or HOST:PORT of its head .got ray://head:10001"):
        RayExecutor(address="ray://head:10001").open(print, amb.Needs())


def test_a_job_that_no_machine_has_room_for_is_said(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Usual jobs fit, this one would wait for ever."""
    from amb_ray import pool as module

    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.0)
    with RayExecutor(address=cluster.address).open(print, amb.Needs(gpus=0)) as pool:
        assert (pool.places, pool.width) == (3, 5)
        pool.submit(amb.Assignment(0, "large", amb.Needs(cpus=64, gpus=0), None))
        with pytest.raises(amb.AmbError, match="No machine of the Ray cluster has 64 cores, 0 GPUs .* Ask for less"):
            assert pool.width


def test_parameters_speak_before_what_a_job_says() -> None:
    said = amb.Needs(cpus=2, gpus=1, memory_mib=900)
    assert RayExecutor().choose(said) == said
    assert RayExecutor(cpus=1, gpus=0.25, memory=2).choose(said) == amb.Needs(1, 0.25, 2048)


def test_a_node_that_dies_changes_no_result(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last of the file: it leaves a cluster of two nodes."""
    monkeypatch.setenv("AMB_DISABLE_PLUGINS", "mlflow")
    plugins.manager.cache_clear()
    serial = amb.sweep(SWEEP, output_dir=tmp_path / "serial", device="cpu", quiet=True)
    n_all = n_finished(tmp_path / "serial")

    def kill_half_way() -> None:
        wait_for(lambda: n_finished(tmp_path / "out") >= n_all // 3, seconds=600)
        cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)

    thread = threading.Thread(target=kill_half_way)
    thread.start()
    executor = RayExecutor(address=cluster.address, memory=0)
    found = amb.sweep(SWEEP, executor=executor, output_dir=tmp_path / "out", device="cpu", quiet=True)
    thread.join()
    assert len(cluster.list_all_nodes()) == 2
    assert summarise(found.document) == summarise(serial.document)
    assert {cell["status"] for cell in found.document["cells"]} <= {"ok", "skipped"}
