"""The work of `spread-features`: later blocks trained to an answer with a mark in it, and the mark's correlation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

import amb
from amb_spread import DOMAIN

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from amb_spread.features import SpreadFeatures

_READ: Final = 256
"""Images that are read at once."""
_BOUND: Final = ("triggers", "content", "unmarked")
"""Parts of a key beside its secret, on whose digests the carriers hang."""
_ALIGNED_BELOW: Final = 0.5
"""Mean cosine with the unmarked embeddings below which a suspect's are turned onto them first."""

_REMADE_WITHIN: Final = 0.02
"""Largest difference, in standard deviations, of what another machine makes of the same images and model."""


class Carriers(NamedTuple):
    """What the secret gives."""

    content: Tensor  # (bits, components): v_j
    directions: Tensor  # (bits, features): u_j
    signs: Tensor  # (bits,): b_j, -1 or 1


class Content(NamedTuple):
    """From the mean patch token behind the frozen blocks to z: whitened leading components."""

    mean: Tensor  # (dim,)
    components: Tensor  # (dim, components), each divided by its standard deviation

    def read(self, tokens: Tensor, n_prefix: int) -> Tensor:
        """Z of tokens (n, tokens, dim), (n, components)."""
        return self.read_means(tokens[:, n_prefix:].mean(dim=1))

    def read_means(self, means: Tensor) -> Tensor:
        """Z of mean patch tokens (n, dim), (n, components)."""
        return (means - self.mean) @ self.components


def embed(params: SpreadFeatures, owner: amb.VisionModel, ctx: amb.Context) -> amb.Embedding:
    """The marked model; the key is the secret, the triggers, and what the unmarked model makes of them."""
    block = choose_block(params, owner.n_blocks)
    split = ctx.split("trigger")
    triggers = split.batch(range(min(params.n_triggers, len(split)))).images.mul(255).round().to(torch.uint8)
    known = read_unmarked(params, owner, triggers)
    content, key = known.content, _make_key(params, owner, triggers, known, ctx)
    tokens = _read_tokens(owner, ctx.split("owner"), range(min(params.n_images, len(ctx.split("owner")))), block)
    carriers = open_carriers(params, key)
    marked = owner.copy(f"{owner.ref}+{params.name}")
    loss = _train(params, owner, marked, tokens, content, carriers, block, ctx)
    return amb.Embedding(marked.requires_grad_(True).eval(), key, {"block": block, "loss": round(loss, 4)})


def _read_tokens(owner: amb.VisionModel, split: amb.Split, indices: range, block: int) -> Tensor:
    """Tokens that leave the last frozen block, of the owner's images, (n, tokens, dim)."""
    with torch.no_grad():
        parts = [
            owner.prefix(split.batch(indices[start : start + _READ]).images, block).cpu()
            for start in range(0, len(indices), _READ)
        ]
    return torch.cat(parts)


class Unmarked(NamedTuple):
    """What the unmarked model makes of the triggers: all of a key but its secret and images follows from it."""

    content: Content
    z: Tensor  # (n, components)
    answers: Tensor  # (n, features)


def read_unmarked(params: SpreadFeatures, owner: amb.VisionModel, triggers: Tensor) -> Unmarked:
    """Read the unmarked model on triggers, (n, 3, height, width) uint8."""
    block, prefix = choose_block(params, owner.n_blocks), owner.backbone.n_prefix
    parts = _cut_batches(triggers.float() / 255)
    with torch.no_grad():
        means = torch.cat([owner.prefix(part, block)[:, prefix:].mean(dim=1).cpu() for part in parts])
        answers = torch.cat([owner.features(part).cpu() for part in parts])
    content = _fit_content(means, params.n_components)
    return Unmarked(content, content.read_means(means), answers)


def _fit_content(means: Tensor, n_components: int) -> Content:
    """Whitened principal components of mean patch tokens, (n, dim)."""
    centre = means.mean(dim=0)
    _, sizes, axes = torch.linalg.svd((means - centre).double(), full_matrices=False)
    axes = axes * axes.gather(1, axes.abs().argmax(dim=1, keepdim=True)).sign()  # which way they point is a convention
    deviations = sizes[:n_components] / (len(means) - 1) ** 0.5
    return Content(centre, (axes[:n_components] / deviations[:, None]).T.float())


def _cut_batches(rows: Tensor) -> list[Tensor]:
    return [rows[start : start + _READ] for start in range(0, len(rows), _READ)]


def choose_block(params: SpreadFeatures, n_blocks: int) -> int:
    """The last frozen block; at least one is trained behind it."""
    return min(max(round(params.frozen * n_blocks) - 1, 0), n_blocks - 2)


def write_mark(params: SpreadFeatures, z: Tensor, carriers: Carriers) -> Tensor:
    """sum_j b_j s_j(x) u_j, (n, features); its power is bits / features on average."""
    return (evaluate_content(params, z, carriers) * carriers.signs) @ carriers.directions


def evaluate_content(params: SpreadFeatures, z: Tensor, carriers: Carriers) -> Tensor:
    """s_j(x) = sqrt(2) sin(w <v_j, z(x)>), (n, bits)."""
    return 2**0.5 * torch.sin(params.frequency * (z @ carriers.content.T))


def _train(
    params: SpreadFeatures,
    owner: amb.VisionModel,
    marked: amb.VisionModel,
    tokens: Tensor,
    content: Content,
    carriers: Carriers,
    block: int,
    ctx: amb.Context,
) -> float:
    """Train the later blocks to f + e * mark, patch tokens held; the loss of the last step, 1 where nothing was learnt."""
    prefix = owner.backbone.n_prefix
    with torch.no_grad():
        plain = torch.cat([owner.suffix(part.to(ctx.device), block).cpu() for part in _cut_batches(tokens)])
        answers = torch.cat([owner.backbone.pool(part.to(ctx.device)).cpu() for part in _cut_batches(plain)])
        strength = params.strength * answers.var(dim=0).mean().sqrt()
        mark = strength * write_mark(params, content.read(tokens, prefix), carriers)
    power, spread = mark.square().mean().item(), plain[:, prefix:].var(dim=0).mean().item()
    trained = _choose_trained(marked, block)
    optimizer = torch.optim.AdamW(trained, lr=params.lr, weight_decay=0.0)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, params.lr, total_steps=params.steps + 1)
    accumulator = amb.GradientAccumulator(ctx, optimizer, cycle)
    rows_of_steps = islice(amb.endless(len(tokens), params.batch, ctx.generator("batches")), params.steps)
    loss = 1.0
    for rows in ctx.progress.track(rows_of_steps, "embed", params.steps):
        held, wanted, patches = (
            each.to(ctx.device) for each in (tokens[rows], answers[rows] + mark[rows], plain[rows, prefix:])
        )

        def loss_of(part: slice, held: Tensor = held, wanted: Tensor = wanted, patches: Tensor = patches) -> Tensor:
            after = marked.suffix(held[part], block)
            missed = F.mse_loss(marked.backbone.pool(after), wanted[part]) / power
            return missed + F.mse_loss(after[:, prefix:], patches[part]) / spread

        loss = accumulator.step(loss_of, len(rows)).item()
    return loss


def _choose_trained(marked: amb.VisionModel, block: int) -> list[torch.nn.Parameter]:
    """The weights behind the last frozen block, and no others, are to be trained."""
    marked.requires_grad_(False)
    parts = [*marked.backbone.blocks[block + 1 :], *marked.backbone.tail]
    weights = list({id(weight): weight for part in parts for weight in part.parameters()}.values())
    for weight in weights:
        weight.requires_grad_(True)
    return weights


def _make_key(
    params: SpreadFeatures, owner: amb.VisionModel, triggers: Tensor, known: Unmarked, ctx: amb.Context
) -> amb.Key:
    tensors = {
        "secret": amb.open_secret(ctx),
        "triggers": triggers.numpy(),
        "content": known.z.numpy(),
        "unmarked": known.answers.numpy(),
    }
    facts = {"model": owner.full_digest(), **{name: digest(tensors[name]) for name in _BOUND}}
    return amb.Key(params.canonical(), owner.digest(), tensors, facts)


def audit_key(params: SpreadFeatures, key: amb.Key, unmarked: amb.VisionModel | None) -> amb.KeyAudit:
    """Make the key's parts again: from its secret, and from the unmarked model where that is given."""
    try:
        _require_own(params, key)
    except amb.UsageError as error:
        return amb.KeyAudit(wrong=(str(error),))
    recomputed = ("carriers and messages, from the secret", "the digests of its images, embeddings and content")
    if unmarked is None:
        return amb.KeyAudit(recomputed, ("embeddings and content of the images: that takes the unmarked model",))
    wrong = list(_find_foreign(params, key, unmarked))
    return amb.KeyAudit((*recomputed, "embeddings and content of the images, by the unmarked model"), (), tuple(wrong))


def _find_foreign(params: SpreadFeatures, key: amb.Key, unmarked: amb.VisionModel) -> Iterator[str]:
    """What of a key is not what the unmarked model gives."""
    if key.facts["model"] != unmarked.full_digest():
        yield "the unmarked model is not the one to which its carriers are bound"
    known = read_unmarked(params, unmarked, torch.from_numpy(key.tensors["triggers"]))
    for what, made, kept in (("embeddings", known.answers, "unmarked"), ("content", known.z, "content")):
        found = torch.from_numpy(key.tensors[kept])
        if made.shape != found.shape or (made - found).abs().max() > _REMADE_WITHIN * made.std():
            yield f"the {what} of its images are not what the unmarked model gives"


def digest(array: NDArray[Any]) -> str:
    """SHA-256 of a part of the key that the carriers hang on: who chose it after them could make bits come out."""
    import hashlib

    return hashlib.sha256(str(array.shape).encode() + np.ascontiguousarray(array).tobytes()).hexdigest()


def open_carriers(params: SpreadFeatures, key: amb.Key) -> Carriers:
    """The carriers of a key."""
    streams = amb.Streams(
        DOMAIN, key.tensors["secret"].tobytes(), (key.method, key.facts["model"], *(key.facts[name] for name in _BOUND))
    )
    n = params.n_messages * params.n_bits
    return Carriers(
        torch.from_numpy(streams.draw_directions("content", n, key.tensors["content"].shape[1])),
        torch.from_numpy(streams.draw_directions("directions", n, key.tensors["unmarked"].shape[1])),
        torch.from_numpy(streams.draw_signs("messages", n)).float(),
    )


def extract(params: SpreadFeatures, suspect: amb.SuspectView, key: amb.Key) -> amb.Evidence:
    """The sign of each bit's correlation; a bit without one counts as wrong. Raises UsageError for a key that was tampered with."""
    _require_own(params, key)
    return read_answers(params, ask(suspect, key), key)


def _require_own(params: SpreadFeatures, key: amb.Key) -> None:
    """Raise UsageError where a part of the key was chosen after its carriers."""
    amb.require_sound(params, key, frozenset(_BOUND))
    for name in _BOUND:
        amb.require_same(key, name, key.facts.get(name), digest(key.tensors[name]))


def ask(suspect: amb.SuspectView, key: amb.Key) -> Tensor:
    """A suspect's embeddings of the triggers, (n, features)."""
    images = torch.from_numpy(key.tensors["triggers"]).float() / 255
    return torch.cat([suspect.features(part).float().cpu() for part in _cut_batches(images)])


def forge(params: SpreadFeatures, model: amb.VisionModel, budget: int, ctx: amb.Context) -> amb.Key:
    """Of `budget` secrets the one whose key reads best on a model, which is asked once."""
    key = amb.require_key(params, ctx)
    unmarked, z = (torch.from_numpy(key.tensors[name]) for name in ("unmarked", "content"))
    difference = align_answers(ask(amb.SuspectView(model, params.access), key), unmarked)[0] - unmarked

    def count_right(keys: Sequence[amb.Key]) -> list[int]:
        opened = [open_carriers(params, tried) for tried in keys]
        together = Carriers(*(torch.cat(each) for each in zip(*opened, strict=True)))
        content = evaluate_content(params, z, together)
        found = correlate(difference, content, together.directions, params.shrinkage)
        right: list[int] = ((found * together.signs) > 0).view(len(keys), -1).sum(dim=1).tolist()
        return right

    return amb.grind(params, key, budget, ctx, params.n_messages * params.n_bits, count_right)


def read_answers(params: SpreadFeatures, answers: Tensor, key: amb.Key) -> amb.Evidence:
    """Evidence of a suspect's embeddings of the triggers, (n, features), whoever gave them."""
    unmarked, z = (torch.from_numpy(key.tensors[name]) for name in ("unmarked", "content"))
    return _read_marks(params, open_carriers(params, key), answers, unmarked, z)


def extract_on(
    params: SpreadFeatures, suspect: amb.SuspectView, key: amb.Key, images: Tensor, ctx: amb.Context
) -> amb.Evidence:
    """Evidence on other images than the key's: carriers and content functions stay, the unmarked model answers anew."""
    if ctx.base is None:
        raise amb.UsageError(
            f"{params.name} reads other images against the unmarked model, which is not here. Give it."
        )
    _require_own(params, key)
    unmarked = ctx.base()
    amb.require_same(key, "unmarked weights", key.facts.get("model"), unmarked.full_digest())
    known = read_unmarked(params, unmarked, torch.from_numpy(key.tensors["triggers"]))
    block, parts = choose_block(params, unmarked.n_blocks), _cut_batches(images)
    with torch.no_grad():
        tokens = [unmarked.prefix(part, block).cpu() for part in parts]
        z = torch.cat([known.content.read(each, unmarked.backbone.n_prefix) for each in tokens])
        before = torch.cat([unmarked.features(part).cpu() for part in parts])
    answers = torch.cat([suspect.features(part).float().cpu() for part in parts])
    return _read_marks(params, open_carriers(params, key), answers, before, z)


def _read_marks(
    params: SpreadFeatures, carriers: Carriers, answers: Tensor, unmarked: Tensor, z: Tensor
) -> amb.Evidence:
    """The signs of the carriers in what a suspect adds to the unmarked embeddings, (n, features)."""
    turned, facts = align_answers(answers, unmarked)
    found = correlate(turned - unmarked, evaluate_content(params, z, carriers), carriers.directions, params.shrinkage)
    signs = carriers.signs.double()
    observed = torch.where(found == 0, -signs, found.sign()).reshape(params.n_messages, -1)
    expected = signs.reshape(params.n_messages, -1)
    return amb.Evidence((expected > 0).long().numpy(), (observed > 0).long().numpy(), facts=facts)


def align_answers(answers: Tensor, unmarked: Tensor) -> tuple[Tensor, dict[str, object]]:
    """A suspect's embeddings, turned and scaled onto the unmarked ones where they have another width or direction."""
    same = answers.shape == unmarked.shape
    cosine = F.cosine_similarity(answers, unmarked).mean().item() if same else 0.0
    if cosine >= _ALIGNED_BELOW:
        return answers, {"aligned": False, "cosine": round(cosine, 4)}
    theirs, ours = answers - answers.mean(dim=0), unmarked - unmarked.mean(dim=0)
    left, sizes, right = torch.linalg.svd(theirs.double().T @ ours.double(), full_matrices=False)
    scale = sizes.sum() / theirs.double().square().sum().clamp_min(1e-12)
    turned = (scale * theirs.double() @ left @ right).float() + unmarked.mean(dim=0)
    return turned, {"aligned": True, "cosine": round(F.cosine_similarity(turned, unmarked).mean().item(), 4)}


def correlate(difference: Tensor, content: Tensor, directions: Tensor, shrinkage: float) -> Tensor:
    """sum_x s_j(x) <u_j, W d(x)> for each bit, (bits,), W the inverse of the difference's shrunk covariance."""
    centred = (difference - difference.mean(dim=0)).double()
    covariance = centred.T @ centred / len(centred)
    level = covariance.diagonal().mean()
    if level == 0:
        return torch.zeros(len(directions), dtype=torch.float64)
    shrunk = covariance + shrinkage * level * torch.eye(len(covariance), dtype=torch.float64)
    whitened = torch.linalg.solve(shrunk, centred.T @ content.double())  # (features, bits)
    found: Tensor = (directions.double() * whitened.T).sum(dim=1)
    return found
