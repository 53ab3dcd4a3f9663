"""ADV-TRA beyond the contract: what a trajectory is, how its step sizes are found, what failed and what it cost."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

import amb
from amb.api.vision import SuspectView
from amb.errors import AmbError, BadParamsError
from amb.testing import toy_context, toy_model
from amb_advtra import trajectories
from amb_advtra.method import AdvTra
from amb_advtra.trajectories import CountedModel, Rows, Search, adjust, draw_orders, holds, move, size_gradient

QUICK = {"n_trajectories": 8, "n_classes": 4}


def embed(folder: Path, owner: amb.VisionModel | None = None, **params):
    (folder / "scratch").mkdir(exist_ok=True)
    owner = owner or toy_model(n_classes=3)
    return AdvTra(**{**QUICK, **params}).embed(owner, toy_context(folder / "scratch"))


def search_on_toy(params: AdvTra, rows: slice = slice(None)) -> Search:
    """In double precision, so that the size of a batch does not show in the signs."""
    asked = CountedModel(toy_model(n_classes=3).double(), params.batch)
    bases = toy_context(Path(), roles=("trigger",)).split("trigger").batch(range(params.n_trajectories)).images.double()
    orders = draw_orders(asked.labels(bases), 3, params, torch.Generator().manual_seed(0))
    search = Search(params, asked, bases[rows], orders[rows])
    assert sorted(search.run()) == list(range(len(bases[rows])))
    return search


class Bands:
    """A model of known boundaries: the class of an image is how many of the walls its mean exceeds."""

    def __init__(self, *walls: float) -> None:
        self.walls = torch.tensor(walls)
        self.n_asked = 0

    def labels(self, images: torch.Tensor) -> torch.Tensor:
        self.n_asked += len(images)
        return (images.mean(dim=(1, 2, 3))[:, None] > self.walls).sum(dim=1)

    def look(self, images: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        labels = self.labels(images)
        upwards = (labels <= targets).view(-1, 1, 1, 1).expand_as(images)
        return labels, torch.where(upwards, -1.0, 1.0).to(images.dtype)


class Trap(Bands):
    """One wall, with a slope before it that leads away from it."""

    def look(self, images: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        labels, signs = super().look(images, targets)
        away = (images.mean(dim=(1, 2, 3), keepdim=True) > self.walls[0] - 0.1) & (labels == 0).view(-1, 1, 1, 1)
        return labels, torch.where(away, -signs, signs)


def search_in(asked: Bands, starts: list[float], orders: list[list[int]], **params) -> Search:
    """From images of one grey value, each with these orders of classes."""
    params = AdvTra(n_classes=1 + len(orders[0]), n_orders=len(orders), **params)
    bases = torch.tensor(starts, dtype=torch.float64).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    search = Search(params, asked, bases, torch.tensor([orders] * len(starts)))
    assert sorted(search.run()) == list(range(len(starts)))
    return search


def rows_with(sizes: torch.Tensor, **parts: torch.Tensor) -> Rows:
    n = len(sizes)
    none, images, no = torch.zeros(n, dtype=torch.int64), torch.zeros(n, 3, 2, 2), torch.zeros(n, dtype=torch.bool)
    rows = Rows(none, none, none, images, no, images, sizes, torch.full((n,), 0.9).to(sizes), no, none)
    return rows._replace(**parts)


# What a trajectory is


@pytest.mark.parametrize("n_steps", [1, 2, 3])
def test_every_class_is_reached_first_by_the_last_step_before_its_boundary(tmp_path: Path, n_steps: int) -> None:
    owner = toy_model(n_classes=3)
    key = embed(tmp_path, owner, n_steps=n_steps).key
    assert len(key.tensors["samples"])
    for samples, labels in zip(key.tensors["samples"], key.tensors["labels"], strict=True):
        with torch.no_grad():
            asked = [int(owner.logits(torch.from_numpy(sample)[None]).argmax()) for sample in samples]
        assert asked == labels.tolist()
        assert 0 <= samples.min() <= samples.max() <= 1
        for start in range(0, 2 * n_steps * 3, 2 * n_steps):
            assert asked[start + n_steps] not in asked[start : start + n_steps]


def test_steps_go_along_the_sign_of_the_gradient_and_back_through_the_same_sizes() -> None:
    search = search_on_toy(AdvTra(n_trajectories=2, n_classes=4))
    model = toy_model(n_classes=3).double()
    for path, sizes, targets in zip(search.samples, search.sizes, search.targets, strict=True):
        steps = [size for half in sizes for size in (*half, *half.flip(0))]
        for here, there, size, target in zip(path[:-1], path[1:], steps, targets.repeat_interleave(4), strict=True):
            image = here[None].clone().requires_grad_()
            F.cross_entropy(model.logits(image), target[None]).backward()
            torch.testing.assert_close(there, (here - size * image.grad[0].sign()).clamp(0, 1))


def test_joints_count_once() -> None:
    paper = AdvTra()
    assert 9 * 5 - 8 == paper.n_symbols == 37
    assert search_on_toy(AdvTra(n_trajectories=1, n_classes=5, n_steps=3)).samples.shape[1] == 4 * 7 - 3


def test_the_number_of_symbols_does_not_depend_on_the_classes_of_the_model(tmp_path: Path) -> None:
    for n_classes in (2, 3, 7):
        key = embed(tmp_path, toy_model(n_classes=n_classes), n_trajectories=2, n_classes=5).key
        assert key.tensors["labels"].shape[1] == AdvTra(n_classes=5).n_symbols == 17


@pytest.mark.parametrize("n_classes", [2, 3, 5, 20])
def test_orders_visit_every_class_once_a_round_and_none_twice_in_a_row(n_classes: int) -> None:
    params, own = AdvTra(n_classes=12), torch.arange(n_classes).repeat(4)
    orders = draw_orders(own, n_classes, params, torch.Generator().manual_seed(0))
    assert orders.shape == (4 * n_classes, params.n_orders, 11)
    for label, order in ((int(label), order.tolist()) for label, of in zip(own, orders, strict=True) for order in of):
        visited = [label, *order]
        assert all(a != b for a, b in pairwise(visited))
        rounds = [visited[start : start + n_classes] for start in range(0, 12, n_classes)]
        assert all(len(set(each)) == len(each) for each in rounds)
    assert len({tuple(order) for order in orders[0].tolist()}) > 1 or n_classes == 2


@pytest.mark.parametrize("n_steps", [1, 2, 3])
@pytest.mark.parametrize("n_classes", [2, 5, 10])
def test_tau_means_a_mutation_rate_below_one_half(n_steps: int, n_classes: int) -> None:
    params = AdvTra(n_steps=n_steps, n_classes=n_classes)
    assert params.default_tau / params.n_symbols < 0.5
    assert (params.default_tau + 1) / params.n_symbols >= 0.5


def test_conditions_are_checked_on_every_sample() -> None:
    targets, samples = torch.tensor([[1, 0]]), torch.full((1, 9, 3, 2, 2), 0.5)
    good = torch.tensor([[2, 2, 1, 1, 1, 1, 0, 0, 0]])

    def with_label(place: int, label: int) -> torch.Tensor:
        return torch.where(torch.arange(9) == place, label, good)

    assert holds(samples, good, targets, 2).tolist() == [True]
    assert holds(samples, with_label(3, 2), targets, 2).tolist() == [True], "beyond the boundary any label will do"
    for place, label in ((0, 1), (1, 1), (2, 2), (4, 0), (5, 0), (6, 1)):
        assert holds(samples, with_label(place, label), targets, 2).tolist() == [False]
    for value in (-0.01, 1.01):
        outside = samples.clone()
        outside[0, 4, 0, 0, 0] = value
        assert holds(outside, good, targets, 2).tolist() == [False]


# The search for the step sizes


def test_the_gradient_of_the_sizes_is_that_of_the_brake_and_forward_terms() -> None:
    sizes = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    brake = sum((0.9 * sizes[:, i] - sizes[:, i + 1]).square() for i in range(3))
    (brake.sum() + F.relu(-sizes).sum()).backward()
    assert (sizes < 0).any()
    torch.testing.assert_close(size_gradient(sizes.detach(), 0.9), sizes.grad)


def test_the_brake_shortens_steps_towards_the_boundary() -> None:
    rows = rows_with(torch.tensor([[0.05, 0.048]], dtype=torch.float64), factor=torch.ones(1, dtype=torch.float64))
    for _ in range(75):
        rows = adjust(rows, torch.tensor([False]), AdvTra())
    assert (rows.sizes[0, 1] / rows.sizes[0, 0]).item() == pytest.approx(0.9, abs=1e-4)


def test_length_control_shortens_what_is_early_and_lengthens_what_is_late() -> None:
    sizes = torch.tensor([[0.05, 0.048]] * 2, dtype=torch.float64)
    rows = adjust(rows_with(sizes), torch.tensor([True, False]), AdvTra(rate=0))
    torch.testing.assert_close(rows.sizes, torch.stack([sizes[0] * 0.9, sizes[0] / 0.9]))
    assert rows.iteration.tolist() == [1, 1]


def test_a_change_of_direction_takes_the_root_of_the_factor() -> None:
    rows = rows_with(torch.full((2, 2), 0.05), iteration=torch.tensor([1, 0]))
    rows = adjust(rows, torch.tensor([True, True]), AdvTra())
    assert rows.factor.tolist() == pytest.approx([0.9**0.5, 0.9]), "the second has no direction yet"


@pytest.mark.parametrize(("start", "direction"), [(0.2, -1), (0.48, 1)])
def test_the_search_ends_at_the_first_sizes_that_pass_the_wall_with_the_last_step(start: float, direction: int) -> None:
    search = search_in(Bands(0.5), [start], [[1]], rate=0)
    scales = [0.9 ** (direction * n) for n in range(99)]
    n = next(n for n in range(99) if start + 0.05 * scales[n] < 0.5 < start + 0.098 * scales[n])
    assert n > 0, "the first sizes must not do"
    assert search.iterations.tolist() == [[n + 1]]
    torch.testing.assert_close(search.sizes[0, 0], torch.tensor([0.05, 0.048], dtype=torch.float64) * scales[n])


def test_each_sample_is_asked_once_an_iteration() -> None:
    search = search_in(Bands(0.5), [0.2], [[1]], n_steps=3)
    iterations = int(search.iterations)
    assert iterations > 1
    assert search.asked.n_asked == 1 + 3 * iterations + 3, "the start once; l an iteration; l beyond the boundary"


def test_the_model_runs_as_often_as_is_reported(tmp_path: Path) -> None:
    owner, seen = toy_model(n_classes=3), []
    asked = CountedModel(owner, batch=3)
    asked._model.heads["classification"].register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    images = torch.rand(8, 3, 16, 16)
    label, sign = asked.look(images, torch.zeros(8, dtype=torch.int64))
    assert seen == [3, 3, 2], "one forward serves label and gradient"
    assert (asked.forwards, asked.backwards) == (8, 8)
    torch.testing.assert_close(label, asked.labels(images))
    assert (asked.forwards, asked.backwards) == (16, 8)
    assert set(sign.unique().tolist()) <= {-1.0, 0.0, 1.0}


def test_rows_find_together_what_each_finds_alone() -> None:
    params = AdvTra(n_trajectories=6, n_classes=4)
    together = search_on_toy(params)
    assert together.complete.all()
    assert len(together.iterations.unique()) > 1, "rows must finish at different times"
    for row in range(6):
        alone = search_on_toy(params, slice(row, row + 1))
        torch.testing.assert_close(together.samples[row], alone.samples[0])
        torch.testing.assert_close(together.sizes[row], alone.sizes[0])
        assert together.iterations[row].tolist() == alone.iterations[0].tolist()


def test_the_batch_does_not_change_what_is_found() -> None:
    large, small = (search_on_toy(AdvTra(n_trajectories=5, n_classes=3, batch=batch)) for batch in (128, 2))
    torch.testing.assert_close(large.samples, small.samples)


# What fails


def test_a_row_that_fails_starts_again_with_its_next_order() -> None:
    search = search_in(Bands(0.5, 0.7, 2.0), [0.4], [[1, 3], [1, 2]])  # class 3 is out of reach
    assert search.complete.tolist() == [True]
    assert search.targets.tolist() == [[1, 2]]
    means = search.samples[0].mean(dim=(1, 2, 3))
    alone = search_in(Bands(0.5, 0.7, 2.0), [0.4], [[1, 2]]).samples[0].mean(dim=(1, 2, 3))
    assert means[0].item() == pytest.approx(0.4)
    torch.testing.assert_close(means, alone)


def test_a_row_out_of_orders_is_left_out_and_the_others_are_not() -> None:
    search = search_in(Bands(0.5), [0.4, 0.9, 0.42], [[1], [1]])  # the second starts beyond the wall
    assert search.complete.tolist() == [True, False, True]


def test_a_start_in_the_class_that_is_sought_does_not_count_as_not_there_yet() -> None:
    asked = Bands(0.5, 0.8)
    _, sign = asked.look(torch.full((1, 3, 2, 2), 0.79), torch.tensor([1]))
    assert sign.unique().tolist() == [-1.0], "x_1 leaves the class upwards, and x_2 would be the first to be back"
    search = search_in(Bands(0.5, 0.8), [0.79], [[1]])
    assert search.complete.tolist() == [False]
    assert search.asked.n_asked == 1 + 2, "one iteration is enough to know"


def test_a_wall_out_of_reach_ends_the_search() -> None:
    search = search_in(Bands(2.0), [0.4], [[1]])
    assert search.complete.tolist() == [False]
    assert search.asked.n_asked < 2 * 40, "it ends when a step takes any pixel to the end of its range"


def test_what_is_early_or_late_but_never_right_ends_the_search() -> None:
    search = search_in(Trap(0.5), [0.3], [[1]])
    assert search.complete.tolist() == [False]
    assert search.asked.n_asked < 2 * 40, "it ends when the sizes between early and late are as good as equal"


def test_max_iterations_bounds_the_search_of_each_segment() -> None:
    free = search_in(Bands(0.4, 0.7), [0.2], [[1, 2]])
    needed = int(free.iterations.max())
    second = search_in(Bands(0.4, 0.7), [float(free.samples[0, 4].mean())], [[2]])
    assert free.iterations[0, 1] == second.iterations[0, 0], "each segment counts from 0"
    assert search_in(Bands(0.4, 0.7), [0.2], [[1, 2]], max_iterations=needed).complete.all()
    assert not search_in(Bands(0.4, 0.7), [0.2], [[1, 2]], max_iterations=needed - 1).complete.any()


def test_what_failed_is_kept_out_of_the_key_and_counted(tmp_path: Path) -> None:
    embedding = embed(tmp_path, n_trajectories=32, n_classes=3, max_iterations=4, n_orders=1)
    kept = len(embedding.key.tensors["samples"])
    assert 0 < kept < 32
    assert embedding.facts["trajectories"] == kept
    assert embedding.facts["success_rate"] == pytest.approx(kept / 32, abs=1e-4)
    assert embedding.facts["iterations"]["max"] <= 4
    assert embedding.facts["orders"] == 32


def test_what_does_not_hold_when_asked_afresh_is_kept_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = embed(tmp_path, n_trajectories=4)
    monkeypatch.setattr(trajectories, "holds", lambda *parts: holds(*parts) & (torch.arange(4) != 2))
    embedding = embed(tmp_path, n_trajectories=4)
    assert embedding.facts["success_rate"] == 0.75
    assert (embedding.key.tensors["samples"] == whole.key.tensors["samples"][[0, 1, 3]]).all()
    assert (embedding.key.tensors["labels"] == whole.key.tensors["labels"][[0, 1, 3]]).all()


def test_finding_none_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(AmbError, match="no trajectory was found on toy/1 from 2 images. Raise n_orders"):
        embed(tmp_path, n_trajectories=2, n_classes=10, max_iterations=1, n_orders=1)


def test_more_trajectories_than_images_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadParamsError, match="n_trajectories is 1000, but the suite has 128"):
        embed(tmp_path, n_trajectories=1000)


# Embedding and reading


def test_a_step_is_clipped() -> None:
    images = torch.tensor([0.02, 0.5, 0.98]).view(1, 3, 1, 1)
    moved = move(images, torch.tensor([0.05]), torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1))
    torch.testing.assert_close(moved.flatten(), torch.tensor([0.0, 0.55, 1.0]))


def test_the_owner_is_returned_as_it_came(tmp_path: Path) -> None:
    owner = toy_model(n_classes=3).train()
    frozen = next(owner.parameters()).requires_grad_(False)
    embedding = embed(tmp_path, owner)
    assert embedding.model is owner
    assert owner.training
    assert not frozen.requires_grad
    assert sum(weight.requires_grad for weight in owner.parameters()) == len(list(owner.parameters())) - 1
    assert all(weight.grad is None for weight in owner.parameters())


def test_starts_are_trigger_images_and_differ(tmp_path: Path) -> None:
    starts = torch.from_numpy(embed(tmp_path).key.tensors["samples"][:, 0])
    triggers = toy_context(tmp_path).split("trigger").batch(range(128)).images
    found = {int((triggers == start).flatten(1).all(dim=1).nonzero()) for start in starts}
    assert len(found) == len(starts)


def test_reading_in_small_batches_gives_the_same_labels(tmp_path: Path) -> None:
    embedding, suspect = embed(tmp_path), toy_model(2, n_classes=3)
    large, small = (
        AdvTra(**QUICK, batch=batch).extract(SuspectView(suspect, "labels"), embedding.key, SimpleNamespace())
        for batch in (128, 5)
    )
    assert (large.observed == small.observed).all()
    assert large.alphabet == 3
    with torch.no_grad():
        last = suspect.logits(torch.from_numpy(embedding.key.tensors["samples"][-1])).argmax(dim=1)
    assert large.observed[-1].tolist() == last.tolist()


def test_what_does_not_apply_is_skipped_with_a_reason(tmp_path: Path) -> None:
    method, key = AdvTra(), embed(tmp_path).key
    assert method.skip(toy_model().facts()) is None, "the engine gives it a head"
    assert method.skip(toy_model(n_classes=2).facts()) is None
    assert method.skip(toy_model(n_classes=1).facts()) == "toy/1 has 1 class, so no boundary to cross"
    assert method.skip(toy_model(n_classes=3).facts(), key) is None
    assert method.skip(toy_model().facts(), key) == "toy/1 has no classification head to ask for labels"
    assert method.skip(toy_model(n_classes=7).facts(), key) == "the key's labels are of 3 classes, toy/1 has 7"
