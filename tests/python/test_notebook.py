"""Progress as a notebook shows it, with a stand-in for the notebook."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from amb.python import notebook
from amb.runtime.progress import Lines, Silent


class ZMQInteractiveShell:
    """Named as the shell of a notebook's kernel."""


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is written into the line, each time; the process passes for a notebook's."""
    shown: list[str] = []

    def display(data: dict[str, str], **_: Any) -> SimpleNamespace:
        shown.append(data["text/plain"])
        return SimpleNamespace(update=lambda data, **_: shown.append(data["text/plain"]))

    ipython = SimpleNamespace(get_ipython=ZMQInteractiveShell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    clock = iter(range(1000))
    monkeypatch.setattr(notebook.time, "monotonic", lambda: float(next(clock)))
    return shown


def test_a_notebook_is_known_and_quiet_is_quiet(shown: list[str]) -> None:
    assert notebook.in_notebook()
    assert isinstance(notebook.pick_progress(quiet=False), notebook.NotebookProgress)
    assert isinstance(notebook.pick_progress(quiet=True), Silent)


def test_elsewhere_progress_is_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not notebook.in_notebook()
    assert isinstance(notebook.pick_progress(quiet=False), Lines)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    assert not notebook.in_notebook()


def test_long_work_is_one_line_that_vanishes(shown: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    progress = notebook.pick_progress(quiet=False)
    assert list(progress.track(range(4), "steps", 4)) == [0, 1, 2, 3]
    assert shown[0] == f"steps {'█' * 6}{'░' * 18} 1 of 4, about 6 s left"
    assert shown[-1] == ""
    assert len(shown) == 4
    progress.say("two cells")
    assert capsys.readouterr() == ("two cells\n", "")


def test_short_work_shows_nothing(shown: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook.time, "monotonic", lambda: 0.0)
    assert list(notebook.NotebookProgress().track(range(3), "steps", 3)) == [0, 1, 2]
    assert shown == []
