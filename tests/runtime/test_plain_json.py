"""What is parsed of a stranger's JSON, and what is refused before."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from amb.runtime.plain_json import DEEPEST, parse_json, parse_json_object, read_json_object


def test_brackets_in_texts_do_not_count() -> None:
    value = {"a": "[" * 1000 + '\\"{"', "b": [[1], {"c": ["]"]}]}
    assert parse_json(json.dumps(value).encode()) == value


def test_depth_is_counted_before_it_is_parsed() -> None:
    assert parse_json(b"[" * DEEPEST + b"]" * DEEPEST)
    with pytest.raises(ValueError, match="nested more than 64 deep"):
        parse_json(b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1))


@pytest.mark.parametrize("text", [b'{"a":' * 10**5, b"[" * 2**20, b'["' + b"\\" * 2**20, b'"' * 2**20])
def test_what_no_parser_survives_is_refused_at_once(text: bytes) -> None:
    begun = time.perf_counter()
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)
    assert time.perf_counter() - begun < 5


def test_a_list_is_no_object_and_a_large_file_is_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no JSON object"):
        parse_json_object(b"[]")
    (tmp_path / "x.json").write_text("{}" + " " * 100)
    assert read_json_object(tmp_path / "x.json", 102) == {}
    with pytest.raises(OSError, match="larger than 101 bytes"):
        read_json_object(tmp_path / "x.json", 101)
