"""`python -m amb_suites.files SUITE [KEY=VALUE ...]`: which file serves which role, one line each, by role and tab."""

from __future__ import annotations

import sys
from typing import Final, get_args

import amb
from amb_suites.folder import FolderSuite
from amb_suites.paper import PaperClipSuite, PaperDinoSuite
from amb_suites.real import RealSuite

SUITES: Final[dict[str, type[RealSuite]]] = {cls.name: cls for cls in (FolderSuite, PaperClipSuite, PaperDinoSuite)}


def main(name: str, *pairs: str) -> None:
    """Print the files. Raises what the suite raises."""
    if name not in SUITES:
        raise amb.unknown_name("suite on files", name, list(SUITES), "the suite tiny draws its images")
    suite = SUITES[name].create(dict(pair.partition("=")[::2] for pair in pairs))
    for role in get_args(amb.Role):
        sys.stdout.writelines(f"{role}\t{file}\n" for file in suite.files(role))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:] or [""])
    except amb.AmbError as error:
        sys.exit(f"amb: {error}")
