"""Tells MLflow what an output folder holds and MLflow lacks: each run, summary and cell exactly once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from amb.errors import AmbError
from amb.results.collect import StoredRun, find_runs
from amb.results.records import CellRecord, parse_cell
from amb.runtime.wording import count
from amb.store.store import Store, open_store
from amb.tracking.background import Background
from amb.tracking.connection import explain_error, import_mlflow, open_client, show_uri, tracking_uri
from amb.tracking.postgres import require_driver
from amb.tracking.session import Files, Session, Summary
from amb.tracking.tracked_run import describe_stored
from amb.tracking.turns import hold_run

if TYPE_CHECKING:
    from amb.plugin.registry import Registry
    from amb.runtime.progress import Progress

_LONGEST_REQUEST: Final = 20
_LONGEST_JOB: Final = 60.0
"""Seconds that MLflow may take for a cell, or to make its file."""
_ATTEMPTS: Final = 3
_MOST_PASSES: Final = 10
"""Times that a run is gone through, while others tell the same; two are enough where nobody does."""
_OF_THE_RUN: Final = ("suite", "owner", "sweep", "run")
"""Keys that a run puts beside a cell's own."""
_REFUSALS: Final = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
"""MLflow's words for a run that it will not take, though it takes others."""


@dataclass
class SyncedRun:
    """A run of the results, and what MLflow has been told of it."""

    run: str
    cells: int = 0
    told: int = 0
    """Cells that MLflow did not have whole before."""
    closed: int = 0
    """MLflow runs that were left RUNNING."""
    state: Literal["whole", "running", "refused"] = "whole"
    """`running`: the process that makes it tells it; `refused`: see `reason`."""
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """As `amb track sync --format json` prints it."""
        return asdict(self)


def sync(
    output: Path,
    registry: Registry,
    progress: Progress,
    say: Callable[[str], None],
    sweep: str | None = None,
    store: str | None = None,
) -> list[SyncedRun]:
    """Tell what is missing, run by run. Raises MissingError where there are no results, AmbError where MLflow fails."""
    stored = find_runs(output, sweep)
    require_driver(tracking_uri(output))
    import_mlflow(_LONGEST_REQUEST)
    connect = cache(partial(open_client, output, say))
    kept = open_store(store or output / "store", say)
    figures = _find_figures(kept)
    synced: list[SyncedRun] = []
    for run in progress.track(stored, "runs for MLflow", len(stored)):
        session = Session(connect, describe_stored(run.facts, registry))
        is_first = all(each.state == "running" for each in synced)
        synced.append(SyncedRun(run.id))
        here = _Stored(run, kept, figures.get(_spell(run.facts.get("profile"))))
        if error := _sync_run(here, session, synced[-1], is_first=is_first):
            told = count(sum(each.told for each in synced), "cell")
            raise AmbError(
                f"MLflow at {show_uri(tracking_uri(output))} does not take what it is told ({error}); it has been told "
                f"{told} now. The same command goes on from there once it answers."
            )
    return synced


def _sync_run(stored: _Stored, session: Session, result: SyncedRun, *, is_first: bool) -> str:
    """Tell a run what MLflow lacks of it; why that failed, where others would fail too."""
    from filelock import Timeout

    try:
        lock = hold_run(stored.run.folder)
    except Timeout:
        result.state = "running"
        return ""
    background = Background()
    try:
        for job in stored.list_passes(session, is_first=is_first):
            background.add(job)
            if not background.wait(_LONGEST_JOB, _ATTEMPTS):
                return _explain(background.error, result, is_alone=session.is_connected)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        result.state, result.reason = "refused", f"its files do not say what they should: {error!r:.200}"
    finally:
        background.finish(0)
        result.cells, result.told, result.closed = len(stored.cells), session.n_cells, session.n_closed
        lock.release()
    return ""


def _explain(error: Exception | None, result: SyncedRun, *, is_alone: bool) -> str:
    """Why a run was not told; said in its result, and empty, where MLflow would take others."""
    why = explain_error(error) if error else f"no answer in {_LONGEST_JOB:.0f} s"
    if not is_alone or getattr(error, "error_code", "") not in _REFUSALS:
        return why
    result.state, result.reason = "refused", why
    return ""


@dataclass(frozen=True)
class _Stored:
    """A run as it lies in an output folder, with the files that MLflow gets."""

    run: StoredRun
    store: Store
    figure: Path | None

    @cached_property
    def cells(self) -> list[dict[str, Any]]:
        """As a run that goes on has them: without what the run says of all."""
        return [
            {name: value for name, value in cell.items() if name not in _OF_THE_RUN} for cell in self.run.read_cells()
        ]

    def list_passes(self, session: Session, *, is_first: bool) -> Iterator[Callable[[], None]]:
        """All that there is to tell, until there is nothing more: others may tell the same at the same time."""
        if is_first:  # whatever run they belong to
            yield session.close_abandoned
        for _ in range(_MOST_PASSES):
            before = session.n_changes
            session.look_again()
            yield from self._list_jobs(session)
            if session.n_changes == before:
                return

    def _list_jobs(self, session: Session) -> Iterator[Callable[[], None]]:
        """One pass, in the order in which a run that goes on tells it."""
        facts, (started, ended) = session.run.facts, self._find_times()
        where = {"suite": facts.suite, "owner": facts.owner, "sweep": facts.sweep, "run": facts.id}
        yield partial(session.begin, started)
        records = [parse_cell({**cell, **where}) for cell in self.cells]
        for cell, record in zip(self.cells, records, strict=True):
            yield partial(session.tell_cell, record, self._find_files(cell, record), started, ended)
        embeddings = {each.method: each for each in facts.embeddings}
        for method in dict.fromkeys(record.method for record in records):
            own = [record for record in records if record.method == method]
            status = _name_status(own, self._n_cells // max(1, len(facts.methods)))
            yield partial(session.close_summary, Summary(method, own, embeddings.get(method), status), started, ended)
        document = {"schema": self.run.schema, "run": self.run.facts, "cells": self.cells}
        status = _name_status(records, self._n_cells)
        yield partial(session.finish, Files(document, figure=self.figure), status, started, ended)

    @property
    def _n_cells(self) -> int:
        """Of the whole run; of before that was written, more than there are where the run was killed."""
        said = self.run.facts.get("n_cells")
        if isinstance(said, int):
            return said
        whole = json.loads((self.run.folder / "run.json").read_text(encoding="utf-8")).get("cells")
        return len(self.cells) + (not whole)

    def _find_times(self) -> tuple[int, int]:
        """When it began and when it wrote last, in milliseconds since 1970."""
        path = self.run.folder / "results.jsonl"
        ended = int((path if path.exists() else self.run.folder).stat().st_mtime * 1000)
        try:
            return int(datetime.fromisoformat(str(self.run.facts.get("started"))).timestamp() * 1000), ended
        except ValueError:
            return ended, ended

    def _find_files(self, cell: Mapping[str, Any], record: CellRecord) -> Files:
        digest = record.digests.get("evidence")
        entry = self.store.open_entry("evidence", Path(str(digest)).name) if digest else None
        evidence = entry.folder / "evidence.npz" if entry else None
        return Files(cell if record.verdict else None, evidence)


def _name_status(cells: Sequence[CellRecord], n_cells: int) -> str:
    """MLflow's word for so many cells of a run, or of a method in it."""
    if any(cell.status == "failed" for cell in cells):
        return "FAILED"
    if len(cells) < n_cells:
        return "KILLED"
    return "FINISHED" if any(cell.status == "ok" for cell in cells) else "FAILED"


def _find_figures(store: Store) -> dict[str, Path]:
    """The drawn activation profiles of the store, by what they show."""
    found = {}
    for digest in store.place.list_digests("profile"):
        if entry := store.open_entry("profile", digest):
            found[_spell(entry.facts)] = entry.folder / "profile.png"
    return found


def _spell(profile: Any) -> str:
    return json.dumps(profile, sort_keys=True)
