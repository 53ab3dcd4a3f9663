"""How long a run waits for MLflow, in all: a quick answer is waited for, so that nothing is timed beside the telling."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from amb.tracking.connection import is_file

if TYPE_CHECKING:
    from amb.tracking.background import Background


@dataclass
class Patience:
    """Seconds that a run has left for a place."""

    quick: float
    """What an answer may take that is not counted."""
    between: float
    """For all waits while the run goes on; then it goes on alone."""
    end: float
    """For the wait at its end."""

    @classmethod
    def of(cls, uri: str) -> Patience:
        """For a server a few seconds in all; a file of this machine has nobody behind it who could hold us up."""
        return cls(*(_FILE if is_file(uri) else _SERVER))

    def wait(self, background: Background) -> None:
        """Wait until all is told that was handed over, while there are seconds left."""
        if self.between <= 0:
            return
        started = time.monotonic()
        done = background.wait(self.between)
        self.between -= max(0.0, time.monotonic() - started - self.quick) if done else self.between

    def finish(self, background: Background) -> bool:
        """Whether all is told in the end."""
        return background.finish(self.end)


_SERVER: Final = (0.25, 2.0, 6.0)
_FILE: Final = (2.0, 30.0, 30.0)
