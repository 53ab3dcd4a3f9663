"""The executors of one machine: the contract, and each worker's share of the machine."""

from __future__ import annotations

import operator
import os
import re
import signal
import time
from functools import partial
from types import SimpleNamespace

import pytest

import amb
from amb.errors import BadParamsError, UsageError
from amb.execution.dispatch import Limits
from amb.execution.execute import Way
from amb.execution.executors import processes
from amb.execution.executors.processes import Processes
from amb.execution.executors.serial import Serial
from amb.execution.jobs import Order
from amb.execution.needs import NeedsReckoner
from amb.python.sweeps import pick_way
from amb.testing import ExecutorContract

LIGHT = amb.Needs(cpus=1, gpus=0, memory_mib=64)


class TestSerial(ExecutorContract):
    @pytest.fixture
    def executor(self) -> Serial:
        return Serial()


class TestProcesses(ExecutorContract):
    @pytest.fixture
    def executor(self) -> Processes:
        return Processes(workers=2)

    def test_a_worker_that_was_killed_while_it_waited_is_replaced(self, pool: amb.Pool) -> None:
        (first,) = [report.result for report in self.follow(pool, {0: os.getpid}) if report.event == "done"]
        os.kill(first, signal.SIGKILL)
        time.sleep(0.2)
        done = [report for report in self.follow(pool, {1: os.getpid}) if report.event == "done"]
        assert done[0].result != first

    def test_jobs_that_do_not_fit_into_memory_together_go_one_after_the_other(self) -> None:
        with Processes(workers=2).open(operator.call, LIGHT) as pool:
            half = amb.Needs(cpus=1, gpus=0, memory_mib=int(pool._memory * 0.6))
            for number in range(2):
                pool.submit(amb.Assignment(number, "half", half, partial(time.sleep, 0.3)))
            seen = self.wait_for(pool, lambda seen: sum(each.event == "done" for each in seen) == 2)
        assert [(each.number, each.event) for each in seen] == [(0, "begun"), (0, "done"), (1, "begun"), (1, "done")]


def environment_of(executor: Processes, usual: amb.Needs) -> list[tuple[str | None, str | None]]:
    """GPUs and threads as each worker's libraries see them."""
    return [(place.get("CUDA_VISIBLE_DEVICES"), place["OMP_NUM_THREADS"]) for place in executor._list_places(usual)]


def test_workers_share_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "count_cores", lambda: 16)
    on_cpu, on_gpu = amb.Needs(gpus=0), amb.Needs()
    assert environment_of(Processes(), on_cpu) == [(None, "4")] * 4
    assert environment_of(Processes(cores=8), on_cpu) == [(None, "8")] * 2
    assert environment_of(Processes(workers=3), on_cpu) == [(None, "5")] * 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-7")
    assert environment_of(Processes(), on_gpu) == [("4", "8"), ("GPU-7", "8")]
    assert [gpu for gpu, _ in environment_of(Processes(per_gpu=2), on_gpu)] == ["4", "GPU-7", "4", "GPU-7"]
    assert [gpu for gpu, _ in environment_of(Processes(workers=1), on_gpu)] == ["4"]


def test_a_worker_sees_its_own_gpu_and_the_driver_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    asked = partial(os.getenv, "CUDA_VISIBLE_DEVICES")
    with Processes().open(operator.call, amb.Needs()) as pool:
        contract = TestProcesses()
        reports = contract.follow(pool, {0: partial(time.sleep, 0.5), 1: asked}) + contract.follow(pool, {2: asked})
    seen = {report.number: report.result for report in reports if report.event == "done"}
    assert {seen[1], seen[2]} <= {"4", "5"}
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,5"


def test_needs_follow_from_what_is_declared_and_from_the_size_of_the_model(manager: amb.plugin.manager.Manager) -> None:
    registry = manager.registry
    plan = amb.execution.planning.make_plan(
        registry, suite="toy", methods=["activemark", "ipguard"], attacks=["prune40", "finetune"]
    )
    needs = NeedsReckoner(registry)
    weights = sum(weight.numel() * 4 for weight in amb.load_model("toy/owner").parameters()) / 2**20
    assert needs(Order(plan, plan.methods[0])) == amb.Needs(1, 0, round(768 + 6 * weights))
    pruned, tuned = (next(each for each in plan.suspects if each.name == name) for name in ("prune40", "finetune"))
    assert needs(Order(plan, plan.methods[0], pruned)).memory_mib == round(768 + 3 * weights)
    assert needs(Order(plan, plan.methods[0], tuned)).memory_mib == round(768 + 6 * weights)
    assert needs(Order(plan.on(amb.Compute("cuda")), plan.methods[0])).gpus == 1
    assert needs(Order(plan.on(amb.Compute("cuda:1")), plan.methods[0])).gpus == 0, "the user has shared them out"
    assert NeedsReckoner(registry, measure=False)(Order(plan, plan.methods[0])) == amb.Needs(1, 0, 0)


def test_a_time_limit_needs_a_process_that_can_be_killed() -> None:
    with pytest.raises(BadParamsError, match="Take --executor processes for a --step-timeout"):
        Way(Serial(), Limits(step_timeout=1.0)).check([SimpleNamespace()])


def test_jobs_are_short_for_an_executor() -> None:
    assert pick_way().executor == Serial()
    assert pick_way(jobs=4).executor == Processes(workers=4)
    assert pick_way(executor="processes:cores=2", retries=0, step_timeout=9.0) == Way(
        Processes(cores=2), Limits(0, 9.0)
    )
    assert pick_way(executor=Processes(workers=3)).executor == Processes(workers=3)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (
            {"jobs": 2, "executor": "serial"},
            "2 jobs are short for the executor processes:workers=2, and serial was asked",
        ),
        ({"executor": "proceses"}, "No executor is called 'proceses'. Did you mean processes?"),
        ({"executor": "processes", "address": "auto"}, "executor processes has no parameter 'address'"),
        ({"executor": "processes:workers=0"}, "executor processes: workers must be greater than or equal to 1"),
        ({"retries": -1}, "0 or more (got -1)"),
        ({"step_timeout": 0.0}, "A step may take more than 0 seconds"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(asked: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)) as caught:
        pick_way(**asked)
    assert "\n" not in str(caught.value)
