"""`input-...` and `output-...`: what stands before and behind a deployed model; parameters, presets, and the edits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

import amb

if TYPE_CHECKING:
    from amb import VisionModel

Quality = Annotated[int, Field(ge=1, le=100)]
Sigma = Annotated[float, Field(ge=0, le=10)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Levels = Annotated[int, Field(ge=2, le=256)]
Decimals = Annotated[int, Field(ge=0, le=6)]


class InputJpeg(amb.Attack):
    """Compress every image as a JPEG file before the deployed model sees it, as libjpeg does by default."""

    name: ClassVar[str] = "input-jpeg"
    thief: ClassVar[amb.Thief] = "filters inputs or answers"
    source: ClassVar[str] = "Dziugaite et al. 2016; Guo et al. 2018 (JPEG compression)"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        f"input-jpeg{quality}": {"quality": quality} for quality in (50, 30)
    }

    quality: Quality = 75
    """JPEG quality: 100 keeps the most, 1 the least."""

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        return amb.edited(model, JpegBefore(quality=self.quality), f"{model.ref}+{self.canonical()}")


class InputBlur(amb.Attack):
    """Blur every image with a Gaussian before the deployed model sees it."""

    name: ClassVar[str] = "input-blur"
    thief: ClassVar[amb.Thief] = "filters inputs or answers"
    source: ClassVar[str] = "Xu et al. 2018, section 3.2 (spatial smoothing)"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"input-blur2": {"sigma": 2.0}}
    strength_parameter: ClassVar[str | None] = "sigma"

    sigma: Sigma = 1.0
    """Standard deviation of the Gaussian, in pixels of the image as it comes."""

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        return amb.edited(model, BlurBefore(sigma=self.sigma), f"{model.ref}+{self.canonical()}")


class InputNoise(amb.Attack):
    """Add Gaussian noise to every image before the deployed model sees it; the result is clipped to 0 ... 1.

    The same image always gets the same noise, drawn from its content and a secret seed, so that asking again and
    averaging tells a verifier nothing.
    """

    name: ClassVar[str] = "input-noise"
    thief: ClassVar[amb.Thief] = "filters inputs or answers"
    source: ClassVar[str] = "Cohen et al. 2019, section 3; here one draw for each image"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"input-noise10": {"sigma": 0.1}}
    strength_parameter: ClassVar[str | None] = "sigma"

    sigma: Sigma = 0.05
    """Standard deviation of the noise, where images are in 0 ... 1."""

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        edit = NoiseBefore(sigma=self.sigma, seed=ctx.seed("input noise"))
        return amb.edited(model, edit, f"{model.ref}+{self.canonical()}")


class InputFlip(amb.Attack):
    """Mirror every image, left to right, before the deployed model sees it."""

    name: ClassVar[str] = "input-flip"
    thief: ClassVar[amb.Thief] = "filters inputs or answers"

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        return amb.edited(model, FlipBefore(), f"{model.ref}+{self.canonical()}")


class InputLevels(amb.Attack):
    """Round every pixel to a few levels from 0 to 1 before the deployed model sees it."""

    name: ClassVar[str] = "input-levels"
    thief: ClassVar[amb.Thief] = "filters inputs or answers"
    source: ClassVar[str] = "Xu et al. 2018, section 3.1 (feature squeezing by colour depth)"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"input-levels4": {"levels": 4}}

    levels: Levels = 8
    """How many values a colour channel can have."""

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        return amb.edited(model, LevelsBefore(levels=self.levels), f"{model.ref}+{self.canonical()}")


class OutputRound(amb.Attack):
    """Round the logits and embeddings that the deployed model answers with; its inner tokens stay as they were."""

    name: ClassVar[str] = "output-round"
    thief: ClassVar[amb.Thief] = "filters inputs or answers"
    source: ClassVar[str] = "Tramèr et al. 2016, section 7 (rounding confidences)"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"output-round0": {"decimals": 0}}

    decimals: Decimals = 1
    """Digits behind the decimal point that are left."""

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        return amb.edited(model, RoundAfter(decimals=self.decimals), f"{model.ref}+{self.canonical()}")


class OutputLabels(amb.Attack):
    """Deploy the model so that it answers with its decisions alone: a verifier gets neither logits nor embeddings.

    The model itself stays as it was. A method that needs more than labels does not apply any more.
    """

    name: ClassVar[str] = "output-labels"
    thief: ClassVar[amb.Thief] = "filters inputs or answers"
    source: ClassVar[str] = "Tramèr et al. 2016, section 6 (class labels only)"

    def skip(self, model: VisionModel) -> str | None:
        return None if "classification" in model.heads else f"{model.ref} has no classification head to decide with"

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        return amb.edited(model, LabelsOnly(), f"{model.ref}+{self.canonical()}")


class JpegBefore(amb.Edit):
    """Images are compressed as JPEG before the model sees them."""

    name: ClassVar[str] = "jpeg-before"

    quality: Quality
    """JPEG quality."""

    def apply(self, model: VisionModel) -> None:
        from amb_attacks.filters_torch import Jpeg

        model.input_filters.append(Jpeg(self.quality))


class BlurBefore(amb.Edit):
    """Images are blurred before the model sees them."""

    name: ClassVar[str] = "blur-before"

    sigma: Sigma
    """Standard deviation of the Gaussian, in pixels."""

    def apply(self, model: VisionModel) -> None:
        from amb_attacks.filters_torch import Blur

        model.input_filters.append(Blur(self.sigma))


class NoiseBefore(amb.Edit):
    """Images get noise, always the same for the same image, before the model sees them."""

    name: ClassVar[str] = "noise-before"

    sigma: Sigma
    """Standard deviation of the noise."""
    seed: Seed
    """From which, with the image, the noise is drawn."""

    def apply(self, model: VisionModel) -> None:
        from amb_attacks.filters_torch import Noise

        model.input_filters.append(Noise(self.sigma, self.seed))


class FlipBefore(amb.Edit):
    """Images are mirrored before the model sees them."""

    name: ClassVar[str] = "flip-before"

    def apply(self, model: VisionModel) -> None:
        from amb_attacks.filters_torch import Flip

        model.input_filters.append(Flip())


class LevelsBefore(amb.Edit):
    """Pixels are rounded to a few levels before the model sees them."""

    name: ClassVar[str] = "levels-before"

    levels: Levels
    """How many values a colour channel can have."""

    def apply(self, model: VisionModel) -> None:
        from amb_attacks.filters_torch import Posterise

        model.input_filters.append(Posterise(self.levels))


class RoundAfter(amb.Edit):
    """Logits and embeddings are rounded."""

    name: ClassVar[str] = "round-after"

    decimals: Decimals
    """Digits behind the decimal point that are left."""

    def apply(self, model: VisionModel) -> None:
        from amb_attacks.filters_torch import Rounded

        model.output_filters.append(Rounded(self.decimals))


class LabelsOnly(amb.Edit):
    """The model answers with labels and nothing else."""

    name: ClassVar[str] = "labels-only"

    def apply(self, model: VisionModel) -> None:
        model.max_access = "labels"
