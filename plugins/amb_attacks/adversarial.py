"""`adversarial`: fine-tune the stolen model on adversarial images, so that what small changes of an image carry goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

import amb
from amb_attacks.finetune import FineTune

if TYPE_CHECKING:
    from amb import VisionModel


class Adversarial(FineTune):
    """Fine-tune as `finetune` does, but on adversarial images made anew of every batch (adversarial training).

    Projected gradient ascent on the cross-entropy of the model as it is at that step: from a random point within
    epsilon of the image, steps along the gradient's sign, each put back within epsilon and [0, 1]. A step of
    training costs as many more passes as there are steps.
    """

    name: ClassVar[str] = "adversarial"
    thief: ClassVar[amb.Thief] = "fine-tunes it"
    source: ClassVar[str] = "Madry et al. 2018, eq. 2.1 and section 5; epsilon and steps as there for CIFAR-10"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    epsilon: float = Field(0.031, ge=0, le=1)
    """Most that a value of a pixel changes, of a range of 0 to 1; 0.031 is 8/255."""
    steps: int = Field(7, ge=1)
    """Steps of gradient ascent."""
    step_size: float = Field(0.008, gt=0, le=1)
    """How far a step goes in each value of a pixel; 0.008 is 2/255."""

    def work(self, method: amb.Method, facts: amb.ModelFacts) -> amb.Work:
        """Every image in every epoch, and as often again as there are steps of ascent."""
        return super().work(method, facts) + amb.Work(trained=self.steps * self.epochs * self.n_images)

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        from amb import tune
        from amb_attacks.adversarial_torch import Ascent

        ascent = Ascent(self.epsilon, self.steps, self.step_size, self.task, ctx.generator("adversarial start"))
        ref = f"{model.ref}+{self.canonical()}"
        return tune(
            model, ctx.split("attacker"), self.task, self.training_config(), ctx, ref, head=self.head, perturb=ascent
        )
