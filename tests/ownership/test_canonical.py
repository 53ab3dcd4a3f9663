"""Canonical JSON: one spelling for a value."""

from __future__ import annotations

import hashlib
import math

import pytest

from amb.errors import BadParamsError
from amb.ownership.canonical import encode_canonical, hash_canonical


def test_the_spelling_is_sorted_tight_and_utf8() -> None:
    value = {"b": [1, 2.5, None, True], "a": "Lösch\n\x01"}
    assert encode_canonical(value) == '{"a":"Lösch\\n\\u0001","b":[1,2.5,null,true]}'.encode()
    assert encode_canonical(dict(reversed(value.items()))) == encode_canonical(value)
    assert hash_canonical({}) == hashlib.sha256(b"{}").hexdigest()


@pytest.mark.parametrize("value", [math.nan, {"a": math.inf}, b"bytes", {"a": {1, 2}}, "\ud800"])
def test_what_json_does_not_know_is_refused(value: object) -> None:
    with pytest.raises(BadParamsError, match="has no canonical JSON"):
        encode_canonical(value)
