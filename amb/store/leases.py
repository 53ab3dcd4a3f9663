"""Leases: who computes a step at the moment, on any file system and any object store, whatever the clocks say.

A lease is a series of numbered files of one step, each created once and never changed; who wrote the highest number
holds it. Its holder renews it by writing the next number, somebody else takes it over by writing the same next number,
and the location lets only one of them: there is nothing to compare and no file to believe twice. A lease is over when its
holder is a dead process of this machine, or when one has looked for as long as it lasts and seen no new number. That is
measured with one's own steady clock; no machine's time of day is asked.

Leases save work; they do not guard entries. That an entry is whole, and one writer's, is the location's business: it
publishes a record once.
"""

from __future__ import annotations

import json
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Final, Protocol

from amb.runtime.processes import ProcessName, name_this_process
from amb.store.drafts import new_tag

SECONDS: Final = 60.0
"""How long a lease lasts that is not renewed."""


class Slots(Protocol):
    """Numbered small files of each step. A step is named by its kind and digest with a dash between."""

    def create(self, step: str, number: int, text: bytes) -> bool:
        """Write a file that is not there yet; False where it is, or was written at the same moment."""
        ...

    def numbers(self, step: str) -> list[int]:
        """Which files there are."""
        ...

    def read(self, step: str, number: int) -> bytes | None:
        """What is in a file; None where it is gone."""
        ...

    def remove(self, step: str, numbers: Iterable[int]) -> None:
        """Remove files that may be there."""
        ...


@dataclass(frozen=True)
class Claim:
    """What stands in a lease."""

    holder: ProcessName | None
    """None where it cannot be read: of another version, or cut short."""
    tag: str = ""
    seconds: float = SECONDS

    def to_text(self) -> bytes:
        """As it is written."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def of_text(cls, text: bytes) -> Claim:
        """As it is read."""
        try:
            found = json.loads(text)
            return cls(ProcessName(**found["holder"]), str(found["tag"]), float(found["seconds"]))
        except (ValueError, KeyError, TypeError):
            return cls(None)


def steady_clock() -> float:
    """Seconds that nobody can set back, and that go on while the machine sleeps."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Lease:
    """The right to compute a step, until it is released or has run out."""

    def __init__(self, step: str, number: int, claim: Claim, leases: Leases) -> None:
        self.step, self.claim = step, claim
        self.is_inherited = number > 1
        """Whether somebody held it who did not finish."""
        self.has_lapsed = False
        """Whether it was not renewed in time once, so that others may have had it meanwhile."""
        self._numbers = [number]
        self._leases = leases
        self._renewed = leases.clock()
        self._is_lost = False
        self._turn = threading.Lock()

    @property
    def tag(self) -> str:
        """A name for what is written under this lease, and no other."""
        return self.claim.tag

    @property
    def age(self) -> float:
        """Seconds since it was taken or renewed."""
        return self._leases.clock() - self._renewed

    def is_held(self) -> bool:
        """Whether nobody else has it. One that was not renewed for long, as in a frozen process, is renewed to find out."""
        return not self._is_lost and (self.age < self.claim.seconds / 2 or self.renew())

    def renew(self) -> bool:
        """Write the next number; False where the lease is somebody else's."""
        with self._turn:
            if self._is_lost or not self._numbers:
                return False
            self.has_lapsed |= self.age >= self.claim.seconds
            self._is_lost = not self._leases.claim_number(self.step, self._numbers[-1] + 1, self.claim)
            if not self._is_lost:
                self._renewed = self._leases.clock()
                self._numbers.append(self._numbers[-1] + 1)
                self._leases.slots.remove(self.step, self._numbers[:-2])
                del self._numbers[:-2]
            return not self._is_lost

    def release(self) -> None:
        """Let others have it; what others have taken is left to them."""
        with self._turn:
            self._leases.forget(self)
            self._leases.slots.remove(self.step, self._numbers)
            self._numbers = []


class Leases:
    """The leases that this process takes at one location. They are renewed by a thread while they are held."""

    def __init__(self, slots: Slots, seconds: float = SECONDS, clock: Callable[[], float] = steady_clock) -> None:
        self.slots, self.seconds, self.clock = slots, seconds, clock
        self._held: set[Lease] = set()
        self._seen: dict[str, tuple[int, Claim, float]] = {}
        self._heart: threading.Thread | None = None

    def take(self, step: str) -> Lease | None:
        """The lease of a step; None where somebody holds it, or was quicker."""
        numbers = self.slots.numbers(step)
        if numbers and not self.is_over(step, max(numbers)):
            return None
        self._seen.pop(step, None)
        number = max(numbers, default=0) + 1
        claim = Claim(name_this_process(), new_tag(), self.seconds)
        if not self.claim_number(step, number, claim):
            return None
        self.slots.remove(step, numbers)
        lease = Lease(step, number, claim, self)
        self._held.add(lease)
        self._start_heart()
        return lease

    def is_over(self, step: str, number: int) -> bool:
        """Whether the lease with this highest number has run out, or its holder is dead. Asked again and again."""
        seen = self._seen.get(step)
        if seen is None or seen[0] != number:
            text = self.slots.read(step, number)
            if text is None:  # released or renewed meanwhile
                return False
            seen = self._seen[step] = (number, Claim.of_text(text), self.clock())
        _, claim, since = seen
        if claim.holder is not None and claim.holder.is_dead():
            return True
        return self.clock() - since > claim.seconds

    def find_seconds(self, step: str) -> float:
        """How long the lease of a step that is waited for lasts."""
        return self._seen[step][1].seconds if step in self._seen else self.seconds

    def find_holder(self, step: str) -> str:
        """Who holds a step that is waited for, as people say it."""
        claim = self._seen[step][1] if step in self._seen else Claim(None)
        return f"process {claim.holder.process} on {claim.holder.host}" if claim.holder else "another process"

    def claim_number(self, step: str, number: int, claim: Claim) -> bool:
        """Write a number and see that it is the highest: lower ones may have been written and removed meanwhile."""
        if not self.slots.create(step, number, claim.to_text()):
            return False
        if max(self.slots.numbers(step), default=number) > number:
            self.slots.remove(step, [number])
            return False
        return True

    def forget(self, lease: Lease) -> None:
        """Renew a lease no more."""
        self._held.discard(lease)

    def _start_heart(self) -> None:
        if self._heart is None or not self._heart.is_alive():  # a forked child has no thread of its own yet
            self._heart = threading.Thread(target=_beat, args=(weakref.ref(self), self.seconds / 8), daemon=True)
            self._heart.start()

    def renew_due(self) -> None:
        """Renew what was not renewed for a quarter of its time."""
        for lease in list(self._held):
            if lease.age >= self.seconds / 4:
                try:
                    lease.renew()
                except Exception:  # noqa: BLE001, S112 (the location is away: tried again at the next beat, and before publishing)
                    continue


def _beat(leases: weakref.ref[Leases], pause: float) -> None:
    """What the thread does, as long as somebody has the leases."""
    while True:
        time.sleep(pause)
        held = leases()
        if held is None:
            return
        held.renew_due()
        del held
