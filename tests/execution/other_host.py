"""Another machine, as far as a process can tell: a host name, process numbers and a network address of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

_NET: Final = f"10.213.{os.getpid() % 250}"
HERE: Final = f"{_NET}.1"
"""Address of this machine in the network of the two."""
_SPACE: Final = f"amb-{os.getpid()}"
_ENDS: Final = (f"amb{os.getpid()}a", f"amb{os.getpid()}b")
_LINKS: Final = (
    f"ip netns add {_SPACE}",
    f"ip link add {_ENDS[0]} type veth peer name {_ENDS[1]} netns {_SPACE}",
    f"ip addr add {HERE}/30 dev {_ENDS[0]}",
    f"ip link set {_ENDS[0]} up",
    f"ip -n {_SPACE} addr add {_NET}.2/30 dev {_ENDS[1]}",
    f"ip -n {_SPACE} link set {_ENDS[1]} up",
    f"ip -n {_SPACE} link set lo up",
)


def can_be_made() -> bool:
    """Whether this system lets the tests have one: it takes root, `ip` and `unshare`."""
    if os.name != "posix" or os.geteuid() or not (shutil.which("ip") and shutil.which("unshare")):
        return False
    tried = subprocess.run(command_there("true"), capture_output=True, check=False) if _make_network() else None
    _remove_network()
    return tried is not None and tried.returncode == 0


@contextmanager
def other_host() -> Iterator[None]:
    """It is there."""
    assert _make_network()
    try:
        yield
    finally:
        _remove_network()


def command_there(*command: str) -> Sequence[str]:
    """The command, run on the other machine."""
    shell = 'hostname other && exec "$@"'
    spaces = ("unshare", "--uts", "--pid", "--mount-proc", "--fork", "--kill-child")
    return ("ip", "netns", "exec", _SPACE, *spaces, "sh", "-c", shell, "sh", *command)


@contextmanager
def forwarding(port: int) -> Iterator[int]:
    """A port of this machine's address in that network, behind which lies one of its own."""
    with socket.create_server((HERE, 0)) as server:
        threading.Thread(target=_accept, args=(server, port), daemon=True).start()
        yield server.getsockname()[1]


def _accept(server: socket.socket, port: int) -> None:
    with suppress(OSError):  # it was closed
        while True:
            near, _ = server.accept()
            far = socket.create_connection(("127.0.0.1", port))
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=_pass_on, args=(one, other), daemon=True).start()


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while data := one.recv(65536):
            other.sendall(data)
    with suppress(OSError):
        other.shutdown(socket.SHUT_WR)


def _make_network() -> bool:
    _remove_network()
    return all(subprocess.run(each.split(), capture_output=True, check=False).returncode == 0 for each in _LINKS)


def _remove_network() -> None:
    for command in (f"ip netns del {_SPACE}", f"ip link del {_ENDS[0]}"):
        subprocess.run(command.split(), capture_output=True, check=False)
