"""The spec syntax: what it takes, what it refuses, and that it round-trips."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amb.api.spec import Spec, parse_assignments, parse_chain, parse_spec
from amb.errors import SpecError

names = st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,12}", fullmatch=True)
keys = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
values = st.text(st.characters(exclude_characters=":=,+", exclude_categories=("Z", "C")), min_size=1, max_size=8)
specs = st.builds(Spec, names, st.dictionaries(keys, values, max_size=4))


@given(st.lists(specs, min_size=1, max_size=4))
def test_a_chain_round_trips(chain: list[Spec]) -> None:
    assert parse_chain("+".join(map(str, chain))) == tuple(chain)


@given(st.text(max_size=30))
def test_any_text_parses_or_is_refused_in_one_line(text: str) -> None:
    try:
        assert "".join(map(str, parse_chain(text)))
    except SpecError as error:
        assert "name:key=value" in str(error)


@pytest.mark.parametrize(
    "text",
    ["", ":", "prune:", "prune:amount", "prune:amount=", "prune:=1", "prune::a=1", "a+", "+a", "9a", "a b", "../a"],
)
def test_malformed_specs_are_refused(text: str) -> None:
    with pytest.raises(SpecError):
        parse_chain(text)


def test_a_key_given_twice_is_refused() -> None:
    with pytest.raises(SpecError, match="amount twice"):
        parse_spec("prune:amount=0.1,amount=0.2")


def test_assignments_become_a_dictionary() -> None:
    assert parse_assignments(["steps=5", "lr=1e-3"]) == {"steps": "5", "lr": "1e-3"}
    with pytest.raises(SpecError):
        parse_assignments(["steps"])
