"""A sample plugin: the fingerprint `nearest` and the attack `jitter`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

import amb

if TYPE_CHECKING:
    from amb.api.vision import SuspectView, VisionModel


class Nearest(amb.Method):
    """Fingerprint an encoder by which of a few anchors lies nearest to each trigger in its embedding."""

    name: ClassVar[str] = "nearest"
    access: ClassVar[amb.Access] = "features"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"nearest-small": {"n_triggers": 32}}

    n_triggers: int = Field(64, ge=2)
    """Images whose nearest anchor is read."""
    n_anchors: int = Field(16, ge=2)
    """Images that they are compared with."""

    @property
    def default_tau(self) -> int:
        """A trial is one label: it is right or wrong."""
        return 0

    def embed(self, owner: VisionModel, ctx: amb.Context) -> amb.Embedding:
        import torch

        split = ctx.split("trigger")
        rows = torch.randperm(len(split), generator=ctx.generator("images"))[: self.n_triggers + self.n_anchors]
        images = split.batch(rows.tolist()).images
        labels = self._nearest(owner.features(images).detach())
        tensors = {"images": images.numpy(), "labels": labels.numpy()}
        return amb.Embedding(owner, amb.Key(self.canonical(), owner.digest(), tensors))

    def extract(self, suspect: SuspectView, key: amb.Key, ctx: amb.Context) -> amb.Evidence:
        import torch

        labels = self._nearest(suspect.features(torch.from_numpy(key.tensors["images"])))
        return amb.Evidence(key.tensors["labels"][:, None], labels.numpy()[:, None], alphabet=self.n_anchors)

    def _nearest(self, features: Any) -> Any:
        import torch

        anchors, triggers = features[: self.n_anchors].cpu(), features[self.n_anchors :].cpu()
        return torch.cdist(triggers, anchors).argmin(dim=1)


class Jitter(amb.Attack):
    """Add Gaussian noise to every weight, relative to the spread of its tensor."""

    name: ClassVar[str] = "jitter"

    strength: float = Field(0.05, ge=0)
    """Standard deviation of the noise as a share of the tensor's own."""

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        import torch

        noisy = model.copy(f"{model.ref}+{self.canonical()}")
        generator = ctx.generator("noise")
        with torch.no_grad():
            for weight in noisy.backbone.parameters():
                noise = torch.randn(weight.shape, generator=generator).to(weight.device)
                weight.add_(self.strength * weight.std(unbiased=False) * noise)
        return noisy


@amb.hookimpl
def amb_register_methods() -> list[type[amb.Method]]:
    return [Nearest]


@amb.hookimpl
def amb_register_attacks() -> list[type[amb.Attack]]:
    return [Jitter]
