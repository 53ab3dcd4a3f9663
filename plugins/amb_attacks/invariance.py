"""`invariance`: write the same function with other weights; parameters and presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import amb

if TYPE_CHECKING:
    from amb import VisionModel


class Invariance(amb.Attack):
    """Change the weights of every transformer block in a way that leaves its function the same.

    `neurons` permutes the hidden neurons of the MLP, `heads` the attention heads. `norm` moves gain and bias of both
    norms into the linear maps behind them and leaves gain 1 and bias 0. `basis` turns and stretches, in every head,
    the space in which queries meet keys and that of the values, and undoes it on the other side. Raises an error
    where the output embeddings of the attacker's first 100 images move: largest difference over largest magnitude
    of the embeddings above 1e-4.
    """

    name: ClassVar[str] = "invariance"
    thief: ClassVar[amb.Thief] = "rewrites its weights"
    source: ClassVar[str] = (
        "Yan et al. 2023, invariant neuron transforms (neurons); Ashkboos et al. 2024, SliceGPT (norm); "
        "Elhage et al. 2021, QK and OV circuits (heads, basis)"
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "permute-neurons": {"rewrite": "neurons"},
        "permute-heads": {"rewrite": "heads"},
        "fold-norms": {"rewrite": "norm"},
        "change-basis": {"rewrite": "basis"},
        "reparametrize": {"rewrite": "all"},
    }

    rewrite: Literal["all", "neurons", "heads", "norm", "basis"] = "all"
    """Which of the four; `all` does one after the other."""

    def skip(self, model: VisionModel) -> str | None:
        parts = [model.backbone.parts(block) for block in range(model.n_blocks)]
        if not parts or None in parts:
            return f"{model.ref} has no plain transformer blocks, whose weights could be rewritten"
        readers = [map_ for each in parts if each for map_ in (each.query, each.key, each.value, each.up)]
        if self.rewrite in ("all", "norm") and any(map_.bias is None for map_ in readers):
            return f"the linear maps of {model.ref} have no bias to take up that of the norm before them"
        return None

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        from amb_attacks.invariance_torch import REWRITES, require_same_function

        rewritten = model.copy(f"{model.ref}+{self.canonical()}")
        for name in REWRITES if self.rewrite == "all" else [self.rewrite]:
            generator = ctx.generator(name)
            for block in range(model.n_blocks):
                parts = rewritten.backbone.parts(block)
                assert parts is not None
                REWRITES[name](parts, generator)
        require_same_function(str(self), model, rewritten, ctx)
        return rewritten
