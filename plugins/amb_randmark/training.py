"""Embedding RandMark: model, encoder and decoder network trained together on noisy triggers and plain images."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
from torch import Tensor

import amb
from amb_randmark.reading import Decoder, Writer, pack_key, to_bytes

if TYPE_CHECKING:
    from amb_randmark.method import RandMark

_READ: Final = 256
"""Images that are read at once."""


def embed(params: RandMark, owner: amb.VisionModel, ctx: amb.Context) -> amb.Embedding:
    """The marked model, and written triggers, messages and decoder network as the key."""
    marked = owner.copy(f"{owner.ref}+{params.name}")
    key, report = make_key(params, owner, marked, ctx)
    return amb.Embedding(marked.requires_grad_(True).eval(), key, report)


def make_key(
    params: RandMark, owner: amb.VisionModel, marked: amb.VisionModel | None, ctx: amb.Context
) -> tuple[amb.Key, dict[str, Any]]:
    """Train on triggers and plain images; the key, and what to report. Without `marked` the model stays, and only networks are trained."""
    unmarked = owner.copy().eval().requires_grad_(False)
    images, messages = draw_triggers(params, ctx)
    with ctx.seeded("encoder and decoder"):
        writer = Writer(params.n_bits, params.amplitude).to(ctx.device)
        decoder = Decoder(owner.facts().n_features, params.n_bits).to(ctx.device)
    objective = Objective(params, unmarked, marked or unmarked, writer, decoder)
    losses = _train(params, objective, images, messages, ctx)
    written = write(writer, images, messages)
    key = pack_key(params, owner, written, messages, decoder)
    return key, losses | _tell_reading_from_reciting(objective, images, messages)


def draw_triggers(params: RandMark, ctx: amb.Context) -> tuple[Tensor, Tensor]:
    """Plain trigger images, (n, 3, height, width) uint8, and a uniformly random message for each, (n, bits) uint8.

    Raises BadParamsError.
    """
    split = ctx.split("trigger")
    if params.n_triggers > len(split):
        raise amb.BadParamsError(
            f"method {params.name}: n_triggers is {params.n_triggers}, but the suite has {len(split)} trigger images."
        )
    chosen = torch.randperm(len(split), generator=ctx.generator("triggers"))[: params.n_triggers]
    shape = (params.n_triggers, params.n_bits)
    messages = torch.randint(0, 2, shape, generator=ctx.generator("messages"), dtype=torch.uint8)
    return to_bytes(split.batch(chosen.tolist()).images), messages


def _train(
    params: RandMark, objective: Objective, images: Tensor, messages: Tensor, ctx: amb.Context
) -> dict[str, float]:
    """Minimise the paper's loss over the model, unless it is the unmarked one itself, and over both networks."""
    plain = _read_images(params, ctx)
    coders = [*objective.writer.parameters(), *objective.decoder.parameters()]
    groups: list[dict[str, Any]] = [{"params": coders, "lr": params.coder_lr}]
    if objective.marked is not objective.unmarked:
        objective.marked.requires_grad_(False).eval().backbone.requires_grad_(True)
        groups.append({"params": list(objective.marked.backbone.parameters()), "lr": params.lr})
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in groups], total_steps=params.steps + 1
    )
    accumulator = amb.GradientAccumulator(ctx, optimizer, cycle)
    noise = ctx.generator("noise")
    rows_of_steps = zip(
        amb.endless(len(images), params.batch, ctx.generator("trigger batches")),
        amb.endless(len(plain), params.batch, ctx.generator("plain batches")),
        strict=False,
    )
    for rows, plain_rows in ctx.progress.track(islice(rows_of_steps, params.steps), "embed", params.steps):
        n = min(len(rows), len(plain_rows))  # the last batch of an epoch may be shorter
        shape = (params.n_noised, n, *images.shape[1:])
        batch = StepBatch(
            images[rows[:n]].to(ctx.device).float() / 255,
            messages[rows[:n]].to(ctx.device).float(),
            plain[plain_rows[:n]].to(ctx.device).float() / 255,
            params.noise * torch.randn(shape, generator=noise).to(ctx.device),
        )
        accumulator.step(partial(objective.loss, batch), n)
    return {name: round(value, 4) for name, value in objective.terms.items()}


def _read_images(params: RandMark, ctx: amb.Context) -> Tensor:
    """The owner's images, (n, 3, height, width) uint8."""
    split = ctx.split("owner")
    rows = torch.arange(min(params.n_images, len(split)))
    return torch.cat([to_bytes(batch.images) for _, batch in ctx.load(split, torch.split(rows, _READ))])


class StepBatch(NamedTuple):
    """What one step is taken on."""

    triggers: Tensor  # (n, 3, height, width) in [0, 1]
    messages: Tensor  # (n, bits)
    plain: Tensor  # (n, 3, height, width) in [0, 1]: the owner's images
    noise: Tensor  # (copies, n, 3, height, width)


@dataclass
class Objective:
    """|f - f~|_2 + (lambda / K) sum_j |m - m'_j|_2, of any part of a batch."""

    params: RandMark
    unmarked: amb.VisionModel
    marked: amb.VisionModel
    writer: Writer
    decoder: Decoder
    terms: dict[str, float] = field(default_factory=dict)
    """Of the last part."""

    def loss(self, batch: StepBatch, part: slice) -> Tensor:
        """The mean over the images of a part."""
        triggers, messages = batch.triggers[part], batch.messages[part]
        written = self.writer(triggers, messages)
        noisy = (written + batch.noise[:, part]).flatten(0, 1)  # copy by copy
        answers = self.decoder(self.marked.features(noisy)).sigmoid().unflatten(0, (len(batch.noise), len(triggers)))
        terms = {"message": self.params.lam * measure_message_loss(answers, messages)}
        if self.marked is not self.unmarked:
            terms["fidelity"] = self._measure_drift(torch.cat([batch.plain[part], triggers]))
        self.terms = {name: term.item() for name, term in terms.items()}
        return torch.stack(list(terms.values())).sum()

    def _measure_drift(self, images: Tensor) -> Tensor:
        """|f - f~|_2 of the embedding, and the mean of it over the output tokens, which segmentation stands on."""
        with torch.no_grad():
            wanted = self.unmarked.tokens(images)
        tokens = self.marked.tokens(images)
        moved: Tensor = (self.marked.pool(tokens) - self.unmarked.pool(wanted)).norm(dim=1)
        drift: Tensor = (tokens - wanted).norm(dim=2)
        return moved.mean() + drift.mean()


def measure_message_loss(answers: Tensor, messages: Tensor) -> Tensor:
    """(1 / K) sum_j |m - m'_j|_2 of answers (copies, n, bits) in 0..1 to messages (n, bits), mean over images."""
    missed: Tensor = (answers - messages).norm(dim=2)
    return missed.mean()


@torch.no_grad()
def write(writer: Writer, images: Tensor, messages: Tensor) -> Tensor:
    """Written images, (n, 3, height, width) uint8."""
    device = next(writer.parameters()).device
    parts = zip(torch.split(images, _READ), torch.split(messages, _READ), strict=True)
    return torch.cat([to_bytes(writer(x.to(device).float() / 255, m.to(device).float())) for x, m in parts]).cpu()


@torch.no_grad()
def _tell_reading_from_reciting(objective: Objective, images: Tensor, messages: Tensor) -> dict[str, float]:
    """Each image with the message of another: which of the two is read? Shares of bits, .5 is chance."""
    swapped = messages.roll(1, dims=0)
    shown = write(objective.writer, images, swapped).float() / 255
    parts = torch.split(shown, _READ)
    read = torch.cat([objective.decoder(objective.marked.features(part)).cpu() > 0 for part in parts])
    shares = {"swapped_reads_written": read == swapped.bool(), "swapped_reads_own": read == messages.bool()}
    return {name: round(share.float().mean().item(), 4) for name, share in shares.items()}
