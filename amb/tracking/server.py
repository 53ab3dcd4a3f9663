"""MLflow's own server as a child process: started, waited for, and stopped with all that it has started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from amb.errors import AmbError, BadParamsError, printable
from amb.tracking.connection import tracking_uri

_GRACE: Final = 10.0
"""Seconds that the server has to stop before it is killed."""
QUIET_NAME: Final = "amb.localhost"
"""A name of this machine to every browser (RFC 6761); under `127.0.0.1` and `localhost` MLflow opens its assistant's panel."""
QUIET: Final = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # else 14 processes and 2.7 GB instead of 2 and 0.5 GB
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "1",
}


def pick_port(host: str, wanted: int | None) -> int:
    """A free port of this machine, or the one that was asked for. Raises BadParamsError where it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, wanted or 0))
        except OSError as error:
            asked = f"port {wanted} on {host}" if wanted else f"host {host}"
            help_ = "Leave --port out, and a free one is found." if wanted else "Leave --host out for this machine."
            raise BadParamsError(f"The {asked} cannot be had: {error.strerror or error}. {help_}") from None
        return int(probe.getsockname()[1])


@contextmanager
def serving(output: Path, host: str, port: int, patience: float, waiting: Callable[[float], None]) -> Iterator[Server]:
    """The server, healthy; stopped with all its processes in the end. Raises AmbError where it does not start."""
    server = Server(output, host, port)
    try:
        server.wait_until_healthy(patience, waiting)
        yield server
    finally:
        server.stop()


class Server:
    """A running server: a process group of its own, so that nothing of it is left behind."""

    def __init__(self, output: Path, host: str, port: int) -> None:
        name = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 (only compared)
        self.address = f"http://{f'[{name}]' if ':' in name else name}:{port}"
        self.quiet_address = self.address.replace("//127.0.0.1:", f"//{QUIET_NAME}:")
        """The same for browsers, without MLflow's assistant over a third of the page."""
        self.log = output / "mlflow-server.log"
        hosts = ",".join(
            f"{each}:{port}" for each in ("localhost", QUIET_NAME, "127.0.0.1", "[::1]", host, socket.gethostname())
        )
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"),
            *("--allowed-hosts", hosts),
            *("--cors-allowed-origins", f"http://{QUIET_NAME}:{port}"),
            *("--artifacts-destination", (output / "mlartifacts").resolve().as_uri()),
        ]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=output,
                env={
                    **os.environ,
                    **QUIET,
                    "MLFLOW_BACKEND_STORE_URI": tracking_uri(output),
                },  # whoever runs `ps` sees words
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_healthy(self, patience: float, waiting: Callable[[float], None]) -> None:
        """Return when it answers. Raises AmbError where it has died, or has not come up within `patience` seconds."""
        started = time.monotonic()
        while not self._is_healthy():
            elapsed = time.monotonic() - started
            if self.process.poll() is not None:
                raise AmbError(f"MLflow's server did not start: {self._read_last_line()} Its log is {self.log}.")
            if elapsed > patience:
                raise AmbError(f"MLflow's server gave no answer within {patience:.0f} s. Its log is {self.log}.")
            waiting(elapsed)
            time.sleep(0.25)

    def stop(self) -> None:
        """Ask every process of the group to stop; kill those that have not after ten seconds."""
        self._send_signal(signal.SIGTERM)
        until = time.monotonic() + _GRACE
        while self._is_alive() and time.monotonic() < until:
            time.sleep(0.05)
        self._send_signal(signal.SIGKILL)
        self.process.wait()

    def _is_alive(self) -> bool:
        """Whether any process of the group is left; the first one is reaped on the way."""
        self.process.poll()
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def _send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def _is_healthy(self) -> bool:
        from urllib.error import URLError
        from urllib.request import ProxyHandler, build_opener

        try:
            with build_opener(ProxyHandler({})).open(f"{self.address}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def _read_last_line(self) -> str:
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return printable(lines[-1])[:300] if lines else f"exit code {self.process.returncode}."
