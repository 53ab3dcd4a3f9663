"""Asking a server that may be away for a moment: again and again for a minute, then one line that says so."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final, ParamSpec, TypeVar

from amb.errors import StoreError, printable

SECONDS: Final = 60.0
"""How long a server is waited for."""
_FIRST: Final = 0.5
_FINAL: Final = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)
P = ParamSpec("P")
T = TypeVar("T")


class Patience:
    """How one location is asked."""

    def __init__(self, name: str, warn: Callable[[str], None] = lambda _: None, seconds: float | None = None) -> None:
        self.name, self._warn, self._seconds = name, warn, SECONDS if seconds is None else seconds

    def ask(self, call: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        """What a call answers. Raises what says that a file is there or is not, and StoreError for the rest."""
        end, pause = time.monotonic() + self._seconds, _FIRST
        while True:
            try:
                return call(*args, **options)
            except _FINAL:
                raise
            except Exception as error:
                if is_there(error) or _is_local(error):
                    raise
                if _is_refusal(error):
                    raise self._explain("refuses", error) from None
                if time.monotonic() + pause > end:
                    raise self._explain("does not answer", error) from None
                if pause == _FIRST:
                    self._warn(f"the store {self.name} does not answer ({tell(error)}); trying again")
            time.sleep(pause)
            pause = min(2 * pause, 5.0)

    def _explain(self, what: str, error: Exception) -> StoreError:
        advice = "Look at the address and the rights" if what == "refuses" else "See that it runs and can be reached"
        return StoreError(
            f"The store {self.name} {what} ({tell(error)}). {advice}, and give the same command again; what is finished stays."
        )


def is_there(error: BaseException) -> bool:
    """Whether an error says that a file which should be new is there. Not every server's words are known to s3fs."""
    return isinstance(error, FileExistsError) or any(
        _code(each) in {"PreconditionFailed", "412"} for each in _causes(error)
    )


def _is_refusal(error: BaseException) -> bool:
    """Whether asking again is of no use: rights, credentials, clocks that differ, a name that cannot be."""
    return any(
        isinstance(each, PermissionError | ValueError | TypeError | NotImplementedError)
        or "Credential" in type(each).__name__
        or _code(each) in {"InvalidBucketName", "NotImplemented"}
        for each in _causes(error)
    )


def _is_local(error: BaseException) -> bool:
    """Whether it is this machine's disk that fails: it has a file's name."""
    return isinstance(error, OSError) and error.filename is not None


def _causes(error: BaseException) -> Iterator[BaseException]:
    each: BaseException | None = error
    while each is not None:
        yield each
        each = each.__cause__


def _code(error: BaseException) -> str:
    """What an object store calls an error, as botocore keeps it."""
    response: Any = getattr(error, "response", None)
    found = response.get("Error", {}) if isinstance(response, dict) else {}
    return str(found.get("Code", ""))


def tell(error: BaseException) -> str:
    """What an error says, on one line; some servers leave the words to the code that their client puts into the cause."""
    words = (getattr(each, "strerror", None) or str(each) for each in _causes(error))
    found = next((text for text in words if text not in ("", "None")), type(error).__name__)
    return printable(" ".join(found.split()))
