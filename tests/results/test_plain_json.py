"""JSON from anybody: numbers that are none, halves of characters and depth are refused, and nothing else is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amb.results.plain_json import MOST_LEVELS, parse_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(), inside, max_size=3),
    max_leaves=8,
)


@given(VALUES, st.booleans())
def test_plain_json_is_read_as_it_was_written(value: Any, escaped: bool) -> None:
    text = json.dumps(value, ensure_ascii=escaped)
    assert parse_json(text) == parse_json(text.encode()) == value


@pytest.mark.parametrize(
    "text",
    [
        "NaN", "[-Infinity]", "1e309", "-1E+400", f"[{'9' * 310}.0]", f"{'9' * 250}e99", "1.5e0308000", '"\\ud800"',
        '{"\\uDFff": 1}', '"\ud800"', "[" * 40 + "]" * 40, "[" * 100_000, "{",
    ],
)  # fmt: skip
def test_what_is_no_plain_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="."):
        parse_json(text)
    with pytest.raises(ValueError, match="."):
        parse_json(text.encode("utf-8", "surrogatepass"))


def test_a_pair_of_halves_is_a_character() -> None:
    assert parse_json('"\\ud83d\\ude00"') == "\N{GRINNING FACE}"
    assert parse_json("[" * MOST_LEVELS + "]" * MOST_LEVELS)
