"""A server that misbehaves in a way that is asked for; or one that passes so many requests on to a real one first."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

Manner = Callable[[socket.socket], None]


def _refuse(connection: socket.socket) -> None:
    _answer(connection, "503 Service Unavailable", "Retry-After: 30\r\n")


def _limit(connection: socket.socket) -> None:
    _answer(connection, "429 Too Many Requests", "Retry-After: 30\r\n")


def _redirect(connection: socket.socket) -> None:
    _answer(connection, "307 Temporary Redirect", "Location: /again\r\n")


def _drip(connection: socket.socket) -> None:
    """A byte at a time, for ever: no time limit between two bytes is ever reached."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n")
    while True:
        connection.sendall(b" ")
        time.sleep(0.2)


def _hang(connection: socket.socket) -> None:
    time.sleep(600)


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _talk_nonsense(connection: socket.socket) -> None:
    _answer(connection, "200 OK", body=b"\x00\x1b[2J not JSON")


MANNERS: Final[dict[str, Manner]] = {
    "429": _limit,
    "503": _refuse,
    "dripping": _drip,
    "hanging": _hang,
    "resetting": _reset,
    "redirecting": _redirect,
    "talking nonsense": _talk_nonsense,
}


def _answer(connection: socket.socket, status: str, headers: str = "", body: bytes = b"no") -> None:
    head = f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    connection.sendall(head.encode() + body)


@contextmanager
def serving_badly(manner: str, behind: int | None = None, passed: int = 0) -> Iterator[str]:
    """The address of a server; the first `passed` requests go to the one on the port `behind`."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        left = [passed]
        threading.Thread(target=_accept, args=(listening, manner, behind, left), daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)


def _accept(listening: socket.socket, manner: str, behind: int | None, left: list[int]) -> None:
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        left[0] -= 1
        port = behind if left[0] >= 0 else None
        threading.Thread(target=_serve, args=(connection, manner, port), daemon=True).start()


def _serve(connection: socket.socket, manner: str, behind: int | None) -> None:
    with connection, suppress(OSError):
        head, body = _read_request(connection)
        if behind is None:
            MANNERS[manner](connection)
            return
        request = b"\r\n".join([*head, f"Host: 127.0.0.1:{behind}".encode(), b"Connection: close", b"", body])
        with socket.create_connection(("127.0.0.1", behind)) as real:
            real.sendall(request)
            while part := real.recv(2**16):
                connection.sendall(part)


def _read_request(connection: socket.socket) -> tuple[list[bytes], bytes]:
    """The lines of a request's head, but those that a proxy writes anew, and its body."""
    data = b""
    while b"\r\n\r\n" not in data and (part := connection.recv(2**16)):
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith((b"connection:", b"host:"))]
    length = next((int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length:")), 0)
    while len(body) < length and (part := connection.recv(2**16)):
        body += part
    return lines, body
