"""The executor `ray`: the jobs of a sweep on a Ray cluster, whose machines share a store."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, ClassVar

from pydantic import Field

import amb


class RayExecutor(amb.Executor):
    """Jobs as tasks of a Ray cluster: each where a machine has the cores, the GPU and the memory for it.

    All machines need the same packages and must reach the store: a shared folder or an object store. `address` is `auto`
    on a machine of the cluster, or where its head is; without one, a cluster of this machine alone is started.
    """

    name: ClassVar[str] = "ray"
    source: ClassVar[str] = "Moritz et al., Ray: a distributed framework for emerging AI applications, OSDI 2018"

    address: str = "local"
    """Of the cluster: `auto`, `HOST:PORT`, or `local` for one of this machine alone."""
    cpus: float | None = Field(None, ge=0, le=1024)
    """Cores of a job; by default what its method and attacks say."""
    gpus: float | None = Field(None, ge=0, le=64)
    """GPUs of a job, or a share such as 0.25; by default one where the run computes on a GPU."""
    memory: float | None = Field(None, ge=0)
    """GiB set aside for a job; by default what its model's size suggests."""
    queued: int = Field(2, ge=0, le=1000)
    """Jobs that wait in the cluster beside those that compute, so that no machine does, and an autoscaler sees them."""

    def open(self, compute: Callable[[Any], Any], usual: amb.Needs) -> amb.Pool:
        if find_spec("ray") is None:
            raise amb.MissingDependencyError("executor ray", "'activemark-bench[ray]'")
        from amb_ray.pool import RayPool

        return RayPool(self, compute, self.choose(usual))

    def choose(self, needs: amb.Needs) -> amb.Needs:
        """What is asked of the cluster: as the parameters say, else as the job does."""
        memory = needs.memory_mib if self.memory is None else round(1024 * self.memory)
        return amb.Needs(
            needs.cpus if self.cpus is None else self.cpus, needs.gpus if self.gpus is None else self.gpus, memory
        )


@amb.hookimpl
def amb_register_executors() -> list[type[RayExecutor]]:
    return [RayExecutor]
