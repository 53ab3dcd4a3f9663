"""The driver's side of an executor, with pools that are made up: order, tries, limits, what is shared."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

import amb
from amb.api.plan import EMBEDDED, Plan, Suspect
from amb.errors import AmbError
from amb.execution import dispatch
from amb.execution.dispatch import Dispatcher, Limits
from amb.execution.job_queue import JobQueue
from amb.execution.jobs import EmbedJob, Order, Outcome, PlannedJob, ProfileJob, SuspectJob, frame_of, make_order
from amb.execution.worker import Stopped, WorkFunction
from amb.runtime.stopping import ask_to_stop, forget_request

LIMITS = Limits()


class Link:
    """An attack, as far as a queue looks at one."""

    def __init__(self, name: str) -> None:
        self.name = name

    def canonical(self) -> str:
        return self.name


def make_plan(n_methods: int, chains: list[str], seed: int = 0) -> Plan:
    methods = tuple(SimpleNamespace(name=f"m{at}") for at in range(n_methods))
    suspects = tuple(
        Suspect(chain, EMBEDDED, tuple(Link(each) for each in chain.split("+")), "positive") for chain in chains
    )
    return Plan(SimpleNamespace(), "toy/owner", methods, suspects, seed, None, 0.05)


def ask(dispatcher: Dispatcher, plans: list[Plan]) -> dict[PlannedJob, Outcome[Any]]:
    """As the engines ask: one job after the other."""
    found: dict[PlannedJob, Outcome[Any]] = {}
    for index, plan in enumerate(plans):
        do = dispatcher.runner_of(index)
        found[PlannedJob(index, ProfileJob())] = do(ProfileJob())
        for method in range(len(plan.methods)):
            embedded = found[PlannedJob(index, EmbedJob(method))] = do(EmbedJob(method))
            for at in range(len(plan.suspects) if embedded.status == "ok" else 0):
                found[PlannedJob(index, SuspectJob(method, at))] = do(SuspectJob(method, at))
    return found


class MadeUpPool(amb.Pool):
    """Answers in any order, loses some; `answer` says what comes of a load."""

    def __init__(self, width: int, answer: Any, drawn: random.Random | None = None) -> None:
        self._width, self.answer, self.drawn = width, answer, drawn or random.Random(0)
        self.held: dict[int, amb.Assignment] = {}
        self.given: list[amb.Assignment] = []
        self.begun: set[int] = set()
        self.killed: list[int] = []

    @property
    def width(self) -> int:
        return self._width

    def submit(self, assignment: amb.Assignment) -> None:
        assert assignment.number not in {each.number for each in self.given}, "a number is never used twice"
        self.held[assignment.number] = assignment
        self.given.append(assignment)
        assert len(self.held) <= self._width

    def wait(self, seconds: float) -> Iterator[amb.Report]:
        number = self.drawn.choice(sorted(self.held))
        if number not in self.begun:
            self.begun.add(number)
            yield amb.Report(number, "begun")
        answer = self.answer(self.held[number].load)
        if answer == "still":
            return
        del self.held[number]
        yield amb.Report(number, "lost", reason="signal 9") if answer == "lost" else amb.Report(number, "done", answer)

    def kill(self, number: int) -> None:
        self.killed.append(number)
        del self.held[number]

    def close(self) -> None:
        self.held.clear()


def fine(order: Order) -> Outcome[Any]:
    return Outcome("ok", (order.what, order.plan.seed))


def dispatch_to(pool: amb.Pool, plans: list[Plan], limits: Limits = LIMITS) -> Dispatcher:
    return Dispatcher(plans, pool, lambda _: amb.Needs(), limits)


def test_one_worker_computes_in_the_order_of_the_engines() -> None:
    plans = [make_plan(2, ["a", "b"]), make_plan(1, ["a"], seed=1)]
    pool = MadeUpPool(1, fine)
    ask(dispatch_to(pool, plans), plans)
    assert [(each.name, each.load.plan.seed) for each in pool.given] == [
        ("profile of the owner", 0),
        ("embed m0", 0), ("m0 on a", 0), ("m0 on b", 0),
        ("embed m1", 0), ("m1 on a", 0), ("m1 on b", 0),
        ("profile of the owner", 1), ("embed m0", 1), ("m0 on a", 1),
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_order_of_the_answers_every_job_is_computed_once(seed: int) -> None:
    drawn = random.Random(seed)
    plans = [make_plan(drawn.randint(1, 5), list("abcdefg")[: drawn.randint(1, 7)], each) for each in range(3)]

    def answer(order: Order) -> Any:
        if order.suspect is not None:
            assert (order.method.name, order.plan.seed) in embedded, "a suspect before its key is there"
        elif order.method is not None and order.plan.seed == 1:
            return Outcome("skipped", reason="no")
        elif order.method is not None:
            embedded.add((order.method.name, order.plan.seed))
        return "lost" if drawn.random() < 0.2 else fine(order)

    embedded: set[tuple[str, int]] = set()
    pool = MadeUpPool(drawn.randint(1, 6), answer, drawn)
    found = ask(dispatch_to(pool, plans, Limits(retries=1000)), plans)
    assert all(
        outcome.facts == (pool_name(plans, planned), planned.plan)
        for planned, outcome in found.items()
        if outcome.facts is not None
    )
    assert {planned.plan for planned, outcome in found.items() if outcome.status == "skipped"} == {1}
    assert not pool.held


def pool_name(plans: list[Plan], planned: PlannedJob) -> str:
    plan, job = plans[planned.plan], planned.job
    if isinstance(job, ProfileJob):
        return "profile of the owner"
    method = plan.methods[job.method].name
    return f"{method} on {plan.suspects[job.suspect].name}" if isinstance(job, SuspectJob) else f"embed {method}"


def test_what_kills_its_workers_is_given_up_and_costs_no_other() -> None:
    plans = [make_plan(1, ["a", "deadly", "b"])]
    pool = MadeUpPool(3, lambda order: "lost" if "deadly" in order.what else fine(order))
    found = ask(dispatch_to(pool, plans, Limits(retries=2)), plans)
    failed = [outcome for outcome in found.values() if outcome.status == "failed"]
    assert [outcome.reason for outcome in failed] == [
        "m0 on deadly: its worker died at each of 3 tries, the last time (signal 9)"
    ]
    assert Counter(each.name for each in pool.given)["m0 on deadly"] == 3
    once = ask(dispatch_to(MadeUpPool(3, pool.answer), plans, Limits(retries=0)), plans)
    assert once[PlannedJob(0, SuspectJob(0, 1))].reason == "m0 on deadly: its worker died (signal 9)"


def test_what_takes_too_long_is_killed_and_fails_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = count(0, 4)
    monkeypatch.setattr(dispatch, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    plans = [make_plan(1, ["a", "endless", "b"])]
    pool = MadeUpPool(2, lambda order: "still" if "endless" in order.what else fine(order))
    found = ask(dispatch_to(pool, plans, Limits(step_timeout=60.0)), plans)
    outcome = found[PlannedJob(0, SuspectJob(0, 1))]
    assert outcome.reason == "m0 on endless: stopped after 60 s, the most that a step may take (--step-timeout)"
    assert len(pool.killed) == 1
    assert found[PlannedJob(0, SuspectJob(0, 2))].status == "ok"


def test_asked_to_stop_only_what_has_begun_is_finished() -> None:
    """Of three jobs that the pool holds one has begun; the others are taken back, and no lost one is tried again."""
    plans = [make_plan(1, ["a", "b", "c", "d", "e"])]
    pool = MadeUpPool(3, lambda order: Outcome("ok", facts=order.what))
    do = Dispatcher(plans, pool, lambda _: amb.Needs(), LIMITS).runner_of(0)
    do(ProfileJob())
    do(EmbedJob(0))
    answered, wait = len(pool.given), pool.wait

    def ask_once_begun(seconds: float) -> Iterator[amb.Report]:
        for report in wait(seconds):
            yield report
            if report.event == "begun":
                ask_to_stop()

    pool.wait = ask_once_begun  # type: ignore[method-assign]
    try:
        with pytest.raises(KeyboardInterrupt):
            for at in range(5):
                do(SuspectJob(0, at))
    finally:
        forget_request()
    assert len(pool.given) > answered
    assert not pool.held
    assert len(pool.killed) == 2


def test_a_store_that_cannot_be_written_stops_the_sweep() -> None:
    plans = [make_plan(1, ["a"])]
    with pytest.raises(AmbError, match="the disk is full"):
        ask(dispatch_to(MadeUpPool(2, lambda _: Stopped("the disk is full")), plans), plans)


def test_a_million_cells_are_a_stream() -> None:
    plans = [make_plan(10, [str(at) for at in range(100_000)])]
    pool = MadeUpPool(8, fine)
    dispatcher = dispatch_to(pool, plans)
    do = dispatcher.runner_of(0)
    do(ProfileJob())
    do(EmbedJob(0))
    for at in range(1000):
        do(SuspectJob(0, at))
    assert len(pool.given) <= 1000 + 1 + 10 + dispatch._AHEAD + pool.width
    assert sum(len(list(each.jobs())) for each in dispatcher._queue._embedded) <= pool.width * 16


def test_jobs_that_share_a_suspect_or_the_first_link_of_a_chain_are_not_made_side_by_side() -> None:
    queue = JobQueue([make_plan(2, ["a+b", "a+c", "d"])], ahead=2)
    taken = [queue.take() for _ in range(3)]
    assert [each.job for each in taken] == [ProfileJob(), EmbedJob(0), EmbedJob(1)]
    for each in taken:
        queue.finish(each, ok=True)
    busy: list[PlannedJob] = []
    for _ in range(2):
        busy.append(queue.take(busy))
    assert [each.job for each in busy] == [SuspectJob(0, 0), SuspectJob(0, 2)], "a+c waits for the model of a"
    assert queue.take(busy).job == SuspectJob(1, 1), "the other method's a is another model, a+b is being made"
    rest = [queue.take() for _ in range(3)]
    assert {each.job for each in rest} == {SuspectJob(0, 1), SuspectJob(1, 0), SuspectJob(1, 2)}
    assert queue.take() is None


def test_a_worker_with_other_code_computes_nothing() -> None:
    order = make_order(make_plan(1, ["a"]), SuspectJob(0, 0), make_plan(0, []))
    assert order.code == order.digest_code()
    called: list[Order] = []
    work = WorkFunction(lambda: SimpleNamespace(compute=called.append), "store")
    work(order)
    stopped = work(replace(order, code="of another version"))
    assert stopped == Stopped("A worker has other code than the driver for m0 on a: install the same plugins on both.")
    assert called == [order]


def test_what_travels_is_small_however_large_the_plan() -> None:
    import pickle

    from amb.execution.planning import make_plan as plan_of
    from amb.plugin.manager import Manager

    plan = plan_of(
        Manager().registry,
        suite="tiny",
        methods=["ipguard"],
        attacks=[f"prune:amount={n / 1000}" for n in range(1, 900)],
    )
    order = make_order(plan, SuspectJob(0, len(plan.suspects) - 1), frame_of(plan))
    assert pickle.loads(pickle.dumps(order)) == order
    assert len(pickle.dumps(order)) < 5_000 < len(pickle.dumps(plan)) / 5
