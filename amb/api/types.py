"""Plain types that components declare themselves with: words of a fixed choice, and small values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple, get_args

Access = Literal["labels", "logits", "features", "weights"]
"""What a method may ask of a suspect, from the strictest black box to the white box."""

ACCESS_LEVELS: Final[tuple[Access, ...]] = get_args(Access)

Role = Literal["owner", "attacker", "trigger", "test"]
"""The splits of a suite: the owner's data, the attacker's, the images a key is read on, the judge's."""

Knows = Literal["model", "method", "key"]
"""What an attacker has beside his own images: the model alone, the method that marked it, or the owner's key too."""

Thief = Literal[
    "deploys it as it is", "prunes it", "quantizes it or adds noise", "fine-tunes it", "distills it", "rewrites its weights",
    "filters inputs or answers", "cuts it down", "merges it with another", "edits its activations", "marks it again",
    "unlearns the mark", "forges a key", "does something else",
]  # fmt: skip
"""What the thief does whom an attack stands for, as a practitioner would say whom he fears."""

Null = Literal["exact", "none"]
"""`exact`: given any suspect that was made without the key, the symbols of the evidence are independent and uniform."""
Basis = Literal["exact", "calibrated"]
"""What a p-value rests on: the binomial over all symbols, or the rank among sources of innocent models."""

Listing = Literal["methods", "attacks", "suites", "models", "executors"]
"""The kinds of components by the word that `amb list` takes."""
LISTINGS: Final[tuple[Listing, ...]] = get_args(Listing)

ClaimKind = Literal["marked release", "lineage"]
"""What a claim says. `marked release`: the suspect descends from the marked model that was shipped; other models of the
same origin are silent. `lineage`: it shares an origin with the protected model, so siblings fire, and rightly."""

Protected = Literal["encoder", "classifier"]
"""What a method protects: the encoder as it is, or the encoder with a head for the suite's classes."""

SuspectKind = Literal["positive", "negative", "forged"]
"""`forged`: an innocent model read with a key that was made up for it."""

Status = Literal["ok", "skipped", "failed"]


class ModelFacts(NamedTuple):
    """The sizes of a model, by which a method says whether it applies."""

    ref: str
    n_blocks: int
    """Transformer blocks; 0 where the network cannot be cut."""
    n_tokens: int
    """CLS, where there is one, and patches; registers are not counted."""
    dim: int
    """Width of a token."""
    n_features: int
    """Length of the output embedding."""
    n_classes: int | None
    """Classes of its classification head; None where it has none."""
    max_access: Access = "weights"
    """The most that a verifier is told of it."""


class Fetch(NamedTuple):
    """Something that has to lie on this machine before a run can begin: weights of a model, a data set."""

    what: str
    """What it is, such as `weights of timm/vit_base_patch16_224.mae`."""
    source: str
    """Where it comes from: a repository and file, an address, a command."""
    size: int | None
    """Bytes, where that is known."""
    cached: bool
    """Whether it is here already."""


class CheckpointFiles(NamedTuple):
    """The files of a model as somebody else's library reads them."""

    weights: tuple[Path, ...]
    """One safetensors file, or the shards of one."""
    beside: tuple[Path, ...] = ()
    """What lies with them and stays as it is: configuration, processor, the index of shards."""


@dataclass(frozen=True)
class Work:
    """How many images a piece of work passes through a whole model: what `amb plan` reckons time with.

    A part of a model counts as that part of an image.
    """

    read: float = 0.0
    """Forward alone."""
    trained: float = 0.0
    """Forward and backward."""

    def __add__(self, other: Work) -> Work:
        return Work(self.read + other.read, self.trained + other.trained)

    def times(self, n: float) -> Work:
        """The same `n` times."""
        return Work(n * self.read, n * self.trained)


@dataclass(frozen=True)
class Independent:
    """An innocent model that has nothing to do with the owner's."""

    ref: str
    group: str
    """Class of negatives: `random-init`, `other-family`, `registers`, `other-seed`, `other-data`, ... (docs/concepts)."""


@dataclass(frozen=True)
class Sibling:
    """A negative that comes from the owner's own model before it was marked."""

    name: str
    attack: str
    """Spec of what was done to the unmarked model; `none` for the model itself."""
    group: str = "sibling"
    """Class of negatives: `unmarked`, `unmarked-finetuned`, `unmarked-pruned`, `unmarked-distilled`, `other-key`."""
    ref: str | None = None
    """Reference of a model that was made of the unmarked one beforehand; None for the unmarked model itself."""
