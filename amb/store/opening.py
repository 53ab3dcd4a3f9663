"""From a location as users give it to the place behind it. fsspec is imported for URLs alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from amb.errors import BadParamsError, MissingDependencyError, StoreError, shortened
from amb.runtime.paths import store_cache_root
from amb.store.local import LocalPlace
from amb.store.patience import Patience
from amb.store.places import Place
from amb.store.remote import Bucket, RemotePlace

_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://")
EXTRAS: Final = {"s3": "s3", "s3a": "s3"}
"""Which extra of this project brings what a protocol needs."""


def open_place(location: str | Path, warn: Callable[[str], None] = lambda _: None) -> Place:
    """The place of a folder or a URL. Raises BadParamsError and MissingDependencyError."""
    if isinstance(location, Path):
        return LocalPlace(location)
    found = _URL.match(location)
    if not found:
        return LocalPlace(Path(location).expanduser())
    if found[0] in ("file://", "local://"):
        return LocalPlace(Path(unquote(urlsplit(location).path)))
    return _open_remote(location, warn)


def _open_remote(location: str, warn: Callable[[str], None]) -> RemotePlace:
    files, root = _open_files(location)
    if not root.strip("/"):
        raise BadParamsError(
            f"The store {location} names no bucket or folder. Give one: {location.split('//', maxsplit=1)[0]}//BUCKET/FOLDER."
        )
    location = location.rstrip("/")
    return RemotePlace(location, Bucket(files, root.rstrip("/"), Patience(location, warn)), find_cache(location))


def _open_files(location: str) -> tuple[Any, str]:
    """What reaches the files of a URL, without remembering what it has listed, and the URL's path as it says it."""
    from fsspec.core import url_to_fs

    protocol = location.partition("://")[0]
    try:
        files, root = url_to_fs(location, use_listings_cache=False)
    except ImportError:
        raise MissingDependencyError(f"The store {location}", _find_package(protocol)) from None
    except (ValueError, TypeError) as error:
        raise BadParamsError(
            f"The store {shortened(location)} cannot be opened ({error}). Give a folder, or a URL such as s3://BUCKET/FOLDER."
        ) from None
    return files, root


def _find_package(protocol: str) -> str:
    from fsspec.registry import known_implementations

    if protocol in EXTRAS:
        return f"'activemark-bench[{EXTRAS[protocol]}]'"
    return str(known_implementations.get(protocol, {}).get("class", protocol)).partition(".")[0]


def find_cache(location: str) -> Path:
    """The folder of this machine for what is read from a location; of the user alone, since keys are among it."""
    name = re.sub(r"[^a-z0-9]+", "-", location.lower()).strip("-")[:40]
    folder = store_cache_root() / f"{name}-{hashlib.sha256(location.encode()).hexdigest()[:12]}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StoreError(
            f"What is read from a store is kept in {folder}, which cannot be made: {error.strerror}. Set AMB_STORE_CACHE."
        ) from None
    return folder
