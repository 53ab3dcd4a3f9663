"""A component is its parameters: the one declaration that feeds the command line, MLflow, the digests and the docs."""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from itertools import pairwise
from secrets import token_hex
from textwrap import dedent
from typing import Any, ClassVar, Self, cast

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from amb.errors import BadParamsError, near_names, shortened


class Component(BaseModel):
    """Base of methods, attacks, suites and model loaders: a frozen value with documented parameters.

    Subclasses declare parameters as annotated fields with a docstring under each. Nothing is kept on the
    instance between calls, so a component can be made again from its text anywhere.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: ClassVar[str]
    """What sort of component this is, for messages: `method`, `attack`, ..."""
    name: ClassVar[str]
    """The name on the command line."""
    source: ClassVar[str] = ""
    """Where the idea comes from: a paper and its equations."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Other names for this component with some parameters set."""

    @classmethod
    def create(cls, params: Mapping[str, Any]) -> Self:
        """Build the component from parameters, as text or typed. Raises BadParamsError."""
        try:
            return cls(**params)
        except ValidationError as error:
            raise BadParamsError(_explain_error(cls, error)) from None

    def canonical(self) -> str:
        """The spec text that names this component: parameters that differ from their default, in declared order."""
        fields = type(self).model_fields
        changed = [f"{key}={value_text(value)}" for key, value in self if value != fields[key].default]
        return f"{self.name}:{','.join(changed)}" if changed else self.name

    def definition(self) -> dict[str, Any]:
        """Everything that determines what this component does: name, all parameters, digest of its source."""
        return {"name": self.name, "parameters": self.model_dump(mode="json"), "source": source_digest(type(self))}

    def __str__(self) -> str:
        return self.canonical()


@cache
def source_digest(cls: type) -> str:
    """Digest of the Python files of the package that defines `cls`, so that edited code never meets old results.

    Files are read once: what a run finds belongs to the code that it began with. `cache_clear` reads them again.
    """
    from importlib.util import find_spec
    from pathlib import Path

    package = cls.__module__.partition(".")[0]
    if package == "amb":  # core is versioned as a whole, by amb.__version__
        package = cls.__module__
    found = find_spec(package) if package != "__main__" else None
    script = getattr(sys.modules.get(cls.__module__), "__file__", None) if found is None else found.origin
    if script is None:  # of a notebook: nothing keeps all that such a class hangs on, so each definition is new
        return _UNKNOWN.setdefault(cls, token_hex(8))
    origin = Path(script)
    files = sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.relative_to(origin.parent).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


_UNKNOWN: dict[type, str] = {}
"""Digests of classes without a file, the same while this process lasts."""


def parameter_rows(cls: type[Component]) -> list[dict[str, str]]:
    """Name, type, default, bounds and help of each parameter, for `amb show` and the docs."""
    properties, texts = cls.model_json_schema().get("properties", {}), _read_docstrings(cls)
    return [
        {
            "parameter": name,
            "type": _show_type(schema),
            "default": _show_default(cls.model_fields[name]),
            "range": _show_range(schema),
            "help": " ".join(schema.get("description", texts.get(name, "")).split()),
        }
        for name, schema in properties.items()
    ]


def _read_docstrings(cls: type[Component]) -> dict[str, str]:
    """The text under each parameter, also of inherited ones.

    Pydantic reads them too, but of every class as it is made: a third of what `amb list` takes.
    """
    found: dict[str, str] = {}
    for each in reversed(cls.__mro__):
        if each is not Component and issubclass(each, Component):
            found |= _read_texts(each)
    return found


def _read_texts(cls: type) -> dict[str, str]:
    found = {}
    with suppress(OSError, TypeError):  # of a class without a file
        for definition in ast.parse(dedent(inspect.getsource(cls))).body:
            for pair in pairwise(getattr(definition, "body", [])):
                match pair:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                        found[name] = text
    return found


def _explain_error(cls: type[Component], error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or "parameters"
    takes = ", ".join(cls.model_fields) or "no parameters"
    if first["type"] == "extra_forbidden":
        return f"{cls.kind} {cls.name} has no parameter '{shortened(key)}'.{near_names(key, cls.model_fields)} It takes {takes}."
    if first["type"] == "missing":
        return f"{cls.kind} {cls.name} needs {key}: write {cls.name}:{key}=VALUE. It takes {takes}."
    rule = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    verb = "" if first["type"] == "value_error" else "must be "
    return f"{cls.kind} {cls.name}: {key} {verb}{rule} (got {shortened(first['input'])}). It takes {takes}."


def value_text(value: Any) -> str:
    """A parameter's value as a spec spells it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value).replace("e+", "e") if isinstance(value, float) else str(value)  # a `+` joins a chain


def _show_default(field: FieldInfo) -> str:
    return "none: give a value" if field.is_required() else value_text(field.default)


def _show_type(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(str(item) for item in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    if "anyOf" in schema:
        return " | ".join(_show_type(part) for part in schema["anyOf"])
    return cast(str, schema.get("type", "text"))


def _show_range(schema: Mapping[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    parts = [schema, *schema.get("anyOf", [])]
    return ", ".join(f"{sign} {part[key]:g}" for part in parts for key, sign in signs.items() if key in part)
