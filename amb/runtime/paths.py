"""Where data and weights of one's own lie, and whether they may be fetched: variables, so that workers know them too."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

DATA: Final = "AMB_DATA"
"""Folder that holds the data sets, one folder each."""
DOWNLOAD: Final = "AMB_DOWNLOAD"
"""Set where missing data may be downloaded."""
STORE: Final = "AMB_STORE"
"""Where finished steps are kept, where that is not beside the results."""
STORE_CACHE: Final = "AMB_STORE_CACHE"
"""Folder for what is read from stores elsewhere."""
OFFLINE: Final = ("AMB_OFFLINE", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
"""Ours, and what the hub's libraries read when they are imported."""


def data_root() -> Path:
    """The folder of data sets: AMB_DATA, else `amb/data` in the user's data folder (XDG)."""
    if os.environ.get(DATA):
        return Path(os.environ[DATA]).expanduser()
    home = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(home).expanduser() / "amb" / "data"


def config_root() -> Path:
    """The folder of what is the user's own, such as an identity: `amb` in the user's folder of settings (XDG)."""
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "amb"


def store_cache_root() -> Path:
    """The folder for what is read from stores elsewhere: AMB_STORE_CACHE, else `amb/store` in the user's cache folder (XDG)."""
    if os.environ.get(STORE_CACHE):
        return Path(os.environ[STORE_CACHE]).expanduser()
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "amb" / "store"


def is_offline() -> bool:
    """Whether nothing may be fetched: `--offline`, or the hub's own HF_HUB_OFFLINE."""
    return any(_is_set(name) for name in OFFLINE)


def may_download() -> bool:
    """Whether missing data may be fetched: only when asked, and never offline."""
    return _is_set(DOWNLOAD) and not is_offline()


def go_offline(environment: MutableMapping[str, str] = os.environ) -> None:
    """Fetch nothing from here on, in this process and its workers. Call it before a hub's library is imported."""
    environment.update(dict.fromkeys(OFFLINE, "1"))


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").lower() not in {"", "0", "false", "no", "off"}
