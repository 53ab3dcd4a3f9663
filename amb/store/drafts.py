"""Names of drafts, which say whose they are: what a killed process left is told from what is being written."""

from __future__ import annotations

import secrets

from amb.runtime.processes import find_machine, name_this_process
from amb.runtime.scratch import is_alive


def new_tag() -> str:
    """A name for a draft that nobody else will give, and that says which process of which machine wrote it."""
    return f"{name_this_process().process}-{find_machine()[:8]}-{secrets.token_hex(8)}"


def is_abandoned(tag: str) -> bool:
    """Whether the process that gave a draft this name was of this machine and lives no more."""
    process, _, rest = tag.partition("-")
    return rest.startswith(f"{find_machine()[:8]}-") and process.isdecimal() and not is_alive(int(process))
