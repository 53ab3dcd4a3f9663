"""`adaptive-*`: erase, clip or scramble what the residual stream carries; parameters, presets and edits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

import amb

if TYPE_CHECKING:
    from amb import VisionModel

Where = Literal["all"] | Annotated[int, Field(ge=0, le=4096)]
"""One block, counted from 0, or all of them."""
Carrier = Literal["channel", "token"]
Replacement = Literal["mean", "shuffle"]


class EraseStream(amb.Edit):
    """Set feature dimensions of every token that enters a block to fixed values, which are kept with the weights."""

    name: ClassVar[str] = "erase-stream"

    dims: tuple[Annotated[int, Field(ge=0)], ...] = Field(max_length=4096)
    """Which feature dimensions."""
    block: Where = "all"
    """Which block."""

    def apply(self, model: VisionModel) -> None:
        from amb_attacks.residual_torch import Erase, before_blocks

        before_blocks(model, self.block, lambda: Erase(self.dims, model.backbone.dim))


class ClipStream(amb.Edit):
    """Clamp the tokens that enter a block at a magnitude that is kept with the weights."""

    name: ClassVar[str] = "clip-stream"

    block: Where = "all"
    """Which block."""

    def apply(self, model: VisionModel) -> None:
        from amb_attacks.residual_torch import Clip, before_blocks

        before_blocks(model, self.block, Clip)


class ScrambleStream(amb.Edit):
    """Replacement one feature channel or one token of what enters a block; CLS is token 0, registers are not counted."""

    name: ClassVar[str] = "scramble-stream"

    carrier: Carrier
    """One feature channel of every token, or one whole token."""
    index: int = Field(ge=0, le=65536)
    """Which channel or token."""
    how: Replacement
    """Put a mean in its place, or shuffle its values."""
    amount: float = Field(ge=0, le=1)
    """Share of the carrier that is replaced."""
    shuffle: int = Field(ge=0, lt=2**63)
    """The seed of the permutation."""
    block: Where = "all"
    """Which block."""

    def apply(self, model: VisionModel) -> None:
        from amb_attacks.residual_torch import Scramble, before_blocks

        n_prefix = model.backbone.n_prefix
        before_blocks(
            model,
            self.block,
            lambda: Scramble(self.carrier, self.index, self.how, self.amount, self.shuffle, n_prefix),
        )


class _StreamAttack(amb.Attack):
    """What the three attacks on the stream have in common: they need blocks."""

    block: Where = "all"
    """Whose input is changed: one block's, counted from 0, or `all`."""

    def skip(self, model: VisionModel) -> str | None:
        if not model.n_blocks:
            return f"{model.ref} has no transformer blocks, hence no residual stream"
        if self.block != "all" and self.block >= model.n_blocks:
            return f"{model.ref} has no block {self.block} (it has {model.n_blocks})"
        return None


class AdaptiveErase(_StreamAttack):
    """Erase the feature dimensions with massive activations from the tokens that enter each block.

    Takes the dimensions of the residual stream with the largest magnitudes: the largest over an image's tokens,
    averaged over the attacker's first 100 images, the most over the blocks' inputs. Sets them to 0, or to their
    mean over images and tokens at that block. What leaves the last block is what that block adds to it. The weights
    stay; the model passes its tokens through the edit from then on.
    """

    name: ClassVar[str] = "adaptive-erase"
    thief: ClassVar[amb.Thief] = "edits its activations"
    source: ClassVar[str] = "Sun et al. 2024, section 3 (set to zero, set to mean), on whole dimensions"
    strength_parameter: ClassVar[str | None] = "dims"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"adaptive-erase-mean": {"fill": "mean"}}

    dims: int = Field(4, ge=0, le=4096)
    """How many dimensions are erased."""
    fill: Literal["zero", "mean"] = "zero"
    """What they are set to."""

    def skip(self, model: VisionModel) -> str | None:
        too_many = self.dims > model.backbone.dim
        return super().skip(model) or (f"{model.ref} has {model.backbone.dim} dimensions" if too_many else None)

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        from amb_attacks.residual_torch import erase

        return erase(self, model, ctx)


class AdaptiveClip(_StreamAttack):
    """Clamp the tokens that enter each block at a quantile of their magnitudes.

    The level is taken for each block by itself, over all values of the stream on the attacker's first 100 images, so
    it is the massive activations that it meets first. The weights stay; the model clamps its tokens from then on.
    """

    name: ClassVar[str] = "adaptive-clip"
    thief: ClassVar[amb.Thief] = "edits its activations"
    source: ClassVar[str] = "Sun et al. 2024, section 2 (massive activations); clamping them: this project"
    strength_parameter: ClassVar[str | None] = "share"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"adaptive-clip1": {"share": 0.01}}

    share: float = Field(0.001, ge=0, lt=1)
    """Share of the values that lie above the level: 0.001 clamps at the quantile 0.999; 0 clamps nothing."""

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        from amb_attacks.residual_torch import clip

        return clip(self, model, ctx)


class AdaptiveScramble(_StreamAttack):
    """Replacement the carrier that a method writes its message into, as one can who knows the method but not the key.

    A channel is replaced, over CLS and the patches, by its mean or by its values in another order; a token by the mean
    of its neighbours on the grid of patches, or by its values in another order. That happens at the input of each
    block, with one permutation for all images and blocks, so whatever is injected after a block has passed it before
    the next. The weights stay.
    """

    name: ClassVar[str] = "adaptive-scramble"
    thief: ClassVar[amb.Thief] = "edits its activations"
    source: ClassVar[str] = (
        "ActiveMark, section 3.2 (channel 0); the authors' code (token 46); the attack: this project"
    )
    strength_parameter: ClassVar[str | None] = "amount"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "adaptive-scramble-mean": {"how": "mean"},
        "adaptive-scramble-token": {"carrier": "token", "index": 46, "how": "mean"},
    }

    carrier: Carrier = "channel"
    """One feature channel of every token, or one whole token."""
    index: int = Field(0, ge=0, le=65536)
    """Which channel or token (CLS is token 0, registers are not counted)."""
    how: Replacement = "shuffle"
    """Put a mean in its place, or shuffle its values."""
    amount: float = Field(1.0, ge=0, le=1)
    """Share of the carrier that is replaced: 0 leaves it, 1/2 averages it with what replaces it."""

    @property
    def knows(self) -> amb.Knows:
        return "method"

    def skip(self, model: VisionModel) -> str | None:
        if reason := super().skip(model):
            return reason
        size = model.backbone.dim if self.carrier == "channel" else model.facts().n_tokens
        if self.index >= size:
            return f"{model.ref} has no {self.carrier} {self.index} (it has {size})"
        if self.carrier == "token" and self.how == "mean" and self.index < min(model.backbone.n_prefix, 1):
            return f"the CLS token of {model.ref} has no neighbours whose mean could replace it"
        return None

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        edit = ScrambleStream(
            carrier=self.carrier,
            index=self.index,
            how=self.how,
            amount=self.amount,
            shuffle=ctx.seed("shuffle"),
            block=self.block,
        )
        return amb.edited(model, edit, f"{model.ref}+{self.canonical()}")
