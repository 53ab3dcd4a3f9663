"""Write docs/reference.md: the help of every command and the page of every component. `--check` only compares."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TARGET = Path(__file__).parent / "reference.md"


def run(*args: str) -> str:
    """What a command prints, at a fixed width."""
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    return subprocess.run(["amb", *args], capture_output=True, text=True, check=True, env=environment).stdout.rstrip()


def reference() -> str:
    """The whole page."""
    from amb.cli import COMMANDS
    from amb.plugins import Manager

    parts = ["# Reference\n\nMade by `python docs/generate.py` from the code itself.\n\n## Commands\n"]
    parts.append(f"```text\n{run('--help')}\n```\n")
    parts += [f"### amb {name}\n\n```text\n{run(name, '--help')}\n```\n" for name in COMMANDS]
    for listing, kind in Manager().registry.kinds.items():
        parts.append(f"## {listing.capitalize()}\n")
        parts += [f"### {name}\n\n```text\n{run('show', name)}\n```\n" for name in sorted(kind.classes)]
    return "\n".join(parts)


if __name__ == "__main__":
    text = reference()
    if "--check" in sys.argv:
        sys.exit(0 if TARGET.read_text(encoding="utf-8") == text else "docs/reference.md is old: run docs/generate.py")
    TARGET.write_text(text, encoding="utf-8")
