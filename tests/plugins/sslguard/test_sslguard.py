"""SSLGuard beyond the contract: the stamp and every term by hand, what is trained by what, forged keys, refusals."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from amb.api.records import Embedding
from amb.api.vision import SuspectView
from amb.errors import BadParamsError, UsageError
from amb.testing import toy_context, toy_model
from amb_attacks.forge import Forge
from amb_sslguard.method import SSLGuard
from amb_sslguard.reading import Decoder, Stamp, agreement, compare, open_decoder, open_images, open_stamp
from amb_sslguard.training import Encoders, Objective, draw_secrets, imitate, make_optimizer

ALONE = SSLGuard(n_images=64, n_triggers=16, epochs=16, batch=16, shadow=False)
"""Without a shadow, which takes most of the time."""
OTHER = toy_model(seed=2, n_classes=3)
IMAGES = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Embedding:
    return ALONE.embed(toy_model(n_classes=3), toy_context(tmp_path_factory.mktemp("honest")))


def rate(method: SSLGuard, model, key, folder: Path) -> float:
    evidence = method.extract(SuspectView(model, "features"), key, toy_context(folder, roles=()))
    return float((evidence.expected == evidence.observed).mean())


def cosine(one: Tensor, other: Tensor) -> float:
    return float((one * other).sum() / (one.square().sum().sqrt() * other.square().sum().sqrt()))


def secrets(folder: Path, **params) -> tuple[Stamp, Decoder, Tensor]:
    return draw_secrets(SSLGuard(**params), (IMAGES * 255).to(torch.uint8), 32, toy_context(folder))


def test_the_stamp_is_the_papers_formula_and_covers_the_share(tmp_path: Path) -> None:
    stamp, _, secret = secrets(tmp_path)
    assert set(stamp.mask.unique().tolist()) == {0.0, 1.0}
    assert stamp.mask.mean().item() == pytest.approx(0.35, abs=4 * math.sqrt(0.35 * 0.65 / (3 * 256)))
    assert secret.shape == (256,)
    with torch.no_grad():
        stamp.trigger.mul_(3).sub_(1)  # beyond [0, 1], so that the clip shows
        stamped = stamp.put(IMAGES)
    for at in [(0, 0, 0, 0), (3, 1, 5, 7), (7, 2, 15, 15)]:
        value = stamp.trigger[at[1:]] if stamp.mask[at[1:]] else IMAGES[at]
        assert stamped[at].item() == pytest.approx(min(1.0, max(0.0, value.item())))


def test_every_term_is_that_of_the_paper(tmp_path: Path) -> None:
    unmarked, marked, shadow = toy_model(1), toy_model(3), toy_model(5)
    stamp, decoder, secret = secrets(tmp_path)
    objective = Objective(SSLGuard(hold_tokens=0), Encoders(unmarked, marked, shadow), stamp, decoder, secret)
    loss = objective.loss(IMAGES, slice(None)).item()
    with torch.no_grad():
        stamped = stamp.put(IMAGES)
        read = {
            (name, kind): [cosine(decoder(model.features(image[None]))[0], secret) for image in images]
            for name, model in (("unmarked", unmarked), ("marked", marked), ("shadow", shadow))
            for kind, images in (("clean", IMAGES), ("stamped", stamped))
        }
        pairs = zip(unmarked.features(IMAGES), marked.features(IMAGES), strict=True)
        l0 = -np.mean([cosine(*pair) for pair in pairs])
    squares = {place: np.mean(values) ** 2 for place, values in read.items()}
    l1 = squares["marked", "clean"]
    l2, l3 = -np.mean(read["marked", "stamped"]), -np.mean(read["shadow", "stamped"])
    l4 = squares["unmarked", "stamped"] + squares["unmarked", "clean"]
    l5 = l1 + squares["shadow", "clean"]
    assert loss == pytest.approx(l0 + l2 + l3 + l4 + l5 + 3, rel=1e-4), "three terms are 1 less a cosine"
    assert set(objective.terms) == {"fidelity", "mark", "mark on the shadow", "silence"}


def test_the_shadow_learns_from_the_marked_encoder_and_nothing_else_moves() -> None:
    shadow, marked = toy_model(5).requires_grad_(True), toy_model(3).requires_grad_(True)
    loss = imitate(shadow, marked, IMAGES, slice(None))
    loss.backward()
    assert any(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in shadow.parameters())
    assert all(weight.grad is None for weight in marked.parameters())
    with torch.no_grad():
        pairs = zip(shadow.features(IMAGES), marked.features(IMAGES), strict=True)
        assert loss.item() == pytest.approx(1 - np.mean([cosine(*pair) for pair in pairs]), abs=1e-5)


def test_a_batch_of_one_is_a_batch(tmp_path: Path) -> None:
    stamp, decoder, secret = secrets(tmp_path)
    encoders = Encoders(toy_model(1), toy_model(3), toy_model(5))
    loss = Objective(SSLGuard(), encoders, stamp, decoder, secret).loss(IMAGES, slice(0, 1))
    loss.backward()
    assert stamp.trigger.grad is not None
    assert stamp.trigger.grad.shape == (3, 16, 16)


def test_the_shadow_never_gets_the_mark_by_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the mark is trained, no weight of the shadow or of the unmarked encoder asks for a gradient."""
    seen = []
    original = Objective.loss

    def watch(self: Objective, images: Tensor, part: slice) -> Tensor:
        assert self.encoders.shadow is not None
        seen.append(
            [any(w.requires_grad for w in m.parameters()) for m in (self.encoders.shadow, self.encoders.unmarked)]
        )
        return original(self, images, part)

    monkeypatch.setattr(Objective, "loss", watch)
    monkeypatch.setattr("amb_sslguard.training.make_shadow", lambda owner, ctx: toy_model(5))
    SSLGuard(n_images=8, n_triggers=4, epochs=2, batch=4).embed(toy_model(), toy_context(tmp_path))
    assert seen == [[False, False]] * 4


def test_the_papers_optimizer_has_its_rates_and_no_momentum_on_the_trigger(tmp_path: Path) -> None:
    stamp, decoder, _ = secrets(tmp_path)
    params = SSLGuard.create(SSLGuard.presets["sslguard-paper"])
    optimizer = make_optimizer(params, list(toy_model().parameters()), list(decoder.parameters()), stamp)
    assert isinstance(optimizer, torch.optim.SGD)
    assert [(group["lr"], group["momentum"]) for group in optimizer.param_groups] == [
        (1e-5, 0.9),
        (1e-3, 0.9),
        (1e-3, 0),
    ]
    assert params.shadow_lr == 1e-2


def test_the_decoder_has_the_papers_widths() -> None:
    layers = [module for module in Decoder(2048, 256) if isinstance(module, torch.nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == [(2048, 512), (512, 256), (256, 256)]


def test_the_rate_is_the_share_of_stamped_images_above_the_threshold(honest: Embedding, tmp_path: Path) -> None:
    """The paper's watermark rate, counted one image at a time."""
    key, model = honest.key, honest.model
    stamp, decoder, secret = open_stamp(key), open_decoder(key), torch.from_numpy(key.tensors["secret"])
    with torch.no_grad():
        cosines = [cosine(decoder(model.features(stamp.put(image[None])))[0], secret) for image in open_images(key)]
    for threshold in (0.5, sorted(cosines)[5]):
        method = ALONE.model_copy(update={"threshold": threshold})
        assert rate(method, model, key, tmp_path) == np.mean([each > threshold for each in cosines])
    assert rate(ALONE, model, key, tmp_path) == 1
    evidence = ALONE.extract(SuspectView(model, "features"), key, toy_context(tmp_path))
    assert evidence.facts["mean_cosine"] == pytest.approx(np.mean(cosines), abs=1e-4)


def test_the_unmarked_model_is_silent(honest: Embedding, tmp_path: Path) -> None:
    assert rate(ALONE, toy_model(n_classes=3), honest.key, tmp_path) == 0


def test_it_reads_on_images_of_the_judges_choice(honest: Embedding, tmp_path: Path) -> None:
    ctx = toy_context(tmp_path)
    images = ctx.split("test").batch(range(12)).images
    evidence = ALONE.extract_on(SuspectView(honest.model, "features"), honest.key, images, ctx)
    assert evidence.observed.shape == (12, 1)
    assert evidence.observed.mean() >= 0.9
    with pytest.raises(UsageError, match="trigger is 3x16x16, the images are 3x8x8"):
        ALONE.extract_on(SuspectView(honest.model, "features"), honest.key, images[:, :, :8, :8], ctx)


def test_a_key_shows_none_of_itself(honest: Embedding) -> None:
    assert set(honest.key.tensors) >= {"images", "mask", "trigger", "secret", "decoder.0.weight"}
    assert "array" not in repr(honest.key)
    assert all(isinstance(value, float) for value in honest.facts.values())


def test_agreement_falls_to_chance_where_nothing_is_detected(honest: Embedding) -> None:
    drawn = torch.Generator().manual_seed(0)
    with torch.no_grad():
        own = agreement(ALONE, honest.model, honest.key, 10**6, drawn)
        stamp, decoder = open_stamp(honest.key), open_decoder(honest.key)
        features = honest.model.features(stamp.put(open_images(honest.key)))
        cosines = compare(decoder, features, torch.from_numpy(honest.key.tensors["secret"]))
        by_hand = [max(-math.log(2), -math.log1p(math.exp(-10 * (c.item() - 0.5)))) for c in cosines]
        assert own.item() == pytest.approx(np.mean(by_hand), abs=1e-4)
        silent = agreement(ALONE, toy_model(n_classes=3), honest.key, 10**6, drawn)
    assert silent.item() == pytest.approx(-math.log(2))
    thief = honest.model.copy().requires_grad_(True)
    agreement(ALONE, thief, honest.key, 4, drawn).backward()
    assert any(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in thief.parameters())


@pytest.mark.parametrize("what", ["messages", "triggers", "decoder"])
def test_forged_keys_read_on_the_innocent_model(what: str, honest: Embedding, tmp_path: Path) -> None:
    key = None if what == "decoder" else honest.key
    ctx = toy_context(tmp_path, roles=("attacker",), method=ALONE, key=key)
    before = OTHER.digest()
    forged = Forge(what=what, budget=80).forge(OTHER, ctx)
    assert OTHER.digest() == before
    assert rate(ALONE, OTHER, forged, tmp_path) >= 0.9
    if key is not None:
        changed = {name for name in key.tensors if not np.array_equal(key.tensors[name], forged.tensors[name])}
        assert changed == {"secret" if what == "messages" else "trigger"}


@pytest.mark.parametrize("what", ["messages", "triggers"])
def test_a_forgery_that_needs_the_key_says_so(what: str, tmp_path: Path) -> None:
    with pytest.raises(BadParamsError, match="starts from the owner's key, and there is none"):
        ALONE.forge(OTHER, what, 1, toy_context(tmp_path))


def test_what_does_not_fit_is_said_in_one_line(honest: Embedding, tmp_path: Path) -> None:
    assert "reads 32 features, toy/1 has 16" in (ALONE.skip(toy_model(dim=16).facts(), honest.key) or "")
    assert ALONE.skip(toy_model(depth=1).facts()) is None, "any encoder will do as an owner"
    with pytest.raises(BadParamsError, match="n_triggers is 1000, but the suite has 128"):
        SSLGuard(n_triggers=1000).embed(toy_model(), toy_context(tmp_path))
    for wrong in ({"n_secret": 0}, {"mask_share": 0}, {"mask_share": 1.5}, {"threshold": 1}):
        with pytest.raises(BadParamsError, match=r"method sslguard: .* must be"):
            SSLGuard.create(wrong)


def test_a_decoder_that_is_not_the_keys_reads_nothing(honest: Embedding, tmp_path: Path) -> None:
    turned = replace(honest.key, tensors={**honest.key.tensors, "secret": -honest.key.tensors["secret"]})
    assert rate(ALONE, honest.model, turned, tmp_path) == 0
