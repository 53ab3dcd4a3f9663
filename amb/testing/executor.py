"""The contract of executors: what is handed over is computed once, what dies is said, what is killed is gone."""

from __future__ import annotations

import operator
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from amb.api.executors import Assignment, Executor, Pool, Report
from amb.api.needs import Needs
from amb.testing.component import ComponentContract

_LIGHT = Needs(cpus=1, gpus=0, memory_mib=64)


class ExecutorContract(ComponentContract):
    """What every executor promises. The loads are calls of the standard library, so workers need nothing of the test."""

    patience = 120.0
    """Seconds in which a pool has to do what is asked of it."""

    @pytest.fixture
    def executor(self) -> Executor:
        """The executor under test, with one worker or two."""
        raise NotImplementedError("override the fixture `executor`")

    @pytest.fixture
    def pool(self, executor: Executor) -> Iterator[Pool]:
        """Its workers, which call what they are handed."""
        with executor.open(operator.call, _LIGHT) as pool:
            yield pool

    def test_declares_itself(self, executor: Executor) -> None:
        self.check_component(executor)

    def test_computes_each_once_and_says_when_it_has_begun(self, pool: Pool) -> None:
        reports = self.follow(pool, {number: partial(pow, number, 2) for number in range(20)})
        assert {report.number: report.result for report in reports if report.event == "done"} == {
            number: number**2 for number in range(20)
        }
        for number in range(20):
            assert [report.event for report in reports if report.number == number] == ["begun", "done"]

    def test_a_pool_without_work_waits_no_longer_than_it_is_told(self, pool: Pool) -> None:
        started = time.monotonic()
        assert list(pool.wait(0.1)) == []
        assert time.monotonic() - started < 5
        assert pool.width >= 1

    def test_a_worker_that_dies_costs_what_it_was_at(self, executor: Executor, pool: Pool) -> None:
        if executor.in_process:
            pytest.skip("it computes in this process")
        reports = self.follow(pool, {0: partial(os._exit, 3), 1: partial(pow, 2, 3), 2: partial(pow, 3, 2)})
        lost = [report for report in reports if report.event == "lost"]
        assert [report.number for report in lost] == [0]
        assert lost[0].reason, "say what happened to the worker"
        assert {report.result for report in reports if report.event == "done"} == {8, 9}

    def test_what_is_killed_is_not_reported_and_the_rest_goes_on(self, executor: Executor, pool: Pool) -> None:
        if executor.in_process:
            pytest.skip("it computes in this process")
        pool.submit(Assignment(0, "sleeps", _LIGHT, partial(time.sleep, 3600)))
        self.wait_for(pool, lambda seen: Report(0, "begun") in seen)
        pool.kill(0)
        reports = self.follow(pool, {1: partial(pow, 2, 3)})
        assert {report.number for report in reports} == {1}

    def test_nothing_is_left_when_it_is_closed(self, executor: Executor) -> None:
        if executor.in_process:
            pytest.skip("it computes in this process")
        with executor.open(operator.call, _LIGHT) as pool:
            (worker,) = [report.result for report in self.follow(pool, {0: os.getpid}) if report.event == "done"]
            pool.submit(Assignment(1, "sleeps", _LIGHT, partial(time.sleep, 3600)))
            self.wait_for(pool, lambda seen: Report(1, "begun") in seen)
        until = time.monotonic() + self.patience
        while _is_running(worker):
            assert time.monotonic() < until, "a worker outlives its pool"
            time.sleep(0.1)

    def follow(self, pool: Pool, loads: dict[int, Callable[[], Any]]) -> list[Report]:
        """Hand everything over, and hear until all of it is done or lost."""
        for number, load in loads.items():
            pool.submit(Assignment(number, f"load {number}", _LIGHT, load))
        ended = lambda seen: sum(report.event != "begun" for report in seen) >= len(loads)  # noqa: E731 (short)
        return self.wait_for(pool, ended)

    def wait_for(self, pool: Pool, condition: Callable[[list[Report]], bool]) -> list[Report]:
        """All reports until a condition holds of them."""
        until, seen = time.monotonic() + self.patience, list[Report]()
        while not condition(seen):
            assert time.monotonic() < until, f"nothing more is heard after {seen}"
            seen += pool.wait(1.0)
        return seen


def _is_running(process: int) -> bool:
    """Whether a process is there and more than a zombie."""
    try:
        with open(f"/proc/{process}/stat") as file:  # noqa: PTH123 (no path of ours)
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
