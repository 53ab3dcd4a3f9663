"""`docs/protect.md` is an interface: its commands run as they stand, in order, and print what it shows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.test_docs import ROOT, says_the_same

PAGE = ROOT / "docs" / "protect.md"


def test_the_tutorial_prints_what_it_shows(tmp_path: Path) -> None:
    blocks = re.findall(
        r"```(sh|python)\n(.*?)```\n(?:\n```text\n(.*?)```)?", PAGE.read_text(encoding="utf-8"), re.DOTALL
    )
    assert [kind for kind, _, _ in blocks] == ["sh", "python", "sh", "sh", "sh"]
    for kind, text, wanted in blocks:
        script = text.replace("amb ", f"{sys.executable} -m amb ", 1) if kind == "sh" else text
        command = ["bash", "-c", script] if kind == "sh" else [sys.executable, "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert not wanted or says_the_same(wanted, done.stdout), f"{text}prints\n{done.stdout}not\n{wanted}"
