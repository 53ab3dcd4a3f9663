"""The work behind `adaptive-regress`: functions of mid-level content, their ridge regression, and training to what is left."""

from __future__ import annotations

from itertools import combinations_with_replacement, islice
from typing import TYPE_CHECKING, Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

import amb

if TYPE_CHECKING:
    from amb_attacks.regress import AdaptiveRegress

_READ: Final = 256


class Seen(NamedTuple):
    """What the thief's images are inside the stolen model."""

    held: Tensor  # (n, tokens, dim): tokens that leave the last frozen block
    patches: Tensor  # (n, patches, dim): output patch tokens
    answers: Tensor  # (n, features): embeddings


def regress(params: AdaptiveRegress, model: amb.VisionModel, ctx: amb.Context) -> amb.VisionModel:
    """A copy whose later blocks answer without what the content explains."""
    changed = model.copy(f"{model.ref}+{params.canonical()}").eval()
    if params.amount == 0:
        return changed
    block = min(max(round(params.frozen * model.n_blocks) - 1, 0), model.n_blocks - 2)
    seen = _look(params, changed, block, ctx)
    z = whiten(seen.held[:, model.backbone.n_prefix :].mean(dim=1), params.n_components)
    fit = params.amount * explain(params, z, seen.answers, ctx.generator("functions"))
    ctx.note(subtracted=round((fit.var(dim=0).sum() / seen.answers.var(dim=0).sum()).item(), 4))
    _train(params, changed, seen, seen.answers - fit, block, ctx)
    return changed.requires_grad_(True).eval()


@torch.no_grad()
def _look(params: AdaptiveRegress, model: amb.VisionModel, block: int, ctx: amb.Context) -> Seen:
    split, prefix = ctx.split("attacker"), model.backbone.n_prefix
    rows = torch.split(torch.arange(min(params.n_images, len(split))), _READ)
    parts = []
    for _, batch in ctx.load(split, rows):
        held = model.prefix(batch.images, block)
        output = model.suffix(held, block)
        parts.append((held.cpu(), output[:, prefix:].cpu(), model.backbone.pool(output).cpu()))
    return Seen(*(torch.cat(each) for each in zip(*parts, strict=True)))


def whiten(means: Tensor, n: int) -> Tensor:
    """Leading principal components of mean patch tokens, each of variance 1, (images, components)."""
    left, _, _ = torch.linalg.svd((means - means.mean(dim=0)).double(), full_matrices=False)
    white: Tensor = left[:, :n] * (len(means) - 1) ** 0.5
    return white


def explain(params: AdaptiveRegress, z: Tensor, answers: Tensor, drawn: torch.Generator) -> Tensor:
    """What functions of z explain of the answers, by ridge regression, (images, features)."""
    functions = _evaluate_functions(params, z, drawn)
    functions = functions - functions.mean(dim=0)
    if params.keep == "linear":  # what is linear in z is taken out of the functions, so it stays in the answers
        functions = functions - z @ torch.linalg.lstsq(z, functions).solution
    moments = functions.T @ functions
    penalty = params.ridge * moments.diagonal().mean() * torch.eye(len(moments), dtype=moments.dtype)
    targets = (answers - answers.mean(dim=0)).double()
    fit: Tensor = functions @ torch.linalg.solve(moments + penalty, functions.T @ targets)
    return fit.float()


def _evaluate_functions(params: AdaptiveRegress, z: Tensor, drawn: torch.Generator) -> Tensor:
    """(images, functions)."""
    if params.functions == "products":
        orders = [combinations_with_replacement(range(z.shape[1]), order) for order in (1, 2, 3)]
        return torch.stack([z[:, list(chosen)].prod(dim=1) for order in orders for chosen in order], dim=1)
    directions = F.normalize(torch.randn(params.n_functions, z.shape[1], generator=drawn, dtype=z.dtype), dim=1)
    phases = 2 * torch.pi * torch.rand(params.n_functions, generator=drawn, dtype=z.dtype)
    return torch.sin(params.frequency * z @ directions.T + phases)


def _train(
    params: AdaptiveRegress, model: amb.VisionModel, seen: Seen, wanted: Tensor, block: int, ctx: amb.Context
) -> None:
    """Train the blocks behind to the wanted embeddings in place, patch tokens held."""
    prefix = model.backbone.n_prefix
    power, spread = (wanted - seen.answers).square().mean(), seen.patches.var(dim=0).mean()
    model.requires_grad_(False)
    parts = [*model.backbone.blocks[block + 1 :], *model.backbone.tail]
    weights = list({id(weight): weight for part in parts for weight in part.parameters()}.values())
    for weight in weights:
        weight.requires_grad_(True)
    optimizer = torch.optim.AdamW(weights, lr=params.lr, weight_decay=0.0)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, params.lr, total_steps=params.steps + 1)
    accumulator = amb.GradientAccumulator(ctx, optimizer, cycle)
    rows_of_steps = islice(amb.endless(len(wanted), params.batch, ctx.generator("batches")), params.steps)
    for rows in ctx.progress.track(rows_of_steps, "train without the fit", params.steps):
        batch = [each[rows].to(ctx.device) for each in (seen.held, wanted, seen.patches)]

        def loss_of(part: slice, batch: list[Tensor] = batch) -> Tensor:
            held, answers, patches = (each[part] for each in batch)
            output = model.suffix(held, block)
            missed = F.mse_loss(model.backbone.pool(output), answers) / power
            return missed + F.mse_loss(output[:, prefix:], patches) / spread

        accumulator.step(loss_of, len(rows))
