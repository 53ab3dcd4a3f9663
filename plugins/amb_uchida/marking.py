"""The work of `uchida`: a layer's mean filter trained until its secret projections have the message's signs, and read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional as F

import amb

if TYPE_CHECKING:
    from amb_uchida.method import Uchida

_DOMAIN: Final = "amb-uchida/1"


class Carrier(NamedTuple):
    """What the secret gives."""

    layer: str
    """Name of the matrix."""
    projection: Tensor  # (bits, values of the mean filter): X
    message: Tensor  # (bits,) 0 or 1: b


def embed(params: Uchida, owner: amb.VisionModel, ctx: amb.Context) -> amb.Embedding:
    """The marked model; the key is the secret, and among which layers it chooses."""
    key = make_key(params, owner, ctx)
    carrier = open_carrier(params, key)
    marked = owner.copy(f"{owner.ref}+{params.name}").requires_grad_(True)
    before = count_right(owner, carrier)
    losses = _train(params, owner, marked, carrier, ctx)
    return amb.Embedding(marked.eval(), key, {"right_before": before, "right": count_right(marked, carrier), **losses})


def make_key(params: Uchida, owner: amb.VisionModel, ctx: amb.Context) -> amb.Key:
    """A key for a model. Raises BadParamsError where it has no layer for so many bits."""
    facts = {
        "n_blocks": owner.n_blocks,
        "dim": owner.backbone.dim,
        "model": owner.full_digest(),
        "layers": find_layers(params, owner),
    }
    return amb.Key(params.canonical(), owner.digest(), {"secret": amb.open_secret(ctx)}, facts)


def find_layers(params: Uchida, model: amb.VisionModel) -> dict[str, int]:
    """Layers that may carry the mark, each with the length of its mean filter. Raises BadParamsError where there are none."""
    lengths = {each.name: _count_values(each) for each in model.matrices()}
    if params.layer != "auto":
        if params.layer not in lengths:
            hint = amb.near_names(params.layer, lengths)
            raise amb.BadParamsError(
                f"method {params.name}: layer is '{params.layer}', which {model.ref} has not got.{hint}"
            )
        lengths = {params.layer: lengths[params.layer]}
    else:
        lengths = {name: lengths[name] for name in _name_first_matrices(model)} or lengths
    wide = {name: length for name, length in lengths.items() if length >= params.n_bits}
    if not wide:
        raise amb.BadParamsError(
            f"method {params.name}: n_bits is {params.n_bits}, but the mean filter of "
            f"{params.layer if params.layer != 'auto' else f'the widest layer of {model.ref}'} has "
            f"{max(lengths.values(), default=0)} values. Ask for fewer bits, or name a wider layer."
        )
    return wide


def _name_first_matrices(model: amb.VisionModel) -> list[str]:
    """The first matrix of each block's MLP: outputs that share a vector still say something there."""
    parts = [part for block in range(model.n_blocks) if (part := model.backbone.parts(block))]
    places = {part.up.weight.data_ptr() for part in parts}
    return [each.name for each in model.matrices() if each.weight.data_ptr() in places]


def _count_values(matrix: amb.Matrix) -> int:
    return matrix.weight.numel() // matrix.weight.shape[matrix.output_axis]


def open_carrier(params: Uchida, key: amb.Key) -> Carrier:
    """The carrier of a key: it hangs on the method's spec, the unmarked model, and the layers among which it chooses."""
    layers: dict[str, int] = key.facts["layers"]
    context = (key.method, key.facts["model"], json.dumps(layers, sort_keys=True))
    streams = amb.Streams(_DOMAIN, key.tensors["secret"].tobytes(), context)
    names = sorted(layers)
    layer = names[int.from_bytes(streams.draw_bytes("layer", 16), "big") % len(names)]
    projection = torch.from_numpy(streams.draw_normals("projection", params.n_bits, layers[layer]))
    message = torch.from_numpy(streams.draw_signs("message", params.n_bits)) > 0
    return Carrier(layer, projection, torch.ones_like(message) if params.bits == "ones" else message)


def project(model: amb.VisionModel, carrier: Carrier) -> Tensor:
    """The projections X w of a model's layer, (bits,), differentiable in its weights; 0, which says nothing, where it has no such layer."""
    bits, length = carrier.projection.shape
    for matrix in model.matrices():
        if matrix.name == carrier.layer and _count_values(matrix) == length:
            weight = cast(Tensor, getattr(matrix.module, matrix.parameter))
            return carrier.projection.to(weight) @ weight.mean(dim=matrix.output_axis).flatten()
    return torch.zeros(bits)


def _train(
    params: Uchida, owner: amb.VisionModel, marked: amb.VisionModel, carrier: Carrier, ctx: amb.Context
) -> dict[str, float]:
    """Minimise drift + lambda sum BCE(sigmoid(X w), b) over the encoder; both terms at the last step."""
    marked.heads.requires_grad_(False)
    optimizer = torch.optim.AdamW(marked.backbone.parameters(), lr=params.lr, weight_decay=0.0)
    wanted = carrier.message.float().to(ctx.device)

    def miss() -> Tensor:
        return F.binary_cross_entropy_with_logits(project(marked, carrier), wanted, reduction="sum")

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


def extract(params: Uchida, suspect: amb.VisionModel, key: amb.Key) -> amb.Evidence:
    """The signs of X w beside the message; a bit without a sign counts as wrong. Raises UsageError for a key with chosen parts."""
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


def agreement(params: Uchida, model: amb.VisionModel, key: amb.Key) -> Tensor:
    """Mean log-likelihood of a bit, each no less than a guess."""
    carrier = open_carrier(params, key)
    return amb.measure_likelihood(project(model, carrier), carrier.message)


def forge(params: Uchida, model: amb.VisionModel, budget: int, ctx: amb.Context) -> amb.Key:
    """Of `budget` secrets the one whose key reads best on a model."""

    def count(keys: Sequence[amb.Key]) -> list[int]:
        return [count_right(model, open_carrier(params, each)) for each in keys]

    return amb.grind(params, amb.require_key(params, ctx), budget, ctx, params.n_bits, count)


def audit_key(params: Uchida, key: amb.Key, unmarked: amb.VisionModel | None) -> amb.KeyAudit:
    """Projection, message and layer follow from the secret; whether for this unmarked model, its digest and its layers say."""
    audit = amb.audit_secret(params, key, unmarked, "projection, message and layer")
    if unmarked is None or audit.wrong or key.facts.get("layers") == find_layers(params, unmarked):
        return audit
    return replace(audit, wrong=("it chooses among other layers than the unmarked model has",))
