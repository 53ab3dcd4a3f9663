"""No hostile input ends in a traceback, hangs, fills the memory, runs anything or writes where it should not."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.hostile.arena import Arena, refuse_harm
from tests.hostile.cards import CARDS
from tests.hostile.inputs import Input, all_inputs

QUICK = settings(
    deadline=None,
    max_examples=25,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
"""A quarter of a hundred of each kind; shrinking is for whoever finds one."""
WORDS = st.sampled_from(["suites", "methods", "attacks", "tiny", "activemark", "prune40", "none", "model", "include"])
JUNK = st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8))
JSON = st.recursive(
    JUNK, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)
REFERENCE = st.builds(
    lambda name, rest: f"{name}/{rest}",
    st.sampled_from(["file", "hf", "timm", "open_clip", "tiny"]),
    st.text(max_size=60),
)


@pytest.fixture(scope="module")
def arena(request: pytest.FixtureRequest) -> Iterator[Arena]:
    capture = request.config.pluginmanager.getplugin("capturemanager")
    arena = Arena()
    yield arena
    arena.close()
    with capture.global_and_fixture_disabled():
        sys.stdout.write(f"\nhostile: {arena.describe_worst()}\n")


@pytest.mark.parametrize("tried", all_inputs(), ids=str)
def test_does_no_harm(arena: Arena, tried: Input) -> None:
    outcome = arena.attempt(tried.runner, tried.data)
    refuse_harm(outcome)
    assert tried.says in outcome.said


def test_the_arena_notices_harm(arena: Arena) -> None:
    """So that the tests above can fail."""
    assert "RuntimeError" in arena.attempt("definition", b"(_ for _ in ()).throw(RuntimeError('x'))").fault
    assert "MemoryError" in arena.attempt("definition", b"bytearray(3 * 2**30)").fault
    assert "SystemExit" in arena.attempt("definition", b"exit(0)").fault
    assert "ended with status" in arena.attempt("definition", b"__import__('os')._exit(0)").fault
    assert "still busy" in arena.attempt("definition", b"__import__('time').sleep(60)").fault
    assert arena.attempt("definition", b"__import__('os').system('true') or {}").deeds
    assert arena.attempt("definition", b"open('/tmp/outside-of-all', 'w') and {}").deeds
    assert arena.attempt("definition", b"__import__('pickle').loads(b'cos\\ngetpid\\n(tR.') and {}").deeds


@QUICK
@given(st.dictionaries(WORDS, JSON | WORDS | st.lists(WORDS, max_size=3), max_size=5))
def test_no_shape_of_a_sweep_does_harm(arena: Arena, sweep: dict[str, object]) -> None:
    refuse_harm(arena.attempt("yaml", json.dumps(sweep).encode()))


@QUICK
@given(st.binary(max_size=200))
def test_no_bytes_of_a_sweep_do_harm(arena: Arena, data: bytes) -> None:
    refuse_harm(arena.attempt("yaml", data))


@QUICK
@given(REFERENCE)
def test_no_reference_does_harm(arena: Arena, ref: str) -> None:
    refuse_harm(arena.attempt("reference", ref.encode("utf-8", "surrogatepass")))


@QUICK
@given(
    st.sampled_from(sorted(CARDS)),
    st.dictionaries(
        st.sampled_from(["options", "config", "vision", "name", "edits", "loader"]), JSON, min_size=1, max_size=2
    ),
)
def test_no_shape_of_an_architecture_does_harm(arena: Arena, library: str, changes: dict[str, object]) -> None:
    refuse_harm(arena.attempt("changes", json.dumps({"architecture": CARDS[library] | changes}).encode()))


@QUICK
@given(
    st.dictionaries(
        st.sampled_from(["format", "architecture", "heads", "weights", "digest", "about"]), JSON, min_size=1
    )
)
def test_no_shape_of_a_card_does_harm(arena: Arena, card: dict[str, object]) -> None:
    refuse_harm(arena.attempt("changes", json.dumps({"architecture": CARDS["timm"]} | card).encode()))


@QUICK
@given(
    st.fixed_dictionaries(
        {
            "dtype": JSON | st.sampled_from(["F32", "U8"]),
            "shape": JSON | st.lists(st.integers(0, 9)),
            "data_offsets": JSON | st.lists(st.integers(0, 20), max_size=2),
        }
    )
)
def test_no_header_does_harm(arena: Arena, facts: dict[str, object]) -> None:
    text = json.dumps({"a": facts}).encode()
    refuse_harm(arena.attempt("safetensors", len(text).to_bytes(8, "little") + text + b"\0" * 16))


@QUICK
@given(st.text(alphabet=st.sampled_from("prune40:=,+.amount\0\x1b é-_ 9"), max_size=40))
def test_no_spec_does_harm(arena: Arena, text: str) -> None:
    refuse_harm(arena.attempt("attack", text.encode()))
