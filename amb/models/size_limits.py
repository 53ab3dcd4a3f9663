"""How much a stranger's card may ask for: tensors are weighed before they are made, against the file that they belong to."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from amb.errors import CheckpointError

if TYPE_CHECKING:
    from amb.api.vision import VisionModel

LARGEST_IMAGE: Final = 2048
"""Pixels of a side; no known encoder takes more."""
LARGEST_MAP: Final = 2**30
"""Numbers in one tensor of one image's forward pass: 4 GiB, eight times that of any known encoder."""
_FREE: Final = 2**25
"""Numbers that any network may make beside its weights, 128 MiB: places, masks, images to try it on."""
META: Final = torch.device("meta")
_FREE_TENSORS: Final = 1000
_SMALL: Final = 2**13
"""No operation on so few numbers makes a large tensor of them: even an outer product stays below `_FREE`."""
_FACTORIES: Final = frozenset(
    [
        "arange",
        "empty",
        "empty_strided",
        "eye",
        "full",
        "hann_window",
        "linspace",
        "logspace",
        "normal",
        "ones",
        "rand",
        "randint",
        "randn",
        "randperm",
        "tril_indices",
        "triu_indices",
        "zeros",
    ]
)
_SIDE_EFFECTS: Final = frozenset(["__get__", "__set__", "__delete__", "__setitem__"])


@contextmanager
def limit_size(source: str, n_weights: int | None = None, n_tensors: int = 10_000) -> Iterator[None]:
    """Inside, no network is made that is much larger than the weights it is for. Raises CheckpointError.

    Without a number of weights, the machine's memory is the limit.
    """
    most = _count_room() if n_weights is None else min(4 * n_weights + _FREE, _count_room())
    with _SizeLimit(source, most, 8 * n_tensors + _FREE_TENSORS):
        yield


def refuse_large_maps(model: VisionModel, source: str) -> None:
    """Raise CheckpointError where one image would take more memory than any known encoder needs.

    The forward pass is made of weights on torch's meta device, where tensors have shapes and no numbers; a network that
    cannot run there is judged by the size of its images alone. Meta is not made the default device: libraries keep
    small tensors that they make, and would hand them out again without numbers.
    """
    side = model.backbone.image_size
    if not 1 <= side <= LARGEST_IMAGE:
        raise CheckpointError(f"{source} takes images of {side} pixels a side; amb loads up to {LARGEST_IMAGE}.")
    with suppress(Exception), torch.no_grad(), _MapCount() as maps:
        twin = copy.deepcopy(model.backbone, _meta_weights(model.backbone)).eval()
        _pass_image(twin, maps)
    if maps.largest > LARGEST_MAP:
        raise CheckpointError(
            f"{source} makes a tensor of {maps.largest:,} numbers of one image, {maps.largest * 4 >> 30} GiB; "
            f"amb loads networks that stay below {LARGEST_MAP * 4 >> 30} GiB."
        )


class _SizeLimit(TorchFunctionMode):
    """Weighs what torch is about to make."""

    def __init__(self, source: str, most: int, most_tensors: int) -> None:
        super().__init__()
        self._source, self._most, self._most_tensors = source, most, most_tensors
        self._n_made, self._n_tensors = 0, 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _FACTORIES:
            self._n_tensors += 1
            self._n_made += _weigh(func, args, {**given, "device": META})
            self._refuse(self._n_made)
        elif name not in _SIDE_EFFECTS and not _is_in_place(name) and _may_be_large(args, given):
            self._refuse(_weigh(func, *_to_meta((args, given))))
        return func(*args, **given)

    def _refuse(self, n: int) -> None:
        if n > self._most:
            raise CheckpointError(
                f"{self._source} describes a network that makes {n:,} numbers or more; its weights and this machine's "
                f"memory allow {self._most:,}. It was changed, or belongs to another file."
            )
        if self._n_tensors > self._most_tensors:
            raise CheckpointError(
                f"{self._source} describes a network of more than {self._most_tensors:,} tensors, far more than there "
                "are weights for. It was changed, or belongs to another file."
            )


class _MapCount(TorchFunctionMode):
    """Notes the largest tensor that is made, and stops at one that is too large."""

    largest = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in _FACTORIES:  # these have numbers, so they are weighed before
            self.largest = max(self.largest, n := _weigh(func, args, {**(kwargs or {}), "device": META}))
            if n > _FREE and (kwargs or {}).get("device") != META:
                raise MemoryError
        made = func(*args, **(kwargs or {}))
        if name == "scaled_dot_product_attention":  # tokens x tokens, made or not
            self.largest = max(self.largest, args[0].shape[:-1].numel() * args[1].shape[-2])
        if isinstance(made, Tensor):
            self.largest = max(self.largest, made.numel())
        return made


def _pass_image(backbone: Any, maps: _MapCount) -> None:
    """One image through a backbone without numbers, until a map is too large."""
    side = backbone.image_size
    tokens = backbone.embed(torch.empty(1, len(backbone.mean), side, side, device=META))
    for block in backbone.blocks:
        if maps.largest > LARGEST_MAP:
            return
        tokens = block(tokens)
    backbone.pool(backbone.finish(tokens))


def _meta_weights(network: nn.Module) -> dict[int, Any]:
    """For `deepcopy`: weights without numbers in place of a network's own."""
    weights: dict[int, Any] = {id(each): nn.Parameter(each.to("meta"), False) for each in network.parameters()}
    return weights | {id(each): each.to("meta") for each in network.buffers()}


def _count_room() -> int:
    """How many numbers of 4 bytes the machine's memory holds."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4


def _is_in_place(name: str) -> bool:
    return name.endswith("_") and not name.endswith("__")


def _may_be_large(args: tuple[Any, ...], given: dict[str, Any]) -> bool:
    """Whether an operation may make a large tensor: of many numbers, or by a large size that it is told."""
    flat = [*args, *given.values()]
    flat += [item for each in flat if isinstance(each, list | tuple) for item in each]
    n = sum(each.numel() for each in flat if isinstance(each, Tensor))
    return n > _SMALL or any(isinstance(each, int) and each > 64 for each in flat)


def _to_meta(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to("meta")
    if isinstance(value, list | tuple) and type(value) in {list, tuple}:
        return type(value)(_to_meta(each) for each in value)
    return {key: _to_meta(each) for key, each in value.items()} if type(value) is dict else value


def _weigh(func: Callable[..., Any], args: tuple[Any, ...], given: dict[str, Any]) -> int:
    """How many numbers an operation would make; 0 where it cannot be told without making them."""
    with suppress(Exception):
        made = func(*args, **given)
        return made.numel() if isinstance(made, Tensor) and made.is_meta else 0
    return 0
