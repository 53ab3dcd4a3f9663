"""`extrapolate`: along the line from the public model through the stolen one, beyond it or back and past the public one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

import amb

if TYPE_CHECKING:
    from amb import VisionModel


class Extrapolate(amb.Attack):
    """Move the encoder's weights away from the public model or towards it: stolen + step * (stolen - public).

    A step of 0 leaves the stolen model, -1 gives the public one, -2 mirrors the stolen one at it: what marking has added is
    subtracted twice, and a mark that is an addition to the weights reads with every sign turned. A positive step makes
    the mark stronger and the model worse. `merge-base` is what lies between. Running statistics of batch norms
    stay; so do heads.
    """

    name: ClassVar[str] = "extrapolate"
    thief: ClassVar[amb.Thief] = "merges it with another"
    source: ClassVar[str] = (
        "Ilharco et al. 2023, section 3 (negated and scaled task vectors), with the mark as the task"
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "extrapolate50": {"step": 0.5},
        "extrapolate100": {"step": 1.0},
        "mirror-base": {"step": -2.0},
    }
    strength_parameter: ClassVar[str | None] = "step"

    step: float = Field(ge=-4, le=4)
    """How far to go, as a share of the distance between the two."""

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        from amb_attacks.merge_torch import fit_state, load_base

        moved = model.copy(f"{model.ref}+{self.canonical()}")
        base = fit_state(self, moved, load_base(self, ctx))
        for name, weight in moved.backbone.named_parameters():
            weight.data.add_(self.step * (weight.data - base[name]))
        return moved
