"""The embedded suite `tiny` and its model references `tiny/<name>`: real scans, real small models, no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import amb

if TYPE_CHECKING:
    from amb import Split, VisionModel

WEIGHTS: Final = Path(__file__).parent / "weights"
INDEPENDENTS: Final = {
    "other-seed": "other-seed",
    "other-data": "other-data",
    "registers": "registers",
    "convnet": "other-family",
    "convnet-other-data": "other-family-other-data",
    "random": "random-init",
}
"""The innocent models and their classes."""
UNTRAINED: Final = "random"
"""Made from its seed, not shipped."""
DISTILLED: Final = "distilled"
"""A student of the unmarked owner, from weights of its own."""


class TinySuite(amb.Suite):
    """A small visual foundation model of coloured digits, with everything that the paper's protocol needs.

    The owner is a vision transformer of 0.7 M parameters trained on class and ink mask. Independents: the same
    architecture with another seed and with other data, one with register tokens, convolutional networks on the same
    and on other data, and untrained weights. Siblings: the unmarked owner, its fine-tune, its prune, its distillate,
    and the owner marked with another key.
    """

    name: ClassVar[str] = "tiny"
    source: ClassVar[str] = "UCI handwritten digits (Alpaydin and Kaynak, 1998), as shipped by scikit-learn"

    def owner(self) -> str:
        return "tiny/owner"

    def independents(self) -> Sequence[amb.Independent]:
        return [amb.Independent(f"tiny/{name}", group) for name, group in INDEPENDENTS.items()]

    def siblings(self) -> Sequence[amb.Sibling]:
        return [
            amb.Sibling("unmarked owner", "none", "unmarked"),
            amb.Sibling("unmarked owner, fine-tuned", "finetune-constant", "unmarked-finetuned"),
            amb.Sibling("unmarked owner, pruned", "prune40", "unmarked-pruned"),
            amb.Sibling("unmarked owner, distilled", "none", "unmarked-distilled", f"tiny/{DISTILLED}"),
            amb.Sibling("owner with another key", "overwrite", "other-key"),
        ]

    def perturbations(self) -> Sequence[str]:
        return [
            "prune20",
            "prune40",
            "quantize-bf16",
            "finetune:epochs=1,n_images=512",
            "noise:sigma=0.05,draw={}",
            "noise:sigma=0.1,draw={}",
            "noise:sigma=0.1,draw={}+finetune:epochs=1,n_images=512",
            "prune20+noise:sigma=0.02,draw={}",
        ]

    def split(self, role: amb.Role) -> Split:
        from amb_suites.digits import DigitSplit

        return DigitSplit(role)

    def utility_work(self) -> amb.Work:
        return amb.Work(read=2048)

    def utility(self, model: VisionModel, ctx: amb.Context) -> Mapping[str, float]:
        from amb import measure_utility

        return measure_utility(model, ctx)


class TinyLoader(amb.ModelLoader):
    """The models that ship with the suite; `python -m amb_suites.recipe` makes them again."""

    name: ClassVar[str] = "tiny"

    def names(self) -> Sequence[str]:
        return ("owner", *INDEPENDENTS, DISTILLED)

    def load(self, rest: str) -> VisionModel:
        if rest == UNTRAINED:
            from amb_suites.recipe import RECIPES, train

            return train(RECIPES[rest])
        return amb.load_checkpoint(self._find_stem(rest), f"tiny/{rest}", amb.build_model)

    def build(self, architecture: Mapping[str, Any]) -> VisionModel:
        raise amb.CheckpointError("The models of tiny are timm networks: a card names 'timm' as their loader.")

    def digest(self, rest: str) -> str:
        if rest == UNTRAINED:
            return self.load(rest).digest()
        return amb.read_card(self._find_stem(rest)).digest or self.load(rest).digest()

    def _find_stem(self, rest: str) -> Path:
        if rest not in self.names():
            known = [f"tiny/{name}" for name in self.names()]
            raise amb.unknown_name("model", f"tiny/{rest}", known, "`amb list models` shows all")
        return WEIGHTS / rest
