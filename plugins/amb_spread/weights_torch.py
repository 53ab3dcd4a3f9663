"""The work of `spread-weights`: a carrier of signs added to matrices, and its correlation with a suspect's difference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

import amb
from amb_spread import DOMAIN
from amb_spread.alignment import align

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from amb_spread.weights import SpreadWeights

    Floats = NDArray[np.float32]


def embed(params: SpreadWeights, owner: amb.VisionModel, ctx: amb.Context) -> amb.Embedding:
    """The marked model; the key is the secret and what its carriers hang on."""
    key = make_key(params, owner, amb.open_secret(ctx))
    marked = owner.copy(f"{owner.ref}+{params.name}")
    signs = draw_messages(params, key).reshape(-1)
    for matrix, carrier, start in _walk_carriers(params, marked, key):
        moved = torch.from_numpy(carrier * spread_by_bit(signs, start, len(carrier)))
        matrix.weight.data.add_(
            moved.to(matrix.weight).view_as(matrix.weight) * (params.strength * matrix.weight.std())
        )
    return amb.Embedding(marked, key, {"weights_a_bit": _count_weights(owner) // signs.size})


def make_key(params: SpreadWeights, owner: amb.VisionModel, secret: NDArray[np.uint8]) -> amb.Key:
    """The key of a secret for a model."""
    facts = {"n_blocks": owner.n_blocks, "dim": owner.backbone.dim, "model": owner.full_digest()}
    return amb.Key(params.canonical(), owner.digest(), {"secret": secret}, facts)


def extract(params: SpreadWeights, suspect: amb.VisionModel, key: amb.Key, ctx: amb.Context) -> amb.Evidence:
    """The sign of each bit's correlation with the difference from the unmarked model; a bit without one counts as wrong."""
    amb.require_sound(params, key)
    base = require_base(params, key, ctx)
    aligned, facts = align(suspect, base) if params.align else (suspect, {})
    return read_differences(params, key, base, measure_differences(aligned, base), facts)


def forge(params: SpreadWeights, model: amb.VisionModel, budget: int, ctx: amb.Context) -> amb.Key:
    """Of `budget` secrets the one whose key reads best on a model."""
    key = amb.require_key(params, ctx)
    base = require_base(params, key, ctx)
    differences = list(measure_differences(align(model, base)[0] if params.align else model, base))

    def count_right(keys: Sequence[amb.Key]) -> list[int]:
        read = (read_differences(params, tried, base, differences) for tried in keys)
        return [int((each.expected == each.observed).sum()) for each in read]

    return amb.grind(params, key, budget, ctx, params.n_messages * params.n_bits, count_right)


def require_base(params: SpreadWeights, key: amb.Key, ctx: amb.Context) -> amb.VisionModel:
    """The unmarked model, on whose digest the carriers hang. Raises UsageError where it is missing or another one."""
    if ctx.base is None:
        raise amb.UsageError(f"{params.name} reads a suspect against the unmarked model, which is not here. Give it.")
    base = ctx.base()
    amb.require_same(key, "unmarked weights", key.facts.get("model"), base.full_digest())
    return base


def measure_differences(suspect: amb.VisionModel, base: amb.VisionModel) -> Iterator[Floats]:
    """What a suspect adds to each of the unmarked model's matrices, flat, in standard deviations of the matrix.

    A pruned weight says nothing, nor does a matrix that the suspect has not got: 0.
    """
    theirs = {matrix.name: matrix.weight.detach() for matrix in suspect.matrices()}
    for matrix in base.matrices():
        weight = theirs.get(matrix.name)
        if weight is None or weight.shape != matrix.weight.shape:
            yield np.zeros(matrix.weight.numel(), dtype=np.float32)
            continue
        change = (weight - matrix.weight.detach().to(weight)) / matrix.weight.std().item()
        yield (change * (weight != 0)).float().flatten().cpu().numpy()


def read_differences(
    params: SpreadWeights,
    key: amb.Key,
    base: amb.VisionModel,
    differences: Iterable[Floats],
    facts: Mapping[str, object] | None = None,
) -> amb.Evidence:
    """What a key reads in the differences of a suspect's matrices."""
    signs = draw_messages(params, key)
    found, power = correlate(params, key, base, differences)
    total = float(found @ signs.reshape(-1))
    observed = np.where(found == 0, -signs.reshape(-1), np.sign(found)).reshape(signs.shape)
    said = {"T": round(total / power**0.5, 2) if power else 0.0, **(facts or {})}
    return amb.Evidence((signs > 0).astype(np.int64), (observed > 0).astype(np.int64), facts=said)


def draw_messages(params: SpreadWeights, key: amb.Key) -> NDArray[np.int8]:
    """The messages as signs, (messages, bits)."""
    return _open_streams(key).draw_signs("messages", params.n_messages, params.n_bits)


def correlate(
    params: SpreadWeights, key: amb.Key, base: amb.VisionModel, differences: Iterable[Floats]
) -> tuple[NDArray[np.float64], float]:
    """Sum of carrier times difference over the weights of each bit, (messages * bits,), and the sum of squared differences."""
    sums, power = np.zeros(params.n_messages * params.n_bits), 0.0
    for (_, carrier, start), change in zip(_walk_carriers(params, base, key), differences, strict=True):
        sums += sum_by_bit(carrier * change, start, sums.size)
        power += float(np.square(change, dtype=np.float64).sum())
    return sums, power


def sum_by_bit(terms: Floats, start: int, n_bits: int) -> NDArray[np.float64]:
    """The sum over the weights of each bit, (bits,): the first weight belongs to bit `start`, the next to the next, in turns."""
    turns = np.zeros((-(-(start + len(terms)) // n_bits), n_bits), dtype=np.float32)
    turns.reshape(-1)[start : start + len(terms)] = terms
    found: NDArray[np.float64] = turns.sum(axis=0, dtype=np.float64)
    return found


def spread_by_bit(signs: NDArray[np.int8], start: int, n: int) -> NDArray[np.int8]:
    """The sign of the bit of each of `n` weights, (n,)."""
    return np.resize(np.roll(signs, -start), n)


def _walk_carriers(
    params: SpreadWeights, model: amb.VisionModel, key: amb.Key
) -> Iterator[tuple[amb.Matrix, NDArray[np.int8], int]]:
    """Each matrix with the carrier of its weights, flat, and the bit that the first of them belongs to."""
    streams, n_bits, start = _open_streams(key), params.n_messages * params.n_bits, 0
    for matrix in model.matrices():
        n = matrix.weight.numel()
        yield matrix, streams.draw_signs(f"carrier {matrix.name}", n), start % n_bits
        start += n


def _open_streams(key: amb.Key) -> amb.Streams:
    return amb.Streams(DOMAIN, key.tensors["secret"].tobytes(), (key.method, key.facts["model"]))


def _count_weights(model: amb.VisionModel) -> int:
    return sum(matrix.weight.numel() for matrix in model.matrices())
