"""`dummy-neurons`: neurons that change nothing; parameters, presets, and the edit that writes down how many there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

import amb

if TYPE_CHECKING:
    from amb import VisionModel

Channels = Annotated[tuple[Annotated[int, Field(ge=1, le=2**17)], ...], Field(max_length=1000)]


class DummyNeurons(amb.Attack):
    """Add neurons to every block's MLP that leave its function the same, and shuffle all of its neurons.

    `silent` neurons read at random and write nothing. `cancelling` ones come in pairs that read the same, at random, and
    write opposite things. `split` takes a neuron of the model, gives it a twin that reads the same, and shares out between
    the two what it wrote. So a reader who compares weight by weight finds none in its place. Raises an error where the
    output embeddings of the attacker's first 100 images move, as `invariance` does.
    """

    name: ClassVar[str] = "dummy-neurons"
    thief: ClassVar[amb.Thief] = "rewrites its weights"
    source: ClassVar[str] = "Yan et al. 2023, arXiv 2303.09732 (neural structural obfuscation)"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        f"dummy-neurons-{kind}": {"how": kind} for kind in ("silent", "cancelling", "split")
    }
    strength_parameter: ClassVar[str | None] = "share"

    how: Literal["all", "silent", "cancelling", "split"] = "all"
    """What the added neurons do; `all` adds a third of each."""
    share: float = Field(0.5, ge=0, le=4)
    """How many are added, as a share of those that a block has."""

    def skip(self, model: VisionModel) -> str | None:
        from amb_attacks.dummies_torch import find_layers

        if not model.n_blocks or None in [find_layers(model, block) for block in range(model.n_blocks)]:
            return f"{model.ref} has no plain transformer blocks whose MLP could be widened"
        return None

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        from amb_attacks.dummies_torch import add_dummies
        from amb_attacks.invariance_torch import require_same_function

        wide = add_dummies(self, model, ctx)
        require_same_function(str(self), model, wide, ctx)
        return wide


class WiderMlps(amb.Edit):
    """Give the MLP of every block more channels, which read and write nothing until weights are put into them."""

    name: ClassVar[str] = "wider-mlps"

    channels: Channels
    """Channels of each block's MLP, at least as many as it has."""

    def apply(self, model: VisionModel) -> None:
        from amb_attacks.dummies_torch import widen

        widen(model, self.channels)
