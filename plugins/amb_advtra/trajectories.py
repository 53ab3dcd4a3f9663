"""The search for adversarial trajectories: all of a key advance in one batch, each at its own pace; and reading them.

Between two classes lies a segment of 2l + 1 samples: the start x_0, l steps x_{i+1} = x_i - s_i sign(grad L(x_i, t)) of
which the last is the first in class t, and l more of the sizes s_l ... s_1. Its last sample starts the next segment.
The search for the sizes follows the paper: one gradient step on the brake and forward terms, then length control.

Where this differs from the paper and the authors' code:

- A row is done as soon as it meets the conditions; their code first lets 75 iterations pass.
- Each change of direction takes the root of the length control's factor, so that it bisects; the paper's factor is
  constant, the code's drifts towards .95.
- An image whose order of classes fails gets another order; the code takes the next image.
- Pixels are clipped; the code leaves a pixel where it is if it would leave [0, 1].
- The first step is checked too; the code checks the start in its place.
- A joint is stored once, so that there are 37 samples; the code stores it twice, 45.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional as F

import amb
from amb import BatchSizeLimiter

if TYPE_CHECKING:
    from amb_advtra.method import AdvTra

_SHRINK = 0.04  # of the first step: the paper's .05, .048, .046, ...
_LONGEST = 1.0  # a step of this size takes any pixel to the end of its range
_CLOSED = 0.999  # a length control so close to 1 is done bisecting


def embed(params: AdvTra, owner: amb.VisionModel, ctx: amb.Context) -> amb.Embedding:
    """Search from random trigger images; the key is what holds when all samples are asked afresh."""
    asked = CountedModel(owner, params.batch, ctx.limiter)
    bases = _draw_bases(params, ctx).to(owner.device)
    orders = draw_orders(asked.labels(bases), _count_classes(owner), params, ctx.generator("orders of classes"))
    search = Search(params, asked, bases, orders)
    for _ in ctx.progress.track(search.run(), "trajectories", params.n_trajectories):
        pass
    labels = asked.labels(search.samples.flatten(0, 1)).view(search.samples.shape[:2]).cpu()
    kept = search.complete & holds(search.samples, labels, search.targets, params.n_steps)
    if not kept.any():
        raise amb.AmbError(
            f"method {params.name}: no trajectory was found on {owner.ref} from {params.n_trajectories} images. "
            f"Raise n_orders or max_iterations."
        )
    tensors = {"samples": search.samples[kept].numpy(), "labels": labels[kept].numpy()}
    key = amb.Key(params.canonical(), owner.digest(), tensors, {"n_classes": _count_classes(owner)})
    return amb.Embedding(owner, key, _describe_search(search, kept))


def extract(params: AdvTra, suspect: amb.SuspectView, key: amb.Key) -> amb.Evidence:
    """The labels that the owner's model gave the samples, and those of the suspect, (trajectories, samples)."""
    samples = torch.from_numpy(key.tensors["samples"])
    observed = torch.cat([suspect.labels(part) for part in torch.split(samples.flatten(0, 1), params.batch)])
    return amb.Evidence(
        expected=key.tensors["labels"],
        observed=observed.view(samples.shape[:2]).cpu().numpy(),
        alphabet=key.facts["n_classes"],
    )


class CountedModel:
    """The owner's model as the search asks it, frozen; counts the images."""

    def __init__(self, owner: amb.VisionModel, batch: int, limiter: BatchSizeLimiter | None = None) -> None:
        self._model = owner.copy().requires_grad_(False).eval()
        self._limiter = limiter or BatchSizeLimiter("searching")
        self._batch = batch
        self.forwards = 0
        self.backwards = 0

    @torch.no_grad()
    def labels(self, images: Tensor) -> Tensor:
        """Predicted classes, (n,)."""
        return torch.cat([self._ask_logits(part).argmax(dim=1) for part in torch.split(images, self._batch)])

    def look(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Predicted classes, (n,), and the sign of the gradient towards the targets, as the images: one forward."""
        pairs = zip(torch.split(images, self._batch), torch.split(targets, self._batch), strict=True)
        labels, signs = zip(*(self._look_in_parts(*pair) for pair in pairs), strict=True)
        return torch.cat(labels), torch.cat(signs)

    def _look_in_parts(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The same of one batch, in parts where it does not fit: no image's gradient depends on the others."""
        looked = self._limiter.fit(
            lambda parts: [self._look_at_once(images[part], targets[part]) for part in parts], len(images)
        )
        labels, signs = zip(*looked, strict=True)
        return torch.cat(labels), torch.cat(signs)

    def _look_at_once(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        images = images.detach().requires_grad_()
        logits = self._ask_logits(images)
        self.backwards += len(images)
        loss = F.cross_entropy(logits, targets, reduction="sum")  # the images' gradients are independent
        return logits.argmax(dim=1), torch.autograd.grad(loss, images)[0].sign()

    def _ask_logits(self, images: Tensor) -> Tensor:
        self.forwards += len(images)
        return self._model.logits(images)


class Rows(NamedTuple):
    """Trajectories under way, a row each: where the present segment starts, and the step sizes to try next."""

    trajectory: Tensor  # (rows,) which one
    order: Tensor  # (rows,) which of its orders of classes
    segment: Tensor  # (rows,)
    start: Tensor  # (rows, 3, height, width)
    inside: Tensor  # (rows,) whether the start lies in the class that is sought, so that no step sizes can help
    sign: Tensor  # (rows, 3, height, width) of the gradient at the start, which serves every iteration
    sizes: Tensor  # (rows, steps)
    factor: Tensor  # (rows,) of length control
    early: Tensor  # (rows,) whether the class was reached early the last time
    iteration: Tensor  # (rows,) how many there were

    def where(self, mask: Tensor) -> Rows:
        """These rows alone."""
        return Rows(*(part[mask] for part in self))

    def join(self, other: Rows) -> Rows:
        """Both."""
        return Rows(*(torch.cat(parts) for parts in zip(self, other, strict=True)))


class Search:
    """The trajectories of a key. A row that arrives goes on to its next class at once, so the batch stays full."""

    def __init__(self, params: AdvTra, asked: CountedModel, bases: Tensor, orders: Tensor) -> None:
        """Search from `bases`, (n, 3, height, width), towards the classes in `orders`, (n, orders, m - 1)."""
        n, segments = len(bases), orders.shape[2]
        self._params, self._bases, self._orders = params, bases, orders.to(bases.device)
        self.asked = asked
        self.complete = torch.zeros(n, dtype=torch.bool)
        self.order = torch.zeros(n, dtype=torch.int64)  # the last one tried
        self.samples = torch.zeros(n, params.n_symbols, *bases.shape[1:], dtype=bases.dtype)
        self.sizes = torch.zeros(n, segments, params.n_steps, dtype=bases.dtype)
        self.iterations = torch.zeros(n, segments, dtype=torch.int64)

    @property
    def targets(self) -> Tensor:
        """The classes that each trajectory visits after its own, (n, m - 1)."""
        return self._orders.cpu()[torch.arange(len(self.order)), self.order]

    def run(self) -> Iterator[int]:
        """Advance all rows until each is complete or out of orders; yields each trajectory as it ends."""
        rows = self._enter_segment(self._make_first_rows())
        while len(rows.trajectory):
            samples, hits = self._walk_steps(rows)
            early = hits[:, :-1].any(dim=1)
            found = hits[:, -1] & ~early & ~rows.inside
            arrived = self._cross_boundary(rows.where(found), samples[found])
            others = adjust(rows.where(~found), early[~found], self._params)
            lost = self._is_lost(others)
            again = self._restart_rows(others.where(lost))

            complete, failed = arrived.segment == self._orders.shape[2], again.order == self._orders.shape[1]
            self.complete[arrived.trajectory[complete].cpu()] = True
            entering = arrived.where(~complete).join(again.where(~failed))
            rows = others.where(~lost).join(self._enter_segment(entering))
            yield from torch.cat([arrived.trajectory[complete], again.trajectory[failed]]).tolist()

    def _make_first_rows(self) -> Rows:
        every = torch.arange(len(self._bases), device=self._bases.device)
        none, sizes = torch.zeros_like(every), self._bases.new_zeros(len(every), self._params.n_steps)
        return Rows(every, none, none, self._bases, none > 0, self._bases, sizes, sizes[:, 0], none > 0, none)

    def _enter_segment(self, rows: Rows) -> Rows:
        """Rows at the start of a segment, as the search for its step sizes begins."""
        if not len(rows.trajectory):
            return rows
        self.order[rows.trajectory.cpu()] = rows.order.cpu()
        labels, sign = self.asked.look(rows.start, self._find_target(rows))
        shares = 1 - _SHRINK * torch.arange(self._params.n_steps, device=sign.device)
        return rows._replace(
            inside=labels == self._find_target(rows),
            sign=sign,
            sizes=(self._params.first_step * shares).to(sign.dtype).repeat(len(sign), 1),
            factor=torch.full_like(rows.factor, self._params.control),
            iteration=torch.zeros_like(rows.iteration),
        )

    def _walk_steps(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """The samples x_1 ... x_l, (rows, l, 3, height, width), and which lie in the target class, (rows, l)."""
        target = self._find_target(rows)
        samples, labels = [move(rows.start, rows.sizes[:, 0], rows.sign)], []
        for sizes in rows.sizes.T[1:]:
            label, sign = self.asked.look(samples[-1], target)
            labels.append(label)
            samples.append(move(samples[-1], sizes, sign))
        labels.append(self.asked.labels(samples[-1]))  # most rows need no gradient here
        return torch.stack(samples, dim=1), torch.stack(labels, dim=1) == target[:, None]

    def _cross_boundary(self, rows: Rows, samples: Tensor) -> Rows:
        """Take l more steps of the same sizes in reverse, keep all samples; the rows, at the end of their segment."""
        if not len(rows.trajectory):
            return rows
        path = [rows.start, *samples.unbind(dim=1)]
        for sizes in rows.sizes.T.flip(0):
            _, sign = self.asked.look(path[-1], self._find_target(rows))
            path.append(move(path[-1], sizes, sign))
        row, segment = rows.trajectory.cpu(), rows.segment.cpu()
        for place, sample in enumerate(path):
            self.samples[row, 2 * self._params.n_steps * segment + place] = sample.cpu()
        self.sizes[row, segment] = rows.sizes.cpu()
        self.iterations[row, segment] = rows.iteration.cpu() + 1
        return rows._replace(segment=rows.segment + 1, start=path[-1])

    def _restart_rows(self, rows: Rows) -> Rows:
        """Rows back at their image, with its next order of classes."""
        return rows._replace(
            order=rows.order + 1, segment=torch.zeros_like(rows.segment), start=self._bases[rows.trajectory]
        )

    def _is_lost(self, rows: Rows) -> Tensor:
        """Which rows no more iterations will help, (rows,) bool."""
        spent = rows.iteration >= self._params.max_iterations
        return rows.inside | spent | (rows.sizes.amax(dim=1) > _LONGEST) | (rows.factor > _CLOSED)

    def _find_target(self, rows: Rows) -> Tensor:
        return self._orders[rows.trajectory, rows.order, rows.segment]


def move(images: Tensor, sizes: Tensor, signs: Tensor) -> Tensor:
    """One step against the gradient, clipped to [0, 1]."""
    return (images - sizes.view(-1, 1, 1, 1) * signs).clamp(0, 1)


def adjust(rows: Rows, early: Tensor, params: AdvTra) -> Rows:
    """A gradient step on the sizes of rows that failed; then length control: shorter where early, longer where late."""
    turned = (rows.iteration > 0) & (early != rows.early)
    factor = torch.where(turned, rows.factor.sqrt(), rows.factor)
    sizes = rows.sizes - params.rate * size_gradient(rows.sizes, params.brake)
    sizes = sizes * torch.where(early, factor, 1 / factor)[:, None]
    return rows._replace(sizes=sizes, factor=factor, early=early, iteration=rows.iteration + 1)


def size_gradient(sizes: Tensor, brake: float) -> Tensor:
    """Gradient of the brake term, sum over i of (a s_i - s_{i+1})^2, and the forward term, sum of ReLU(-s_i)."""
    gap = brake * sizes[:, :-1] - sizes[:, 1:]
    gradient = -(sizes < 0).to(sizes.dtype)
    gradient[:, :-1] += 2 * brake * gap
    gradient[:, 1:] -= 2 * gap
    return gradient


def holds(samples: Tensor, labels: Tensor, targets: Tensor, n_steps: int) -> Tensor:
    """Which trajectories stay in [0, 1] and reach each target first at its l-th step, (n,) bool."""
    segments = labels.unfold(1, 2 * n_steps + 1, 2 * n_steps)  # (n, segments, 2 l + 1), joints in both
    inside = segments == targets[:, :, None]
    first = inside[..., n_steps] & ~inside[..., :n_steps].any(dim=2)
    pixels = samples.flatten(1)
    return first.all(dim=1) & (pixels.amin(dim=1) >= 0) & (pixels.amax(dim=1) <= 1)


def draw_orders(labels: Tensor, n_classes: int, params: AdvTra, generator: torch.Generator) -> Tensor:
    """Random orders of classes for images of these labels, (n, orders, m - 1): each round visits every class once.

    The first round leaves out the image's own class. A model of fewer than m classes is visited in further rounds,
    so that the number of samples depends on the parameters alone; no class follows itself.
    """
    orders = [
        [_draw_order(own, n_classes, params.n_classes - 1, generator) for _ in range(params.n_orders)]
        for own in labels.tolist()
    ]
    return torch.tensor(orders)


def _draw_order(own: int, n_classes: int, length: int, generator: torch.Generator) -> list[int]:
    order = [each for each in torch.randperm(n_classes, generator=generator).tolist() if each != own]
    while len(order) < length:
        more: list[int] = torch.randperm(n_classes, generator=generator).tolist()
        order += more if more[0] != order[-1] else more[::-1]
    return order[:length]


def _draw_bases(params: AdvTra, ctx: amb.Context) -> Tensor:
    split = ctx.split("trigger")
    if params.n_trajectories > len(split):
        raise amb.BadParamsError(
            f"method {params.name}: n_trajectories is {params.n_trajectories}, "
            f"but the suite has {len(split)} trigger images."
        )
    chosen = torch.randperm(len(split), generator=ctx.generator("start images"))[: params.n_trajectories]
    return split.batch(chosen.tolist()).images


def _count_classes(owner: amb.VisionModel) -> int:
    return cast(int, owner.heads["classification"].n_classes)


def _describe_search(search: Search, kept: Tensor) -> dict[str, Any]:
    iterations, sizes = search.iterations[kept], search.sizes[kept].flatten(0, 1)
    return {
        "trajectories": int(kept.sum()),
        "success_rate": round(kept.double().mean().item(), 4),
        "orders": int(search.order.sum()) + len(kept),
        "iterations": {"mean": round(iterations.double().mean().item(), 2), "max": int(iterations.max())},
        "step_sizes": [round(size, 4) for size in sizes.mean(dim=0).tolist()],
        "forwards": search.asked.forwards,
        "backwards": search.asked.backwards,
    }
