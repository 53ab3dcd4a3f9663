"""How models compute: precision, parts that fit into memory, steps of training, images read ahead."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import amb
from amb.api.data import Batch, read_ahead
from amb.errors import BadParamsError, OutOfMemoryError
from amb.runtime.batch_size import BatchSizeLimiter, ran_out
from amb.runtime.compute import Compute, pick_device
from amb.testing import toy_context, toy_model
from amb.testing.toy import ToySplit
from amb.training.accumulate import GradientAccumulator
from amb.training.config import TrainingConfig
from amb.training.loop import tune
from tests.conftest import QUICK

IMAGES = torch.rand(12, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def full_beyond(n: int, asked: list[int]) -> Any:
    """A forward hook: memory for n images and no more."""

    def refuse(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        asked.append(len(inputs[0]))
        if len(inputs[0]) > n:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    return refuse


def cramped_model(n: int, **sizes: int) -> tuple[amb.VisionModel, list[int]]:
    """A toy model whose last block has memory for n images, and how many it was asked for."""
    model, asked = toy_model(**sizes), []
    model.backbone.blocks[-1].register_forward_pre_hook(full_beyond(n, asked))
    return model, asked


# Parts that fit


@pytest.mark.parametrize(
    ("n", "most", "sizes"), [(7, None, [7]), (7, 3, [2, 3, 2]), (6, 3, [3, 3]), (2, 5, [2]), (0, 4, [0])]
)
def test_parts_cover_all_rows_in_order_and_none_is_too_large(n: int, most: int | None, sizes: list[int]) -> None:
    parts = BatchSizeLimiter("reading", most).parts(n)
    assert [part.stop - part.start for part in parts] == sizes
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(n))


def test_reading_goes_on_in_smaller_parts_where_memory_runs_out_and_says_so() -> None:
    said: list[str] = []
    model, asked = cramped_model(5)
    model.limiter = BatchSizeLimiter("reading", say=said.append)
    with torch.no_grad():
        torch.testing.assert_close(model.features(IMAGES), toy_model().features(IMAGES))
        assert asked == [12, 6, 3, 3, 3, 3]
        assert said == [
            "memory ran out reading with 12 images at once; going on with 6 at once",
            "memory ran out reading with 6 images at once; going on with 3 at once",
        ]
        asked.clear()
        model.features(IMAGES)
    assert asked == [3, 3, 3, 3], "what did not fit is not tried again"


def test_a_copy_has_learnt_what_its_original_has() -> None:
    model, _ = cramped_model(5)
    with torch.no_grad():
        model.features(IMAGES)
    assert model.copy().limiter.most == 3


def test_one_image_that_does_not_fit_is_an_error_that_says_what_to_do() -> None:
    model, _ = cramped_model(0)
    with torch.no_grad(), pytest.raises(OutOfMemoryError, match="one image at a time .*--precision bf16"):
        model.features(IMAGES)


def test_other_errors_are_no_lack_of_memory() -> None:
    def fail(_: list[slice]) -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        BatchSizeLimiter("reading").fit(fail, 4)
    assert ran_out(
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
    )
    assert ran_out(RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"))


# Steps of training


@pytest.mark.parametrize("most", [1, 3, 5])
def test_gradients_in_parts_are_those_of_the_whole_batch(tmp_path: Path, most: int) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(8, 4, generator=generator), torch.randn(8, 2, generator=generator)
    layers = [nn.Linear(4, 2, bias=False) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    losses = []
    for layer, room in zip(layers, (None, most), strict=True):
        ctx = toy_context(tmp_path, limiter=BatchSizeLimiter("training", room))
        accumulator = GradientAccumulator(ctx, torch.optim.SGD(layer.parameters(), lr=0.1))
        losses.append(
            accumulator.step(lambda part, layer=layer: F.mse_loss(layer(inputs[part]), targets[part]), len(inputs))
        )
    torch.testing.assert_close(layers[1].weight, layers[0].weight)
    torch.testing.assert_close(losses[1], losses[0])


def test_training_begins_a_step_anew_where_memory_runs_out_and_reports_it(tmp_path: Path) -> None:
    weight = nn.Parameter(torch.tensor(1.0))
    sizes = []

    def loss_of(part: slice) -> Tensor:
        sizes.append(part.stop - part.start)
        loss = weight * (part.stop - part.start) / (part.stop - part.start)
        if len(sizes) == 2:  # the second part of the second try, when the first has left its gradient
            raise torch.OutOfMemoryError("out of memory")
        return loss

    ctx = toy_context(tmp_path, limiter=BatchSizeLimiter("training", 4))
    GradientAccumulator(ctx, torch.optim.SGD([weight], lr=1.0)).step(loss_of, 8)
    assert sizes == [4, 4, 2, 2, 2, 2]
    assert weight.item() == pytest.approx(0.0), "the gradient of a mean of ones is one"
    assert ctx.notes == {"images_at_once": 2}


def test_fine_tuning_in_parts_is_the_same_up_to_rounding(tmp_path: Path) -> None:
    whole, parts = (_tuned(tmp_path, limiter=BatchSizeLimiter("training", most)) for most in (None, 3))
    with torch.no_grad():  # weights that the output does not depend on, as keys' biases, Adam moves by rounding alone
        torch.testing.assert_close(parts.logits(IMAGES), whole.logits(IMAGES), atol=1e-4, rtol=1e-4)
        assert not torch.allclose(whole.logits(IMAGES), toy_model(n_classes=3).eval().logits(IMAGES), atol=1e-3)


def _tuned(folder: Path, **more: Any) -> amb.VisionModel:
    """The toy model with a new head, without dropout, which draws for each part anew."""
    ctx = toy_context(folder, roles=("owner",), **more)
    model = toy_model(n_classes=3)
    model.heads["classification"].dropout.p = 0.0
    return tune(
        model, ctx.split("owner"), "classification", TrainingConfig(lr=1e-3, epochs=1, n_images=32), ctx, head="keep"
    )


@pytest.mark.parametrize(
    "spec", [QUICK, f"{QUICK},contrast=0.5,prune_noise=0.3", "ipguard:n_points=8,max_iterations=30,k=0.1"]
)
def test_a_method_makes_the_same_key_in_parts(manager, tmp_path: Path, spec: str) -> None:
    method = manager.registry.method(spec, {"steps": "10"} if spec.startswith("activemark") else {})
    keys = []
    for most in (None, 3):
        ctx = toy_context(tmp_path, "0", roles=("owner", "trigger"), limiter=BatchSizeLimiter("training", most))
        model = toy_model(n_classes=3)
        model.limiter = BatchSizeLimiter("reading", most)
        keys.append(method.embed(model, ctx).key)
    for name, array in keys[0].tensors.items():
        torch.testing.assert_close(
            torch.from_numpy(keys[1].tensors[name]), torch.from_numpy(array), atol=1e-4, rtol=1e-3
        )


# Precision


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_blocks_compute_in_the_precision_and_tokens_come_out_in_full(precision: Any) -> None:
    model, seen = toy_model(), []
    model.precision = precision
    layer = model.backbone.blocks[0].linear1
    layer.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    with torch.no_grad():
        tokens = model.train().tokens(IMAGES)  # torch's own block takes a shortcut past its layers in evaluation
    assert seen == [{"bf16": torch.bfloat16, "fp16": torch.float16}[precision]]
    assert tokens.dtype == torch.float32
    assert layer.weight.dtype == torch.float32
    torch.testing.assert_close(tokens, toy_model().train().tokens(IMAGES), atol=0.1, rtol=0.1)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_fine_tuning_in_half_precision_ends_near_that_in_full(tmp_path: Path, precision: Any) -> None:
    start, whole = toy_model(n_classes=3).state_dict(), _tuned(tmp_path).state_dict()
    ctx = Compute(precision=precision)
    model = toy_model(n_classes=3).place(ctx)
    half = _tuned_from(model, tmp_path, ctx).state_dict()
    moved = sum(float((whole[name] - start[name]).square().sum()) for name in start)
    apart = sum(float((whole[name] - half[name]).square().sum()) for name in start)
    assert 0 < apart < 0.5 * moved


def _tuned_from(model: amb.VisionModel, folder: Path, compute: Compute) -> amb.VisionModel:
    ctx = toy_context(folder, roles=("owner",), compute=compute)
    model.heads["classification"].dropout.p = 0.0
    return tune(
        model, ctx.split("owner"), "classification", TrainingConfig(lr=1e-3, epochs=1, n_images=32), ctx, head="keep"
    )


def test_fp16_scales_gradients_and_takes_no_step_that_overflows(tmp_path: Path) -> None:
    ctx = toy_context(tmp_path, compute=Compute(precision="fp16"))
    weight = nn.Parameter(torch.tensor(1.0))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    accumulator = GradientAccumulator(ctx, optimizer, rate)
    accumulator.step(lambda _: weight * 1.0, 1)
    assert weight.item() == pytest.approx(0.5), "the scale is taken out again"
    accumulator.step(lambda _: weight * torch.inf, 1)
    assert weight.item() == pytest.approx(0.5)
    assert rate.last_epoch == 1


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # of the compiler's own looking around
def test_blocks_of_one_form_are_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from amb.api import vision

    graphs = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    vision._compile_block.cache_clear()
    monkeypatch.setattr(vision.torch, "compile", partial(torch.compile, backend=backend))
    model = toy_model().train()  # torch's own block takes a shortcut in evaluation that cannot be compiled
    expected = model.tokens(IMAGES)
    model.compiled = True
    torch.testing.assert_close(model.tokens(IMAGES), expected)
    vision._compile_block.cache_clear()
    assert model.n_blocks > 1
    assert len(graphs) == 1


# Where and how


def test_a_definition_names_what_rounds_otherwise_and_nothing_else() -> None:
    assert Compute("cuda:1", max_batch=8, load_threads=4, deterministic=True).definition() == {"device": "cuda"}
    assert Compute("cpu", "bf16", tf32=True).definition() == {"device": "cpu", "precision": "bf16", "tf32": True}


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "tpu"])
def test_unknown_devices_are_named(name: str) -> None:
    with pytest.raises(BadParamsError, match=f"There is no device '{name}'"):
        pick_device(name)


def test_results_say_how_they_were_computed(manager, tmp_path: Path) -> None:
    from amb.api.run import Run
    from amb.execution.planning import make_plan
    from amb.execution.provenance import find_provenance
    from amb.results.document import document

    plan = make_plan(manager.registry, suite="toy", methods=[QUICK], attacks=[]).on(
        Compute(precision="bf16", max_batch=4)
    )
    said = document(Run("r", plan, tmp_path, find_provenance([])))["run"]
    assert said["device"] == "cpu"
    assert said["compute"] == {
        "device": "cpu", "device_name": "cpu", "precision": "bf16", "compiled": False, "tf32": False, "deterministic": False,
        "max_batch": 4,
    }  # fmt: skip


# Reading ahead


def test_images_read_ahead_are_the_same_in_the_same_order() -> None:
    split = ToySplit("owner")
    rows = [torch.tensor([3, 1]), torch.tensor([0]), torch.tensor([5, 6, 7]), torch.tensor([2])]
    at_once, ahead = (list(read_ahead(split, rows, threads)) for threads in (0, 3))
    assert [each.tolist() for each, _ in ahead] == [each.tolist() for each in rows]
    for (_, one), (_, other) in zip(at_once, ahead, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


def test_no_more_is_read_ahead_than_was_asked() -> None:
    begun: list[int] = []
    names = set()

    def batch(rows: list[int]) -> Batch:
        begun.append(rows[0])
        names.add(threading.current_thread().name)
        return Batch(torch.zeros(1, 3, 2, 2), torch.zeros(1, dtype=torch.int64))

    walk = read_ahead(SimpleNamespace(batch=batch), (torch.tensor([row]) for row in range(100)), 2)  # type: ignore[arg-type]
    next(walk)
    walk.close()  # type: ignore[attr-defined]
    assert len(begun) <= 3
    assert all(name.startswith("amb-images") for name in names)


def test_a_file_that_cannot_be_read_ahead_fails_where_it_is_wanted() -> None:
    def batch(rows: list[int]) -> Batch:
        if rows[0] == 1:
            raise OSError("cut short")
        return Batch(torch.zeros(1, 3, 2, 2), torch.zeros(1, dtype=torch.int64))

    walk = read_ahead(SimpleNamespace(batch=batch), [torch.tensor([0]), torch.tensor([1])], 2)  # type: ignore[arg-type]
    next(walk)
    with pytest.raises(OSError, match="cut short"):
        next(walk)
