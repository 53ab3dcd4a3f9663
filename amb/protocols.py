"""What a plugin writes: a Method, an Attack, a Suite, a ModelLoader or a Reporter. Declare light, work heavy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, get_args

from amb.component import Component

if TYPE_CHECKING:
    from amb.context import Context
    from amb.data import Split
    from amb.records import Embedding, Evidence, Key, ModelFacts
    from amb.vision import SuspectView, VisionModel

Access = Literal["labels", "logits", "features", "weights"]
"""What a method may ask of a suspect, from the strictest black box to the white box."""
ACCESS_LEVELS: Final[tuple[Access, ...]] = get_args(Access)

Role = Literal["owner", "attacker", "trigger", "test"]
"""The splits of a suite: the owner's data, the attacker's, the images a key is read on, the judge's."""

Protected = Literal["encoder", "classifier"]
"""What a method protects: the encoder as it is, or the encoder with a head for the suite's classes."""


class Method(Component, ABC):
    """An ownership-verification method: a watermark changes the model it protects, a fingerprint does not.

    Methods measure; `amb.statistics` decides.
    """

    kind: ClassVar[str] = "method"
    access: ClassVar[Access]
    """What `extract` needs of a suspect; the view it gets refuses more."""
    protects: ClassVar[Protected] = "encoder"
    """`classifier`: a model without a head for the suite's classes gets one from `Suite.classifier` first."""

    @property
    @abstractmethod
    def default_tau(self) -> int:
        """Most wrong symbols with which a trial counts as detected, unless the user says otherwise."""

    def skip(self, facts: ModelFacts, key: Key | None = None) -> str | None:
        """Why this method does not apply to such a model, as owner or (with a key) as suspect; None where it does."""
        return None

    @abstractmethod
    def embed(self, owner: VisionModel, ctx: Context) -> Embedding:
        """Make the key, and the mark where there is one. Leaves `owner` unchanged."""

    @abstractmethod
    def extract(self, suspect: SuspectView, key: Key, ctx: Context) -> Evidence:
        """Read the key on a suspect. Leaves the suspect as it was."""


class Attack(Component, ABC):
    """Something that a thief does to a model, or that befalls it."""

    kind: ClassVar[str] = "attack"

    def skip(self, model: VisionModel) -> str | None:
        """Why this attack does not apply to such a model; None where it does."""
        return None

    @abstractmethod
    def apply(self, model: VisionModel, ctx: Context) -> VisionModel:
        """Return the attacked model; never change `model` itself."""


@dataclass(frozen=True)
class Sibling:
    """A negative that comes from the owner's own model before it was marked."""

    name: str
    attack: str
    """Spec of what was done to the unmarked model; `none` for the model itself."""


class Suite(Component, ABC):
    """Owner model, data, innocent models and the measure of utility: all that a method is judged on."""

    kind: ClassVar[str] = "suite"

    @abstractmethod
    def owner(self) -> str:
        """Reference of the model to protect, such as `tiny/owner`."""

    @abstractmethod
    def independents(self) -> Sequence[str]:
        """References of models that have nothing to do with the owner's."""

    @abstractmethod
    def siblings(self) -> Sequence[Sibling]:
        """Negatives that come from the same unmarked source: the hardest to tell apart."""

    @abstractmethod
    def split(self, role: Role) -> Split:
        """The images of one role; no source image serves two roles."""

    @abstractmethod
    def utility(self, model: VisionModel, ctx: Context) -> Mapping[str, float]:
        """How well a model does its job, each figure in 0..1, more is better."""

    def classifier(self, model: VisionModel, ctx: Context) -> VisionModel:
        """The model with a head for this suite's classes, trained together on the owner's images; a new model."""
        from amb.tuning import Schedule, tune

        return tune(model, ctx.split("owner"), "classification", Schedule("cosine", epochs=5), ctx)


class ModelLoader(Component, ABC):
    """Makes models of one library from references `<name>/<rest>`."""

    kind: ClassVar[str] = "model loader"

    def names(self) -> Sequence[str]:
        """References that can be listed, without the prefix; may be empty where there are too many."""
        return ()

    @abstractmethod
    def load(self, rest: str) -> VisionModel:
        """The trained model that `<name>/<rest>` refers to. Raises UnknownNameError, CheckpointError, MissingError."""

    @abstractmethod
    def build(self, architecture: Mapping[str, Any]) -> VisionModel:
        """The same network, untrained and without heads, from the JSON in `VisionModel.architecture`.

        The JSON may come from a stranger: refuse whatever is not a known architecture with plain options.
        """

    def digest(self, rest: str) -> str:
        """`load(rest).digest()`; override where it is known without loading the model."""
        return self.load(rest).digest()


class Reporter(ABC):
    """Renders a document: its `tables` are laid out already, its `cells` are all there is to know (docs/schema.md)."""

    name: ClassVar[str]

    @abstractmethod
    def render(self, document: Mapping[str, Any]) -> str:
        """The text to print on standard output; `amb.tables.tables_of(document)` gives the tables."""
