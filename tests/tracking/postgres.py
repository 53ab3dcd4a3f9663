"""A PostgreSQL server of a test's own: Debian's, in a new folder, on a free port, under a password, as a user who is not root."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

from amb.tracking.server import pick_port

PASSWORD: Final = "gehe1m-never-shown"
DEBIAN: Final = "/usr/lib/postgresql"
"""Where Debian keeps the programs of each version, away from PATH."""


@cache
def find_programs() -> Path | None:
    """The folder of `initdb` and `pg_ctl`, the newest version's; None where PostgreSQL is not installed."""
    versions = sorted(Path(DEBIAN).glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]), reverse=True)
    found = str(versions[0]) if versions else shutil.which("initdb")
    return Path(found).resolve().parent if found else None


class Postgres:
    """The server, and the ways in which a test stops it."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self._programs = programs
        self.port = pick_port("127.0.0.1", None)
        self.data, self.log = folder / "data", folder / "log"
        secret = folder / "password"
        secret.write_text(PASSWORD)
        give_away(folder)
        self._run("initdb", "--auth=scram-sha-256", "--username=amb", f"--pwfile={secret}", "--no-sync")
        settings = f"\nlisten_addresses = '127.0.0.1'\nport = {self.port}\nunix_socket_directories = '{folder}'\n"
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(settings)

    def uri(self, database: str, driver: str = "+psycopg", password: str = PASSWORD) -> str:
        """The address of a database."""
        return f"postgresql{driver}://amb:{password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Return when it takes connections."""
        self._run("pg_ctl", "start", "--wait", "--silent", f"--log={self.log}", "--timeout=120")

    def stop(self, mode: str = "fast") -> None:
        """`immediate` leaves as a crash does: whatever is not committed is gone."""
        self._run("pg_ctl", "stop", "--wait", "--silent", f"--mode={mode}")

    def create(self, database: str) -> None:
        """An empty database."""
        self.ask("postgres", f'CREATE DATABASE "{database}"')

    def ask(self, database: str, query: str) -> list[tuple[object, ...]]:
        """The rows that it answers, past MLflow and past amb."""
        import psycopg

        with psycopg.connect(self.uri(database, ""), autocommit=True) as connection:
            asked = connection.execute(query.encode())
            return asked.fetchall() if asked.description else []

    def _run(self, program: str, *words: str) -> None:
        try:
            run_as_owner([str(self._programs / program), "--pgdata", str(self.data), *words], Path("/"))
        except RuntimeError as error:
            log = self.log.read_text()[-1000:] if self.log.exists() else ""
            raise RuntimeError(f"{error}{log}") from None


def run_as_owner(command: list[str], folder: Path) -> None:
    """Run a program as a user that PostgreSQL accepts."""
    user = choose_user()
    who = {"user": user, "group": user, "extra_groups": []} if user else {}
    pipe, none = subprocess.PIPE, subprocess.DEVNULL
    done = subprocess.run(command, cwd=folder, stdin=none, stdout=none, stderr=pipe, text=True, check=False, **who)
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr}")


def choose_user() -> str | None:
    """Debian's for root, for whom PostgreSQL does not run; None for oneself."""
    return "postgres" if os.geteuid() == 0 else None


def give_away(folder: Path) -> None:
    """Make it that user's: PostgreSQL runs for nobody but the owner of its folder."""
    if user := choose_user():
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, user, user)


@contextmanager
def serving_postgres() -> Iterator[Postgres]:
    """A running server; stopped, and its folder removed, in the end. Its path is short, as that of a socket has to be."""
    programs = find_programs()
    if programs is None:
        raise RuntimeError("PostgreSQL is not installed: apt-get install postgresql")
    with tempfile.TemporaryDirectory(prefix="amb-pg-", ignore_cleanup_errors=True) as folder:
        server = Postgres(Path(folder), programs)
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")
