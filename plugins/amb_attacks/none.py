"""`none`: the model as it was deployed."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import amb

if TYPE_CHECKING:
    from amb import VisionModel


class NoAttack(amb.Attack):
    """Leave the model as it is: the control beside every attack."""

    name: ClassVar[str] = "none"
    thief: ClassVar[amb.Thief] = "deploys it as it is"

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        return model.copy()
