"""MLflow's SQLite file: made whole under another name and then renamed; one that was left half-made is made again.

MLflow makes its tables in some thirty steps, which take seconds, and a process killed between two of them leaves a file
that MLflow can neither use nor mend.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, Literal

EXPERIMENT: Final = "amb"
_BESIDE: Final = ("", "-wal", "-shm", "-journal")
"""What SQLite puts behind the name of a database."""
_LONGEST_WAIT: Final = 120
"""Seconds that another process may take to make the file."""
State = Literal["whole", "foreign", "half-made", "damaged"]


def ensure_database(database: Path, artifacts: Path, say: Callable[[str], None], *, mend: bool) -> None:
    """Make the file where there is none; `mend` makes a half-made or damaged one again, and says so."""
    from filelock import FileLock

    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(database.parent / ".mlflow.lock", timeout=_LONGEST_WAIT):
        if not database.exists():
            _make_database(database, artifacts)
        elif mend:
            _mend_database(database, artifacts, say)


def _mend_database(database: Path, artifacts: Path, say: Callable[[str], None]) -> None:
    state = _find_state(database)
    if state in ("whole", "foreign"):
        return
    kept = ""
    if state == "damaged":
        aside = database.with_name(f"{database.name}.damaged")
        database.replace(aside)
        kept = f" (the old one is {aside.name})"
    _remove_files(database)
    _make_database(database, artifacts)
    say(
        f"MLflow's database {database} was {state}, and is made again{kept}; `amb track sync` fills it from the results."
    )


def _find_state(database: Path) -> State:
    """`foreign` is one without our experiment that holds runs of somebody else. Raises where it is locked for long."""
    try:
        with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=rw", uri=True, timeout=30)) as connection:
            ours = connection.execute("SELECT 1 FROM experiments WHERE name = ?", (EXPERIMENT,)).fetchone()
            if ours:  # it is made last
                return "whole"
            return "foreign" if connection.execute("SELECT 1 FROM runs").fetchone() else "half-made"
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise
        return "half-made"
    except sqlite3.DatabaseError:
        return "damaged"


def _make_database(database: Path, artifacts: Path) -> None:
    """Under the lock: what lies under the draft's name is a killed process's."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    draft = database.with_name(f".draft-{database.name}")
    _remove_files(draft)
    store = SqlAlchemyStore(f"sqlite:///{draft.resolve()}", artifacts.resolve().as_uri())
    store.create_experiment(EXPERIMENT, artifact_location=artifacts.resolve().as_uri())
    store.engine.dispose()
    _enable_write_ahead(draft)
    os.replace(draft, database)  # noqa: PTH105 (atomic, and says so)


def _enable_write_ahead(database: Path) -> None:
    """Write-ahead logging: a third of the time per cell, and readers do not block the run."""
    with closing(sqlite3.connect(database)) as connection:  # the last to close it leaves one file
        connection.execute("PRAGMA journal_mode=WAL")


def _remove_files(database: Path) -> None:
    for ending in _BESIDE:
        with suppress(FileNotFoundError):
            database.with_name(database.name + ending).unlink()
