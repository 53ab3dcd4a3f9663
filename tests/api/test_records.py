"""Keys and evidence survive their files, and the files cannot run code."""

from __future__ import annotations

import pickle
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import amb
from amb.api.records import Evidence, Key
from amb.errors import StoreError, UsageError
from amb.testing import toy_context, toy_model
from tests.conftest import QUICK


def make_key() -> Key:
    tensors = {"messages": np.eye(3, dtype=np.uint8), "weights": np.arange(6, dtype=np.float32).reshape(2, 3)}
    return Key("activemark", "abc", tensors, {"block": 2, "words": ["a", "b"]})


def test_a_key_survives_its_file(tmp_path: Path) -> None:
    key = make_key()
    key.save(tmp_path / "key.safetensors")
    loaded = Key.load(tmp_path / "key.safetensors")
    assert loaded.digest == key.digest
    assert loaded.facts == key.facts
    np.testing.assert_array_equal(loaded.tensors["weights"], key.tensors["weights"])


def test_a_key_file_is_private(tmp_path: Path) -> None:
    make_key().save(tmp_path / "key.safetensors")
    assert stat.S_IMODE((tmp_path / "key.safetensors").stat().st_mode) == 0o600


def test_a_key_does_not_print_its_contents() -> None:
    text = repr(make_key())
    assert "tensors" not in text
    assert "facts" not in text


def test_every_part_of_a_key_counts_in_its_digest() -> None:
    key = make_key()
    changed = [
        Key("other", key.owner, key.tensors, key.facts),
        Key(key.method, "other", key.tensors, key.facts),
        Key(key.method, key.owner, {**key.tensors, "messages": np.zeros((3, 3), np.uint8)}, key.facts),
        Key(key.method, key.owner, key.tensors, {"block": 3}),
    ]
    assert len({each.digest for each in [key, *changed]}) == 5


def test_a_key_of_a_benchmark_is_no_secret_and_says_so(tmp_path: Path) -> None:
    key = make_key()
    assert key.reproducible
    with pytest.raises(UsageError, match="anybody can make it again"):
        key.require_secret()
    drawn = replace(key, reproducible=False)
    drawn.require_secret()
    for each in (key, drawn):
        each.save(tmp_path / "key.safetensors")
        assert Key.load(tmp_path / "key.safetensors").reproducible == each.reproducible


def test_what_is_public_of_a_run_makes_its_key_again(tmp_path: Path) -> None:
    method = amb.get_method(QUICK)
    one, two = (method.embed(toy_model(seed=model), toy_context(tmp_path, "0", "embed", "toy")).key for model in (1, 2))
    assert one.reproducible
    for name in ("messages", "triggers"):
        np.testing.assert_array_equal(one.tensors[name], two.tensors[name], err_msg="another model, the same secret")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ((2**40).to_bytes(8, "little"), "header does not end inside it"),
        ((2**23).to_bytes(8, "little") + b" " * 2**23, "its header has 8,388,608 bytes"),
        ((10**5).to_bytes(8, "little") + b'{"a":' * 20_000, "nested more than 64 deep"),
    ],
    ids=["no end", "large", "deep"],
)
def test_the_header_of_a_key_is_weighed_before_it_is_read(data: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(data)
    with pytest.raises(StoreError, match=reason):
        Key.load(tmp_path / "key")


def test_facts_of_a_key_that_are_nested_deep_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    header = {"method": "m", "owner": "o", "facts": "[" * 10**5}
    save_file({"a": np.zeros(1)}, tmp_path / "key", header)
    with pytest.raises(StoreError, match="nested more than 64 deep"):
        Key.load(tmp_path / "key")


def test_a_pickle_is_no_key(tmp_path: Path) -> None:
    path = tmp_path / "key.safetensors"
    path.write_bytes(pickle.dumps({"evil": print}))
    with pytest.raises(StoreError, match="is not a key file"):
        Key.load(path)


def test_evidence_survives_its_file(tmp_path: Path) -> None:
    evidence = Evidence(np.array([[1, 0]]), np.array([[1, 1]]), 5, {"queries": 3})
    evidence.save(tmp_path / "evidence.npz")
    loaded = Evidence.load(tmp_path / "evidence.npz")
    np.testing.assert_array_equal(loaded.observed, evidence.observed)
    assert (loaded.alphabet, loaded.facts) == (5, {"queries": 3})


def test_evidence_with_pickled_arrays_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evidence.npz"
    np.savez(
        path, expected=np.array([print], dtype=object), observed=1, alphabet=2, facts=np.frombuffer(b"{}", np.uint8)
    )
    with pytest.raises(ValueError, match="allow_pickle"):
        Evidence.load(path)


@pytest.mark.parametrize(
    ("observed", "says"),
    [
        (np.array([[1.0, np.nan]]), "observed has the type float64; symbols are whole numbers, 0 to 4"),
        (np.array([[1, -1]]), "observed holds -1; symbols are whole numbers, 0 to 4"),
        (np.array([[1, 5]]), "observed holds 5"),
        (np.array([["1", "0"]]), "observed has the type <U1"),
        (np.array([[1, 0]], dtype=object), "observed has the type object"),
        ([[1, 0]], "observed is a list, not a numpy array"),
    ],
)
def test_what_is_no_symbol_is_refused(observed: np.ndarray, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Evidence(np.array([[1, 0]]), observed, 5)


def test_symbols_keep_their_type_and_booleans_become_numbers() -> None:
    for kind in (np.int64, np.uint8, np.int32):
        symbols = np.array([[1, 0]], dtype=kind)
        assert Evidence(symbols, symbols).observed is symbols
    assert Evidence(np.array([[True]]), np.array([[False]])).expected.tolist() == [[1]]


@pytest.mark.parametrize("alphabet", [0, -1, True, 2.5, "2", 10**9])
def test_an_alphabet_is_a_whole_number(alphabet: object) -> None:
    with pytest.raises(ValueError, match="alphabet is a whole number"):
        Evidence(np.array([[0]]), np.array([[0]]), alphabet)  # type: ignore[arg-type]
