"""Model files: `<stem>.safetensors` with the weights beside `<stem>.json`, the card that says how to build it.

The store keeps attacked and marked models in this form, the embedded suite ships its models in it, and
`file/<path>` reads it. Nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from amb.errors import CheckpointError, MissingError, shortened
from amb.models.notes import say_once
from amb.models.shards import read_headers
from amb.runtime.regular_files import read_file

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from amb.api.vision import VisionModel

LARGEST_CARD: Final = 2**22
"""Bytes of a card; one has a thousand."""
Build = Callable[[Mapping[str, Any]], "VisionModel"]
"""Makes the untrained network of an architecture's JSON, whichever loader it belongs to."""


class Card(BaseModel):
    """What stands in the JSON beside the weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    architecture: dict[str, Any]
    """`loader` names the model loader that builds it; the rest is that loader's own."""
    heads: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Task heads by task, with their sizes."""
    weights: Literal["amb", "library"] = "amb"
    """Whose names the tensors have: `VisionModel`'s, or those of the library that builds the network."""
    digest: str | None = None
    """`VisionModel.digest()` of the weights; a card for weights of a library may do without."""
    about: dict[str, Any] = Field(default_factory=dict)
    """Where the model comes from: recipe, seed, versions, accuracy, licence."""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.weights == "amb" and self.digest is None:
            raise ValueError("it has no digest, which only a card with `weights: library` may lack")
        if self.weights == "library" and (self.heads or self.architecture.get("edits")):
            raise ValueError("weights of a library come without heads and edits")
        return self


def save_checkpoint(
    model: VisionModel, stem: Path, about: Mapping[str, Any] | None = None, *, half: bool = False
) -> Card:
    """Write both files; `stem` is the path without its ending.

    `half` stores weights in half precision: for models whose weights were rounded to it, so that nothing is lost.
    """
    from safetensors.torch import save_file

    card = Card(
        architecture=model.architecture,
        heads=model.head_facts(),
        digest=model.digest(),
        about=dict(about or {}),
    )
    state = {name: _to_stored_form(tensor, half) for name, tensor in model.state_dict().items()}
    save_file(state, f"{stem}.safetensors")
    Path(f"{stem}.json").write_text(json.dumps(card.model_dump(), indent=1) + "\n", encoding="utf-8")
    return card


def read_card(stem: Path) -> Card:
    """The card of a model file. Raises MissingError or CheckpointError."""
    path = Path(f"{stem}.json")
    try:
        return Card.model_validate_json(read_file(path, LARGEST_CARD))
    except FileNotFoundError:
        raise MissingError(
            f"{path} does not exist. A model file is <stem>.safetensors with <stem>.json beside it; give file/<stem>."
        ) from None
    except (ValidationError, OSError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror or str(error)
        raise CheckpointError(
            f"{path} is not a model card: {shortened(reason)}. See docs/schema.md for its form."
        ) from None


def load_checkpoint(stem: Path, ref: str, build: Build, part: str = "") -> VisionModel:
    """The model of both files, checked against the digest on its card. Raises MissingError or CheckpointError.

    `part` names one of several sets of weights in the file, by what stands before their names.
    """
    path = Path(f"{stem}.safetensors")
    card = read_card(stem)
    with limit_to_file(path):
        model = _assemble_model(card, build)
    state = read_weights(path)
    if card.weights == "library":
        fill_by_library(model, state, str(path), part)
    elif part:
        raise CheckpointError(f"{path} is a model file of amb and holds one set of weights. Leave out weights={part}.")
    else:
        refuse_misfit(f"{path} does not fit its card", model, state)
        model.load_state_dict(state)
    if card.digest not in (None, model.digest()):
        raise CheckpointError(
            f"{path} does not have the digest on its card: it was changed or damaged. Fetch it again."
        )
    model.ref = ref
    return model.eval()


@contextmanager
def limit_to_file(path: Path) -> Iterator[None]:
    """Inside, no network is made that is much larger than this file is for. Raises MissingError, CheckpointError."""
    from amb.models.size_limits import limit_size

    headers = read_headers(path).values()
    n_weights, n_tensors = sum(each.n_weights for each in headers), sum(len(each.shapes) for each in headers)
    with limit_size(f"What belongs to {path}", n_weights, n_tensors):
        yield


def fill_by_library(model: VisionModel, state: dict[str, Tensor], source: str, part: str = "") -> None:
    """Put weights that have the names of the model's own library in place. Raises CheckpointError.

    They may lie in a wrapper, be pruned, or have older names: what is done about it is noted. Of several sets of weights
    `part` names one.
    """
    from amb.models.weight_forms import describe_moves, make_plain

    shapes = model.backbone.library_shapes()
    plain, notes = make_plain(state, shapes, model.backbone.library_prefixes, part, source)
    try:
        model.backbone.load_library(dict(plain), source)
    except NotImplementedError:
        loader = model.architecture.get("loader")
        text = f"The loader '{loader}' does not read weight files of a library; {source} is one."
        raise CheckpointError(text) from None
    for note in [*notes, *describe_moves(plain, shapes)]:
        say_once(f"{source}: {note}")


def refuse_unsound(model: VisionModel, source: str) -> None:
    """Raise CheckpointError where a weight is infinite or not a number, or one image takes more memory than is sound.

    For what comes from a user or a hub; an attack may have made a model so, and then that is its result. Buffers may be
    infinite: a clamp that clamps nothing is.
    """
    from amb.models.size_limits import refuse_large_maps

    refuse_large_maps(model, source)
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise CheckpointError(f"{source} has weights that are not finite. First: {name}. Fetch or train it again.")
    for name, buffer in model.named_buffers():
        if buffer.isnan().any():
            raise CheckpointError(f"{source} has weights that are no numbers. First: {name}. Fetch or train it again.")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of its shards. Raises MissingError, or CheckpointError for a pickle or damage."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    state: dict[str, Tensor] = {}
    for file in read_headers(path):
        try:
            state |= load_file(file)
        except (SafetensorError, OSError, ValueError, RuntimeError) as error:
            text = f"{file} is not a safetensors file, or is cut short ({error}). Fetch it again."
            raise CheckpointError(text) from None
    return state


def refuse_misfit(complaint: str, network: Module, state: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError, which begins with the complaint, where names or shapes differ; the first three are listed."""
    wanted = {name: tuple(each.shape) for name, each in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    wrong = [name for name in sorted({*wanted, *found}) if wanted.get(name) != found.get(name)]
    if wrong:
        first = "; ".join(
            f"{name}: file has {found.get(name, 'nothing')}, architecture has {wanted.get(name, 'nothing')}"
            for name in wrong[:3]
        )
        raise CheckpointError(f"{complaint} in {len(wrong)} tensors. First: {first}.")


def _to_stored_form(tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.half() if half and tensor.is_floating_point() else tensor


def _assemble_model(card: Card, build: Build) -> VisionModel:
    from torch import nn

    from amb.models.heads import build_heads

    bare = build(card.architecture)
    try:
        heads = build_heads(bare.backbone.dim, card.heads)
    except CheckpointError:
        raise
    except Exception as error:  # noqa: BLE001 (a stranger's sizes may break torch in any way)
        text = f"The card names a head that amb cannot build: {type(error).__name__}: {shortened(error)}."
        raise CheckpointError(text) from None
    bare.heads = nn.ModuleDict(heads)
    return bare
