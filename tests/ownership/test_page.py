"""`docs/commitments.md` is an interface: its commands run as they stand, and print what it shows."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ownership.making import Authority, make_authority, make_protected, needs_stamps, serve
from tests.test_docs import ROOT, says_the_same

PAGE = ROOT / "docs" / "commitments.md"
TSA = "http://timestamp.identrust.com"


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """What the page speaks of: a protected folder, a letter, an authority's root; and the authority, at this address."""
    make_protected(tmp_path / "protected")
    (tmp_path / "letter.pdf").write_bytes(b"%PDF-1.7")
    (tmp_path / "root.pem").write_bytes(make_authority(tmp_path / "tsa").read_bytes())
    with serve(Authority(tmp_path / "tsa")) as url:
        yield url


@needs_stamps
def test_the_page_prints_what_it_shows(address: str, tmp_path: Path) -> None:
    shown = re.findall(r"```sh\n(.*?)```\n(?:\n```text\n(.*?)```)?", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(shown) == 5
    for command, wanted in shown:
        script = command.replace(TSA, address).replace("amb ", f"{sys.executable} -m amb ", 1)
        done = subprocess.run(script, shell=True, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        got = done.stdout.replace("127.0.0.1", TSA.removeprefix("http://"))
        assert not wanted or says_the_same(wanted, got), f"{command}prints\n{got}not\n{wanted}"


def test_the_page_explains_every_field() -> None:
    from amb.ownership.commitment import Commitment

    text = PAGE.read_text(encoding="utf-8")
    assert not [name for name in Commitment.model_fields if name != "format" and f"`{name}`" not in text]
