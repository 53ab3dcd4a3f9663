"""Chooses methods among results by the specs that a user writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from amb.errors import BadParamsError, UsageError, near_names
from amb.results.result_set import ResultSet

if TYPE_CHECKING:
    from amb.plugin.registry import Registry


def choose_methods(results: ResultSet, names: Sequence[str], registry: Registry) -> list[str]:
    """The canonical specs that names stand for, each once; all methods where none is named.

    A name is a spec or a preset, or a method's name alone where the results have it with one choice of parameters.
    Raises BadParamsError for one without results.
    """
    known = list(dict.fromkeys(cell.method for cell in results.cells))
    return list(dict.fromkeys(_find_method(name, known, registry) for name in names)) if names else known


def _find_method(name: str, known: Sequence[str], registry: Registry) -> str:
    for spec in (name, _expand_spec(name, registry)):
        if spec in known:
            return spec
    of_that_name = [spec for spec in known if spec.partition(":")[0] == name]
    if len(of_that_name) == 1:
        return of_that_name[0]
    there = f"There are: {', '.join(known) or 'none'}."
    raise BadParamsError(f"There are no results of method '{name}'.{near_names(name, known)} {there}")


def _expand_spec(text: str, registry: Registry) -> str:
    """A preset or a spec with defaults spelt out, as results name it; the text itself where nothing is called so."""
    try:
        return registry.method(text).canonical()
    except UsageError:
        return text
