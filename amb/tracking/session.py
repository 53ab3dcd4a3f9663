"""Tells MLflow one run: in it a summary per method, in that its cells. Whatever was told before is found and not told again.

Every MLflow run carries the tag `amb.id`, which follows from the results, and is FINISHED or FAILED only when all of it
is there. So a call that failed half-way, or whose process was killed, is simply made again. A cell takes three calls, and
two for its files. A key never gets here: only its digest. What is told is in `amb/tracking/metrics.py`.

Nothing in MLflow keeps two machines from making the same run at once, so whoever made one looks again afterwards. Of runs
with one identity the least id stays: whoever sees two of them takes the same one away, and as the later of two makers
looks after both were made, none is left twice and none is lost.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from amb.api.digests import digest_of
from amb.runtime.scratch import is_alive, open_scratch
from amb.tracking.metrics import (
    Curves,
    cell_curves,
    cell_metrics,
    cell_params,
    cell_tags,
    run_tags,
    summary_curves,
    summary_metrics,
    summary_params,
    text,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

    from amb.api.records import EmbeddingFacts
    from amb.results.records import CellRecord
    from amb.results.run_records import EmbeddingRecord
    from amb.tracking.connection import Place
    from amb.tracking.tracked_run import TrackedRun

_IDENTITY: Final = "amb.id"
"""Tag: which run, summary or cell of the results it is."""
_PROCESS: Final = "amb.process"
"""Tag: host and number of the process that writes the run."""
_PARENT: Final = "mlflow.parentRunId"
_WHOLE: Final = ("FINISHED", "FAILED")
_BATCH: Final = 1000
"""Most metrics that MLflow takes in one call."""
_PAGE: Final = 250
"""Runs that are asked for at once: a busy server takes seconds for them, as it sends all that it knows of each."""


class Summary(NamedTuple):
    """What a method's cells amount to."""

    method: str
    cells: Sequence[CellRecord]
    embedding: EmbeddingFacts | EmbeddingRecord | None
    status: str


class Files(NamedTuple):
    """What of a cell, or of a run, is kept as files."""

    document: Mapping[str, Any] | None = None
    evidence: Path | None = None
    figure: Path | None = None

    @property
    def are_there(self) -> bool:
        """Whether there is anything to write."""
        return self.document is not None or any(each and each.exists() for each in (self.evidence, self.figure))


@dataclass
class _Known:
    """An MLflow run that is there."""

    id: str
    started: int
    files: str
    """Where its artefacts lie."""
    status: str = "RUNNING"
    params: set[str] = field(default_factory=set)
    parent: str | None = None
    is_found: bool = False
    """An earlier process has made it."""

    @property
    def is_whole(self) -> bool:
        return self.status in _WHOLE


class Session:
    """What MLflow knows of a run, and how it learns the rest. Times are in milliseconds since 1970."""

    def __init__(self, open_client: Callable[[], Place], run: TrackedRun, *, is_new: bool = False) -> None:
        self.run = run
        self.n_cells = 0
        """Cells told in this session."""
        self.n_closed = 0
        """MLflow runs that were left RUNNING, by a process that is gone, and are closed now."""
        self.n_changes = 0
        """MLflow runs that were made, taken away or moved."""
        self._open_client = open_client
        self._place: Place | None = None
        self._known: dict[str, _Known] | None = {} if is_new else None
        """None where it has to be looked up: in an older run, and after a failure."""

    @property
    def is_connected(self) -> bool:
        """Whether MLflow has answered, some time."""
        return self._place is not None

    def begin(self, started: int) -> None:
        """The run itself, with what was asked."""
        with self._looking_again():
            self._find_run(started)

    def look_again(self) -> None:
        """Forget what is there, for somebody else may have told the same."""
        self._known = None

    def close_abandoned(self) -> None:
        """Close what killed processes of this machine have left RUNNING, of whatever run."""
        place = self._connect()
        self.n_closed += _close_abandoned(place.client, place.experiment)

    def tell_cell(self, cell: CellRecord, files: Files, started: int, ended: int | None = None) -> None:
        """A cell, unless it is there."""
        what = ("cell", cell.method, cell.kind, cell.suspect, cell.attack)
        with self._looking_again():
            above = self._find_summary(cell.method, started)
            name = f"{cell.suspect} · {self.run.label(cell.method)}"
            made = self._find_or_create(what, name, cell_tags(self.run, cell), started, above)
            if not made.is_whole:
                self._log_figures(made, cell_metrics(cell), cell_params(self.run, cell), cell_curves(cell))
                self._log_files(made, files, "verdict.json")
                self._close(made, "FAILED" if cell.status == "failed" else "FINISHED", ended)
                self.n_cells += 1

    def close_summary(self, told: Summary, started: int, ended: int | None = None) -> None:
        """The figures of a method whose cells are told."""
        with self._looking_again():
            made = self._find_summary(told.method, started)
            if not made.is_whole:
                self._log_figures(made, summary_metrics(told.cells, told.embedding), {}, summary_curves(told.cells))
                self._close(made, told.status, ended)

    def finish(self, files: Files, status: str, started: int, ended: int | None = None) -> None:
        """The end of the run, with its document."""
        with self._looking_again():
            made = self._find_run(started)
            if not made.is_whole:
                self._log_files(made, files, "run.json")
                self._close(made, status, ended)

    def _find_run(self, started: int) -> _Known:
        facts = self.run.facts
        asked = {"suite": facts.suite, "owner": facts.owner}
        methods = " ".join(method.spec for method in self.run.methods)
        made = self._find_or_create(("run",), facts.id, {**run_tags(self.run, "run"), **asked}, started)
        self._log_figures(made, {}, {**asked, "methods": methods, "seed": facts.seed})
        return made

    def _find_summary(self, method: str, started: int) -> _Known:
        """The run above the cells of a method, made with the first of them; its figures come with the last."""
        above = self._find_run(started)
        name = f"{self.run.label(method)} · {self.run.facts.owner} · seed {self.run.facts.seed}"
        made = self._find_or_create(("summary", method), name, run_tags(self.run, "summary"), started, above)
        self._log_figures(made, {}, summary_params(self.run, method))
        return made

    # What is there

    @contextmanager
    def _looking_again(self) -> Iterator[None]:
        """After a failure nobody knows what has arrived."""
        try:
            yield
        except Exception:
            self._known = None
            raise

    def _connect(self) -> Place:
        if self._place is None:
            self._place = self._open_client()
        return self._place

    def _look(self) -> dict[str, _Known]:
        """What MLflow has of this run, by identity."""
        if self._known is None:
            place = self._connect()
            name = text(self.run.facts.id).replace('"', "?")
            found: dict[str, _Known] = {}
            for run in sorted(
                _search(place.client, place.experiment, f'tags.`amb.run` = "{name}"'),
                key=lambda run: str(run.info.run_id),
            ):
                here = _describe(run)
                if found.setdefault(_find_identity(run), here) is not here:
                    _take_away(place.client, here.id)
                    self.n_changes += 1
            self._known = found
        return self._known

    def _find_or_create(
        self, what: Sequence[str], name: str, tags: Mapping[str, str], started: int, above: _Known | None = None
    ) -> _Known:
        client, experiment, _ = self._connect()
        identity = _identify(self.run.facts.id, what)
        there = self._look().get(identity)
        if there is None:
            nested = {_PARENT: above.id} if above else {}
            own = {"mlflow.runName": text(name)[:500], _PROCESS: name_process(), _IDENTITY: identity, **nested}
            told = {**{tag: text(value) for tag, value in tags.items()}, **own}
            made = client.create_run(experiment, start_time=started, tags=told)
            there = self._look()[identity] = _describe(made, is_found=False)
            self.n_changes += 1
        elif above and there.parent != above.id:
            client.set_tag(there.id, _PARENT, above.id)
            there.parent = above.id
            self.n_changes += 1
        return there

    # What is told

    def _log_figures(
        self, made: _Known, metrics: Mapping[str, float], params: Mapping[str, Any], curves: Curves | None = None
    ) -> None:
        """Metrics, parameters, and curves as metrics stepped by tau; one call where MLflow takes as much at once.

        They carry the time at which their run started, so that told twice they are the same.
        """
        from mlflow.entities import Metric, Param

        points = [Metric(name, value, made.started, 0) for name, value in metrics.items()]
        points += [
            Metric(name, value, made.started, tau)
            for name, curve in (curves or {}).items()
            for tau, value in enumerate(curve)
        ]
        new = [Param(name, text(value)) for name, value in params.items() if name not in made.params]
        client = self._connect().client
        if points or new:
            client.log_batch(made.id, metrics=points[:_BATCH], params=new)
        for start in range(_BATCH, len(points), _BATCH):
            client.log_batch(made.id, metrics=points[start : start + _BATCH])
        made.params |= {param.key for param in new}

    def _log_files(self, made: _Known, files: Files, name: str) -> None:
        """The artefacts, straight to where they lie: MLflow's client would ask for that place first."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
        from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

        client, _, keeps_files = self._connect()
        if not keeps_files or not files.are_there:
            return
        place = get_artifact_repository(made.files, tracking_uri=client.tracking_uri)
        if isinstance(place, LocalArtifactRepository):
            folder = Path(place.artifact_dir)
            folder.mkdir(parents=True, exist_ok=True)
            _write_files(files, folder, name)
            return
        with open_scratch() as folder:
            _write_files(files, folder, name)
            place.log_artifacts(str(folder))

    def _close(self, made: _Known, status: str, ended: int | None) -> None:
        if made.status != status:
            self._connect().client.set_terminated(made.id, status, ended)
            self.n_closed += made.is_found and made.status == "RUNNING"
            made.status = status


def _close_abandoned(client: MlflowClient, experiment: str) -> int:
    """A killed process leaves its runs RUNNING: close those of this machine whose process is gone; how many."""
    host = name_process().partition(":")[0]
    left = _search(client, experiment, f"attributes.status = 'RUNNING' and tags.`{_PROCESS}` LIKE '{host}:%'")
    gone = [run for run in left if not is_alive(int(run.data.tags[_PROCESS].rpartition(":")[2]))]
    for run in gone:
        client.set_terminated(run.info.run_id, "KILLED")
    return len(gone)


def name_process() -> str:
    """Host and number of this process."""
    import socket

    return f"{socket.gethostname()}:{os.getpid()}"


def _search(client: MlflowClient, experiment: str, query: str) -> list[MlflowRun]:
    """All that match, page by page, each once: one that others push on while we read is on two pages."""
    page = client.search_runs([experiment], query, max_results=_PAGE)
    found = {run.info.run_id: run for run in page}
    while page.token:
        page = client.search_runs([experiment], query, max_results=_PAGE, page_token=page.token)
        found.update({run.info.run_id: run for run in page})
    return list(found.values())


def _take_away(client: MlflowClient, run_id: str) -> None:
    """Delete a run, as far as MLflow deletes: `mlflow gc` removes it."""
    from mlflow.exceptions import MlflowException

    try:
        client.delete_run(run_id)
    except MlflowException:
        if client.get_run(run_id).info.lifecycle_stage != "deleted":  # somebody else was quicker
            raise


def _describe(run: MlflowRun, *, is_found: bool = True) -> _Known:
    info, data = run.info, run.data
    known = (str(info.run_id), int(info.start_time), str(info.artifact_uri), str(info.status))
    return _Known(*known, set(data.params), data.tags.get(_PARENT), is_found)


def _identify(run: str, what: Sequence[str]) -> str:
    """The identity of a run, a summary or a cell: the same whoever tells it, and when."""
    return digest_of([text(each) for each in (run, *what)])


def _find_identity(run: MlflowRun) -> str:
    """As it was written; of before 0.2.0 from tags and parameters."""
    tags, params = run.data.tags, run.data.params
    if _IDENTITY in tags:
        return str(tags[_IDENTITY])
    level, method = tags.get("amb.level", ""), params.get("method_spec", "")
    cell = (method, tags.get("kind", ""), tags.get("suspect", ""), params.get("attack_spec", ""))
    what = {"run": (), "summary": (method,)}.get(level, cell)
    return _identify(tags["amb.run"], (level, *what))


def _write_files(files: Files, folder: Path, name: str) -> None:
    """What MLflow gets of them; `name` is the document's."""
    if files.document is not None:
        (folder / name).write_text(json.dumps(dict(files.document), indent=2, default=str), encoding="utf-8")
    if files.evidence and files.evidence.exists():
        _write_public(files.evidence, folder / "evidence.npz")
    if files.figure and files.figure.exists():
        shutil.copyfile(files.figure, folder / files.figure.name)


def _write_public(evidence: Path, public: Path) -> None:
    """Which symbols were wrong, not what they were: the messages are part of the key and stay in the store."""
    import numpy as np

    from amb.api.records import Evidence

    read = Evidence.load(evidence)
    wrong = (read.expected != read.observed).astype(np.int64)
    Evidence(np.zeros_like(wrong), wrong, read.alphabet).save(public)
