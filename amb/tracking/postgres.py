"""An MLflow database on PostgreSQL: answers or refuses within seconds, and its tables are made by one process at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Final

from amb.errors import MissingDependencyError

_SCHEME: Final = re.compile(r"postgres(ql)?(\+psycopg)?://", re.IGNORECASE)
_LOCK: Final = 0x616D62
"""PostgreSQL's number for our lock: `amb` in ASCII."""
_LONGEST_WAIT: Final = "60s"
"""That another process may take to make the tables."""


def name_driver(uri: str) -> str:
    """An address of PostgreSQL with psycopg 3 as its driver, which `postgresql://` means from SQLAlchemy 2.1 on; others as they are."""
    return _SCHEME.sub("postgresql+psycopg://", uri, count=1) if _SCHEME.match(uri) else uri


def is_postgres(uri: str) -> bool:
    """Whether an address is of PostgreSQL by psycopg 3."""
    return _SCHEME.match(uri) is not None


def require_driver(uri: str) -> None:
    """Raises MissingDependencyError where an address is of PostgreSQL and psycopg is not installed. In the main thread."""
    if not is_postgres(uri):
        return
    try:
        if find_spec("psycopg"):
            import psycopg  # noqa: F401 (fails where it is there without libpq)

            return
    except ImportError:
        pass
    raise MissingDependencyError("Tracking in PostgreSQL", "'activemark-bench[postgres]'")


@contextmanager
def alone(uri: str) -> Iterator[None]:
    """Held by one process at a time, whatever its machine; at once where the address is not of PostgreSQL.

    MLflow makes its tables at the first connection, and two that make them at once fail; where nobody answers it tries
    for a hundred seconds. The lock is a transaction's, so it goes with its process and passes through a pooler. Raises what
    SQLAlchemy raises where the server is away or refuses.
    """
    if not is_postgres(uri):
        yield
        return
    from sqlalchemy import NullPool, create_engine, text

    engine = create_engine(name_driver(uri), poolclass=NullPool, hide_parameters=True)
    with engine.begin() as connection:
        connection.execute(text(f"SET LOCAL lock_timeout = '{_LONGEST_WAIT}'"))
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        yield
