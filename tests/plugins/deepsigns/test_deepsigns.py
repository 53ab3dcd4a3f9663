"""DeepSigns beyond the contract: the derivation, the reading by hand, the exact null, forging, what is refused."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binom, kstest, norm

import amb
from amb.api.vision import SuspectView, VisionModel
from amb.evaluation.claims import exact_test
from amb.evaluation.rates import errors
from amb.testing import ExactNull, toy_context, toy_model
from amb_deepsigns.activations import draw_key_images, measure_centres, measure_spread
from amb_deepsigns.method import DeepSigns
from amb_deepsigns.secret import open_carriers

QUICK = DeepSigns(n_classes=3, n_images=8, steps=150, batch=32, lr=5e-3, gamma1=0.1, centre_lr=0.1)


class TestNull(ExactNull):
    @pytest.fixture
    def method(self):
        return QUICK.model_copy(update={"steps": 20})


@pytest.fixture(scope="module")
def owner() -> VisionModel:
    return toy_model(n_classes=3)


@pytest.fixture(scope="module")
def embedding(owner: VisionModel, tmp_path_factory: pytest.TempPathFactory) -> amb.Embedding:
    return QUICK.embed(owner, toy_context(tmp_path_factory.mktemp("embedding")))


def read(model: VisionModel, key: amb.Key, folder: Path) -> amb.Evidence:
    return QUICK.extract(SuspectView(model, "features"), key, toy_context(folder, roles=()))


def test_a_message_is_shake_256_of_all_that_it_hangs_on(embedding: amb.Embedding) -> None:
    key = embedding.key
    parts = [b"amb-deepsigns/1", key.tensors["secret"].tobytes(), key.method.encode(), key.facts["model"].encode()]
    for name in ("images", "classes"):
        array = key.tensors[name]
        parts.append(hashlib.sha256(f"{array.dtype} {array.shape}".encode() + array.tobytes()).hexdigest().encode())
    prefix = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    carriers = open_carriers(QUICK, key)
    drawn = hashlib.shake_256(prefix + b"messages").digest(6)
    bits = [drawn[i // 8] >> (7 - i % 8) & 1 for i in range(48)]
    assert carriers.messages.ravel().tolist() == bits
    words = hashlib.shake_256(prefix + b"projection").digest(4 * 32 * 16)
    first = int.from_bytes(words[:4], "big")
    assert carriers.projection[0, 0] == pytest.approx(norm.ppf((first + 0.5) / 2**32), rel=1e-6)
    assert kstest(carriers.projection.ravel(), "norm").pvalue > 0.001


@pytest.mark.parametrize("part", ["secret", "images", "classes", "model"])
def test_every_part_changes_every_message(embedding: amb.Embedding, part: str) -> None:
    key = embedding.key
    if part == "model":
        other = replace(key, facts={**key.facts, "model": "0" * 64})
    else:
        changed = key.tensors[part].copy()
        changed.flat[0] ^= 1
        other = replace(key, tensors={**key.tensors, part: changed})
    one, two = open_carriers(QUICK, key), open_carriers(QUICK, other)
    assert 8 < (one.messages != two.messages).sum() < 40
    assert not np.allclose(one.projection, two.projection)


def test_bits_are_the_signs_of_projected_class_means(embedding: amb.Embedding, tmp_path: Path) -> None:
    key, other = embedding.key, toy_model(seed=5, n_classes=3)
    view = SuspectView(other, "features")
    evidence = QUICK.extract(view, key, toy_context(tmp_path, roles=()))
    assert view.queries == QUICK.query_work().read == 24
    carriers = open_carriers(QUICK, key)
    for label in range(3):
        chosen = torch.from_numpy(key.tensors["images"][key.tensors["classes"] == label]) / 255
        with torch.no_grad():
            mean = other.features(chosen).mean(dim=0).numpy()
        by_hand = [int(sum(mean * carriers.projection[:, bit]) > 0) for bit in range(16)]
        assert evidence.observed[label].tolist() == by_hand
        assert evidence.expected[label].tolist() == carriers.messages[label].tolist()


def test_the_mark_is_claimed_and_the_papers_rule_stands_beside(
    owner: VisionModel, embedding: amb.Embedding, tmp_path: Path
) -> None:
    evidence = read(embedding.model, embedding.key, tmp_path)
    right = int((evidence.observed == evidence.expected).sum())
    assert exact_test(evidence, 1e-6).claim
    assert exact_test(evidence).p_value == pytest.approx(binom.sf(right - 1, 48, 0.5))
    assert evidence.facts["paper_rule"] == (right == 48)
    plain = read(owner, embedding.key, tmp_path)
    assert plain.facts["paper_bit_error_rate"] == pytest.approx(errors(plain).sum() / 48)
    assert not plain.facts["paper_rule"]


def test_a_bit_without_a_sign_counts_as_wrong(owner: VisionModel, embedding: amb.Embedding, tmp_path: Path) -> None:
    for value in (0.0, float("nan")):
        dead = owner.copy()
        dead.output_filters.append(lambda features, value=value: torch.full_like(features, value))
        assert exact_test(read(dead, embedding.key, tmp_path)).p_value == 1


def test_centres_and_spread_are_as_by_hand() -> None:
    features = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 0, 1, 1, 2, 0])
    centres = measure_centres(features[:5], labels[:5], 2)
    torch.testing.assert_close(centres[0], (features[0] + features[2]) / 2)
    torch.testing.assert_close(centres[1], (features[1] + features[3] + features[4]) / 3)
    by_hand = sum(float(((f - centres[y]) ** 2).sum()) for f, y in zip(features, labels, strict=True) if y < 2) / 7
    assert float(measure_spread(features, labels, centres)) == pytest.approx(by_hand, rel=1e-5)


def test_key_images_are_distinct_triggers_of_their_classes(tmp_path: Path) -> None:
    images, classes = draw_key_images(QUICK, toy_context(tmp_path))
    batch = toy_context(tmp_path).split("trigger").batch(range(128))
    truth = {image.mul(255).round().byte().numpy().tobytes(): int(y) for image, y in zip(*batch[:2], strict=True)}
    found = [image.numpy().tobytes() for image in images]
    assert [truth[each] for each in found] == classes.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert len(set(found)) == 24


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_classes": 4}, "class 3 is not there: n_classes is 4, and the owner's images are of 3 classes"),
        ({"n_classes": 3, "n_images": 100}, r"class 0 has \d+ of 100 key images .* smaller n_images or n_classes"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(owner: VisionModel, tmp_path: Path, params, message: str) -> None:
    with pytest.raises(amb.BadParamsError, match=message) as caught:
        DeepSigns(**params).embed(owner, toy_context(tmp_path))
    assert "\n" not in str(caught.value)


def test_too_many_bits_and_another_width_are_skipped_with_a_reason(embedding: amb.Embedding) -> None:
    assert DeepSigns(n_bits=33).skip(toy_model().facts()) == "toy/1 has 32 features, too few for 33 bits"
    assert DeepSigns(n_bits=32).skip(toy_model().facts()) is None
    wide = toy_model(dim=64).facts()
    assert QUICK.skip(wide, embedding.key) == "the key projects 32 features, toy/1 has 64"
    assert QUICK.skip(toy_model().facts(), embedding.key) is None


@pytest.mark.parametrize("head", ["none", "of other classes"])
def test_an_encoder_without_the_head_gets_one_for_the_training_only(tmp_path: Path, head: str) -> None:
    owner = toy_model(n_classes=0 if head == "none" else 5)
    short = QUICK.model_copy(update={"steps": 3})
    marked = short.embed(owner, toy_context(tmp_path)).model
    assert marked.head_facts() == owner.head_facts()
    moved = [not torch.equal(a, b) for a, b in zip(marked.parameters(), owner.parameters(), strict=True)]
    assert sum(moved) > len(moved) / 2


def test_a_key_with_a_part_of_its_own_is_refused(embedding: amb.Embedding, tmp_path: Path) -> None:
    key = embedding.key
    brings = replace(key, tensors={**key.tensors, "messages": np.ones((3, 16))})
    lacks = replace(key, tensors={name: value for name, value in key.tensors.items() if name != "classes"})
    other = replace(key, method="deepsigns")
    one_class = replace(key, tensors={**key.tensors, "classes": np.zeros(24, dtype=np.int64)})
    reasons = ("brings its own 'messages'", "has no 'classes'", "was made by deepsigns", "not of the classes 0 to 2")
    for bad, reason in zip((brings, lacks, other, one_class), reasons, strict=True):
        with pytest.raises(amb.UsageError, match=reason):
            read(embedding.model, bad, tmp_path)
        assert QUICK.audit_key(bad).wrong


def test_an_audit_binds_the_key_to_the_unmarked_model(owner: VisionModel, embedding: amb.Embedding) -> None:
    assert QUICK.audit_key(embedding.key, owner).wrong == ()
    assert QUICK.audit_key(embedding.key, owner).recomputed
    assert len(QUICK.audit_key(embedding.key).trusted) == 2
    assert "not the one" in QUICK.audit_key(embedding.key, toy_model(seed=2)).wrong[0]


def test_a_forger_can_only_draw_again(embedding: amb.Embedding, tmp_path: Path) -> None:
    innocent, ctx = toy_model(seed=2, n_classes=3), toy_context(tmp_path, key=embedding.key)
    forged = QUICK.forge(innocent, "secret", 200, ctx)
    best = exact_test(read(innocent, forged, tmp_path)).p_value
    assert ctx.notes["best_p"] == pytest.approx(best)
    assert 1e-5 < best < 0.05
    with pytest.raises(amb.BadParamsError, match="does not forge 'messages'"):
        QUICK.forge(innocent, "messages", 1, ctx)


def test_agreement_falls_as_the_key_reads_worse(owner: VisionModel, embedding: amb.Embedding) -> None:
    own, plain = (
        QUICK.agreement(model, embedding.key, 24, torch.Generator().manual_seed(0))
        for model in (embedding.model, owner)
    )
    assert own > plain >= -math.log(2)
    assert own.requires_grad
