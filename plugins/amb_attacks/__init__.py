"""Attacks: what a thief does to a model, a file for each family.

`x.py` holds the parameters, light to import, `x_torch.py` the work where it is more than a few lines.
"""

from __future__ import annotations

import amb
from amb_attacks.adversarial import Adversarial
from amb_attacks.cut import CutBlocks, CutRear, CutRegisters, CutResolution, DropRegisters, KeepBlocks, Resize
from amb_attacks.distill import Distill, ProjectEmbedding
from amb_attacks.dummies import DummyNeurons, WiderMlps
from amb_attacks.extrapolate import Extrapolate
from amb_attacks.filters import (
    BlurBefore,
    FlipBefore,
    InputBlur,
    InputFlip,
    InputJpeg,
    InputLevels,
    InputNoise,
    JpegBefore,
    LabelsOnly,
    LevelsBefore,
    NoiseBefore,
    OutputLabels,
    OutputRound,
    RoundAfter,
)
from amb_attacks.finetune import FineTune
from amb_attacks.forge import Forge
from amb_attacks.invariance import Invariance
from amb_attacks.lora import Lora
from amb_attacks.merge import Merge
from amb_attacks.noise import WeightNoise
from amb_attacks.none import NoAttack
from amb_attacks.overwrite import Overwrite
from amb_attacks.prune import Prune
from amb_attacks.quantize import Int8Layers, Quantize, QuantizeInt8
from amb_attacks.regress import AdaptiveRegress
from amb_attacks.residual import (
    AdaptiveClip,
    AdaptiveErase,
    AdaptiveScramble,
    ClipStream,
    EraseStream,
    ScrambleStream,
)
from amb_attacks.rotate import MapTokens, Rotate
from amb_attacks.soup import Soup
from amb_attacks.structured import BlockWidths, PruneStructured
from amb_attacks.unlearn import Unlearn


@amb.hookimpl
def amb_register_attacks() -> list[type[amb.Attack]]:
    return [
        NoAttack,
        Prune,
        PruneStructured,
        FineTune,
        Lora,
        Adversarial,
        Distill,
        Quantize,
        QuantizeInt8,
        CutBlocks,
        CutRear,
        CutRegisters,
        CutResolution,
        InputJpeg,
        InputBlur,
        InputNoise,
        InputFlip,
        InputLevels,
        OutputRound,
        OutputLabels,
        Invariance,
        DummyNeurons,
        Rotate,
        Merge,
        Extrapolate,
        Soup,
        WeightNoise,
        AdaptiveErase,
        AdaptiveClip,
        AdaptiveScramble,
        AdaptiveRegress,
        Overwrite,
        Unlearn,
        Forge,
    ]


@amb.hookimpl
def amb_register_edits() -> list[type[amb.Edit]]:
    return [
        BlockWidths,
        WiderMlps,
        MapTokens,
        ProjectEmbedding,
        Int8Layers,
        KeepBlocks,
        DropRegisters,
        Resize,
        JpegBefore,
        BlurBefore,
        NoiseBefore,
        FlipBefore,
        LevelsBefore,
        RoundAfter,
        LabelsOnly,
        EraseStream,
        ClipStream,
        ScrambleStream,
    ]
