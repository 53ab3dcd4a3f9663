"""How far a sweep is, in a small file of its output folder, so that another shell or machine can look and ask it to stop.

`sweeps/<sweep>.<driver>.json` is replaced as a whole, at most once a second and at least every five while the driver
lives. Who wants it to stop writes `sweeps/<sweep>.<driver>.stop`, which the driver looks for each second: a folder that
both can reach is all that they have to share.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, get_args

from amb.errors import MissingError
from amb.runtime.plain_json import read_json_object
from amb.runtime.processes import ProcessName

FOLDER: Final = "sweeps"
BEAT_SECONDS: Final = 1.0
"""How often the driver looks whether there is anything to write, or a request to stop."""
QUIET_SECONDS: Final = 5.0
"""How long it writes nothing where nothing has changed."""
GONE_SECONDS: Final = 30.0
"""How long a driver of another machine may give no sign of life."""
_LARGEST: Final = 2**16
State = Literal["running", "stopping", "finished", "stopped", "failed"]
_ENDED: Final = ("finished", "stopped", "failed")


@dataclass(frozen=True)
class SweepStatus:
    """What a driver says of itself."""

    sweep: str
    driver: str
    """A name that no other driver of any sweep has."""
    process: ProcessName
    began: float
    """Seconds since 1970 by the driver's clock, as `beat_at`."""
    cells: int
    """Of the whole sweep."""
    kept: int = 0
    """Of finished runs, which are taken as they are."""
    done: int = 0
    """Recorded by this driver: judged, skipped or failed."""
    cached: int = 0
    """Of them, read from the store."""
    skipped: int = 0
    failed: int = 0
    workers: int = 1
    state: State = "running"
    at: str = ""
    """The last cell that was begun."""
    per_minute: float | None = None
    """Cells of late."""
    log: str | None = None
    """Where what a detached driver says goes."""
    reason: str = ""
    """Why it failed."""
    beat: int = 0
    """Counts how often this was written."""
    beat_at: float = 0.0
    silence: float | None = None
    """Seconds since it was written, by the clock of the file system; None where that is not known. Of whoever reads it."""

    @property
    def left(self) -> int:
        """Cells that are not recorded yet."""
        return self.cells - self.kept - self.done

    @property
    def running(self) -> int:
        """Cells under way, at most: one for each worker."""
        return min(self.workers, self.left) if self.state in ("running", "stopping") else 0

    @property
    def seconds_left(self) -> float | None:
        """At the pace of late."""
        return self.left / self.per_minute * 60 if self.per_minute else None

    @property
    def has_ended(self) -> bool:
        """Whether the driver has said that it is over."""
        return self.state in _ENDED

    def silent_for(self) -> float:
        """Seconds since it was written; where the file system does not say, if the clocks of the machines agree."""
        return max(0.0, time.time() - self.beat_at if self.silence is None else self.silence)

    def is_gone(self) -> bool:
        """Whether the driver ended without a word, as one that was killed: certain on its machine, likely elsewhere."""
        if self.has_ended:
            return False
        return self.process.is_dead() or (not self.process.is_here and self.silent_for() > GONE_SECONDS)

    def to_json(self) -> dict[str, Any]:
        """As `amb status --format json` prints it."""
        named = asdict(self)
        process, _ = named.pop("process"), named.pop("silence")
        found = {"left": self.left, "running": self.running, "seconds_left": self.seconds_left}
        times = {name: _spell_time(named[name]) for name in ("began", "beat_at")}
        whose = {"host": process["host"], "pid": process["process"]}
        return {
            **named,
            **times,
            **found,
            **whose,
            "gone": self.is_gone(),
            "silent_seconds": round(self.silent_for(), 1),
        }


def write_status(output: Path, status: SweepStatus) -> None:
    """Replace the file as a whole. Raises OSError."""
    path = _find_path(output, status, "json")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}")
    draft.write_text(json.dumps(asdict(replace(status, silence=None)), allow_nan=False) + "\n", encoding="utf-8")
    draft.replace(path)


def read_statuses(output: Path) -> list[SweepStatus]:
    """What every driver of an output folder has said last, the latest at the end. What is no status is passed over."""
    now = _read_clock(output / FOLDER)
    found = (_read_status(path, now) for path in (output / FOLDER).glob("[!.]*.json"))
    return sorted(filter(None, found), key=lambda status: (status.began, status.driver))


def require_statuses(output: Path, sweep: str | None = None) -> list[SweepStatus]:
    """Those of a sweep, or all. Raises MissingError where there is none."""
    found = [status for status in read_statuses(output) if sweep in (None, status.sweep)]
    if not found:
        what = f"of '{sweep}' " if sweep else ""
        raise MissingError(f"No sweep {what}has run in {output} so far. Give its folder: --output-dir.")
    return found


def find_running(output: Path, sweep: str | None = None) -> list[SweepStatus]:
    """The drivers that live, as far as one can tell from here."""
    found = (status for status in read_statuses(output) if sweep in (None, status.sweep))
    return [status for status in found if not status.has_ended and not status.is_gone()]


def find_unended(output: Path, sweep: str) -> list[SweepStatus]:
    """What drivers of a sweep have left that did not come to say that they are over."""
    return [status for status in read_statuses(output) if status.sweep == sweep and not status.has_ended]


def forget_ended(output: Path, sweep: str) -> None:
    """Remove what earlier drivers of a sweep have left."""
    for status in read_statuses(output):
        if status.sweep == sweep and (status.has_ended or status.is_gone()):
            for ending in ("json", "stop"):
                _find_path(output, status, ending).unlink(missing_ok=True)


def request_stop(output: Path, status: SweepStatus, *, now: bool = False) -> bool:
    """Ask a driver to stop, `now` without finishing; True where it was asked before, and is to stop now. Raises OSError."""
    path = _find_path(output, status, "stop")
    again = path.exists()
    draft = path.with_name(f".{path.name}")
    draft.write_text("now\n" if now or again else "finish\n", encoding="utf-8")
    draft.replace(path)
    return again


def read_request(output: Path, status: SweepStatus) -> Literal["", "finish", "now"]:
    """What a driver was asked for."""
    try:
        said = _find_path(output, status, "stop").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""
    return "now" if said == "now" else "finish"


def _find_path(output: Path, status: SweepStatus, ending: str) -> Path:
    return output / FOLDER / f"{status.sweep}.{status.driver}.{ending}"


def _read_clock(folder: Path) -> float | None:
    """The time by the clock that stamps the folder's files: on a shared disk that of no machine that drives. None where none can be made."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"tick")
            file.flush()
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return None


def _read_status(path: Path, now: float | None) -> SweepStatus | None:
    """What lies in a file; None for what is none, or of another version."""
    try:
        silence = None if now is None else now - path.stat().st_mtime
        status = _parse_status({**read_json_object(path, _LARGEST), "silence": silence})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return status if status and path.name == f"{status.sweep}.{status.driver}.json" else None


def _parse_status(found: Mapping[str, Any]) -> SweepStatus | None:
    known = {name: value for name, value in found.items() if name in SweepStatus.__dataclass_fields__}
    status = replace(SweepStatus(**known), process=ProcessName(**found["process"]))
    numbers = (status.began, status.beat_at, status.cells, status.kept, status.done, status.per_minute or 0)
    texts = (status.sweep, status.driver, status.at, status.reason)
    sound = all(isinstance(each, int | float) for each in numbers) and all(isinstance(each, str) for each in texts)
    return status if sound and status.state in get_args(State) else None


def _spell_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def new_driver() -> str:
    """A name for a driver."""
    return os.urandom(6).hex()
