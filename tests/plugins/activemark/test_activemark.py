"""ActiveMark beyond the contract: what is trained, what is cached, what the carrier touches, what each option does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import amb
from amb.api.vision import SuspectView
from amb.errors import BadParamsError
from amb.testing import toy_context, toy_model
from amb_activemark.method import ActiveMark
from amb_activemark.networks import Carrier, LaterBlocks, Outputs, tap
from amb_activemark.training import _draw_kept, _fill_cache, _measure_fidelity_loss, _measure_message_loss

QUICK = {"n_bits": 4, "n_triggers": 6, "steps": 4, "batch": 4, "n_images": 8, "block": 1}
TOKENS = torch.randn(2, 1 + 2 + 16, 32, generator=torch.Generator().manual_seed(0))


def embed(folder: Path, **params):
    (folder / "scratch").mkdir(exist_ok=True)
    owner = toy_model(n_classes=3)
    return owner, ActiveMark(**{**QUICK, **params}).embed(owner, toy_context(folder / "scratch"))


def changed(owner, marked) -> set[str]:
    before, after = owner.state_dict(), marked.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_only_the_later_blocks_and_the_norm_are_trained(tmp_path: Path) -> None:
    owner, embedding = embed(tmp_path)
    names = changed(owner, embedding.model)
    assert names
    assert all(name.startswith(("backbone.layers.2", "backbone.layers.3", "backbone.norm")) for name in names)


def test_freeze_last_leaves_the_last_block_and_the_norm(tmp_path: Path) -> None:
    owner, embedding = embed(tmp_path, freeze_last=True)
    assert {name.split(".")[2] for name in changed(owner, embedding.model)} == {"2"}


def test_the_channel_carrier_skips_registers() -> None:
    carrier = Carrier("channel", 3, n_prefix=3)
    assert carrier.read(TOKENS).shape == (2, 17)
    written = carrier.write(TOKENS, torch.zeros(2, 17))
    difference = (written != TOKENS).nonzero()
    assert set(difference[:, 2].tolist()) == {3}
    assert not {1, 2} & set(difference[:, 1].tolist())
    torch.testing.assert_close(written[:, 1:3], TOKENS[:, 1:3])


def test_the_token_carrier_counts_without_registers() -> None:
    carrier = Carrier("token", 5, n_prefix=3)
    torch.testing.assert_close(carrier.read(TOKENS), TOKENS[:, 7])
    written = carrier.write(TOKENS, torch.zeros(2, 32))
    assert set((written != TOKENS).nonzero()[:, 1].tolist()) == {7}


def test_a_token_is_read_one_block_before_it_is_written() -> None:
    model, images = toy_model(), torch.rand(2, 3, 16, 16)
    taps = tap(model, images, 1, Carrier("token", 5, 1))
    torch.testing.assert_close(taps.carrier, model.prefix(images, 0)[:, 5])
    torch.testing.assert_close(taps.tokens, model.prefix(images, 1))
    taps = tap(model, images, 1, Carrier("channel", 5, 1))
    torch.testing.assert_close(taps.carrier, model.prefix(images, 1)[:, :, 5])


def test_the_decoder_reads_the_embedding_or_what_enters_the_last_block() -> None:
    model, images = toy_model(), torch.rand(2, 3, 16, 16)
    hidden = model.prefix(images, 1)
    read = LaterBlocks(model, 1, Carrier("token", 5, 1), "embedding")(hidden)
    torch.testing.assert_close(read.read, model.features(images))
    torch.testing.assert_close(read.tokens, model.tokens(images))
    read = LaterBlocks(model, 1, Carrier("token", 5, 1), "carrier")(hidden)
    torch.testing.assert_close(read.read, model.prefix(images, 2)[:, 5])


@pytest.mark.parametrize("budget", [0, 2048])
def test_the_cache_is_the_same_in_memory_and_on_disk(tmp_path: Path, budget: int) -> None:
    params, ctx, model = ActiveMark(**QUICK, cache_mib=budget), toy_context(tmp_path), toy_model()
    carrier = Carrier("channel", 0, 1)
    cache = _fill_cache(LaterBlocks(model, 1, carrier, "embedding"), ctx.split("owner"), list(range(70)), params, ctx)
    images = ctx.split("owner").batch(range(70)).images
    torch.testing.assert_close(cache.tokens, model.prefix(images, 1))
    torch.testing.assert_close(cache.output, model.tokens(images))
    assert bool(list(tmp_path.glob("*.bin"))) == (budget == 0)


def test_losses_are_those_of_equation_2() -> None:
    answer, message = torch.tensor([[0.2, 0.9], [0.5, 0.5]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert _measure_message_loss(answer, message, "norm").item() == pytest.approx((0.2 + 0.1 + 0.5 + 0.5) / 2)
    assert _measure_message_loss(answer, message, "mse").item() == pytest.approx((0.04 + 0.01 + 0.25 + 0.25) / 4)
    q = LaterBlocks(toy_model(), 1, Carrier("channel", 0, 1), "embedding")
    output, target = torch.randn(2, 17, 32), torch.randn(2, 17, 32)
    given = Outputs(output, output[:, 0], output[:, 0])
    norms = (output - target).square().sum(dim=2).sqrt()
    by_hand = norms[:, 0].mean() + norms.mean()
    assert _measure_fidelity_loss(q, given, target, "norm").item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_pruning_noise_zeroes_the_smallest_weights_of_all_matrices_and_no_bias() -> None:
    trained = {"w": torch.tensor([[1.0, -2.0], [3.0, 4.0]]), "v": torch.tensor([[0.5, -6.0]]), "b": torch.zeros(2)}
    share = 0.99 * torch.rand((), generator=torch.Generator().manual_seed(3)).item()
    sizes = sorted(torch.cat([trained["w"].flatten(), trained["v"].flatten()]).abs().tolist())
    smallest = sizes[: max(1, int(share * len(sizes)))]
    kept = _draw_kept(trained, 0.99, torch.Generator().manual_seed(3))
    assert set(kept) == {"w", "v"}
    assert 0 < len(smallest) < len(sizes), "the draw zeroes some and keeps some"
    for name in ("w", "v"):
        expected = [[size not in smallest for size in row] for row in trained[name].abs().tolist()]
        assert kept[name].tolist() == expected


def test_selection_keeps_whole_messages_and_reports_the_rate_before(tmp_path: Path) -> None:
    _, embedding = embed(tmp_path, select=True, steps=80, n_triggers=16, lr=3e-3, coder_lr=1e-2)
    rate, kept = embedding.facts["all_bits_rate"], embedding.facts["kept_triggers"]
    assert 0 < rate <= 1
    assert kept == round(rate * 16)
    assert len(embedding.key.tensors["messages"]) == kept
    params = ActiveMark(**QUICK)
    evidence = params.extract(SuspectView(embedding.model, "weights"), embedding.key, toy_context(tmp_path))
    assert (evidence.expected == evidence.observed).all(), "by construction"


def test_messages_are_uniform_and_one_per_trigger(tmp_path: Path) -> None:
    _, embedding = embed(tmp_path, n_bits=64, n_triggers=64, steps=1)
    messages = embedding.key.tensors["messages"]
    assert messages.shape == (64, 64)
    assert 0.45 < messages.mean() < 0.55
    assert len({row.tobytes() for row in messages}) == 64


def test_more_triggers_than_images_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadParamsError, match="n_triggers is 1000, but the suite has 128"):
        embed(tmp_path, n_triggers=1000)


@pytest.mark.parametrize(
    ("params", "model", "reason"),
    [
        ({"block": 3}, {}, "block 3 of toy/1 is not followed by a block"),
        ({"block": 2, "freeze_last": True}, {}, "is not followed"),
        ({"index": 32}, {}, "has no channel 32"),
        ({"carrier": "token", "index": 17}, {}, "has no token 17"),
        ({}, {"depth": 1}, "has no transformer blocks"),
        ({"freeze_last": True}, {"depth": 2}, "has no transformer blocks"),
    ],
)
def test_what_does_not_apply_is_skipped_with_a_reason(params: dict, model: dict, reason: str) -> None:
    assert reason in (ActiveMark(**params).skip(toy_model(**model).facts()) or "")


def test_a_suspect_of_other_sizes_is_skipped(tmp_path: Path) -> None:
    _, embedding = embed(tmp_path)
    params = ActiveMark(**QUICK)
    assert params.skip(toy_model(seed=5).facts(), embedding.key) is None
    assert params.skip(toy_model(registers=4).facts(), embedding.key) is None
    assert "dim = 32" in (params.skip(toy_model(dim=16).facts(), embedding.key) or "")
    assert "at block 1" in (params.skip(toy_model(depth=2).facts(), embedding.key) or "")


def test_tau_scales_with_the_message() -> None:
    assert [ActiveMark(n_bits=bits).default_tau for bits in (32, 64, 8)] == [5, 10, 1]


def test_the_report_tells_reading_from_reciting(tmp_path: Path) -> None:
    """Decode swapped messages by hand, and compare with what the report says."""
    owner = toy_model(seed=1)
    method = ActiveMark.create({**QUICK, "steps": 60})
    embedding = method.embed(owner, toy_context(tmp_path, roles=("owner", "trigger")))
    key = embedding.key
    messages = torch.from_numpy(key.tensors["messages"])
    order = [len(messages) - 1, *range(len(messages) - 1)]
    swapped = amb.Key(key.method, key.owner, {**key.tensors, "messages": key.tensors["messages"][order]}, key.facts)
    evidence = method.extract(amb.SuspectView(embedding.model, "weights"), swapped, toy_context(tmp_path, roles=()))
    injected = (evidence.observed == evidence.expected).mean()
    own = (evidence.observed == key.tensors["messages"]).mean()
    assert embedding.facts["swapped_reads_injected"] == pytest.approx(injected, abs=1e-4)
    assert embedding.facts["swapped_reads_own"] == pytest.approx(own, abs=1e-4)
