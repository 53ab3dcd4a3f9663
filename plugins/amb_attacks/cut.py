"""`cut-blocks`, `cut-rear`, `cut-registers`, `cut-resolution`: parts of the encoder dropped, made anew or made smaller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pydantic import Field

import amb
from amb_attacks.training_parameters import TrainingParameters

if TYPE_CHECKING:
    from amb import VisionModel

_LACKS: Final = {
    "keep_blocks": "is not made of blocks that could be dropped",
    "drop_registers": "has no register tokens",
    "resize": "has no position embedding that could be interpolated",
}
"""Why a network does not have a verb of `amb.Backbone`."""


class CutBlocks(amb.Attack):
    """Drop the last transformer blocks of the encoder, without retraining; the final norm and the heads stay."""

    name: ClassVar[str] = "cut-blocks"
    thief: ClassVar[amb.Thief] = "cuts it down"
    source: ClassVar[str] = "Sajjad et al. 2023 (top-layer dropping)"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"cut-blocks2": {"n": 2}, "cut-blocks4": {"n": 4}}
    strength_parameter: ClassVar[str | None] = "n"

    n: int = Field(1, ge=0)
    """How many of the last blocks to drop."""

    def skip(self, model: VisionModel) -> str | None:
        if self.n >= model.n_blocks > 0:
            return f"{model.ref} has {model.n_blocks} blocks: without the last {self.n} none would be left"
        return _explain_lack(model, "keep_blocks")

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        return amb.edited(model, KeepBlocks(n=model.n_blocks - self.n), f"{model.ref}+{self.canonical()}")


class CutRear(TrainingParameters):
    """Train the last transformer blocks again from random weights, with a new classification head, with AdamW.

    They learn on the attacker's images and labels; everything else of the encoder stays frozen, the final norm too.
    Its utility shows as `head_accuracy`.
    """

    name: ClassVar[str] = "cut-rear"
    thief: ClassVar[amb.Thief] = "cuts it down"
    source: ClassVar[str] = "after Adi et al. 2018 (RTAL: re-initialise, then re-train), here for whole blocks"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"cut-rear1": {"n": 1}, "cut-rear4": {"n": 4}}
    strength_parameter: ClassVar[str | None] = "n"

    leading: ClassVar[tuple[str, ...]] = ("n",)

    n: int = Field(2, ge=0)
    """How many of the last blocks to make anew; with 0 only the head is trained."""
    lr: float = Field(5e-4, ge=0)
    """Learning rate of the new blocks."""
    epochs: int = Field(10, ge=1)
    """Passes over the images."""

    def skip(self, model: VisionModel) -> str | None:
        from amb_attacks.quantize_torch import Int8Linear

        if model.n_blocks == 0:
            return f"{model.ref} is not made of blocks that could be trained again"
        if any(isinstance(module, Int8Linear) for module in model.backbone.modules()):
            return f"{model.ref} has int8 weights, which cannot be trained"
        return f"{model.ref} has {model.n_blocks} blocks, fewer than {self.n}" if self.n > model.n_blocks else None

    def work(self, method: amb.Method, facts: amb.ModelFacts) -> amb.Work:
        """Every image in every epoch, backward through the new blocks alone."""
        n, share = self.epochs * self.n_images, self.n / max(1, facts.n_blocks)
        return amb.Work(read=n * (1 - share), trained=n * share)

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        from amb_attacks.cut_torch import retrain_rear

        return retrain_rear(self, model, ctx)


class CutRegisters(amb.Attack):
    """Drop the register tokens of the encoder, without retraining; the CLS token stays."""

    name: ClassVar[str] = "cut-registers"
    thief: ClassVar[amb.Thief] = "cuts it down"
    source: ClassVar[str] = "Darcet et al. 2024 (what registers are)"

    def skip(self, model: VisionModel) -> str | None:
        if model.backbone.n_prefix <= 1:
            return f"{model.ref} has no register tokens"
        return _explain_lack(model, "drop_registers")

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        return amb.edited(model, DropRegisters(), f"{model.ref}+{self.canonical()}")


class CutResolution(amb.Attack):
    """Run the encoder on images of another size, without retraining: as many pixels in a patch, fewer or more patches.

    The position embedding is interpolated to the new number of patches.
    """

    name: ClassVar[str] = "cut-resolution"
    thief: ClassVar[amb.Thief] = "cuts it down"
    source: ClassVar[str] = "Dosovitskiy et al. 2021, section 3.2"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"cut-resolution75": {"factor": 0.75}}

    factor: float = Field(0.5, gt=0, le=2)
    """What the side of the images is multiplied by; the result is rounded to whole patches, at least one."""

    def skip(self, model: VisionModel) -> str | None:
        return _explain_lack(model, "resize")

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        n_patches = model.facts().n_tokens - min(model.backbone.n_prefix, 1)
        side = round(n_patches**0.5)
        patch = model.backbone.image_size // side
        edit = Resize(image_size=max(1, round(self.factor * side)) * patch)
        return amb.edited(model, edit, f"{model.ref}+{self.canonical()}")


class KeepBlocks(amb.Edit):
    """Only the first transformer blocks are left."""

    name: ClassVar[str] = "keep-blocks"

    n: int = Field(ge=1, le=1024)
    """How many."""

    def apply(self, model: VisionModel) -> None:
        if self.n > model.n_blocks:
            raise amb.CheckpointError(f"{model.ref} has {model.n_blocks} blocks, of which {self.n} cannot be kept.")
        model.backbone.keep_blocks(range(self.n))


class DropRegisters(amb.Edit):
    """The register tokens are gone."""

    name: ClassVar[str] = "drop-registers"

    def apply(self, model: VisionModel) -> None:
        model.backbone.drop_registers()


class Resize(amb.Edit):
    """The encoder takes images of another size; its position embedding is interpolated."""

    name: ClassVar[str] = "resize"

    image_size: int = Field(ge=1, le=2048)
    """Side of the images, in pixels."""

    def apply(self, model: VisionModel) -> None:
        model.backbone.resize(self.image_size)


def _explain_lack(model: VisionModel, verb: str) -> str | None:
    """Why the model's network does not have this verb; None where its loader has written it."""
    missing = getattr(type(model.backbone), verb) is getattr(amb.Backbone, verb)
    return f"{model.ref} {_LACKS[verb]}" if missing else None
