"""Servers of object stores for the tests: a Ceph cluster of one machine, and one that heeds no conditions."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

CEPH = ("ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
SECRET = "correct-horse"


class Ceph:
    """A monitor, a store of objects in memory and the S3 gateway: Debian's packages ceph-mon, ceph-osd and radosgw."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, monitor = _free_ports(2)
        (folder / "ceph.conf").write_text(
            _CONFIG.format(id=uuid.uuid4(), folder=folder, monitor=monitor, port=self.port)
        )
        self._make_keys()
        self._start_monitor(monitor)
        self._start_storage()
        self.start_gateway()
        self._call("radosgw-admin", "user", "create", "--uid=amb", "--display-name=amb", "--access-key=amb",
                   f"--secret-key={SECRET}")  # fmt: skip

    @property
    def environment(self) -> dict[str, str]:
        """What botocore reads."""
        return _environment(self.port)

    def _make_keys(self) -> None:
        everything = ("--cap", "mon", "allow *", "--cap", "osd", "allow *")
        for at, name in enumerate(("mon.", "client.admin", "osd.0")):
            new = ("--create-keyring",) if at == 0 else ()
            self._call("ceph-authtool", *new, f"{self.folder}/keyring", "--gen-key", "-n", name, *everything)

    def _start_monitor(self, port: int) -> None:
        found = (self.folder / "ceph.conf").read_text().split("fsid = ")[1].split()[0]
        address = f"[v2:127.0.0.1:{port}]"
        self._call("monmaptool", "--create", "--fsid", found, "--addv", "a", address, f"{self.folder}/monmap")
        self._call("ceph-mon", "-i", "a", "--mkfs", "--monmap", f"{self.folder}/monmap", "--keyring", f"{self.folder}/keyring")  # fmt: skip
        self._call("ceph-mon", "-i", "a")

    def _start_storage(self) -> None:
        (self.folder / "osd").mkdir()
        name = str(uuid.uuid4())
        self._call("ceph", "osd", "new", name, "0")
        self._call("ceph", "auth", "import", "-i", f"{self.folder}/keyring")
        self._call("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", name)
        self._call("ceph-osd", "-i", "0")

    def start_gateway(self) -> None:
        """Start the server that speaks S3, and wait until it answers."""
        self._call("radosgw", "-n", "client.admin")
        _wait_for(self.port)

    def kill_gateway(self) -> None:
        """End the server that speaks S3 at once; what it has promised to keep is kept."""
        self._kill("client.admin")

    def stop(self) -> None:
        """End everything."""
        for name in ("client.admin", "osd.0", "mon.a"):
            self._kill(name)

    def _kill(self, name: str) -> None:
        path = self.folder / f"{name}.pid"
        if path.exists():
            process = int(path.read_text())
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            while _is_running(process):
                time.sleep(0.05)
            path.unlink()

    def _call(self, name: str, *args: str) -> None:
        config = () if name in ("ceph-authtool", "monmaptool") else ("-c", f"{self.folder}/ceph.conf")
        done = subprocess.run([name, *config, *args], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"{name} {args}: {done.stderr}"


_CONFIG = """
[global]
fsid = {id}
mon host = v2:127.0.0.1:{monitor}/0
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {folder}/keyring
run dir = {folder}
log file = {folder}/$name.log
pid file = {folder}/$name.pid
admin socket = {folder}/$name.asok
mon data = {folder}/mon
mon data avail crit = 1
mon data avail warn = 1
mon allow pool size one = true
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd crush chooseleaf type = 0
osd objectstore = memstore
osd data = {folder}/osd
osd journal = {folder}/osd/journal
memstore device bytes = 2147483648
rgw data = {folder}/rgw
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw thread pool size = 32
rgw enable usage log = false
"""


class Moto:
    """A simulator, where Ceph is not installed: PyPI's `moto[server]`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (self.port,) = _free_ports(1)
        self.start_gateway()

    @property
    def environment(self) -> dict[str, str]:
        """What botocore reads."""
        return _environment(self.port)

    def start_gateway(self) -> None:
        """Start it; what an earlier one held is lost."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        _wait_for(self.port)

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


@contextmanager
def start_server() -> Iterator[Ceph | Moto]:
    """The most real server that is installed."""
    folder = Path(tempfile.mkdtemp(prefix="s3-"))  # short: sockets have names of 107 letters at most
    is_ceph = all(map(shutil.which, CEPH)) and os.environ.get("AMB_TEST_S3") != "moto"
    server = (Ceph if is_ceph else Moto)(folder)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def start_careless_server() -> Iterator[dict[str, str]]:
    """A server that takes every PUT, whatever its conditions, as some have done for years."""

    class Careless(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # so that `Expect: 100-continue` is answered

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._answer(200)

        def do_DELETE(self) -> None:
            self._answer(204)

        def do_GET(self) -> None:
            self._answer(404)

        do_HEAD = do_GET  # noqa: N815 (named by http.server)

        def _answer(self, code: int) -> None:
            self.send_response(code)
            self.send_header("ETag", '"0"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Careless)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield _environment(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()


def _environment(port: int) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "amb",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def _free_ports(n: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _wait_for(port: int, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            with urlopen(f"http://127.0.0.1:{port}/", timeout=5):
                return
        except OSError:
            assert time.monotonic() < end, "the server does not answer"
            time.sleep(0.1)


def _is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
