"""Where runs are tracked, and a client of that place: a server, or MLflow's SQLite file in the output folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from amb.errors import printable, shortened
from amb.tracking.database import EXPERIMENT, ensure_database

if TYPE_CHECKING:
    from mlflow import MlflowClient

_FILE: Final = "sqlite:///"
_QUICK: Final = 5
"""Seconds for a request beside a run."""
_SETTINGS: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # a second POST might make a second run; we look before we try again
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "1",
}
"""What MLflow does where the user has not said otherwise."""


def tracking_uri(output: Path) -> str:
    """`MLFLOW_TRACKING_URI`, or an SQLite file in the output folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or _own_uri(output)


def _own_uri(output: Path) -> str:
    return f"{_FILE}{output.resolve() / 'mlflow.db'}"


def mend_database(output: Path, uri: str, say: Callable[[str], None]) -> None:
    """See that the file of an address of one is there and whole; only the output folder's own is made again."""
    if is_file(uri):
        ensure_database(Path(uri.removeprefix(_FILE)), output / "mlartifacts", say, mend=uri == _own_uri(output))


def show_uri(uri: str) -> str:
    """An address as messages quote it: short, on one line, without its password."""
    return shortened(printable(uri))


def explain_error(error: BaseException) -> str:
    """What is at the bottom of an error, in a few words: `ConnectionRefusedError: [Errno 111] Connection refused`."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return shortened(printable(f"{type(error).__name__}: {error}"))


def is_remote(uri: str) -> bool:
    """Whether tracking data lies behind a server that somebody runs already."""
    return uri.lower().startswith(("http://", "https://"))


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

    limits = dict.fromkeys(("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT"), str(seconds))
    for name, value in (_SETTINGS | limits).items():
        os.environ.setdefault(name, value)
    for name in ("alembic", "mlflow.store.db.utils"):  # which tell of every step in which a file is made
        logging.getLogger(name).setLevel(logging.ERROR)
    import mlflow.tracking.client  # noqa: F401


def open_client(output: Path, say: Callable[[str], None]) -> tuple[MlflowClient, str]:
    """A client, and the id of amb's experiment, made where there is none; after `import_mlflow`. Raises what MLflow raises."""
    uri = tracking_uri(output)
    mend_database(output, uri, say)
    client = make_client(uri)
    return client, _find_experiment(client, output, uri)


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
        artifacts = (output / "mlartifacts").resolve().as_uri() if is_file(uri) else None
        try:
            return str(client.create_experiment(EXPERIMENT, artifact_location=artifacts))
        except MlflowException:  # another process was quicker
            found = client.get_experiment_by_name(EXPERIMENT)
            if found is None:
                raise
    return str(found.experiment_id)


def print_notice(text: str) -> None:
    """One line on standard error."""
    sys.stderr.write(printable(f"mlflow: {text}") + "\n")
