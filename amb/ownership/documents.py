"""JSON documents from strangers: read within bounds, checked against their form, refused in one line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Final, NoReturn, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError

from amb.errors import BadParamsError, printable, shortened

MOST_BYTES: Final = 1 << 20
"""Of a document, unless it says otherwise."""
_HEX: Final = r"^[0-9a-f]{64}$"
Document = TypeVar("Document", bound=BaseModel)


def _require_printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("should have no control characters")
    return text


def _require_plain_name(name: str) -> str:
    """A name that stays in its folder, on any system."""
    if any(part in {"", ".", ".."} for part in name.split("/")) or "\\" in name or ":" in name:
        raise ValueError("should be a name inside the folder")
    return name


Digest = Annotated[str, StringConstraints(pattern=_HEX)]
"""SHA-256 as 64 hex digits."""
Text = Annotated[str, StringConstraints(min_length=1, max_length=500), AfterValidator(_require_printable)]
"""A line for people."""
Note = Annotated[str, StringConstraints(max_length=2_000), AfterValidator(_require_printable)]
"""A line that may be empty."""
FileName = Annotated[Text, AfterValidator(_require_plain_name)]
"""A file in a folder, with `/` between its parts."""


class StrictModel(BaseModel):
    """A document or a part of one: what is not known is refused, nothing is guessed, nothing changes afterwards."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def parse_document(data: bytes, model: type[Document], what: str) -> Document:
    """A document of a form. Raises BadParamsError; `what` begins its text, such as `The commitment c.json`."""
    parse_json(data, what)  # pydantic takes the last of two keys with one name; that is refused here
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise BadParamsError(f"{what} is refused: {explain(error)}.") from None


def parse_json(data: bytes, what: str) -> Any:
    """JSON of at most MOST_BYTES, UTF-8, without NaN and without a name twice. Raises BadParamsError."""
    if len(data) > MOST_BYTES:
        raise BadParamsError(f"{what} is refused: it is larger than {MOST_BYTES:,} bytes.")
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_refuse_twice)
    except (ValueError, RecursionError) as error:
        raise BadParamsError(f"{what} is no JSON that can be read: {printable(shortened(error))}.") from None


def explain(error: ValidationError) -> str:
    """The first thing that is wrong with a document, on one line."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    reason = first["msg"].removeprefix("Value error, ")
    return printable(shortened(f"{where}: {reason}" if where else reason))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _refuse_twice(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return found
