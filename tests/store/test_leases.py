"""Leases: one holder at a time, over when nobody renews them, whatever the clocks say."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from amb.runtime.processes import ProcessName, name_this_process
from amb.store.drafts import is_abandoned, new_tag
from amb.store.leases import Claim, Lease, Leases, steady_clock
from amb.store.local import LocalSlots
from amb.store.opening import open_place

STEP = "thing-0123"


class Clock:
    """A clock that tests set."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def slots(tmp_path: Path) -> LocalSlots:
    return LocalSlots(str(tmp_path / ".work"))


def take_elsewhere(slots: LocalSlots, clock: Clock) -> Lease:
    """A lease that a process of another machine holds."""
    leases = Leases(slots, clock=clock)
    lease = leases.take(STEP)
    assert lease
    leases.forget(lease)  # its thread would renew it
    slots.remove(STEP, [1])
    lease.claim = replace(lease.claim, holder=ProcessName("another", 1, "", "far-away"))
    assert slots.create(STEP, 1, lease.claim.to_text())
    return lease


def test_one_holder_at_a_time(slots: LocalSlots) -> None:
    first, second = Leases(slots), Leases(slots)
    lease = first.take(STEP)
    assert lease
    assert second.take(STEP) is None
    assert second.take("thing-4567")
    lease.release()
    assert second.take(STEP)


def test_a_lease_that_nobody_renews_runs_out_by_the_clock_of_whoever_waits(slots: LocalSlots) -> None:
    take_elsewhere(slots, Clock(1e9))
    clock = Clock(-50.0)
    mine = Leases(slots, clock=clock)
    for now in (-50.0, 0.0, 10.0):
        clock.now = now
        assert mine.take(STEP) is None
    assert mine.find_holder(STEP) == "process 1 on far-away"
    clock.now = 10.1
    lease = mine.take(STEP)
    assert lease
    assert lease.is_inherited


def test_a_renewed_lease_is_left_to_its_holder(slots: LocalSlots) -> None:
    lease = take_elsewhere(slots, Clock())
    clock = Clock()
    mine = Leases(slots, clock=clock)
    for _ in range(5):
        assert mine.take(STEP) is None
        clock.now += 50
        assert lease.renew()
    assert mine.take(STEP) is None


def test_no_time_of_day_is_asked(slots: LocalSlots, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock set back by a year, or ahead, changes nothing: neither who holds a lease nor when it runs out."""
    lease = Leases(slots).take(STEP)
    assert lease
    for jump in (-3e7, 3e7):
        monkeypatch.setattr(time, "time", lambda jump=jump: 1.7e9 + jump)
        assert Leases(slots).take(STEP) is None
        assert lease.is_held()
        assert lease.age < 5
    text = json.loads(slots.read(STEP, 1) or b"")
    assert set(text) == {"holder", "tag", "seconds"}, "there is no time in it that could be compared"


def test_a_holder_that_was_frozen_notices(slots: LocalSlots) -> None:
    clock = Clock()
    frozen = take_elsewhere(slots, clock)
    others, theirs = Clock(), None
    mine = Leases(slots, clock=others)
    assert mine.take(STEP) is None
    others.now = 61
    theirs = mine.take(STEP)
    assert theirs
    clock.now = 100
    assert not frozen.is_held()
    assert not frozen.renew()
    frozen.release()
    assert theirs.renew(), "what the other has taken was left to it"
    assert Leases(slots).take(STEP) is None


def test_a_number_that_was_used_and_removed_is_no_lease(slots: LocalSlots) -> None:
    """The others have renewed so often since that the number which the frozen one writes next is free again."""
    clock = Clock()
    frozen = take_elsewhere(slots, clock)
    theirs = Leases(slots, clock=Clock())
    for number in (2, 3, 4, 5):
        assert theirs.claim_number(STEP, number, Claim(name_this_process()))
    slots.remove(STEP, [1, 2, 3, 4])
    clock.now = 100
    assert not frozen.is_held()
    assert slots.numbers(STEP) == [5]


def test_a_frozen_holder_that_nobody_missed_goes_on(slots: LocalSlots) -> None:
    clock = Clock()
    frozen = take_elsewhere(slots, clock)
    clock.now = 1000
    assert not frozen.has_lapsed
    assert frozen.is_held()
    assert frozen.has_lapsed
    assert frozen.age == 0


def test_a_dead_process_of_this_machine_is_noticed_at_once(slots: LocalSlots) -> None:
    me = name_this_process()
    for holder in (replace(me, process=2**22 - 1), replace(me, started="before")):
        claim = Claim(holder, "tag")
        assert slots.create(STEP, 1, claim.to_text())
        lease = Leases(slots).take(STEP)
        assert lease
        lease.release()
    assert slots.create(STEP, 1, Claim(replace(me, machine="another", process=2**22 - 1), "tag").to_text())
    assert Leases(slots).take(STEP) is None, "of another machine nothing is known"


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"holder": 3}', b'{"holder": {"x": 1}, "tag": "", "seconds": 1}'])
def test_a_lease_that_cannot_be_read_runs_out_too(slots: LocalSlots, text: bytes) -> None:
    assert slots.create(STEP, 1, text)
    clock = Clock()
    leases = Leases(slots, clock=clock)
    assert leases.take(STEP) is None
    clock.now = 61
    assert leases.take(STEP)


def test_a_thread_renews_what_is_held(slots: LocalSlots) -> None:
    lease = Leases(slots, 0.8).take(STEP)
    assert lease
    other = Leases(slots, 0.8)
    end = time.monotonic() + 3
    while time.monotonic() < end:
        assert other.take(STEP) is None
        time.sleep(0.05)
    assert max(slots.numbers(STEP)) >= 5
    assert len(slots.numbers(STEP)) <= 2, "old numbers are removed"
    lease.release()
    assert slots.numbers(STEP) == []


def test_the_thread_ends_with_what_it_renews(slots: LocalSlots) -> None:
    leases = Leases(slots, 0.4)
    lease = leases.take(STEP)
    heart = leases._heart
    assert heart
    assert heart.is_alive()
    lease.release()
    del leases, lease
    heart.join(5)
    assert not heart.is_alive()


def test_eight_at_once_and_one_holder(location: str) -> None:
    """The same on a folder and on a real object store, every round."""
    places = [open_place(location) for _ in range(8)]
    for step in range(10):
        gate, won = threading.Barrier(8), []

        def contend(at: int, step: int = step, gate: threading.Barrier = gate, won: list[int] = won) -> None:
            gate.wait()
            if Leases(places[at].slots).take(f"thing-{step}"):
                won.append(at)

        threads = [threading.Thread(target=contend, args=(at,)) for at in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1, f"round {step}: {won}"


def test_a_draft_says_whose_it_is() -> None:
    mine = new_tag()
    _, machine, _ = mine.split("-")
    assert not is_abandoned(mine)
    assert is_abandoned(f"{2**22 - 1}-{machine}-0")
    assert not is_abandoned(f"{2**22 - 1}-00000000-0"), "another machine's"
    assert not is_abandoned("removed-0123")
    assert not is_abandoned("12")


def test_the_steady_clock_runs() -> None:
    before = steady_clock()
    time.sleep(0.01)
    assert 0 < steady_clock() - before < 5
