"""A request to stop: what is being computed is finished, nothing more is begun. Asked again, it is Ctrl-C."""

from __future__ import annotations

import signal
import threading

_asked = threading.Event()


class Stopped(KeyboardInterrupt):
    """Raised where the next thing would begin; whatever Ctrl-C does happens then."""


def ask_to_stop() -> None:
    """From any thread: stop when what is being computed is finished."""
    _asked.set()


def is_asked_to_stop() -> bool:
    """Whether nothing more is to be begun."""
    return _asked.is_set()


def forget_request() -> None:
    """Before a new piece of work, in a process that does several."""
    _asked.clear()


def stop_if_asked() -> None:
    """Raises Stopped. To be called where nothing is being computed."""
    if _asked.is_set():
        raise Stopped


def interrupt() -> None:
    """From any thread: interrupt the main thread as Ctrl-C does, also where that was ignored when the process began."""
    number = signal.SIGINT if callable(signal.getsignal(signal.SIGINT)) else signal.SIGTERM
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, number)
