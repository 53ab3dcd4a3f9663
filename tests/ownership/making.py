"""What tests of this room make: a commitment about small files, and a time-stamping authority of one's own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from amb.ownership.commitment import Commitment, commit_key, hash_files
from amb.ownership.key_folder import write_key_folder

KEY = b"\x00\x01carriers, message and all" * 40
needs_stamps = pytest.mark.skipif(
    not (find_spec("rfc3161_client") and shutil.which("openssl")), reason="needs rfc3161-client and openssl"
)


def make_commitment(**changes: Any) -> Commitment:
    """A commitment about nothing in particular."""
    facts: dict[str, Any] = {
        "created": "2026-11-27T08:00:00Z",
        "key": "a" * 64,
        "method": "spread-features:n_bits=64",
        "statistic": "matching bits",
        "level": 1e-6,
        "preprocessing": {"image_size": 224, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
        "unmarked": {"tensors": "b" * 64, "files": {"model.safetensors": "c" * 64}},
        "marked": {"tensors": "d" * 64, "files": {"model.safetensors": "e" * 64}},
        "images": "f" * 64,
        "claim": "marked release",
        "software": {"amb": "0.2.0", "torch": "2.15.0"},
    }
    return Commitment(**{**facts, **changes})


def make_protected(folder: Path, passphrase: str | None = None) -> Path:
    """A folder as an owner has it: model/, key/, commitment.json, which is returned."""
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text("{}")
    (folder / "model" / "model.safetensors").write_bytes(b"marked weights")
    salt = write_key_folder(folder / "key", KEY, passphrase)
    marked = {"tensors": "d" * 64, "files": hash_files(folder / "model")}
    make_commitment(key=commit_key(salt, KEY), marked=marked).write(folder / "commitment.json")
    return folder / "commitment.json"


CONFIG = """
[ req ]
distinguished_name = name
prompt = no
[ name ]
CN = Test Root
[ ca ]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[ tsa ]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
[ authority ]
serial = serial
signer_cert = tsa.pem
signer_key = tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha512
ess_cert_id_alg = sha256
"""
SETUP = """
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 2 -config conf -extensions ca
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout tsa.key -out tsa.csr -config conf -subj /CN=Authority
openssl x509 -req -in tsa.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile conf -extensions tsa -out tsa.pem
"""


def make_authority(folder: Path) -> Path:
    """The files of an authority and of the root above it, made by openssl; the root's certificate."""
    folder.mkdir()
    (folder / "conf").write_text(CONFIG)
    for line in SETUP.strip().splitlines():
        subprocess.run(line.split(), cwd=folder, check=True, capture_output=True)
    return folder / "ca.pem"


def answer_query(folder: Path, query: bytes) -> bytes:
    """What the authority answers, signed by openssl."""
    (folder / "query").write_bytes(query)
    command = ["openssl", "ts", "-reply", "-queryfile", "query", "-config", "conf", "-section", "authority"]
    subprocess.run([*command, "-out", "answer"], cwd=folder, check=True, capture_output=True)
    return (folder / "answer").read_bytes()


class Authority:
    """What a server answers; a test may put anything else in its place."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.status = 200
        self.asked: list[tuple[str | None, bytes]] = []

    def answer(self, query: bytes) -> bytes:
        return answer_query(self.folder, query)


@contextmanager
def serve(authority: Authority) -> Iterator[str]:
    """The authority on a real server on this machine; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = self.rfile.read(int(self.headers["Content-Length"]))
            authority.asked.append((self.headers["Content-Type"], query))
            self.send_response(authority.status)
            self.end_headers()
            self.wfile.write(authority.answer(query))

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/tsr"
        server.shutdown()
        thread.join()
