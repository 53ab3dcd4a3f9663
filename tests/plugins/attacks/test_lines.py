"""Extrapolation and soups: weights worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import amb
from amb.testing import toy_context, toy_model
from amb_attacks.extrapolate import Extrapolate
from amb_attacks.soup import Soup
from amb_spread.weights import SpreadWeights

QUICK = {"epochs": 1, "n_images": 32, "batch": 8, "lr": 1e-3}


@pytest.mark.parametrize("step", [-2.0, -1.0, 0.5])
def test_every_weight_lies_on_the_line(step: float, tmp_path: Path) -> None:
    stolen, public = toy_model(seed=1, n_classes=3), toy_model(seed=2)
    moved = Extrapolate(step=step).apply(stolen, toy_context(tmp_path, base=lambda: public))
    theirs, ours = dict(public.backbone.named_parameters()), dict(stolen.backbone.named_parameters())
    for name, weight in moved.backbone.named_parameters():
        torch.testing.assert_close(weight, (1 + step) * ours[name] - step * theirs[name])
    for one, other in zip(moved.heads.parameters(), stolen.heads.parameters(), strict=True):
        assert torch.equal(one, other)


def test_without_the_public_model_or_with_another_form_it_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(amb.MissingError, match="extrapolate:step=1.0 needs the public model"):
        Extrapolate(step=1).apply(toy_model(), toy_context(tmp_path))
    with pytest.raises(amb.BadParamsError, match="another architecture"):
        Extrapolate(step=1).apply(toy_model(), toy_context(tmp_path, base=lambda: toy_model(dim=64)))


def test_the_mirror_turns_every_bit_of_an_added_mark(tmp_path: Path) -> None:
    """Whoever has the public model removes the mark: the verdict is one-sided, and turned bits are no claim."""
    owner, method = toy_model(n_classes=3), SpreadWeights(n_messages=8, n_bits=16)
    context = toy_context(tmp_path, base=lambda: owner)
    embedding = method.embed(owner, context)
    mirrored = Extrapolate(step=-2).apply(embedding.model, context)
    evidence = method.extract(amb.SuspectView(mirrored, "weights"), embedding.key, context)
    assert (evidence.expected != evidence.observed).all()


def test_a_soup_is_the_mean_of_its_fine_tunes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from amb_attacks import soup_torch

    tuned: list[amb.VisionModel] = []

    def keep(*args: object) -> amb.VisionModel:
        tuned.append(fit(*args))
        return tuned[-1]

    fit = soup_torch.fit
    monkeypatch.setattr(soup_torch, "fit", keep)
    mean = Soup(n=3, **QUICK).apply(toy_model(), toy_context(tmp_path, roles=("attacker",)))
    assert len({each.digest() for each in tuned}) == 3, "other orders of images"
    states = [each.state_dict() for each in tuned]
    for name, tensor in mean.state_dict().items():
        torch.testing.assert_close(tensor, torch.stack([state[name] for state in states]).mean(dim=0))
    assert list(mean.heads) == ["classification"]
