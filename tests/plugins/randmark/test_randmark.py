"""RandMark beyond the contract: its loss by hand, what is written where, reading and reciting, forged keys, refusals."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from amb.api.records import Embedding
from amb.api.vision import SuspectView
from amb.errors import BadParamsError
from amb.testing import toy_context, toy_model
from amb_attacks.forge import Forge
from amb_randmark.method import RandMark
from amb_randmark.reading import Decoder, Writer, agreement, open_decoder, open_images
from amb_randmark.training import Objective, StepBatch, draw_triggers, measure_message_loss

MARK = RandMark(n_bits=8, n_triggers=16, n_images=64, steps=120, batch=8, lr=2e-3)
OTHER = toy_model(seed=2, n_classes=3)
DRAWN = torch.Generator().manual_seed(0)
IMAGES, PLAIN = torch.rand(2, 4, 3, 16, 16, generator=DRAWN).unbind()
MESSAGES = torch.randint(0, 2, (4, 8), generator=DRAWN).float()


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Embedding:
    return MARK.embed(toy_model(n_classes=3), toy_context(tmp_path_factory.mktemp("honest")))


def wrong_bits(model, key, folder: Path) -> np.ndarray:
    evidence = MARK.extract(SuspectView(model, "features"), key, toy_context(folder, roles=()))
    return (evidence.expected != evidence.observed).sum(axis=1)


def networks() -> tuple[Writer, Decoder]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Writer(8, 0.2), Decoder(32, 8)


def test_the_loss_is_the_papers() -> None:
    """|f(x) - f~(x)|_2 and (lambda / K) sum_j |m - m'_j|_2, one image and one copy at a time."""
    unmarked, marked, (writer, decoder) = toy_model(1), toy_model(3), networks()
    noise = 0.1 * torch.randn(3, 4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    objective = Objective(RandMark(n_bits=8, lam=7), unmarked, marked, writer, decoder)
    objective.loss(StepBatch(IMAGES, MESSAGES, PLAIN, noise), slice(None))
    with torch.no_grad():
        written = writer(IMAGES, MESSAGES)
        missed = [
            float(
                np.linalg.norm(
                    MESSAGES[i] - 1 / (1 + np.exp(-decoder(marked.features(written[i : i + 1] + noise[j, i]))[0]))
                )
            )
            for j in range(3)
            for i in range(4)
        ]
        held = torch.cat([PLAIN, IMAGES])
        before, after = unmarked.tokens(held), marked.tokens(held)
        moved = np.linalg.norm(after[:, 0] - before[:, 0], axis=1).mean()  # the toy's embedding is its CLS token
        drift = np.linalg.norm(after - before, axis=2).mean()
    assert objective.terms["message"] == pytest.approx(7 * np.mean(missed), rel=1e-4)
    assert objective.terms["fidelity"] == pytest.approx(moved + drift, rel=1e-4)


def test_a_part_of_a_batch_takes_its_own_noise() -> None:
    writer, decoder = networks()
    objective = Objective(RandMark(n_bits=8), toy_model(1), toy_model(3), writer, decoder)
    noise = torch.randn(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    batch = StepBatch(IMAGES, MESSAGES, PLAIN, noise)
    with torch.no_grad():
        halves = [objective.loss(batch, slice(0, 2)), objective.loss(batch, slice(2, 4))]
        assert objective.loss(batch, slice(None)).item() == pytest.approx(torch.stack(halves).mean().item(), rel=1e-5)


def test_the_message_loss_averages_norms() -> None:
    answers = torch.tensor([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.0, 0.5]]])
    messages = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    by_hand = (0 + math.sqrt(0.5) + math.sqrt(2) + 0.5) / 4
    assert measure_message_loss(answers, messages).item() == pytest.approx(by_hand)


def test_the_writer_stays_within_its_amplitude_and_the_image_within_0_and_1() -> None:
    writer, _ = networks()
    with torch.no_grad():
        written = writer(IMAGES, MESSAGES)
        other = writer(IMAGES, 1 - MESSAGES)
    assert written.shape == IMAGES.shape
    assert (written - IMAGES).abs().max() <= 0.2 + 1e-6
    assert written.min() >= 0
    assert written.max() <= 1
    assert not torch.equal(written, other), "the message changes what is written"


def test_messages_are_uniform_and_one_per_trigger(tmp_path: Path) -> None:
    images, messages = draw_triggers(RandMark(n_bits=64, n_triggers=64), toy_context(tmp_path))
    assert images.dtype == torch.uint8
    assert 0.45 < messages.float().mean().item() < 0.55
    assert len({row.numpy().tobytes() for row in messages}) == 64


def test_the_key_has_what_was_written_and_no_writer(honest: Embedding, tmp_path: Path) -> None:
    assert {name.partition(".")[0] for name in honest.key.tensors} == {"triggers", "messages", "decoder"}
    plain, _ = draw_triggers(MARK, toy_context(tmp_path))
    moved = np.abs(honest.key.tensors["triggers"].astype(int) - plain.numpy().astype(int))
    assert 0 < moved.max() <= math.ceil(0.2 * 255) + 1


def test_evidence_is_what_the_decoder_reads_image_by_image(honest: Embedding, tmp_path: Path) -> None:
    decoder, images = open_decoder(honest.key), open_images(honest.key)
    with torch.no_grad():
        bits = torch.cat([decoder(honest.model.features(image[None])) for image in images]) > 0
    expected = (bits.numpy() != honest.key.tensors["messages"].astype(bool)).sum(axis=1)
    np.testing.assert_array_equal(wrong_bits(honest.model, honest.key, tmp_path), expected)
    assert expected.mean() < 1


def test_the_report_tells_reading_from_reciting(honest: Embedding) -> None:
    shares = [honest.facts["swapped_reads_written"], honest.facts["swapped_reads_own"]]
    assert all(0 <= share <= 1 for share in shares)
    assert max(shares) > 0.6, "one of the two is read"


def test_agreement_is_the_likelihood_of_the_bits(honest: Embedding) -> None:
    with torch.no_grad():
        found = agreement(OTHER, honest.key, 10**6, torch.Generator().manual_seed(0))
        logits = open_decoder(honest.key)(OTHER.features(open_images(honest.key))).double().numpy()
    right = np.where(honest.key.tensors["messages"] == 1, logits, -logits)
    by_hand = np.maximum(-np.log1p(np.exp(-right)), -math.log(2)).mean()
    assert found.item() == pytest.approx(by_hand, rel=1e-4)
    thief = honest.model.copy().requires_grad_(True)
    agreement(thief, honest.key, 4, torch.Generator().manual_seed(0)).backward()
    assert any(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in thief.parameters())


@pytest.mark.parametrize("what", ["messages", "triggers", "decoder"])
def test_forged_keys_read_on_the_innocent_model(what: str, honest: Embedding, tmp_path: Path) -> None:
    key = None if what == "decoder" else honest.key
    ctx = toy_context(tmp_path, roles=("attacker",), method=MARK, key=key)
    before = OTHER.digest()
    forged = Forge(what=what, budget={"messages": 1, "triggers": 30, "decoder": 120}[what]).forge(OTHER, ctx)
    assert OTHER.digest() == before
    wrong = wrong_bits(OTHER, forged, tmp_path)
    if what == "messages":
        assert wrong.sum() == 0, "by construction"
    else:
        assert wrong.mean() < 0.6 * wrong_bits(OTHER, honest.key, tmp_path).mean()


@pytest.mark.parametrize("what", ["messages", "triggers"])
def test_a_forgery_that_needs_the_key_says_so(what: str, tmp_path: Path) -> None:
    with pytest.raises(BadParamsError, match="starts from the owner's key, and there is none"):
        MARK.forge(OTHER, what, 1, toy_context(tmp_path))


def test_what_does_not_fit_is_said_in_one_line(honest: Embedding, tmp_path: Path) -> None:
    assert "reads 32 features, toy/1 has 16" in (MARK.skip(toy_model(dim=16).facts(), honest.key) or "")
    with pytest.raises(BadParamsError, match="n_triggers is 1000, but the suite has 128"):
        RandMark.create(RandMark.presets["randmark-paper"]).embed(toy_model(), toy_context(tmp_path))
    with pytest.raises(BadParamsError, match="method randmark: n_bits must be"):
        RandMark.create({"n_bits": 0})


def test_tau_scales_with_the_message() -> None:
    assert [RandMark(n_bits=bits).default_tau for bits in (32, 64, 8)] == [5, 10, 1]
