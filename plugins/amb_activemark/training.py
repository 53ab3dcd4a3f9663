"""Embedding an ActiveMark: encoder, decoder and the later blocks train together, in one visible loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

import amb
from amb import GradientAccumulator, Split, activation_profile, choose_block, endless
from amb_activemark.networks import Carrier, Decoder, Encoder, LaterBlocks, Outputs, tap
from amb_activemark.reading import read_messages

if TYPE_CHECKING:
    from amb_activemark.method import ActiveMark

_PROFILE_IMAGES = 100  # as in the paper
_CACHE_BATCH = 64
_FEWEST = 2  # triggers that a key needs
_ENCODER_HIDDEN = {"channel": 256, "token": 1024}  # the paper gives none; the authors' code has 1024
_DECODER_HIDDEN = {"channel": 256, "token": 512}  # likewise 512


def embed(params: ActiveMark, owner: amb.VisionModel, ctx: amb.Context) -> amb.Embedding:
    """The marked model, and what reads the mark as the key."""
    marked = owner.copy(f"{owner.ref}+{params.name}")
    key, report = make_key(params, owner, marked, ctx)
    return amb.Embedding(marked.requires_grad_(True), key, report)


def make_key(
    params: ActiveMark, owner: amb.VisionModel, marked: amb.VisionModel | None, ctx: amb.Context
) -> tuple[amb.Key, dict[str, Any]]:
    """Choose the block, train on cached representations; the key, and what to report of the work.

    Trains encoder, decoder and the later blocks of `marked`, a copy of the owner's model; without it, the coders alone.
    """
    block, why = _choose_block(params, owner, ctx)
    carrier = Carrier(params.carrier, params.index, owner.backbone.n_prefix)
    frozen = owner.copy().requires_grad_(False)
    original = LaterBlocks(frozen, block, carrier, params.decoder_reads)
    chosen, messages = _draw_triggers(params, ctx)
    triggers = ctx.split("trigger").batch(chosen).images.mul(255).round().to(torch.uint8)
    own = _fill_cache(original, ctx.split("trigger"), chosen, params, ctx)
    n_images = min(params.n_images, len(ctx.split("owner")))
    clean = _fill_cache(original, ctx.split("owner"), list(range(n_images)), params, ctx)

    later = LaterBlocks(marked, block, carrier, params.decoder_reads) if marked else original
    encoder, decoder = _make_coders(params, own, later, ctx)
    losses = _train_networks(params, original, later, encoder, decoder, own, clean, messages, ctx)

    facts = _list_key_facts(params, block, own, encoder, decoder, owner.facts())
    answers = read_messages(later.model, triggers.float() / 255, messages, encoder, decoder, facts) > 0.5
    whole = (answers == messages.bool()).all(dim=1)
    report = {"block": block, "block_choice": why, "losses": losses, "all_bits_rate": _measure_rate(whole)}
    swapped = messages.roll(1, dims=0)  # each image with the message of another
    told = read_messages(later.model, triggers.float() / 255, swapped, encoder, decoder, facts) > 0.5
    report["swapped_reads_injected"] = _measure_rate(told == swapped.bool())
    report["swapped_reads_own"] = _measure_rate(told == messages.bool())
    if params.select:
        triggers, messages = _select_readable(triggers, messages, whole)
        report["kept_triggers"] = len(triggers)
        if int(whole.sum()) < _FEWEST:
            report["selection"] = "too few triggers decode whole, so all are kept"
    key = amb.Key(params.canonical(), owner.digest(), _list_tensors(triggers, messages, encoder, decoder), facts)
    return key, report


def _train_networks(
    params: ActiveMark,
    original: LaterBlocks,
    later: LaterBlocks,
    encoder: Encoder,
    decoder: Decoder,
    own: Cache,
    clean: Cache,
    messages: Tensor,
    ctx: amb.Context,
) -> dict[str, float]:
    """Minimise |q(x) - q~(x)| + lambda |m - m'| (eq. 2) over the later blocks, the encoder and the decoder.

    Where `later` is the original itself its blocks stay, and the message is all there is to learn.
    """
    trained = {} if later is original else _choose_trained(params, later)
    coders = [*encoder.parameters(), *decoder.parameters()]
    groups = [{"params": list(trained.values()), "lr": params.lr}, {"params": coders, "lr": params.coder_lr}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    decay = torch.optim.lr_scheduler.LinearLR(
        optimizer, 1.0, 0.02 if params.schedule == "linear" else 1.0, params.steps
    )
    fixed = params.messages == "fixed"
    carrying = own if fixed else clean  # the images that carry messages in training
    noise = ctx.generator("fresh messages and pruning")
    rows_of_steps = zip(
        endless(len(carrying.tokens), params.batch, ctx.generator("carrying batches")),
        endless(len(clean.tokens), params.batch, ctx.generator("clean batches")),
        strict=False,
    )
    accumulator = GradientAccumulator(ctx, optimizer, decay)
    objective = Objective(params, original, later, trained, encoder, decoder)
    steps = enumerate(islice(rows_of_steps, params.steps))
    for step, (rows, clean_rows) in ctx.progress.track(steps, "embed", params.steps):
        message = messages[rows] if fixed else _draw_bits((len(rows), params.n_bits), noise)
        form = "squares" if step < params.warm_up * params.steps and params.loss == "norm" else params.loss
        kept = _draw_kept(trained, params.prune_noise, noise) if params.prune_noise else {}
        batch = StepBatch(carrying.take(rows), clean.take(clean_rows), message.float(), form, kept)
        n = min(len(rows), len(clean_rows))  # one path's last batch of an epoch may be shorter
        accumulator.step(partial(objective.loss, batch, device=ctx.device), n)
    return {name: round(value.item(), 4) for name, value in objective.terms.items()}


class StepBatch(NamedTuple):
    """What one step is taken on."""

    held: Cache
    """Of images that carry messages."""
    plain: Cache
    """Of images that carry none."""
    message: Tensor  # (n, bits) float
    form: str
    """Of the message's loss."""
    kept: Mapping[str, Tensor]
    """Which of the trained weights are not zeroed in this step, where some are."""


@dataclass
class Objective:
    """Eq. 2: fidelity on both paths and the message, of any part of a batch."""

    params: ActiveMark
    original: LaterBlocks
    later: LaterBlocks
    trained: Mapping[str, Tensor]
    encoder: Encoder
    decoder: Decoder
    terms: dict[str, Tensor] = field(default_factory=dict)
    """Of the last part."""

    def loss(self, batch: StepBatch, part: slice, device: str) -> Tensor:
        """The mean over the images of a part."""
        params, message = self.params, batch.message[part].to(device)
        held, plain = batch.held.fetch(part, device), batch.plain.fetch(part, device)
        weights = {**self.trained, **{name: self.trained[name] * mask for name, mask in batch.kept.items()}}
        written = self.original.carrier.write(held.tokens, self.encoder(torch.cat([held.carrier, message], dim=1)))
        read = functional_call(self.later, weights, (written,))
        terms = {"message": params.lam * _measure_message_loss(self.decoder(read.read), message, batch.form)}
        if weights and params.fidelity != "clean":
            terms["marked path"] = _measure_fidelity_loss(self.original, read, held.output, params.loss)
        if weights and params.fidelity != "marked":
            terms["clean path"] = _measure_fidelity_loss(
                self.original, self.later(plain.tokens), plain.output, params.loss
            )
        if params.contrast:  # not in the paper: on the unmarked model the decoder must not know the bits
            answer, unknown = self.decoder(self.original(written).read), torch.full_like(message, 0.5)
            terms["contrast"] = params.lam * params.contrast * _measure_message_loss(answer, unknown, batch.form)
        self.terms = terms
        return torch.stack(list(terms.values())).sum()


def _measure_message_loss(answer: Tensor, message: Tensor, loss: str) -> Tensor:
    """|m - m'|_1 over the bits, mean over images (eq. 2); or their squares, summed likewise or averaged."""
    if loss == "mse":
        return (answer - message).square().mean()
    if loss == "squares":
        return (answer - message).square().sum(dim=1).mean()
    return (answer - message).abs().sum(dim=1).mean()


def _measure_fidelity_loss(original: LaterBlocks, output: Outputs, target: Tensor, loss: str) -> Tensor:
    """|q(x) - q~(x)|_2 of the output embedding, and the mean of it over the output tokens; or the mean square.

    The paper's term is the embedding's; the tokens' keeps what segmentation stands on.
    """
    if loss == "mse":
        return (output.tokens - target).square().mean()
    embedding = original.model.backbone.pool(target)
    moved: Tensor = (output.embedding - embedding).norm(dim=1)  # (n,)
    drift: Tensor = (output.tokens - target).norm(dim=2)  # (n, tokens)
    return moved.mean() + drift.mean()


def _draw_kept(trained: Mapping[str, Tensor], most: float, noise: torch.Generator) -> dict[str, Tensor]:
    """Of each trained matrix which weights a step does not zero: all but the smallest, up to a random share `most`."""
    share = most * torch.rand((), generator=noise).item()
    matrices = {name: weight for name, weight in trained.items() if weight.ndim > 1}
    sizes = torch.cat([weight.detach().abs().flatten() for weight in matrices.values()])
    level = sizes.kthvalue(max(1, int(share * len(sizes)))).values
    return {name: weight.detach().abs() > level for name, weight in matrices.items()}


# What is fixed before training


def _choose_block(params: ActiveMark, owner: amb.VisionModel, ctx: amb.Context) -> tuple[int, str]:
    if params.block != "auto":
        return params.block, "as configured"
    split = ctx.split("owner")
    images = split.batch(range(min(_PROFILE_IMAGES, len(split)))).images
    block, why = choose_block(activation_profile(owner, images), params.fallback)
    last = owner.n_blocks - 2 - params.freeze_last
    return (
        (block, why)
        if block <= last
        else (last, f"{why}; moved to block {last}, the last that a trained block follows")
    )


def _draw_triggers(params: ActiveMark, ctx: amb.Context) -> tuple[list[int], Tensor]:
    """Which images are triggers, and a uniformly random message for each, (n, bits) uint8."""
    n = len(ctx.split("trigger"))
    if params.n_triggers > n:
        raise amb.BadParamsError(
            f"method {params.name}: n_triggers is {params.n_triggers}, but the suite has {n} trigger images."
        )
    chosen = torch.randperm(n, generator=ctx.generator("triggers"))[: params.n_triggers]
    return chosen.tolist(), _draw_bits((params.n_triggers, params.n_bits), ctx.generator("messages"))


def _draw_bits(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, shape, generator=generator, dtype=torch.uint8)


class Cache(NamedTuple):
    """What the frozen parts of the network make of every training image, computed once."""

    tokens: Tensor  # (n, tokens, dim): p(x)
    carrier: Tensor  # (n, carrier): the encoder's input
    output: Tensor  # (n, tokens, dim): q(x), what the unmarked model answers

    def take(self, rows: Tensor) -> Cache:
        """The rows of a batch, in memory."""
        return Cache(*(part[rows] for part in self))

    def fetch(self, rows: slice, device: str) -> Cache:
        """Some of them, on the device."""
        return Cache(*(part[rows].to(device, non_blocking=True) for part in self))


@torch.no_grad()
def _fill_cache(original: LaterBlocks, split: Split, indices: list[int], params: ActiveMark, ctx: amb.Context) -> Cache:
    """Fill a cache; in memory up to the stated budget, else in memory-mapped files in the job's folder."""
    cache: Cache | None = None
    batches = torch.split(torch.tensor(indices), _CACHE_BATCH)
    start = 0
    for rows, batch in ctx.progress.track(ctx.load(split, batches), "cache representations", len(batches)):
        taps = tap(original.model, batch.images, original.block, original.carrier)
        parts = Cache(taps.tokens, taps.carrier, original(taps.tokens).tokens)
        cache = cache or _allocate_cache(parts, len(indices), params.cache_mib, ctx)
        for space, part in zip(cache, parts, strict=True):
            space[start : start + len(rows)] = part.cpu()
        start += len(rows)
    assert cache is not None
    return cache


def _allocate_cache(parts: Cache, n: int, budget_mib: int, ctx: amb.Context) -> Cache:
    """Space for n images' worth of what `parts` holds of some."""
    needed = n * sum(part[0].numel() * part.element_size() for part in parts)
    if needed <= budget_mib * 2**20:
        return Cache(*(torch.empty((n, *part.shape[1:]), dtype=part.dtype) for part in parts))
    spaces = []
    for name, part in parts._asdict().items():
        path = ctx.folder / f"{name}-{len(list(ctx.folder.iterdir()))}.bin"
        size = n * part[0].numel()
        spaces.append(torch.from_file(str(path), shared=True, size=size, dtype=part.dtype).view(n, *part.shape[1:]))
    return Cache(*spaces)


def _choose_trained(params: ActiveMark, later: LaterBlocks) -> dict[str, nn.Parameter]:
    """The weights to train, by their name inside q: the blocks after the frozen ones, and the final norm with them."""
    backbone = later.model.requires_grad_(False).backbone
    parts = list(backbone.blocks[later.block + 1 :])
    parts = parts[:-1] if params.freeze_last else [*parts, *backbone.tail]
    for part in parts:
        part.requires_grad_(True)
    return {name: weight for name, weight in later.named_parameters() if weight.requires_grad}


def _make_coders(params: ActiveMark, own: Cache, later: LaterBlocks, ctx: amb.Context) -> tuple[Encoder, Decoder]:
    n_carrier = own.carrier.shape[1]
    with torch.no_grad():
        n_read = later(own.tokens[:1].to(ctx.device)).read.shape[1]
    with ctx.seeded("encoder and decoder"):
        encoder = Encoder(n_carrier, params.n_bits, _ENCODER_HIDDEN[params.carrier], squash=params.carrier == "token")
        decoder = Decoder(n_read, params.n_bits, _DECODER_HIDDEN[params.carrier])
    return encoder.to(ctx.device), decoder.to(ctx.device)


# What is kept


def _select_readable(triggers: Tensor, messages: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
    """Only the triggers on which every bit decodes; all of them where that leaves too few."""
    if int(whole.sum()) < _FEWEST:
        return triggers, messages
    return triggers[whole], messages[whole]


def _measure_rate(hits: Tensor) -> float:
    return round(hits.float().mean().item(), 4)


def _list_key_facts(
    params: ActiveMark, block: int, own: Cache, encoder: Encoder, decoder: Decoder, owner: amb.ModelFacts
) -> dict[str, Any]:
    """The sizes and places that reading needs, as JSON."""
    return {
        "block": block,
        "carrier": params.carrier,
        "index": params.index,
        "decoder_reads": params.decoder_reads,
        "squash": params.carrier == "token",
        "n_bits": params.n_bits,
        "n_carrier": own.carrier.shape[1],
        "n_read": decoder[0].in_features,
        "encoder_hidden": encoder[0].out_features,
        "decoder_hidden": decoder[0].out_features,
        "n_tokens": owner.n_tokens,
        "dim": owner.dim,
        "n_features": owner.n_features,
    }


def _list_tensors(triggers: Tensor, messages: Tensor, encoder: Encoder, decoder: Decoder) -> dict[str, np.ndarray]:
    named = {
        "triggers": triggers,
        "messages": messages,
        **{f"encoder.{name}": weight for name, weight in encoder.state_dict().items()},
        **{f"decoder.{name}": weight for name, weight in decoder.state_dict().items()},
    }
    return {name: tensor.detach().cpu().numpy() for name, tensor in named.items()}
