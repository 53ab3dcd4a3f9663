"""Where runs are tracked, and a client of that place: a server, a database, or MLflow's SQLite file in the output folder."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from amb.errors import mask_passwords, printable, shortened
from amb.tracking.database import EXPERIMENT, ensure_database
from amb.tracking.postgres import alone, name_driver, require_driver

if TYPE_CHECKING:
    from mlflow import MlflowClient

_FILE: Final = "sqlite:///"
_DATABASES: Final = ("postgresql", "mysql", "mssql")
_QUICK: Final = 5
"""Seconds for a request beside a run."""
_SETTINGS: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # a second POST might make a second run; we look before we try again
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "1",
}
"""What MLflow does where the user has not said otherwise."""
_QUIET: Final = {"alembic": "ERROR", "mlflow.store.db.utils": "CRITICAL", "psycopg": "ERROR"}
"""Loggers that tell of every step in which tables are made, of a lost connection in pages, and of two that told the same."""


class Place(NamedTuple):
    """Where runs are told."""

    client: MlflowClient
    experiment: str
    """Id of amb's."""
    keeps_files: bool
    """Whether files can be told too."""


def tracking_uri(output: Path) -> str:
    """`MLFLOW_TRACKING_URI`, or an SQLite file in the output folder."""
    return name_driver(os.environ.get("MLFLOW_TRACKING_URI") or _own_uri(output))


def _own_uri(output: Path) -> str:
    return f"{_FILE}{output.resolve() / 'mlflow.db'}"


def mend_database(output: Path, uri: str, say: Callable[[str], None]) -> None:
    """See that the file of an address of one is there and whole; only the output folder's own is made again."""
    if is_file(uri):
        ensure_database(Path(uri.removeprefix(_FILE)), output / "mlartifacts", say, mend=uri == _own_uri(output))


def show_uri(uri: str) -> str:
    """An address as messages quote it: short, on one line, without its password."""
    return shortened(printable(uri))


def strip_password(uri: str) -> str:
    """An address that can be opened and kept: without user and password, for which a browser asks."""
    return mask_passwords(re.sub(r"://[^/?#]*@", "://", uri, count=1))


def explain_error(error: BaseException) -> str:
    """What is at the bottom of an error, in a few words: `ConnectionRefusedError: [Errno 111] Connection refused`."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return shortened(printable(" ".join(f"{type(error).__name__}: {error}".split())))


def is_remote(uri: str) -> bool:
    """Whether tracking data lies behind a server that somebody runs already."""
    return uri.lower().startswith(("http://", "https://"))


def is_database(uri: str) -> bool:
    """Whether it is a database server's, without MLflow's server before it: many machines may share it, and no folder."""
    return uri.lower().startswith(_DATABASES)


def is_file(uri: str) -> bool:
    """Whether it is an SQLite file of this machine."""
    return uri.startswith(_FILE)


def find_database(uri: str) -> Path:
    """The SQLite file of an address of one."""
    return Path(uri.removeprefix(_FILE))


def import_mlflow(seconds: int = _QUICK) -> None:
    """Import MLflow with our settings and so many seconds for a request.

    In the main thread, for two threads that import at once may hand each other half a module.
    """
    import logging

    limits = ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT", "PGCONNECT_TIMEOUT")
    for name, value in (_SETTINGS | dict.fromkeys(limits, str(seconds))).items():
        os.environ.setdefault(name, value)
    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(level)
    import mlflow.tracking.client  # noqa: F401


def open_client(output: Path, say: Callable[[str], None]) -> Place:
    """A client and amb's experiment, made where there is none; after `import_mlflow`. Raises what MLflow raises."""
    uri = tracking_uri(output)
    with opening(output, uri, say) as client:
        return Place(client, _find_experiment(client, output, uri), not is_database(uri))


@contextmanager
def opening(output: Path, uri: str, say: Callable[[str], None]) -> Iterator[MlflowClient]:
    """A client; while this is held nobody else makes tables or experiments in a database. Raises what MLflow raises."""
    require_driver(uri)
    mend_database(output, uri, say)
    with alone(uri):
        yield make_client(uri)


def make_client(uri: str) -> MlflowClient:
    """A client of an address; after `import_mlflow`."""
    from mlflow import MlflowClient

    if not is_file(uri):
        return MlflowClient(uri)
    from amb.tracking.file_client import open_file_client

    return open_file_client(uri, find_database(uri))


def _find_experiment(client: MlflowClient, output: Path, uri: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        try:
            return str(client.create_experiment(EXPERIMENT, artifact_location=_choose_location(output, uri)))
        except MlflowException:  # another process was quicker
            found = client.get_experiment_by_name(EXPERIMENT)
            if found is None:
                raise
    return str(found.experiment_id)


def _choose_location(output: Path, uri: str) -> str | None:
    """Where files of the experiment lie; a database names no machine's folder, but the server that may be put before it."""
    if is_database(uri):
        return f"mlflow-artifacts:/{EXPERIMENT}"
    return (output / "mlartifacts").resolve().as_uri() if is_file(uri) else None


def print_notice(text: str) -> None:
    """One line on standard error."""
    sys.stderr.write(printable(f"mlflow: {text}") + "\n")
