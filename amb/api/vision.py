"""VisionModel: an encoder cut into blocks with its task heads; and the view of it that enforces a method's access."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Final, NamedTuple, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from amb.api.types import ACCESS_LEVELS, Access, ModelFacts
from amb.errors import AccessError, NoHeadError
from amb.runtime.batch_size import BatchSizeLimiter
from amb.runtime.compute import Compute, Precision, dtype_of

_CACHED: Final = 2**20
"""Numbers that enter a pass at once on a processor: 4 MiB, which its cache holds together with what becomes of them."""


class Affine(NamedTuple):
    """A linear map inside a block, as views of the model's own weights: what is written into them changes the model."""

    weight: Tensor  # (out, in)
    bias: Tensor | None  # (out,)


class BlockParts(NamedTuple):
    """The parts of a pre-norm transformer block, under the same names in every library."""

    norm1: nn.LayerNorm
    query: Affine  # (heads * head_dim, dim), head by head; so are key and value
    key: Affine
    value: Affine
    output: Affine  # (dim, heads * head_dim)
    norm2: nn.LayerNorm
    up: Affine  # (hidden, dim)
    down: Affine  # (dim, hidden)
    n_heads: int
    scales: tuple[nn.Parameter | None, nn.Parameter | None]
    """LayerScale after attention and after the MLP, (dim,) each, where the block has them."""


class Matrix(NamedTuple):
    """A matrix of an encoder, by the place where it is kept: to be pruned, rounded or written into."""

    name: str
    """Within the backbone, as in its `state_dict`."""
    module: nn.Module
    parameter: str
    """What its module calls it."""
    output_axis: int = 0
    """The axis that counts its outputs."""

    @property
    def weight(self) -> Tensor:
        """Its values, (outputs, inputs, ...) unless `output_axis` says otherwise; writing into them changes the model."""
        return cast(Tensor, getattr(self.module, self.parameter)).detach()


class Backbone(nn.Module, ABC):
    """An encoder, cut where methods need to cut it. A model loader wraps its library's model in one of these."""

    image_size: int
    """Side of the square images it takes, in pixels."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dim: int
    """Width of a token."""
    n_prefix: int
    """Tokens ahead of the patches: CLS, then registers. 0 where the network has none."""

    @property
    @abstractmethod
    def blocks(self) -> Sequence[nn.Module]:
        """The transformer blocks in order; empty for a network without tokens to cut at."""

    @property
    def tail(self) -> Sequence[nn.Module]:
        """What acts on the tokens after the last block: the final norm, a projection."""
        return []

    def parts(self, block: int) -> BlockParts | None:
        """Views of the parts of a block, to write into; None where a block is not of this form."""
        return None

    def matrices(self) -> list[Matrix]:
        """Every matrix of the encoder in the order of its modules: of linear layers, convolutions and torch's attention.

        Biases, norms, position embeddings and learnt tokens are none. Override it to add those that a library keeps
        as bare parameters.
        """
        modules = self.named_modules()
        return [
            Matrix(f"{name}.{parameter}".lstrip("."), module, parameter)
            for name, module in modules
            for parameter in _name_matrices(module)
        ]

    def keep_blocks(self, kept: Sequence[int]) -> None:
        """Drop all blocks but these, in place. Raises NotImplementedError where that cannot be done; so do the next two."""
        raise NotImplementedError

    def drop_registers(self) -> None:
        """Drop the register tokens, in place."""
        raise NotImplementedError

    def resize(self, image_size: int) -> None:
        """Take images of another size, position embeddings interpolated, in place."""
        raise NotImplementedError

    library_prefixes: ClassVar[tuple[str, ...]] = ()
    """What `load_library` itself takes off the start of names, such as `visual.`."""

    def library_shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes in the library's own file of this network, without prefixes; empty where that is not known.

        By them `amb` finds the network's weights in a wrapper or beside a copy, before `load_library` gets them.
        """
        return {}

    def load_library(self, state: dict[str, Tensor], source: str) -> None:
        """Put weights that have the library's own names in place. Raises CheckpointError, which names the source.

        Raises NotImplementedError where its loader does not read such files.
        """
        raise NotImplementedError

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """Tokens that enter block 0, (n, tokens, dim), of normalised images."""

    @abstractmethod
    def finish(self, tokens: Tensor) -> Tensor:
        """Output tokens, (n, tokens, dim), of what leaves the last block."""

    @abstractmethod
    def pool(self, tokens: Tensor) -> Tensor:
        """The output embedding, (n, features), of output tokens, as the library itself forms it."""


def _name_matrices(module: nn.Module) -> Sequence[str]:
    """What a module calls the matrices that it keeps itself, not in a module inside it."""
    if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
        return ("weight",)
    if isinstance(module, nn.MultiheadAttention):  # torch keeps query, key and value outside of any layer
        names = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
        return [name for name in names if getattr(module, name) is not None]
    return ()


class VisionModel(nn.Module):
    """A backbone with any task heads, as every method and attack sees it.

    Images are always float (n, 3, height, width) in [0, 1]; the model resizes and normalises them itself.
    """

    _mean: Tensor
    _std: Tensor

    def __init__(
        self,
        ref: str,
        architecture: Mapping[str, Any],
        backbone: Backbone,
        heads: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.ref = ref
        self.architecture = dict(architecture)
        """JSON from which its loader builds the same network again, untrained."""
        self.backbone = backbone
        self.heads = nn.ModuleDict(dict(heads or {}))
        self.projection: nn.Module | None = None
        """A map behind the backbone's embedding, (n, width) to (n, features), where an edit has put one."""
        self.input_filters: list[Callable[[Tensor], Tensor]] = []
        """What a deployed model does to images, (n, 3, height, width) in [0, 1], before it sees them; not in training."""
        self.output_filters: list[Callable[[Tensor], Tensor]] = []
        """What it does to logits and embeddings before it answers; not in training."""
        self.max_access: Access = "weights"
        """The most that a verifier is told of it: `labels` where it is deployed with nothing but its decisions."""
        self.precision: Precision = "fp32"
        """Of the arithmetic inside the backbone; tokens come out fp32."""
        self.compiled = False
        """Whether blocks go through torch.compile."""
        self.limiter = BatchSizeLimiter("reading")
        """How many images at once, where no gradient is asked for."""
        self.register_buffer("_mean", torch.tensor(backbone.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(backbone.std).view(1, -1, 1, 1), persistent=False)

    @property
    def n_blocks(self) -> int:
        """How many blocks the backbone has; 0 where it cannot be cut."""
        return len(self.backbone.blocks)

    def matrices(self) -> list[Matrix]:
        """Every matrix of the encoder, as `Backbone.matrices` has them; those of task heads are left out."""
        return self.backbone.matrices()

    @property
    def device(self) -> torch.device:
        """Where its weights lie."""
        return self._mean.device

    def prepare(self, images: Tensor) -> Tensor:
        """Resize to the model's own size where needed, and normalise."""
        size = self.backbone.image_size
        images = images.to(self.device)
        for apply_filter in [] if self.training else self.input_filters:
            images = apply_filter(images)
        if images.shape[-2:] != (size, size):
            images = F.interpolate(images, size=(size, size), mode="bicubic", antialias=True).clamp(0, 1)
        return (images - self._mean) / self._std

    def embed(self, images: Tensor) -> Tensor:
        """Tokens that enter block 0, (n, tokens, dim)."""
        return self._compute_rows(lambda part: self.backbone.embed(self.prepare(part)), images)

    def run_blocks(self, tokens: Tensor, start: int, stop: int) -> Tensor:
        """Pass tokens through blocks start ... stop - 1."""
        blocks = self.backbone.blocks[start:stop]
        run = _compile_block() if self.compiled else _run_block
        return self._compute_rows(lambda part: functools.reduce(run, blocks, part), tokens) if blocks else tokens

    def _compute_rows(self, work: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        """What `work` makes of rows, in the model's precision; in parts that fit, where no gradient is asked for.

        A processor is fastest with parts that its cache holds: with 1,024 images of `tiny` at once it takes half as long again.
        """
        with self._open_autocast():
            if torch.is_grad_enabled():
                return _to_full_precision(work(rows))
            most = max(1, _CACHED // max(1, rows[0].numel())) if rows.device.type == "cpu" and len(rows) else None
            return _to_full_precision(
                self.limiter.fit(lambda parts: _join_parts([work(rows[part]) for part in parts]), len(rows), most)
            )

    def _open_autocast(self) -> AbstractContextManager[object]:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype_of(self.precision))

    def prefix(self, images: Tensor, block: int) -> Tensor:
        """p(x): the tokens that leave block `block` (0-based), (n, tokens, dim)."""
        return self.run_blocks(self.embed(images), 0, block + 1)

    def suffix(self, tokens: Tensor, block: int) -> Tensor:
        """q(h): the output tokens for tokens that left block `block`, (n, tokens, dim)."""
        return self.backbone.finish(self.run_blocks(tokens, block + 1, self.n_blocks))

    def tokens(self, images: Tensor) -> Tensor:
        """Output tokens, (n, tokens, dim)."""
        return self.backbone.finish(self.run_blocks(self.embed(images), 0, self.n_blocks))

    def features(self, images: Tensor) -> Tensor:
        """The output embedding, (n, features)."""
        return self._filter_output(self.pool(self.tokens(images)))

    def pool(self, tokens: Tensor) -> Tensor:
        """The output embedding of output tokens, (n, features)."""
        pooled = self.backbone.pool(tokens)
        return pooled if self.projection is None else cast(Tensor, self.projection(pooled))

    def logits(self, images: Tensor, task: str = "classification") -> Tensor:
        """Class logits: (n, classes), or (n, classes, height, width) for segmentation. Raises NoHeadError."""
        return self._filter_output(self.apply_head(self.tokens(images), task, images.shape[-1]))

    def apply_head(self, tokens: Tensor, task: str, image_size: int) -> Tensor:
        """Class logits of output tokens. Raises NoHeadError."""
        if task not in self.heads:
            has = ", ".join(self.heads) or "none"
            raise NoHeadError(f"{self.ref} has no {task} head (it has: {has}). Fine-tune one on it first.")
        return cast(Tensor, self.heads[task](tokens, self.backbone.n_prefix, image_size))

    def _filter_output(self, output: Tensor) -> Tensor:
        for apply_filter in [] if self.training else self.output_filters:
            output = apply_filter(output)
        return output

    def place(self, compute: Compute) -> Self:
        """Move to the device and compute as asked; the model itself."""
        self.precision, self.compiled = compute.precision, compute.compiled
        if not self.limiter.shrunk:
            self.limiter.most = compute.max_batch
        return self.to(compute.device)

    def copy(self, ref: str | None = None) -> VisionModel:
        """A deep copy that shares nothing with this model."""
        twin = copy.deepcopy(self)
        twin.ref = ref or self.ref
        return twin

    def with_head(self, task: str, head: nn.Module, ref: str | None = None) -> VisionModel:
        """A deep copy whose heads are this one alone."""
        twin = self.copy(ref)
        twin.heads = nn.ModuleDict({task: head.to(self.device)})
        return twin

    def facts(self) -> ModelFacts:
        """Its sizes; costs one image's forward pass."""
        blank = torch.zeros(1, len(self.backbone.mean), self.backbone.image_size, self.backbone.image_size)
        with torch.no_grad():
            tokens = self.tokens(blank)
        n_prefix = self.backbone.n_prefix
        head = self.heads["classification"] if "classification" in self.heads else None  # noqa: SIM401 (no .get)
        return ModelFacts(
            ref=self.ref,
            n_blocks=self.n_blocks,
            n_tokens=min(n_prefix, 1) + tokens.shape[1] - n_prefix,
            dim=self.backbone.dim,
            n_features=self.pool(tokens).shape[1],
            n_classes=cast(int, head.n_classes) if head is not None else None,
            max_access=self.max_access,
        )

    def head_facts(self) -> dict[str, dict[str, Any]]:
        """JSON from which the heads are built again."""
        return {task: cast(Any, head).facts() for task, head in self.heads.items()}

    def digest(self) -> str:
        """SHA-256 over the architecture and every weight, cut to 32 hexadecimal digits: a name among one's own models."""
        return self.full_digest()[:32]

    def full_digest(self) -> str:
        """All 64 digits of it: for claims, where somebody may look for two models with one digest."""
        return weights_digest(self.architecture, self.head_facts(), self.state_dict())


def _run_block(tokens: Tensor, block: nn.Module) -> Tensor:
    return cast(Tensor, block(tokens))


@functools.cache
def _compile_block() -> Callable[[Tensor, nn.Module], Tensor]:
    """A block is compiled, once for all of the same form: a whole network takes minutes."""
    return torch.compile(_run_block)


def _to_full_precision(tokens: Tensor) -> Tensor:
    return tokens.float() if tokens.dtype in (torch.float16, torch.bfloat16) else tokens


def _join_parts(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def weights_digest(architecture: Mapping[str, Any], heads: Mapping[str, Any], state: Mapping[str, Tensor]) -> str:
    """Digest of a model from its parts, 64 hexadecimal digits."""
    digest = hashlib.sha256(json.dumps([architecture, heads], sort_keys=True).encode())
    for name in sorted(state):
        array = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
        digest.update(array.view(torch.uint8).numpy().tobytes() if array.ndim else array.numpy().tobytes())
    return digest.hexdigest()


class SuspectView:
    """What a method may see of a suspect, no more than its declared access; counts queries.

    From the least to the most: `labels`, `logits`, `features`, `weights`. Each includes those before it.
    """

    def __init__(self, model: VisionModel, access: Access) -> None:
        self._model = model.eval()
        self.access = access
        self.queries = 0
        """Images shown to the suspect so far."""

    @torch.no_grad()
    def labels(self, images: Tensor) -> Tensor:
        """Predicted classes, (n,) int64."""
        self._require_access("labels")
        return self._ask_model(self._model.logits, images).argmax(dim=1)

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Class logits, (n, classes)."""
        self._require_access("logits")
        return self._ask_model(self._model.logits, images)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Output embeddings, (n, features)."""
        self._require_access("features")
        return self._ask_model(self._model.features, images)

    @property
    def model(self) -> VisionModel:
        """The whole model, for white-box methods. Queries made through it are counted by `count_queries`."""
        self._require_access("weights")
        return self._model

    def count_queries(self, n: int) -> None:
        """Record images that a white-box method passed through `model`."""
        self.queries += n

    def _ask_model(self, verb: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        self.queries += len(images)
        return verb(images)

    def _require_access(self, wanted: Access) -> None:
        if ACCESS_LEVELS.index(wanted) > ACCESS_LEVELS.index(self.access):
            raise AccessError(
                f"The method asked the suspect for its {wanted}, but it declares access to {self.access} only. "
                f"Set `access = '{wanted}'` in the method, or ask for less."
            )
