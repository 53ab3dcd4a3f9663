"""Keeps a run's own state apart from what plugins do to their process: standard output, folder, exit."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NoReturn

end_process: Final = os._exit
"""Ends the process at once; plugins are kept from it."""


class PluginExit(Exception):  # noqa: N818 (its text is the reason that the failed cell gives)
    """A plugin tried to end the process that it runs in."""


@contextmanager
def guard_process() -> Iterator[None]:
    """Around a plugin's code: the working folder is put back, and an attempt to end the process becomes PluginExit."""
    folder, process, before = _find_folder(), os.getpid(), os._exit

    def refuse_exit(code: int) -> NoReturn:
        if os.getpid() != process:  # a child that the plugin forked ends as it likes
            end_process(code)
        raise PluginExit(f"the plugin called os._exit({code})")

    os._exit = refuse_exit  # type: ignore[assignment]
    try:
        yield
    except (SystemExit, GeneratorExit) as error:
        raise PluginExit(f"the plugin raised {type(error).__name__}{f'({error})' if str(error) else ''}") from error
    finally:
        os._exit = before
        if folder and _find_folder() != folder:
            with suppress(OSError):
                os.chdir(folder)


def _find_folder() -> Path | None:
    """The working folder; None where it was removed."""
    try:
        return Path.cwd()
    except OSError:
        return None


@contextmanager
def divert_stdout() -> Iterator[None]:
    """Whatever is written to standard output meanwhile, by whom and however, goes to standard error.

    So that a plugin that prints spoils no document. Processes started meanwhile inherit it.
    """
    before = sys.stdout
    with suppress(OSError, ValueError):
        before.flush()
    try:
        kept, beside = os.dup(1), os.dup(2)
    except OSError:  # there is no standard output or error, so nothing can be spoiled
        yield
        return
    os.dup2(2, 1)
    sys.stdout = os.fdopen(beside, "w", encoding="utf-8", errors="backslashreplace", buffering=1)
    try:
        yield
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.close()
        os.dup2(kept, 1)
        os.close(kept)
        sys.stdout = before
