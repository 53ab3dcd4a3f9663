"""Help texts say what the registries hold, each with its description, and load nothing heavy for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

import pytest

from amb.report.figures import ENDINGS, FIGURE_KINDS
from amb.report.layouts import LAYOUTS
from amb.results.thieves import THREATS

LISTED = {
    "report": {name: layout.shows for name, layout in LAYOUTS.items()},
    "figure": {name: kind.summary for name, kind in FIGURE_KINDS.items()},
    "leaderboard": THREATS,
}
ASK = """
import sys
from amb.cli import cli
cli.main([sys.argv[1], '--help'], standalone_mode=False)
print(sorted({'torch', 'matplotlib', 'pandas', 'scipy', 'sklearn', 'mlflow', 'pydantic'} & set(sys.modules)))
"""


@pytest.mark.parametrize("command", LISTED)
def test_help_lists_the_registry_and_stays_light(command: str) -> None:
    done = subprocess.run([sys.executable, "-c", ASK, command], capture_output=True, text=True, check=True)
    *lines, loaded = done.stdout.splitlines()
    assert loaded == "[]"
    listed: Mapping[str, str] = LISTED[command]
    for name, description in listed.items():
        assert any(line.strip().startswith(name) and line.endswith(description) for line in lines), name
    if command == "figure":
        assert all(ending in done.stdout for ending in ENDINGS)


def test_help_names_the_formats_and_kinds_that_there_are() -> None:
    from amb.api.types import LISTINGS
    from amb.plugin.manager import Manager
    from amb.report.format_names import FORMATS
    from amb.report.formats import amb_register_reporters

    assert tuple(cls.name for cls in amb_register_reporters()) == FORMATS
    assert tuple(Manager().registry.kinds) == LISTINGS
