"""The one spelling of a component and its parameters: `name[:key=value,...][+next]`.

It is what the command line takes, what MLflow shows and what the digests are made of:

    prune40    prune:amount=0.4    prune:amount=0.4+finetune:epochs=5,schedule=cosine
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from amb.errors import SpecError, shortened

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
LONGEST: Final = 20_000
"""Letters of a spec, and of a chain."""
SPEC_VALUE: Final = re.compile(r"[^\s:=,+]+")
"""What a parameter's value may look like in a spec."""


@dataclass(frozen=True)
class Spec:
    """A name and the parameters given to it, as text; nothing is looked up yet."""

    name: str
    params: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        if not self.params:
            return self.name
        return f"{self.name}:{','.join(f'{key}={value}' for key, value in self.params.items())}"


def parse_spec(text: str) -> Spec:
    """Parse one component, such as `prune:amount=0.4`. Raises SpecError."""
    if len(text) > LONGEST:
        raise SpecError(f"A spec has at most {LONGEST:,} letters, and '{shortened(text)}' has {len(text):,}.")
    name, colon, rest = text.partition(":")
    if not _NAME.fullmatch(name):
        raise SpecError(f"'{shortened(text)}' does not start with a name. Write it as name:key=value,key=value")
    if not colon:
        return Spec(name)
    params: dict[str, str] = {}
    for pair in rest.split(","):
        key, value = _parse_pair(pair, text)
        if key in params:
            raise SpecError(f"'{shortened(text)}' gives {key} twice. Keep one of them.")
        params[key] = value
    return Spec(name, params)


def parse_chain(text: str) -> tuple[Spec, ...]:
    """Parse components joined by `+`, applied from left to right. Raises SpecError."""
    if len(text) > LONGEST:
        raise SpecError(f"A chain has at most {LONGEST:,} letters, and '{shortened(text)}' has {len(text):,}.")
    return tuple(parse_spec(part) for part in text.split("+"))


def parse_assignments(pairs: Iterable[str]) -> dict[str, str]:
    """Parse the `key=value` texts of a repeated `--set` option. Raises SpecError."""
    return dict(_parse_pair(pair, pair) for pair in pairs)


def _parse_pair(pair: str, text: str) -> tuple[str, str]:
    key, equals, value = pair.partition("=")
    if not equals or not _KEY.fullmatch(key) or not SPEC_VALUE.fullmatch(value):
        raise SpecError(
            f"'{shortened(text)}': '{shortened(pair)}' is not key=value. Write it as name:key=value,key=value"
        )
    return key, value
