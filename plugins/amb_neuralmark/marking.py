"""The work of `neuralmark`: weights that a hash selects, trained until they show that hash under its key, and read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

import amb

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from amb_neuralmark.method import NeuralMark

_DOMAIN: Final = "amb-neuralmark/1"
_ROOM: Final = 2
"""Weights for each part that a layer has to keep on average, so that chance does not leave a part without any."""


class Carrier(NamedTuple):
    """What the secret gives."""

    layer: str
    """Name of the matrix."""
    places: Tensor  # (kept,) int64: which weights of the row are kept
    matrix: Tensor  # (parts, bits): K
    message: Tensor  # (bits,) bool: b


def embed(params: NeuralMark, owner: amb.VisionModel, ctx: amb.Context) -> amb.Embedding:
    """The marked model; the key is the secret, and among which layers it chooses."""
    key = make_key(params, owner, ctx)
    carrier = open_carrier(params, key)
    if len(carrier.places) < params.n_parts:
        raise amb.BadParamsError(
            f"method {params.name}: n_parts is {params.n_parts}, but this key keeps {len(carrier.places)} weights of its "
            "layer. Ask for fewer parts or rounds, or name a larger layer."
        )
    marked = owner.copy(f"{owner.ref}+{params.name}").requires_grad_(True)
    before = count_right(owner, carrier)
    losses = _train(params, owner, marked, carrier, ctx)
    return amb.Embedding(marked.eval(), key, {"right_before": before, "right": count_right(marked, carrier), **losses})


def make_key(params: NeuralMark, owner: amb.VisionModel, ctx: amb.Context) -> amb.Key:
    """A key for a model. Raises BadParamsError where it has no layer for so many parts."""
    facts = {
        "n_blocks": owner.n_blocks,
        "dim": owner.backbone.dim,
        "model": owner.full_digest(),
        "layers": find_layers(params, owner),
    }
    return amb.Key(params.canonical(), owner.digest(), {"secret": amb.open_secret(ctx)}, facts)


def find_layers(params: NeuralMark, model: amb.VisionModel) -> dict[str, int]:
    """Layers that may carry the mark, each with its number of weights. Raises BadParamsError where there are none."""
    sizes = {each.name: each.weight.numel() for each in model.matrices()}
    if params.layer != "auto":
        if params.layer not in sizes:
            hint = amb.near_names(params.layer, sizes)
            raise amb.BadParamsError(
                f"method {params.name}: layer is '{params.layer}', which {model.ref} has not got.{hint}"
            )
        return {params.layer: sizes[params.layer]}
    needed = _ROOM * params.n_parts * 2**params.rounds
    large = {name: size for name, size in sizes.items() if size >= needed}
    if not large:
        raise amb.BadParamsError(
            f"method {params.name}: {params.n_parts} parts after {params.rounds} rounds take a layer of {needed:,} weights, "
            f"and the largest of {model.ref} has {max(sizes.values(), default=0):,}. Ask for fewer parts or rounds."
        )
    return large


def open_carrier(params: NeuralMark, key: amb.Key) -> Carrier:
    """The carrier of a key: it hangs on the method's spec, the unmarked model, and the layers among which it chooses."""
    layers: dict[str, int] = key.facts["layers"]
    context = (key.method, key.facts["model"], json.dumps(layers, sort_keys=True))
    streams = amb.Streams(_DOMAIN, key.tensors["secret"].tobytes(), context)
    names = sorted(layers)
    layer = names[int.from_bytes(streams.draw_bytes("layer", 16), "big") % len(names)]
    matrix = streams.draw_normals("matrix", params.n_parts, params.n_bits)
    message = hash_matrix(matrix)
    places = torch.from_numpy(select_places(message, layers[layer], params.rounds))
    return Carrier(layer, places, torch.from_numpy(matrix), torch.from_numpy(message))


def hash_matrix(matrix: NDArray[np.float32]) -> NDArray[np.bool_]:
    """As many bits of SHAKE-256 of a matrix, little-endian and row by row, as it has columns."""
    n = matrix.shape[1]
    digest = hashlib.shake_256(np.ascontiguousarray(matrix, dtype="<f4").tobytes()).digest(-(-n // 8))
    return np.unpackbits(np.frombuffer(digest, dtype=np.uint8))[:n].astype(np.bool_)


def select_places(message: NDArray[np.bool_], n_weights: int, rounds: int) -> NDArray[np.int64]:
    """Which weights of a row of `n_weights` are left after keeping, `rounds` times, those where the repeated message is 1."""
    places = np.arange(n_weights)
    for _ in range(rounds):
        places = places[np.resize(message, len(places))]
    return places


def project(model: amb.VisionModel, carrier: Carrier) -> Tensor:
    """The projections w K of a model's layer, (bits,), differentiable in its weights; 0, which says nothing, where it has no such weights."""
    parts, bits = carrier.matrix.shape
    last = int(carrier.places.max()) if len(carrier.places) else 0
    for matrix in model.matrices():
        if matrix.name == carrier.layer and len(carrier.places) and matrix.weight.numel() > last:
            weight = cast(Tensor, getattr(matrix.module, matrix.parameter))
            kept = weight.flatten()[carrier.places.to(weight.device)]
            averaged = F.adaptive_avg_pool1d(kept[None], parts)[0]
            return averaged @ carrier.matrix.to(weight)
    return torch.zeros(bits)


def _train(
    params: NeuralMark, owner: amb.VisionModel, marked: amb.VisionModel, carrier: Carrier, ctx: amb.Context
) -> dict[str, float]:
    """Minimise drift + lambda BCE(sigmoid(w K), b) over the encoder; both terms at the last step."""
    marked.heads.requires_grad_(False)
    optimizer = torch.optim.SGD(marked.backbone.parameters(), lr=params.lr, momentum=0.9)
    wanted = carrier.message.float().to(ctx.device)

    def miss() -> Tensor:
        return F.binary_cross_entropy_with_logits(project(marked, carrier), wanted)

    return amb.train_held(
        owner,
        marked,
        ctx,
        optimizer,
        miss,
        weight=params.lam,
        steps=params.steps,
        batch=params.batch,
        n_images=params.n_images,
    )


def extract(params: NeuralMark, suspect: amb.VisionModel, key: amb.Key) -> amb.Evidence:
    """The signs of w K beside the message; a bit without a sign counts as wrong. Raises UsageError for a key with chosen parts."""
    amb.require_sound(params, key)
    return read_carrier(suspect, open_carrier(params, key))


@torch.no_grad()
def read_carrier(suspect: amb.VisionModel, carrier: Carrier) -> amb.Evidence:
    """What a carrier reads on a suspect, (1, bits)."""
    return amb.read_signs(project(suspect, carrier), carrier.message)


def count_right(model: amb.VisionModel, carrier: Carrier) -> int:
    """Bits that a model has right."""
    evidence = read_carrier(model, carrier)
    return int((evidence.expected == evidence.observed).sum())


def agreement(params: NeuralMark, model: amb.VisionModel, key: amb.Key) -> Tensor:
    """Mean log-likelihood of a bit, each no less than a guess."""
    carrier = open_carrier(params, key)
    return amb.measure_likelihood(project(model, carrier), carrier.message)


def forge(params: NeuralMark, model: amb.VisionModel, budget: int, ctx: amb.Context) -> amb.Key:
    """Of `budget` secrets the one whose key reads best on a model."""

    def count(keys: Sequence[amb.Key]) -> list[int]:
        return [count_right(model, open_carrier(params, each)) for each in keys]

    return amb.grind(params, amb.require_key(params, ctx), budget, ctx, params.n_bits, count)


def audit_key(params: NeuralMark, key: amb.Key, unmarked: amb.VisionModel | None) -> amb.KeyAudit:
    """Matrix, message and layer follow from the secret; whether for this unmarked model, its digest and its layers say."""
    audit = amb.audit_secret(params, key, unmarked, "matrix, message and layer")
    if unmarked is None or audit.wrong or key.facts.get("layers") == find_layers(params, unmarked):
        return audit
    return replace(audit, wrong=("it chooses among other layers than the unmarked model has",))
