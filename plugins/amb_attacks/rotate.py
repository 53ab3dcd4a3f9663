"""`rotate`: another basis for the residual stream or for the output; parameters, presets, and the edit that it needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import amb

if TYPE_CHECKING:
    from amb import VisionModel

Where = Literal["first", "last"]


class Rotate(amb.Attack):
    """Turn what the network computes with, or what it answers with, by a random rotation.

    `stream` turns the residual stream of all blocks and leaves the function the same: a linear map before the first block
    turns the tokens, norms and scales are folded, every matrix that reads or writes the stream is turned with it, and a
    linear map behind the last norm turns back and does what that norm's gain and bias did. Raises an error where the
    embeddings of the attacker's first 100 images move, as `invariance` does.

    `output` turns the output tokens, and so the embedding, by a linear map behind the last norm: the same information in
    another basis. Task heads, which read the old one, are dropped; a probe that is fitted anew is worth as much as before.
    """

    name: ClassVar[str] = "rotate"
    thief: ClassVar[amb.Thief] = "rewrites its weights"
    source: ClassVar[str] = (
        "Ashkboos et al. 2024, SliceGPT, section 3 (the stream of a network whose norms are folded); output: this project"
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "rotate-stream": {"what": "stream"},
        "rotate-output": {"what": "output"},
    }

    what: Literal["stream", "output"] = "output"
    """The residual stream, function unchanged, or the output."""

    def skip(self, model: VisionModel) -> str | None:
        from amb_attacks.rotate_torch import explain_misfit

        return explain_misfit(model, self.what)

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        from amb_attacks.invariance_torch import require_same_function
        from amb_attacks.rotate_torch import rotate_output, rotate_stream

        ref, drawn = f"{model.ref}+{self.canonical()}", ctx.generator("rotation")
        if self.what == "output":
            return rotate_output(model, ref, drawn)
        turned = rotate_stream(model, ref, drawn)
        require_same_function(str(self), model, turned, ctx)
        return turned


class MapTokens(amb.Edit):
    """Pass tokens through a linear map, whose weights are kept with the others: before the first block, or behind the last norm."""

    name: ClassVar[str] = "map-tokens"

    where: Where
    """Before the first block, or behind the norm that follows the last."""

    def apply(self, model: VisionModel) -> None:
        from amb_attacks.rotate_torch import add_map

        add_map(model, self.where)
