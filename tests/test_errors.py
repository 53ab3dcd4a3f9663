"""What errors show of a stranger's text: no control characters, no passwords, no more than fits a line."""

from __future__ import annotations

import pickle
import time

import pytest

from amb.errors import near_names, printable, printable_lines, shortened, unknown_name
from amb.runtime.progress import Bars, Lines, Silent


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:secret@host/x", "http://user:***@host/x"),
        ("postgresql://u:p@ss:w@host:5432/db", "postgresql://u:***@host:5432/db"),
        ("redis://:secret@host", "redis://:***@host"),
        ("two http://a:b@c and ftp://d:e@f.", "two http://a:***@c and ftp://d:***@f."),
        ("'https://user:a/b@host'", "'https://user:***@host'"),
        ("http://user:se\ncret@host", "http://user:***@host"),
        ("http://host:8080/x@y", "http://host:8080/x@y"),
        ("http://host:8080", "http://host:8080"),
        (
            "postgresql://host/db?user=u&password=se@cret&sslmode=require",
            "postgresql://host/db?user=u&password=***&sslmode=require",
        ),
        ("cannot connect: host=h password=secret dbname=x", "cannot connect: host=h password=*** dbname=x"),
        ("hf/a/b@main, mail a:b@c", "hf/a/b@main, mail a:b@c"),
    ],
)
def test_passwords_in_addresses_are_masked(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


def test_masking_takes_no_time_on_any_text() -> None:
    started = time.monotonic()
    for text in ("://:" * 100_000, "://a:" + "b" * 400_000, "://" * 200_000):
        printable(text)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("progress", [Lines, Bars])
def test_progress_shows_no_control_characters(progress: type[Lines | Bars], capsys: pytest.CaptureFixture[str]) -> None:
    progress().say("a plugin's \x1b[2J\x07 warning\nhttp://u:secret@h :warning: [red]")
    shown = capsys.readouterr().err
    assert "\\x1b[2J\\x07 warning\n" in shown
    assert "http://u:***@h :warning: [red]" in shown
    assert "\x1b[2J" not in shown


def test_a_steering_label_of_a_bar_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(Bars().track([1, 2], "\x1b[2J[red]", 2)) == [1, 2]
    assert list(Silent().track([1], "x", 1)) == [1]
    assert "\x1b[2J" not in capsys.readouterr().err


def test_lines_stay_lines() -> None:
    assert printable_lines("a\nb\tc") == "a\nb\\tc"


def test_near_names_are_looked_for_when_an_error_is_shown() -> None:
    error = unknown_name("attack", "prun40", ["prune40", "zip"], "`amb list attacks` shows all")
    assert str(error) == "No attack is called 'prun40'. Did you mean prune40? `amb list attacks` shows all 2."
    assert error.text == "No attack is called 'prun40'."
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert near_names("x" * 5000, ["x" * 4999]) == ""


def test_a_quoted_value_is_short() -> None:
    assert shortened("a" * 500) == "a" * 197 + "..."
    assert shortened(10**5000) == "a number of 16,610 bits"
