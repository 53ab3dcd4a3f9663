"""Whether results could be written to a folder, found out before anything is computed."""

from __future__ import annotations

import tempfile
from pathlib import Path

from amb.errors import BadParamsError


def check_writable(folder: Path) -> None:
    """Raise BadParamsError where results could not be written to `folder`; leaves nothing behind."""
    parent = folder
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    try:
        with tempfile.TemporaryDirectory(prefix=".amb-", dir=parent):
            pass
    except NotADirectoryError:
        raise BadParamsError(
            f"Results cannot go to {folder}: {parent} is a file. Give a folder: --output-dir."
        ) from None
    except OSError as error:
        why = error.strerror or str(error)
        raise BadParamsError(
            f"Results cannot go to {folder}: {parent} is read-only ({why}). Give another: --output-dir."
        ) from None
