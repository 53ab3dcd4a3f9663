"""MLflow tracking, as an observer of the lifecycle hooks: hands what happens to a thread that tells MLflow.

Results are the truth: they are written first, and never wait for MLflow. A run gives it a few seconds in all, and what it
could not be told in them `amb track sync` tells later. Only the parent process writes.
"""

from __future__ import annotations

import shlex
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from amb.errors import AmbError
from amb.plugin.specs import hookimpl
from amb.results.records import record_of
from amb.runtime.wording import count
from amb.tracking.background import Background
from amb.tracking.connection import (
    explain_error,
    import_mlflow,
    is_remote,
    open_client,
    print_notice,
    show_uri,
    strip_password,
    tracking_uri,
)
from amb.tracking.patience import Patience
from amb.tracking.postgres import require_driver
from amb.tracking.session import Files, Session, Summary
from amb.tracking.tracked_run import describe_run
from amb.tracking.turns import hold_run

if TYPE_CHECKING:
    from filelock import BaseFileLock

    from amb.api.records import Cell, CellResult
    from amb.api.run import Run

_NOTE: Final = "mlflow"
_QUIET_AFTER_FAILURE: Final = 600.0
"""Seconds in which a process does not try a place again that it has given up."""
_given_up: dict[str, float] = {}
"""When this process has given up a place, by address."""


@dataclass(frozen=True)
class _Live:
    """What the hooks of one run share; kept in `run.notes`."""

    lock: BaseFileLock
    started: int
    session: Session
    background: Background
    patience: Patience
    summarised: set[str] = field(default_factory=set)
    """Methods whose summary is told."""
    n_cells: Counter[str] = field(default_factory=Counter)
    """That are finished, by method."""


@hookimpl(trylast=True)
def amb_run_started(run: Run) -> None:
    require_driver(tracking_uri(run.output))
    run.links["mlflow"] = _describe_look(run)
    lock = hold_run(run.folder)
    if time.monotonic() - _given_up.get(tracking_uri(run.output), -_QUIET_AFTER_FAILURE) < _QUIET_AFTER_FAILURE:
        run.notes[_NOTE] = lock
        return
    import_mlflow()
    session = Session(partial(open_client, run.output, print_notice), describe_run(run), is_new=True)
    live = _Live(lock, _now(), session, Background(), Patience.of(tracking_uri(run.output)))
    run.notes[_NOTE] = live
    live.background.add(partial(session.begin, live.started))
    live.background.add(session.close_abandoned)
    live.patience.wait(live.background)


@hookimpl(trylast=True)
def amb_cell_finished(run: Run, cell: Cell, result: CellResult) -> None:
    live = run.notes.get(_NOTE)
    if not isinstance(live, _Live):
        return
    now, document = _now(), result.to_json() if result.verdict else None
    files = Files(document, result.evidence)
    live.background.add(partial(live.session.tell_cell, record_of(result, run), files, now, now))
    live.n_cells[cell.method] += 1
    if live.n_cells[cell.method] == len(run.plan.suspects):
        _tell_summary(live, run, cell.method)
    live.patience.wait(live.background)


@hookimpl(trylast=True)
def amb_run_finished(run: Run) -> None:
    live = run.notes.pop(_NOTE, None)
    if live is None:
        return
    if not isinstance(live, _Live):
        live.release()
        return
    try:
        _finish(live, run)
    finally:
        live.lock.release()


def _finish(live: _Live, run: Run) -> None:
    """Tell the rest, and wait for it. Raises AmbError, for a warning, where MLflow does not get all of it in time."""
    from amb.results.document import document

    for method in {result.cell.method: None for result in run.results}:
        if method not in live.summarised:
            _tell_summary(live, run, method)
    complete = run.n_finished == run.plan.n_cells
    status = "FAILED" if run.failed else "FINISHED" if complete else "KILLED"
    files = Files(document(run), figure=run.profile_figure)
    live.background.add(partial(live.session.finish, files, status, live.started, _now()))
    if not live.patience.finish(live.background):
        _given_up[tracking_uri(run.output)] = time.monotonic()
        raise AmbError(_describe_missing(live, run))


def _tell_summary(live: _Live, run: Run, method: str) -> None:
    """The figures of a method whose cells are all there, or of any at the end of the run."""
    results = [result for result in run.results if result.cell.method == method]
    embedding = next((each for each in run.embeddings if each.method == method), None)
    complete = len(results) == len(run.plan.suspects)
    failed = any(result.status == "failed" for result in results)
    status = "FAILED" if failed else "FINISHED" if complete else "KILLED"
    summary = Summary(method, [record_of(result, run) for result in results], embedding, status)
    live.background.add(partial(live.session.close_summary, summary, live.started, _now()))
    live.summarised.add(method)


def _describe_missing(live: _Live, run: Run) -> str:
    error = live.background.error
    why = explain_error(error) if error else "no answer in time"
    told, cells = live.session.n_cells, run.n_finished
    if not told:
        run.links.pop("mlflow", None)
    return (
        f"MLflow at {show_uri(tracking_uri(run.output))} knows {told} of {count(cells, 'cell')} of this run ({why}). "
        f"The results are whole; `{shlex.join(['amb', 'track', 'sync', '--output-dir', str(run.output)])}` tells it the "
        "rest, and what this process does in the next ten minutes."
    )


def _describe_look(run: Run) -> str:
    """A command or an address that shows the run."""
    uri = tracking_uri(run.output)
    if is_remote(uri):
        return strip_password(uri)
    words = ["amb", "ui", "--output-dir", str(run.output), *(["--sweep", run.sweep] if run.sweep else [])]
    return shlex.join(words)


def _now() -> int:
    return int(time.time() * 1000)
