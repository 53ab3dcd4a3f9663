"""The errors that amb expects: each is printed as one line, without a traceback, by the command line alone.

    AmbError                       exit code 1
    ├── UsageError                 exit code 2: the request itself is wrong
    │   ├── SpecError              a text like `prune:amount=0.4` that does not parse
    │   ├── UnknownNameError       a name that nothing is registered under
    │   ├── BadParamsError         a parameter that is misspelt or out of range
    │   ├── PluginError            a plugin that is broken or collides with another
    │   └── CheckpointError        a model file that is damaged, unsafe or does not fit
    ├── MissingError               exit code 3: something has to be installed or fetched first
    │   └── MissingDependencyError
    ├── AccessError                a method asked a suspect for more than it declared
    ├── NoHeadError                logits were asked of a model without a task head
    ├── OutOfMemoryError           not even one image fits
    └── StoreError                 the results folder cannot be read or written

Wording: what was asked, what is true, what to do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

LONGEST_NAME: Final = 200
"""Letters of a name up to which near ones are looked for, and of a text that a message quotes."""
_PASSWORD: Final = re.compile(r"""(://[^\s/@:'"]*:)(?!\d{1,5}/)[^\s'"<>]{1,256}@""")
"""Of `scheme://user:secret@host`; a port and a path with an @ are none."""
_PASSWORD_WORD: Final = re.compile(r"""(\b(?:ssl)?password=)[^\s&'"<>]+""", re.IGNORECASE)
"""Of `scheme://host/name?password=secret`, as PostgreSQL takes it."""


def printable(text: str) -> str:
    """Text on one line without control characters or passwords: a stranger's name cannot steer a terminal or forge a line."""
    return mask_passwords("".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text))


def printable_lines(text: str) -> str:
    """As `printable`, where the line breaks are meant."""
    return "\n".join(printable(line) for line in text.split("\n"))


def mask_passwords(text: str) -> str:
    """Text with `***` for the password of every `scheme://user:password@host`, and for what follows `password=`."""
    return _PASSWORD_WORD.sub(r"\1***", _PASSWORD.sub(r"\1***@", text))


def shortened(value: object) -> str:
    """A value as a message quotes it, however long it is."""
    try:
        text = str(value)
    except ValueError:  # a whole number of more digits than Python writes
        return f"a number of {abs(value).bit_length():,} bits" if isinstance(value, int) else "a number too long"
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 3]}..."


class AmbError(Exception):
    """An expected error; its text is for the user."""

    exit_code = 1


class UsageError(AmbError):
    """The request itself is wrong; nothing was run."""

    exit_code = 2


class SpecError(UsageError):
    """A spec text does not parse."""


class UnknownNameError(UsageError):
    """No component has this name. Near names take time to find, so they are looked for when the error is shown."""

    def __init__(self, text: str, name: str = "", known: Iterable[str] = (), listing: str = "") -> None:
        super().__init__(text, name, tuple(known), listing)

    @property
    def text(self) -> str:
        """What is wrong, without near names."""
        return str(self.args[0])

    def __str__(self) -> str:
        _, name, known, listing = self.args
        return f"{self.text}{near_names(name, known)} {listing} {len(known)}." if listing else self.text


class BadParamsError(UsageError):
    """A parameter is unknown, of the wrong type or out of range."""


class PluginError(UsageError):
    """A plugin could not be loaded, or two plugins claim one name."""


class CheckpointError(UsageError):
    """A model file is damaged, of a refused format, or does not fit its architecture."""


class MissingError(AmbError):
    """Something that has to be installed or fetched first is not there."""

    exit_code = 3


class MissingDependencyError(MissingError):
    """An optional package is not installed."""

    def __init__(self, feature: str, package: str) -> None:
        super().__init__(f"{feature} needs the package {package}, which is not installed. Run: pip install {package}")


class AccessError(AmbError):
    """A component asked for something outside the access it declared."""


class NoHeadError(AmbError):
    """A model has no head for the task that was asked of it."""


class OutOfMemoryError(AmbError):
    """Not even one image fits."""


class StoreError(AmbError):
    """The results folder cannot be read or written."""


def unknown_name(kind: str, name: str, known: Iterable[str], listing: str) -> UnknownNameError:
    """The error for a name that nothing is registered under, with near names."""
    return UnknownNameError(f"No {kind} is called '{shortened(name)}'.", name, known, listing)


def near_names(name: str, known: Iterable[str]) -> str:
    """` Did you mean ...?`, or nothing where no name is near."""
    from difflib import get_close_matches

    if len(name) > LONGEST_NAME:
        return ""
    near = get_close_matches(name, sorted(known), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(near)}?" if near else ""
