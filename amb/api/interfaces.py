"""What a plugin writes: a Method, an Attack, a Suite, a ModelLoader or a Reporter. Declare light, work heavy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from amb.api.component import Component
from amb.api.needs import Needs, reckon_needs
from amb.api.types import (
    Access,
    CheckpointFiles,
    ClaimKind,
    Fetch,
    Independent,
    Knows,
    ModelFacts,
    Null,
    Protected,
    Role,
    Sibling,
    Thief,
    Work,
)

if TYPE_CHECKING:
    import torch

    from amb.api.context import Context
    from amb.api.data import Split
    from amb.api.records import Embedding, Evidence, Key, KeyAudit
    from amb.api.vision import SuspectView, VisionModel


class Method(Component, ABC):
    """An ownership-verification method: a watermark changes the model it protects, a fingerprint does not.

    Methods measure; `amb.evaluation.verdict` decides.
    """

    kind: ClassVar[str] = "method"
    access: ClassVar[Access]
    """What `extract` needs of a suspect; the view it gets refuses more."""
    protects: ClassVar[Protected] = "encoder"
    """`classifier`: a model without a head for the suite's classes gets one from `Suite.classifier` first."""

    null: ClassVar[Null] = "none"
    """`exact` where every symbol of a model that was made without the key is an independent, uniform draw: then the
    p-value is exact. The contract `ExactNull` holds it."""

    claims: ClassVar[ClaimKind] = "lineage"
    """What a claim by this method says."""

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

    def extract_on(self, suspect: SuspectView, key: Key, images: torch.Tensor, ctx: Context) -> Evidence:
        """Read the key on images of somebody else's choice, (n, 3, height, width) in [0, 1]. Optional.

        `ctx.base` loads the unmarked model. The evidence has to be as valid as that of `extract`.
        """
        raise NotImplementedError

    def redraw(self, key: Key, generator: torch.Generator) -> Key:
        """Another key for the same model and images, its secret drawn anew: what the contract `ExactNull` reads. Optional."""
        raise NotImplementedError

    def audit_key(self, key: Key, unmarked: VisionModel | None = None) -> KeyAudit:
        """Make again what of a key follows from its secret and, where it is given, from the unmarked model."""
        from amb.api.records import KeyAudit

        return KeyAudit(trusted=("the whole key: this method does not derive it from a secret",))

    def work(self, facts: ModelFacts) -> Work | None:
        """What `embed` costs on such a model; None where the search alone knows."""
        return None

    def query_work(self) -> Work:
        """What `extract` costs on a suspect."""
        return Work()

    def needs(self, facts: ModelFacts, weights_mib: float) -> Needs:
        """What `embed` takes of a machine, for such a model with so many MiB of weights; reckoned from `work`.

        Override it where more is held at once, several cores are used, or a part of a GPU is enough.
        """
        return reckon_needs(self.work(facts), weights_mib)

    # What adaptive attacks and forgeries need to know of a method. Both verbs are optional.

    forgeries: ClassVar[Mapping[str, str]] = {}
    """What a dishonest claimant can make up so that an innocent model verifies, each with a sentence on how."""

    def forge(self, model: VisionModel, what: str, budget: int, ctx: Context) -> Key:
        """A key, made up after the fact, that reads on `model` as it is. `what` is one of `forgeries`.

        `budget` bounds the work: training steps, or tries for each trial, as the sentence in `forgeries` says.
        The claimant's images are the owner and trigger splits of `ctx`; `ctx.key` is the honest key where he has one.
        """
        raise NotImplementedError

    has_agreement: ClassVar[bool] = False
    """Whether `agreement` is implemented."""

    def agreement(self, model: VisionModel, key: Key, n: int, drawn: torch.Generator) -> torch.Tensor:
        """How well the key reads on a model, differentiable in the model's weights; a scalar that falls as it reads worse.

        The mean log-likelihood of a symbol, each floored at chance, over `n` inputs of the key, drawn with `drawn`.
        What an attacker minimises who trains against the key.
        """
        raise NotImplementedError


class Attack(Component, ABC):
    """Something that a thief does to a model, or that befalls it."""

    kind: ClassVar[str] = "attack"
    thief: ClassVar[Thief] = "does something else"
    """What the thief does whom it stands for; what he knows beside that, `knows` says."""
    strength_parameter: ClassVar[str | None] = None
    """The parameter whose 0 leaves the model's features as they were, where there is one."""
    requires: ClassVar[tuple[str, ...]] = ()
    """Modules of optional packages that it imports; they come with the extra `attacks`."""

    @property
    def knows(self) -> Knows:
        """What the attacker has: `method` puts `ctx.method` there, `key` puts `ctx.key` there as well."""
        return "model"

    def skip(self, model: VisionModel) -> str | None:
        """Why this attack does not apply to such a model; None where it does."""
        return None

    def skip_method(self, method: Method) -> str | None:
        """Why this attack does not apply to what such a method protects; None where it does."""
        return None

    def work(self, method: Method, facts: ModelFacts) -> Work | None:
        """What `apply` costs; override it where images pass through the model. None where that is not known beforehand."""
        return Work()

    def needs(self, method: Method, facts: ModelFacts, weights_mib: float) -> Needs:
        """What `apply` takes of a machine, for such a model with so many MiB of weights; reckoned from `work`."""
        return reckon_needs(self.work(method, facts), weights_mib)

    def skeleton(self, model: VisionModel) -> VisionModel | None:
        """An untrained model of the form that `apply` returns, where that is another; None where the form stays.

        So that a method which could not read the result says so before a student is trained for it.
        """
        return None

    @abstractmethod
    def apply(self, model: VisionModel, ctx: Context) -> VisionModel:
        """Return the attacked model; never change `model` itself."""


class Forgery(Attack):
    """An attack on the verification, not on the model: a key made up so that an innocent model verifies.

    It stands at the end of a chain. Its suspects are the suite's innocent models, and a claim on one is a false claim.
    """

    thief: ClassVar[Thief] = "forges a key"

    @property
    def knows(self) -> Knows:
        """The method, whose keys it forges."""
        return "method"

    def apply(self, model: VisionModel, ctx: Context) -> VisionModel:
        """The model stays as it is."""
        return model.copy()

    @abstractmethod
    def forge(self, model: VisionModel, ctx: Context) -> Key:
        """The forged key. Leaves `model` as it is; the method is `ctx.method`."""


class Edit(Component, ABC):
    """A change of a network's structure that its card carries, so that the network can be built again.

    `amb.edited(model, edit)` applies it to a copy and writes it down; `build_model` replays it on the untrained network.
    A card may come from a stranger: declare parameters with bounds, and nothing that names a file or an address.
    """

    kind: ClassVar[str] = "edit"

    @abstractmethod
    def apply(self, model: VisionModel) -> None:
        """Change the model in place: its backbone, filters or answers, never its heads. Needs no data, draws nothing."""


class Suite(Component, ABC):
    """Owner model, data, innocent models and the measure of utility: all that a method is judged on."""

    kind: ClassVar[str] = "suite"

    @abstractmethod
    def owner(self) -> str:
        """Reference of the model to protect, such as `tiny/owner`."""

    @abstractmethod
    def independents(self) -> Sequence[Independent]:
        """Models that have nothing to do with the owner's, each with its class."""

    @abstractmethod
    def siblings(self) -> Sequence[Sibling]:
        """Negatives that come from the same unmarked source: the hardest to tell apart."""

    @property
    def tolerance(self) -> float:
        """Share of its utility that an attacked model may lose; one that lost more counts as destroyed."""
        return 0.1

    def perturbations(self) -> Sequence[str]:
        """Specs of cheap attacks that make further negatives of the innocent models, `{}` standing for a number."""
        return ()

    @abstractmethod
    def split(self, role: Role) -> Split:
        """The images of one role; no source image serves two roles."""

    def files(self, role: Role) -> Sequence[str] | None:
        """Which files serve one role, in the order of its split; None where the suite makes its images."""
        return None

    def data_facts(self) -> Mapping[str, Any] | None:
        """What of a data set on disk serves each role, for the results: counts and digests, no contents."""
        return None

    def definition(self) -> dict[str, Any]:
        """Everything that determines what the suite is, the data that serves each role included."""
        facts = self.data_facts()
        return super().definition() | ({"data": dict(facts)} if facts is not None else {})

    def fetches(self) -> Sequence[Fetch]:
        """The data that it needs, for `amb plan`; its models speak for themselves."""
        return ()

    def utility_work(self) -> Work:
        """What `utility` costs on a model."""
        return Work()

    @abstractmethod
    def utility(self, model: VisionModel, ctx: Context) -> Mapping[str, float]:
        """How well a model does its job, each figure in 0..1, more is better."""

    def classifier(self, model: VisionModel, ctx: Context) -> VisionModel | None:
        """The model with a head for this suite's classes, trained together on the owner's images; a new model.

        None leaves it to `amb.train_classifier`.
        """
        return None


class ModelLoader(Component, ABC):
    """Makes models of one library from references `<name>/<rest>`."""

    kind: ClassVar[str] = "model loader"

    def names(self) -> Sequence[str]:
        """References that can be listed, without the prefix; may be empty where there are too many."""
        return ()

    @abstractmethod
    def load(self, rest: str) -> VisionModel:
        """The trained model that `<name>/<rest>` refers to. Raises UnknownNameError, CheckpointError, MissingError."""

    def files(self, rest: str) -> CheckpointFiles | None:
        """The files of `<name>/<rest>` on this machine, for writing a changed model in the same form; None without any."""
        return None

    @abstractmethod
    def build(self, architecture: Mapping[str, Any]) -> VisionModel:
        """The same network, untrained and without heads, from the JSON in `VisionModel.architecture`.

        The JSON may come from a stranger: refuse whatever is not a known architecture with plain options.
        """

    def fetches(self, rest: str) -> Sequence[Fetch]:
        """What `load(rest)` needs of the hub, for `amb plan`; found without importing the model's library."""
        return ()

    def skeleton(self, rest: str) -> VisionModel:
        """The network of `load(rest)` with any weights, fetching nothing: what `amb plan` measures. Raises MissingError."""
        return self.load(rest)

    def digest(self, rest: str) -> str:
        """`load(rest).digest()`; override where it is known without loading the model."""
        return self.load(rest).digest()


DescribeAttack = Callable[[str], Mapping[str, str] | None]
"""From an attack's name or spec to what it says of itself, by topic; None where its plugin is not installed.

`thief` is its `Attack.thief`, and `knows` its `Attack.knows`, which is there where the spec has all parameters that it needs.
"""


class Reporter(ABC):
    """Renders a document: its `tables` are laid out already, its `cells` are all there is to know (docs/schema.md)."""

    def __init__(self, describe_attack: DescribeAttack = lambda _: None) -> None:
        self.describe_attack = describe_attack
        """What an attack does, for formats that explain it."""

    name: ClassVar[str]
    whole: ClassVar[bool] = False
    """Whether `amb report` without a layout hands over the document without tables, for it chooses its own."""

    @abstractmethod
    def render(self, document: Mapping[str, Any]) -> str:
        """The text to print on standard output; `amb.report.tables.tables_of(document)` gives the tables."""
