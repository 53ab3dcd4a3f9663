"""Check that constraints.txt can be resolved with the project's bounds; --write makes it of the environment of the tests."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILE = ROOT / "constraints.txt"
TESTED = ROOT / ".tox" / "py" / "bin" / "python"
HEADER = "# The versions amb was last tried with: pip install -c constraints.txt .\n"


def resolve(constraints: Path) -> str:
    """What the project needs, at the versions of a file; uv says on standard error where that cannot be."""
    command = [
        "uv",
        "pip",
        "compile",
        "pyproject.toml",
        "--extra",
        "attacks",
        "--extra",
        "dispute",
        "--extra",
        "postgres",
        "--extra",
        "photos",
        "--extra",
        "ray",
        "--extra",
        "s3",
        "-c",
        str(constraints),
        "-q",
    ]
    plain = ["--no-header", "--no-annotate", "--no-emit-package", "activemark-bench"]
    done = subprocess.run([*command, *plain], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def write(python: Path) -> None:
    """The versions that lie in an environment, of what the project needs."""
    command = ["uv", "pip", "freeze", "--python", str(python), "--exclude-editable"]
    frozen = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    pinned = [line for line in frozen.splitlines() if "==" in line]
    with tempfile.TemporaryDirectory() as folder:
        tried = Path(folder) / "tried.txt"
        tried.write_text("\n".join(pinned) + "\n", encoding="utf-8")
        FILE.write_text(HEADER + resolve(tried), encoding="utf-8")


def main(words: list[str]) -> None:
    """Write where asked, and check."""
    if words[:1] == ["--write"]:
        write(Path(words[1]) if len(words) > 1 else TESTED)
    pinned = [line for line in FILE.read_text(encoding="utf-8").splitlines() if "==" in line]
    found = resolve(FILE).split()
    missing = sorted({line for line in found if "==" in line} - set(pinned))
    if missing:
        sys.exit(f"constraints.txt does not hold {', '.join(missing)}. Write it anew: tox -e constraints -- --write")
    sys.stderr.write(f"constraints.txt can be resolved: {len(pinned)} versions.\n")


if __name__ == "__main__":
    main(sys.argv[1:])
