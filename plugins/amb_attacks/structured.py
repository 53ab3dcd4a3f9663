"""`prune-structured`: remove whole attention heads or MLP channels; and the edit that writes down what is left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

import amb

if TYPE_CHECKING:
    from amb import VisionModel

Widths = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(max_length=1000)]


class PruneStructured(amb.Attack):
    """Remove the weakest attention heads or MLP channels of every block, without retraining: a smaller model.

    A head or channel is as strong as the sum of its squared weights: its rows of query, key and value and its
    columns of the projection, or its row and column of the MLP's two matrices. From each block goes the same
    share, rounded to the nearest number, and at least one stays. Built on torch-pruning.
    """

    name: ClassVar[str] = "prune-structured"
    thief: ClassVar[amb.Thief] = "prunes it"
    source: ClassVar[str] = (
        "Fang et al. 2023 (DepGraph), section 3.3: group magnitude; heads as in Michel et al. 2019, channels as in "
        "Li et al. 2017"
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **{f"prune-heads{percent}": {"part": "heads", "amount": percent / 100} for percent in (25, 50, 75)},
        **{f"prune-channels{percent}": {"part": "channels", "amount": percent / 100} for percent in (20, 40, 60, 80)},
    }
    strength_parameter: ClassVar[str | None] = "amount"
    requires: ClassVar[tuple[str, ...]] = ("torch_pruning",)

    part: Literal["heads", "channels"] = "channels"
    """Remove attention heads, or channels between the MLP's two matrices."""
    amount: float = Field(ge=0, lt=1)
    """Share of them removed from every block."""

    def skip(self, model: VisionModel) -> str | None:
        from amb_attacks.structured_torch import resizable, sizes

        if not resizable(model):
            return f"{model.ref} has no plain transformer blocks whose heads and channels could be removed"
        if self.part == "heads" and max(sizes(model)[0]) == 1:
            return f"{model.ref} has one attention head in each block, and one has to stay"
        return None

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        from amb_attacks.structured_torch import remove, sizes

        pruned = remove(model, self.part, self.amount)
        heads, channels = sizes(pruned)
        ctx.note(heads_left=sum(heads), channels_left=sum(channels))
        small = amb.edited(model, BlockWidths(heads=heads, channels=channels), f"{model.ref}+{self.canonical()}")
        small.load_state_dict(pruned.state_dict())
        return small


class BlockWidths(amb.Edit):
    """Give every block fewer attention heads and MLP channels: the first ones of those that it has."""

    name: ClassVar[str] = "block-widths"

    heads: Widths
    """Attention heads of each block, at most as many as it has."""
    channels: Widths
    """Channels between the MLP's two matrices in each block, at most as many as it has."""

    def apply(self, model: VisionModel) -> None:
        from amb_attacks.structured_torch import narrow

        narrow(model, self.heads, self.channels)
