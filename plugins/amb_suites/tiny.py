"""The embedded suite `tiny` and its model references `tiny/<name>`: real scans, real small models, no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import amb

if TYPE_CHECKING:
    from amb.data import Split
    from amb.vision import VisionModel

WEIGHTS: Final = Path(__file__).parent / "weights"
INDEPENDENTS: Final = ("other-seed", "other-data", "registers", "convnet")


class TinySuite(amb.Suite):
    """A small visual foundation model of coloured digits, with everything that the paper's protocol needs.

    The owner is a vision transformer of 0.7 M parameters trained on class and ink mask. Independents: the same
    architecture with another seed and with other data, one with register tokens, one convolutional network.
    Siblings: the unmarked owner itself, its fine-tune and its prune.
    """

    name: ClassVar[str] = "tiny"
    source: ClassVar[str] = "UCI handwritten digits (Alpaydin and Kaynak, 1998), as shipped by scikit-learn"

    def owner(self) -> str:
        return "tiny/owner"

    def independents(self) -> Sequence[str]:
        return [f"tiny/{name}" for name in INDEPENDENTS]

    def siblings(self) -> Sequence[amb.Sibling]:
        return [
            amb.Sibling("unmarked owner", "none"),
            amb.Sibling("unmarked owner, fine-tuned", "finetune-constant"),
            amb.Sibling("unmarked owner, pruned", "prune40"),
        ]

    def split(self, role: amb.Role) -> Split:
        from amb_suites.digits import DigitSplit

        return DigitSplit(role)

    def utility(self, model: VisionModel, ctx: amb.Context) -> Mapping[str, float]:
        from amb.fidelity import utility

        return utility(model, ctx)


class TinyLoader(amb.ModelLoader):
    """The models that ship with the suite; `python -m amb_suites.recipe` makes them again."""

    name: ClassVar[str] = "tiny"

    def names(self) -> Sequence[str]:
        return ("owner", *INDEPENDENTS)

    def load(self, rest: str) -> VisionModel:
        return amb.load_model(self._stem(rest), f"tiny/{rest}", amb.build_model)

    def build(self, architecture: Mapping[str, Any]) -> VisionModel:
        raise amb.CheckpointError("The models of tiny are timm networks: a card names 'timm' as their loader.")

    def digest(self, rest: str) -> str:
        return amb.read_card(self._stem(rest)).digest

    def _stem(self, rest: str) -> Path:
        if rest not in self.names():
            known = [f"tiny/{name}" for name in self.names()]
            raise amb.unknown_name("model", f"tiny/{rest}", known, "`amb list models` shows all")
        return WEIGHTS / rest
