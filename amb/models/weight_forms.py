"""Weights as people save them: in a wrapper, beside a copy, pruned, by older names; made plain, or refused with the reason.

Nothing is guessed. What has to be said of the weights that are taken is said in a note.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from math import isqrt
from typing import TYPE_CHECKING, Final, NamedTuple

from amb.errors import CheckpointError
from amb.runtime.wording import count

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]
TOP: Final = "."
"""Asks for the weights that no wrapper's name stands before."""
_WRAPPERS: Final = frozenset(["_orig_mod", "backbone", "base_model", "model", "module", "net", "network", "state_dict"])
"""Names of wrappers that are taken off where nothing else is known of the names behind them."""
_DEEPEST: Final = 32
"""Parts of a name; the libraries' have ten."""
_MOVED: Final = re.compile(r"pos|patch|relative")
"""In names of what a library may interpolate: its shape does not tell whose it is."""
_CHUNKED: Final = re.compile(r"((?:.*\.)?blocks\.)(\d+)\.(\d+)(\..+)")
_IN_CHUNKS: Final = re.compile(r"(.*\.)?blocks\.\d+\.\d+\..+")
_OLD_NORM: Final = {"gamma": "weight", "beta": "bias"}
_ADAPTER: Final = re.compile(
    r"(^|\.)(lora_\w+|hada_w\d_[ab]|lokr_w\d(_[ab])?|ia3_l|oft_[rR]|boft_\w|vera_lambda_[bd])(\.|$)"
)
_QUANTISED: Final = re.compile(
    r"(^|\.)(_?packed_params|SCB|CB|qweight|qzeros|weight_scale(_inv)?|weight_format|absmax|quant_map|quant_state)(\.|$)"
)
_IN_PARTS: Final = re.compile(r"(parametrizations\.)?(weight|bias|in_proj_weight)(\.original\d?|_[guv]|_orig)$")
_COUNTERS: Final = ("num_batches_tracked", "relative_position_index", "position_ids")
"""What is whole in a network too."""
_PLACES: Final = {"positional_embedding": "pos_embed"}
"""Names of positions in files that a library reads by another name."""


class _Copy(NamedTuple):
    """One set of weights for the network, under what stands before their names."""

    wrapper: str

    @property
    def title(self) -> str:
        return f"under '{self.wrapper}'" if self.wrapper else "without a prefix"

    @property
    def choice(self) -> str:
        return self.wrapper.rstrip(".") or TOP


def make_plain(
    state: Mapping[str, Tensor], shapes: Mapping[str, Shape], own: Collection[str], part: str, source: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Weights by the library's names, and what is to be said of them. Raises CheckpointError.

    `shapes` are those that the library's own file of this network has; `own` what the library itself takes off before
    them. `part` names one of several sets of weights.
    """
    if not shapes:
        return dict(state), []
    _refuse_other_kinds(state, shapes, source)
    plain = dict(state)
    notes = [*_merge_masks(plain, source), *_rename_norms(plain, shapes), *_join_chunks(plain, shapes)]
    _refuse_parts(plain, shapes, source)
    copies = _find_copies(plain, shapes, own)
    chosen = _choose(copies, part, source)
    if chosen is None:
        return plain, notes
    others = [each.wrapper for each in copies if each != chosen and each.wrapper.startswith(chosen.wrapper)]
    return _unwrap(plain, chosen, others, notes), notes


def describe_moves(state: Mapping[str, Tensor], shapes: Mapping[str, Shape]) -> list[str]:
    """What a library has interpolated: positions and patches of another grid in the file than in the network."""
    said = []
    for name, tensor in state.items():
        tail = next((tail for tail in _tails(name) if _PLACES.get(tail, tail) in shapes), "")
        had, has = tuple(tensor.shape), shapes.get(_PLACES.get(tail, tail), ())
        if _MOVED.search(tail) and _find_grid(had) != _find_grid(has):
            said.append(
                f"{tail} was interpolated, from {had} in the file to {has}, so features are not quite those that it was trained for."
            )
    return said


def _find_grid(shape: Shape) -> Shape:
    """The sides of a grid: of a patch, (out, in, height, width), or of places, (..., places, dim), beside a few tokens."""
    return shape[2:] if len(shape) == 4 else tuple(map(isqrt, shape[-2:-1]))


# Sets of weights, and what stands before their names


def _find_copies(state: Mapping[str, Tensor], shapes: Mapping[str, Shape], own: Collection[str]) -> list[_Copy]:
    """Every set of weights in the file, by names and shapes; where no shapes fit, by names, so that shapes are spoken of."""
    for by_shape in (True, False):
        if prefixes := _find_prefixes(state, shapes, by_shape):
            return sorted({_Copy(_take_off_own(prefix, own)) for prefix in prefixes})
    shared = _find_shared_wrapper(state, {name.partition(".")[0] for name in (*shapes, *own)})
    return [_Copy(shared)] if shared else []


def _find_prefixes(state: Mapping[str, Tensor], shapes: Mapping[str, Shape], by_shape: bool) -> set[str]:
    """What stands before half of the network's names or more, the entrance of its images among them."""
    hits: Counter[str] = Counter()
    entered = set()
    for name, tensor in state.items():
        for prefix, tail in _split(name):
            if tail in shapes and (not by_shape or _MOVED.search(tail) or tuple(tensor.shape) == shapes[tail]):
                hits[prefix] += 1
                if len(shapes[tail]) == 4:
                    entered.add(prefix)
    needs_entrance = any(len(shape) == 4 for shape in shapes.values())
    return {each for each, n in hits.items() if 2 * n >= len(shapes) and (each in entered or not needs_entrance)}


def _split(name: str) -> Iterator[tuple[str, str]]:
    """Each way to take a name's start off, nothing first."""
    yield "", name
    starts = [match.end() for match in re.finditer(r"\.", name)]
    yield from ((name[:start], name[start:]) for start in starts[:_DEEPEST])


def _tails(name: str) -> list[str]:
    return [tail for _, tail in _split(name)]


def _take_off_own(prefix: str, own: Collection[str]) -> str:
    ends = [each for each in own if prefix == each or prefix.endswith(f".{each}")]
    return prefix.removesuffix(max(ends, key=len, default=""))


def _find_shared_wrapper(state: Iterable[str], known: Collection[str]) -> str:
    """The wrappers' names that stand before every name in the file."""
    names, wrapper = list(state), ""
    while names and len(first := {name.partition(".")[0] for name in names}) == 1:
        (word,) = first
        if word not in _WRAPPERS or word in known:
            break
        wrapper, names = f"{wrapper}{word}.", [name[len(word) + 1 :] for name in names]
    return wrapper


def _choose(copies: list[_Copy], part: str, source: str) -> _Copy | None:
    """The set that is asked for, or the only one. Raises CheckpointError; None where no set can be told."""
    if part:
        exact = [each for each in copies if each.choice == part]
        fitting = exact or [each for each in copies if each.wrapper.startswith(f"{part}.")]
        copies, asked = fitting, f"that '{part}' names"
        if not fitting:
            raise CheckpointError(
                f"{source} has no weights of this network under '{part}', which weights={part} asks for."
            )
    else:
        asked = "of this network"
    if len(copies) > 1:
        titles, words = [each.title for each in copies], [f"weights={each.choice}" for each in copies]
        raise CheckpointError(
            f"{source} holds {len(copies)} sets of weights {asked}: {_enumerate(titles, 'and')}. Say which is meant: "
            f"load it as file/<path>:{words[0]}, or with {_enumerate(words[1:], 'or')}."
        )
    return copies[0] if copies else None


def _unwrap(state: Mapping[str, Tensor], chosen: _Copy, others: list[str], notes: list[str]) -> dict[str, Tensor]:
    """The weights of one set by their plain names; what is left out is noted."""
    start = chosen.wrapper
    inside = [name for name in state if name.startswith(start) and not name.startswith(tuple(others))]
    if start:
        notes.append(f"'{start}' was taken off the names of {count(len(inside), 'tensor')}.")
    if outside := sorted(set(state) - set(inside)):
        of = "beside these" if start else "of other sets"
        notes.append(f"Left out: {count(len(outside), 'tensor')} {of}, such as {outside[0]}.")
    return {name[len(start) :]: state[name] for name in inside}


def _enumerate(words: list[str], joint: str) -> str:
    return f" {joint} ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


# Other forms of names, and weights in two parts


def _merge_masks(state: dict[str, Tensor], source: str) -> list[str]:
    """Multiply what torch's pruning keeps apart: `weight_orig` and `weight_mask`."""
    stems = [name.removesuffix("_mask") for name in state if name.endswith("_mask")]
    pruned = [stem for stem in stems if f"{stem}_orig" in state and stem not in state]
    for stem in pruned:
        weight, mask = state.pop(f"{stem}_orig"), state.pop(f"{stem}_mask")
        if weight.shape != mask.shape:
            raise CheckpointError(f"{source} has a pruning mask of another shape than its weights: {stem}.")
        state[stem] = weight * mask.to(weight.dtype)
    return [f"Pruning masks were multiplied into {count(len(pruned), 'tensor')}."] if pruned else []


def _rename_norms(state: dict[str, Tensor], shapes: Mapping[str, Shape]) -> list[str]:
    """Give norms that call their weight and bias gamma and beta the names that the network has for them."""
    old = [name for name in state if (new := _find_new_norm(name, shapes)) and new not in state]
    for name in old:
        state[_find_new_norm(name, shapes)] = state.pop(name)
    return [f"Gamma and beta were read as weight and bias of norms, {count(len(old), 'tensor')}."] if old else []


def _find_new_norm(name: str, shapes: Mapping[str, Shape]) -> str:
    """The name of a gamma or beta in the network, or nothing where it is called so there too, or is not there."""
    stem, _, last = name.rpartition(".")
    if last not in _OLD_NORM or any(tail in shapes for tail in _tails(name)):
        return ""
    new = f"{stem}.{_OLD_NORM[last]}"
    return new if any("." in tail and tail in shapes for tail in _tails(new)) else ""


def _join_chunks(state: dict[str, Tensor], shapes: Mapping[str, Shape]) -> list[str]:
    """Count blocks that lie in chunks, `blocks.0.3.`, through, where the network has no chunks."""
    if not any(re.match(r"(.*\.)?blocks\.\d+\.", name) for name in shapes) or any(map(_IN_CHUNKS.fullmatch, shapes)):
        return []
    places: dict[str, set[tuple[int, int]]] = {}
    found = {name: match for name in state if (match := _CHUNKED.fullmatch(name))}
    for match in found.values():
        places.setdefault(match[1], set()).add((int(match[2]), int(match[3])))
    number = {(start, *at): n for start, inside in places.items() for n, at in enumerate(sorted(inside))}
    renamed = {name: f"{each[1]}{number[each[1], int(each[2]), int(each[3])]}{each[4]}" for name, each in found.items()}
    if set(renamed.values()) & (set(state) - set(renamed)):  # some in chunks and some not: no one form
        return []
    values = {new: state.pop(old) for old, new in renamed.items()}
    state.update(values)
    n = sum(map(len, places.values()))
    return [f"Blocks that lie in chunks were counted through: {n}."] if renamed else []


# What is no set of weights


def _refuse_other_kinds(state: Mapping[str, Tensor], shapes: Mapping[str, Shape], source: str) -> None:
    if adapter := next(filter(_ADAPTER.search, state), None):
        alone = not any(".base_layer." in name for name in state)
        what = "is an adapter alone, changes to a model and no model" if alone else "has an adapter beside its weights"
        raise CheckpointError(
            f"{source} {what} ({adapter}). Merge it where its base model is: "
            "peft.PeftModel.from_pretrained(base, folder).merge_and_unload(), and save that."
        )
    for name, tensor in state.items():
        if _QUANTISED.search(name) or _is_code(name, tensor, shapes):
            kind = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(
                f"{source} holds quantised weights ({name}, {kind}), codes that its own library turns into numbers. "
                "Save it from there in floating point: float32, float16 or bfloat16."
            )


def _is_code(name: str, tensor: Tensor, shapes: Mapping[str, Shape]) -> bool:
    """Whether numbers are no weights as they stand: whole ones, or of 8 bits."""
    size = tensor.dtype.itemsize
    if (tensor.dtype.is_floating_point and size > 1) or name.endswith(("_mask", *_COUNTERS)):
        return False
    is_packed = size == 1 and tensor.ndim > 1 and "bool" not in str(tensor.dtype)
    return is_packed or any(tail in shapes for tail in _tails(name))


def _refuse_parts(state: Mapping[str, Tensor], shapes: Mapping[str, Shape], source: str) -> None:
    for name in state:
        whole = _IN_PARTS.sub(r"\2", name)
        if whole != name and any(tail in shapes for tail in _tails(whole)):
            raise CheckpointError(
                f"{source} keeps a weight in parts ({name}), by a normalisation or another parametrisation. Fold it where "
                "it was trained, by torch.nn.utils.parametrize.remove_parametrizations or remove_spectral_norm, and save that."
            )
