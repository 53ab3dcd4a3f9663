"""Model files: `<stem>.safetensors` with the weights beside `<stem>.json`, the card that says how to build it.

The store keeps attacked and marked models in this form, the embedded suite ships its models in it, and
`file/<path>` reads it. Nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from amb.errors import CheckpointError, MissingError

if TYPE_CHECKING:
    from torch import Tensor

    from amb.vision import VisionModel

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
    digest: str
    """`VisionModel.digest()` of the weights."""
    about: dict[str, Any] = Field(default_factory=dict)
    """Where the model comes from: recipe, seed, versions, accuracy, licence."""


def save_model(model: VisionModel, stem: Path, about: Mapping[str, Any] | None = None, *, half: bool = False) -> Card:
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
    state = {name: _stored_form(tensor, half) for name, tensor in model.state_dict().items()}
    save_file(state, f"{stem}.safetensors")
    Path(f"{stem}.json").write_text(json.dumps(card.model_dump(), indent=1) + "\n", encoding="utf-8")
    return card


def read_card(stem: Path) -> Card:
    """The card of a model file. Raises MissingError or CheckpointError."""
    path = Path(f"{stem}.json")
    try:
        return Card.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise MissingError(
            f"{path} does not exist. A model file is <stem>.safetensors with <stem>.json beside it; give file/<stem>."
        ) from None
    except (ValidationError, OSError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise CheckpointError(f"{path} is not a model card: {reason}. See docs/schema.md for its form.") from None


def load_model(stem: Path, ref: str, build: Build) -> VisionModel:
    """The model of both files, checked against the digest on its card. Raises MissingError or CheckpointError."""
    card = read_card(stem)
    state = _read_weights(Path(f"{stem}.safetensors"))
    model = _assemble(card, build)
    _refuse_misfit(stem, {name: tuple(each.shape) for name, each in model.state_dict().items()}, state)
    model.load_state_dict(state)
    if model.digest() != card.digest:
        raise CheckpointError(
            f"{stem}.safetensors does not have the digest on its card: it was changed or damaged. Fetch it again."
        )
    model.ref = ref
    return model.eval()


def _stored_form(tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.half() if half and tensor.is_floating_point() else tensor


def _assemble(card: Card, build: Build) -> VisionModel:
    from torch import nn

    from amb.vision import build_heads

    bare = build(card.architecture)
    try:
        heads = build_heads(bare.backbone.dim, card.heads)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"The card names a head that amb cannot build: {error}.") from None
    bare.heads = nn.ModuleDict(heads)
    return bare


def _read_weights(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise MissingError(f"{path} does not exist. It should hold the weights that belong to its card.") from None
    try:
        return dict(load(data))
    except SafetensorError as error:
        if data[:2] == b"PK" or (data[:1] == b"\x80" and data[-1:] == b"."):  # torch.save's zip, or a bare pickle
            raise CheckpointError(
                f"{path} is a pickle (a torch.save file), which could run code when loaded: refused. "
                "Convert it where you trust it: safetensors.torch.save_file(torch.load(f, weights_only=True), out)."
            ) from None
        raise CheckpointError(f"{path} is not a safetensors file, or is cut short ({error}). Fetch it again.") from None


def _refuse_misfit(stem: Path, wanted: Mapping[str, tuple[int, ...]], state: Mapping[str, Any]) -> None:
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    wrong = [name for name in sorted({*wanted, *found}) if wanted.get(name) != found.get(name)]
    if wrong:
        first = "; ".join(
            f"{name}: file has {found.get(name, 'nothing')}, architecture has {wanted.get(name, 'nothing')}"
            for name in wrong[:3]
        )
        raise CheckpointError(f"{stem}.safetensors does not fit its card in {len(wrong)} tensors. First: {first}.")
