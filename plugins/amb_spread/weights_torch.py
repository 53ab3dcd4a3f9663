"""The work of `spread-weights`: a carrier added to matrices, and its correlation with a suspect's difference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

import amb
from amb_spread.secret import Streams, open_secret

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from amb_spread.weights import SpreadWeights

    Floats = NDArray[np.float32]


def embed(params: SpreadWeights, owner: amb.VisionModel, ctx: amb.Context) -> amb.Embedding:
    """The marked model; the key is the secret and what its carriers hang on."""
    key = make_key(params, owner, open_secret(ctx))
    marked = owner.copy(f"{owner.ref}+{params.name}")
    signs = draw_messages(params, key).reshape(-1)
    for matrix, carrier, bits in _walk_carriers(params, marked, key):
        moved = torch.from_numpy(carrier * signs[bits]).to(matrix.weight).view_as(matrix.weight)
        matrix.weight.data.add_(moved * (params.strength * matrix.weight.std()))
    return amb.Embedding(marked, key, {"weights_a_bit": _count_weights(owner) // signs.size})


def make_key(params: SpreadWeights, owner: amb.VisionModel, secret: NDArray[np.uint8]) -> amb.Key:
    """The key of a secret for a model."""
    facts = {"n_blocks": owner.n_blocks, "dim": owner.backbone.dim, "unmarked": owner.full_digest()}
    return amb.Key(params.canonical(), owner.digest(), {"secret": secret}, facts)


def extract(params: SpreadWeights, suspect: amb.VisionModel, key: amb.Key, ctx: amb.Context) -> amb.Evidence:
    """The sign of each bit's correlation with the difference from the unmarked model; a bit without one counts as wrong."""
    if ctx.base is None:
        raise amb.UsageError(f"{params.name} reads a suspect against the unmarked model, which is not here. Give it.")
    messages = draw_messages(params, key)
    found, power = correlate(params, suspect, ctx.base(), key)
    total = float(found @ messages.reshape(-1))
    observed = np.where(found == 0, -messages.reshape(-1), np.sign(found)).reshape(messages.shape)
    facts = {"T": round(total / power**0.5, 2) if power else 0.0}
    return amb.Evidence((messages > 0).astype(np.int64), (observed > 0).astype(np.int64), facts=facts)


def draw_messages(params: SpreadWeights, key: amb.Key) -> NDArray[np.int8]:
    """The messages as signs, (messages, bits)."""
    return _open_streams(key).draw_signs("messages", params.n_messages, params.n_bits)


def correlate(
    params: SpreadWeights, suspect: amb.VisionModel, base: amb.VisionModel, key: amb.Key
) -> tuple[NDArray[np.float64], float]:
    """Sum of carrier times difference over the weights of each bit, (messages * bits,), and the sum of squared differences."""
    theirs = {matrix.name: matrix.weight.detach() for matrix in suspect.matrices()}
    sums, power = np.zeros(params.n_messages * params.n_bits), 0.0
    for matrix, carrier, bits in _walk_carriers(params, base, key):
        weight = theirs.get(matrix.name)
        if weight is not None and weight.shape == matrix.weight.shape:
            change = (weight - matrix.weight.detach().to(weight)) / matrix.weight.std().item()
            kept = (change * (weight != 0)).double().flatten().cpu().numpy()  # a pruned weight says nothing
            sums += np.bincount(bits, carrier * kept, minlength=sums.size)
            power += float(kept @ kept)
    return sums, power


def _walk_carriers(
    params: SpreadWeights, model: amb.VisionModel, key: amb.Key
) -> Iterator[tuple[amb.Matrix, Floats, NDArray[np.int64]]]:
    """Each matrix with the carrier of its weights, flat, and the bit that each of them belongs to."""
    streams, n_bits, start = _open_streams(key), params.n_messages * params.n_bits, 0
    for matrix in model.matrices():
        n = matrix.weight.numel()
        yield matrix, streams.draw_normals(f"carrier {matrix.name}", n), (start + np.arange(n)) % n_bits
        start += n


def _open_streams(key: amb.Key) -> Streams:
    return Streams(key.tensors["secret"].tobytes(), (key.method, key.facts["unmarked"]))


def _count_weights(model: amb.VisionModel) -> int:
    return sum(matrix.weight.numel() for matrix in model.matrices())
