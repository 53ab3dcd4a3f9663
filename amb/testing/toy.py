"""A toy suite: a transformer of a few thousand weights on coloured squares, real in every part, quick in all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Final, cast

import torch
from torch import Tensor, nn

from amb.api.context import Context
from amb.api.data import Batch
from amb.api.forging import require_forgery
from amb.api.interfaces import Method, ModelLoader, Suite
from amb.api.records import Embedding, Evidence, Key
from amb.api.types import Access, Independent, Protected, Role, Sibling
from amb.api.vision import Affine, Backbone, BlockParts, SuspectView, VisionModel
from amb.errors import CheckpointError, UnknownNameError
from amb.models.heads import HEADS

SIZE: Final = 16
ROLES: Final[tuple[Role, ...]] = ("owner", "attacker", "trigger", "test")
SEEDS: Final = {"owner": 1, "other": 2}


class ToyBackbone(Backbone):
    """Patches of 4 x 4 pixels, a CLS token, any registers, pre-norm transformer blocks."""

    image_size = SIZE
    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)

    def __init__(self, dim: int, depth: int, registers: int) -> None:
        super().__init__()
        self.dim, self.n_prefix = dim, 1 + registers
        self.patches = nn.Conv2d(3, dim, 4, stride=4)
        self.prefix = nn.Parameter(torch.randn(1, self.n_prefix, dim) * 0.5)
        self.places = nn.Parameter(torch.randn(1, (SIZE // 4) ** 2, dim) * 0.5)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(dim, 4, 2 * dim, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(self.layers)

    @property
    def tail(self) -> Sequence[nn.Module]:
        return [self.norm]

    def parts(self, block: int) -> BlockParts:
        layer = cast(nn.TransformerEncoderLayer, self.layers[block])
        attention, first, second = layer.self_attn, layer.linear1, layer.linear2
        weights, biases = attention.in_proj_weight.data.chunk(3), attention.in_proj_bias.data.chunk(3)
        query, key, value = (Affine(*pair) for pair in zip(weights, biases, strict=True))
        output, up, down = (Affine(each.weight.data, each.bias.data) for each in (attention.out_proj, first, second))
        return BlockParts(
            layer.norm1, query, key, value, output, layer.norm2, up, down, attention.num_heads, (None, None)
        )

    def keep_blocks(self, kept: Sequence[int]) -> None:
        self.layers = nn.ModuleList(self.layers[index] for index in kept)

    def drop_registers(self) -> None:
        self.prefix = nn.Parameter(self.prefix.detach()[:, :1].clone())
        self.n_prefix = 1

    def resize(self, image_size: int) -> None:
        side, new = self.image_size // 4, image_size // 4
        grid = self.places.detach().transpose(1, 2).reshape(1, self.dim, side, side)
        places = nn.functional.interpolate(grid, size=(new, new), mode="bicubic", antialias=True)
        self.places, self.image_size = nn.Parameter(places.flatten(2).transpose(1, 2)), 4 * new

    def embed(self, images: Tensor) -> Tensor:
        patches = self.patches(images).flatten(2).transpose(1, 2) + self.places
        return torch.cat([self.prefix.expand(len(images), -1, -1), patches], dim=1)

    def finish(self, tokens: Tensor) -> Tensor:
        return cast(Tensor, self.norm(tokens))

    def pool(self, tokens: Tensor) -> Tensor:
        return tokens[:, 0]


def toy_model(seed: int = 1, dim: int = 32, depth: int = 4, registers: int = 0, n_classes: int = 0) -> VisionModel:
    """An untrained toy transformer, with a classification head if it has classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = ToyBackbone(dim, depth, registers)
        heads = {"classification": HEADS["classification"](dim, n_classes)} if n_classes else {}
    architecture = {"loader": "toy", "dim": dim, "depth": depth, "registers": registers}
    return VisionModel(f"toy/{seed}", architecture, backbone, heads).eval()


class ToySplit:
    """Coloured squares on a noisy ground; the label is the square's colour, the mask its place."""

    n_classes = 3
    n_mask_classes = 2

    def __init__(self, role: Role, length: int = 128) -> None:
        self.role, self.length = role, length

    def __len__(self) -> int:
        return self.length

    def batch(self, indices: Sequence[int]) -> Batch:
        """The images at `indices`."""
        drawn = [_draw_image(self.role, int(index)) for index in indices]
        return Batch(*(torch.stack(parts) for parts in zip(*drawn, strict=True)))


class ToySuite(Suite):
    """Owner and independent are toy transformers with other weights; the sibling is the unmarked owner."""

    name: ClassVar[str] = "toy"

    def owner(self) -> str:
        return "toy/owner"

    def independents(self) -> Sequence[Independent]:
        return [Independent("toy/other", "other-seed")]

    def siblings(self) -> Sequence[Sibling]:
        return [Sibling("unmarked owner", "none")]

    def perturbations(self) -> Sequence[str]:
        return ["prune20", "noise:sigma=0.05,draw={}"]

    def split(self, role: Role) -> ToySplit:
        return ToySplit(role)

    def utility(self, model: VisionModel, ctx: Context) -> Mapping[str, float]:
        from amb.evaluation.utility import utility

        return utility(model, ctx, n_probe=64, n_test=64)


class ToyMethod(Method):
    """The least fingerprint: the labels that the model gives to random images."""

    name: ClassVar[str] = "toy"
    access: ClassVar[Access] = "labels"
    protects: ClassVar[Protected] = "classifier"
    forgeries: ClassVar[Mapping[str, str]] = {"messages": "take the labels that the innocent model gives"}
    has_agreement: ClassVar[bool] = True
    n: int = 16
    """Images in the key."""

    @property
    def default_tau(self) -> int:
        return 0

    def embed(self, owner: VisionModel, ctx: Context) -> Embedding:
        images = torch.rand(self.n, 3, SIZE, SIZE, generator=ctx.generator("images"))
        return Embedding(owner, self._make_key(owner, images))

    def extract(self, suspect: SuspectView, key: Key, ctx: Context) -> Evidence:
        observed = suspect.labels(torch.from_numpy(key.tensors["images"])).numpy()
        return Evidence(key.tensors["labels"][:, None], observed[:, None], alphabet=3)

    def forge(self, model: VisionModel, what: str, budget: int, ctx: Context) -> Key:
        require_forgery(self, what)
        images = torch.from_numpy(ctx.key.tensors["images"]) if ctx.key else ctx.split("trigger").batch(range(4)).images
        return self._make_key(model, images)

    def agreement(self, model: VisionModel, key: Key, n: int, drawn: torch.Generator) -> Tensor:
        rows = torch.randperm(len(key.tensors["labels"]), generator=drawn)[:n]
        images, labels = (torch.from_numpy(key.tensors[name])[rows] for name in ("images", "labels"))
        return -nn.functional.cross_entropy(model.logits(images), labels)

    def _make_key(self, model: VisionModel, images: Tensor) -> Key:
        labels = SuspectView(model, "labels").labels(images)
        return Key(self.canonical(), model.digest(), {"images": images.numpy(), "labels": labels.numpy()})


class ToyLoader(ModelLoader):
    """`toy/owner` and `toy/other`."""

    name: ClassVar[str] = "toy"

    def names(self) -> Sequence[str]:
        return list(SEEDS)

    def load(self, rest: str) -> VisionModel:
        if rest not in SEEDS:
            raise UnknownNameError(f"No model is called 'toy/{rest}'. There are toy/owner and toy/other.")
        return toy_model(SEEDS[rest])

    def build(self, architecture: Mapping[str, Any]) -> VisionModel:
        sizes = {key: architecture.get(key) for key in ("dim", "depth", "registers")}
        if not all(isinstance(size, int) and 0 <= size <= 1024 for size in sizes.values()):
            raise CheckpointError(f"A toy architecture has whole numbers for dim, depth and registers, not {sizes}.")
        return toy_model(seed=0, **cast(dict[str, int], sizes))


def toy_context(folder: Path, *axes: str, roles: Sequence[Role] = ROLES, **more: Any) -> Context:
    """A context over the toy data; `more` is what else a context holds: compute, base, method, key."""
    return Context(axes or ("0",), {role: ToySplit(role) for role in roles}, folder, **more)


@cache
def _draw_image(role: Role, index: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(ROLES.index(role) * 1_000_003 + index)
    label = torch.randint(3, (), generator=generator)
    image = torch.rand(3, SIZE, SIZE, generator=generator) * 0.4
    top, left = (int(place) for place in torch.randint(0, SIZE - 8, (2,), generator=generator))
    mask = torch.zeros(SIZE, SIZE, dtype=torch.int64)
    mask[top : top + 8, left : left + 8] = 1
    image[label] = torch.where(mask.bool(), torch.tensor(0.9), image[label])
    return (image * 255).round() / 255, label, mask
