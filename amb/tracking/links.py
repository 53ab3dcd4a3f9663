"""The pages of MLflow's interface that answer questions: which runs to compare, and where that is shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from sqlite3 import DatabaseError
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from amb.errors import AmbError, BadParamsError, MissingError, near_names
from amb.results.latest import keep_latest
from amb.tracking.connection import (
    explain_error,
    find_database,
    import_mlflow,
    is_file,
    opening,
    print_notice,
    show_uri,
    tracking_uri,
)
from amb.tracking.database import EXPERIMENT
from amb.tracking.metrics import SUPERSEDED, key, text
from amb.tracking.views import TAG, view

if TYPE_CHECKING:
    from mlflow import MlflowClient

MOST_COMPARED: Final = 100
"""Runs on one comparison page: MLflow takes 4.6 s for 100, 8 s for 300, and draws no more than 500."""
_MOST_READ: Final = 1000
_LONGEST_REQUEST: Final = 30
"""Seconds that a server may take for a thousand runs."""
_MOST_MARKED: Final = 5000
"""Runs of a level, the newest, among which superseded ones are looked for."""
_LEVELS: Final = ("summary", "cell")


def connect(output: Path) -> tuple[MlflowClient, str]:
    """A client of the tracking data, and the id of amb's experiment. Raises MissingError where nothing is tracked."""
    uri = tracking_uri(output)
    if is_file(uri) and not find_database(uri).is_file():
        how = "`amb track sync` fills it from the results" if (output / "runs").is_dir() else "Run something first"
        raise MissingError(f"There is no MLflow data at {find_database(uri)}. {how}, or say where: --output-dir.")
    import_mlflow(_LONGEST_REQUEST)
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with opening(output, uri, print_notice) as client:
            found = client.get_experiment_by_name(EXPERIMENT)
    except (MlflowException, SQLAlchemyError, OSError, DatabaseError) as error:
        raise AmbError(f"MLflow's data at {show_uri(uri)} cannot be read: {explain_error(error)}") from None
    if found is None:
        raise MissingError(f"Nothing is tracked at {show_uri(uri)}. Run something first: amb run, amb sweep.")
    return client, str(found.experiment_id)


def _find_compared(
    client: MlflowClient, experiment: str, sweep: str | None, queries: Mapping[str, str]
) -> tuple[str, list[Any]]:
    """The level worth comparing and its runs, those that detect most first.

    Summaries, each in its latest version; where there are none, cells.
    """
    order = ["metrics.detection_rate DESC", "attributes.start_time DESC"]
    for level, query in queries.items():
        runs = client.search_runs([experiment], query, max_results=_MOST_READ, order_by=order)
        if runs:
            return level, _keep_latest(runs)
    known = _list_sweeps(client, experiment)
    if sweep is None:
        raise MissingError("MLflow holds no finished runs of amb. Run something first: amb run, amb sweep.")
    has = f" There are: {', '.join(known)}." if known else " No sweep has run there."
    raise BadParamsError(f"MLflow holds no sweep '{sweep}'.{near_names(sweep, known)}{has}")


def links(
    client: MlflowClient, experiment: str, sweep: str | None, say: Callable[[str], None] = lambda _: None
) -> dict[str, str]:
    """Pages of MLflow's interface, below its address, by what they show: comparison, methods, cells, attacks.

    Columns and charts of the last three are kept as views with the experiment. `say` hears of what is left out. Raises
    MissingError where nothing has run, BadParamsError where no sweep has the name.
    """
    queries = _make_queries(client, experiment, sweep)
    level, known = _find_compared(client, experiment, sweep, queries)
    runs = known[:MOST_COMPARED]
    if len(known) > len(runs):
        say(
            f"The comparison holds the {len(runs)} of {_describe_count(known)} that detect most; the other pages hold all."
        )
    compared = f"runs={_encode_list([run.info.run_id for run in runs])}&experiments={_encode_list([experiment])}"
    metrics = sorted({name for run in runs for name in run.data.metrics})
    views = {each: view(each, query, metrics if each == level else ()) for each, query in queries.items()}
    keys = {each: _keep_view(client, experiment, each, sweep, content) for each, content in views.items()}
    pages = {"methods": ("summary", "CHART"), "cells": ("cell", "TABLE"), "attacks": ("cell", "CHART")}
    found = {
        name: f"/#/experiments/{experiment}/runs?workflowType=machine_learning"
        f"&viewStateShareKey={keys[each]}&compareRunsMode={mode}"
        for name, (each, mode) in pages.items()
    }
    return {"comparison": f"/#/compare-runs?{compared}&workflowType=machine_learning", **found}


def _keep_view(client: MlflowClient, experiment: str, level: str, sweep: str | None, content: str) -> str:
    """Write a view anew, for its axes follow what has been tracked; its key in an address."""
    name = f"amb-{level}-{key(sweep)}" if sweep else f"amb-{level}"
    client.set_experiment_tag(experiment, TAG + name, content)
    return quote(name, safe="")


def _make_queries(client: MlflowClient, experiment: str, sweep: str | None) -> dict[str, str]:
    """MLflow's filter for the runs of each level, of all sweeps or one, without those that were answered again since."""
    for level in _LEVELS:
        _mark_superseded(client, _read_runs(client, experiment, _make_query(level, sweep)))
    return {level: f'{_make_query(level, sweep)} and tags.`{SUPERSEDED}` = "false"' for level in _LEVELS}


def _make_query(level: str, sweep: str | None) -> str:
    of_level = f'tags.`amb.level` = "{level}"'
    if sweep is None:
        return of_level
    name = text(sweep).replace('"', "?")  # no sweep's name holds one, and the filter has no escapes
    return f'{of_level} and tags.`amb.sweep` = "{name}"'


def _read_runs(client: MlflowClient, experiment: str, query: str) -> list[Any]:
    """The newest runs that match, page by page."""
    found: list[Any] = []
    token = None
    while len(found) < _MOST_MARKED:
        page = client.search_runs(
            [experiment], query, max_results=_MOST_READ, order_by=["attributes.start_time DESC"], page_token=token
        )
        found += page
        token = page.token
        if not token:
            break
    return found


def _mark_superseded(client: MlflowClient, runs: Sequence[Any]) -> None:
    """Say of each run whether it is the latest answer to its question: MLflow's filter cannot find that out."""
    latest = {run.info.run_id for run in _keep_latest(runs)}
    for run in runs:
        said = "false" if run.info.run_id in latest else "true"
        if run.data.tags.get(SUPERSEDED) != said:
            client.set_tag(run.info.run_id, SUPERSEDED, said)


def _encode_list(items: Sequence[str]) -> str:
    """A list as an address carries it."""
    return quote(json.dumps(list(items), separators=(",", ":")), safe="")


def _keep_latest(runs: Sequence[Any]) -> list[Any]:
    """Each question of a sweep once, as it was answered last: a command that was run again has tracked it again."""
    by_time = sorted(runs, key=lambda run: run.info.start_time, reverse=True)[::-1]  # of a tie, the first as given
    kept = keep_latest(by_time, _find_question, lambda run: "detection_rate" in run.data.metrics)
    ids = {run.info.run_id for run in kept}
    return [run for run in runs if run.info.run_id in ids]


def _find_question(run: Any) -> tuple[str, ...]:
    asked = ("suite", "owner", "method_spec", "attack_spec", "suspect", "seed")
    tags = (run.data.tags.get(name, "") for name in ("amb.sweep", "kind"))
    return (*tags, *(run.data.params.get(name, "") for name in asked))


def _describe_count(runs: Sequence[Any]) -> str:
    return f"{len(runs)} or more" if len(runs) >= _MOST_READ else str(len(runs))


def _list_sweeps(client: MlflowClient, experiment: str) -> list[str]:
    runs = client.search_runs([experiment], _make_query("run", None), max_results=1000)
    return sorted({run.data.tags["amb.sweep"] for run in runs if "amb.sweep" in run.data.tags})
