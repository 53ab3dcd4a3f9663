"""Results that nobody can change after they were judged, though every observer is handed them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, NoReturn, TypeVar, cast

T = TypeVar("T")


class FrozenDict(dict[Any, Any]):
    """A dict that refuses every change; JSON, copies and pickles take it as the dict that it is."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("results are shared by all observers and cannot be changed: copy them first")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[FrozenDict], tuple[dict[Any, Any]]]:
        return FrozenDict, (dict(self),)


def freeze(value: T) -> T:
    """The same value, its mappings and lists such that they cannot be changed, however deep they lie."""
    if is_dataclass(value) and not isinstance(value, type):
        own = {field.name: freeze(getattr(value, field.name)) for field in fields(value)}
        return cast(T, replace(cast(Any, value), **own))
    if isinstance(value, Mapping):
        return cast(T, FrozenDict({key: freeze(item) for key, item in value.items()}))
    if type(value) in (list, tuple):
        return cast(T, tuple(freeze(item) for item in cast(Any, value)))
    return value
