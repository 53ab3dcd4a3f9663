"""The owner's and the judge's verbs from Python: protect, verify, judge; the command line is a thin layer over them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amb.api.interfaces import Method, Suite
from amb.api.spec import Spec
from amb.api.types import Role
from amb.errors import AmbError, MissingError, UsageError
from amb.evaluation.claims import EXACT_LEVEL
from amb.ownership.evidence import Evidence, read_evidence
from amb.ownership.files import SECRET, write_new
from amb.ownership.identity import load_public
from amb.ownership.judge import Bench, Judgement, opened_in
from amb.ownership.judge import judge as judge_evidence
from amb.ownership.key_facts import ABOUT, OpenedKey, open_key
from amb.ownership.key_folder import KEY, SALT
from amb.ownership.protect import protect as protect_model
from amb.ownership.sealing import ask_passphrase
from amb.ownership.timestamps import read_certificates
from amb.ownership.under_way import Request, Workplace
from amb.ownership.verification import Finding, Suspect, open_suspect
from amb.ownership.verification import verify as verify_suspects
from amb.plugin.manager import manager
from amb.plugin.registry import Registry
from amb.python.notebook import pick_progress
from amb.runtime.compute import Compute, pick_compute
from amb.runtime.paths import DATA
from amb.runtime.scratch import open_scratch

if TYPE_CHECKING:
    from torch import Tensor

    from amb.api.vision import VisionModel
    from amb.ownership.answers import Answer

_SOURCED = re.compile(r"(?P<source>[\w.-]+)=(?P<ref>.+)")
"""A reference has a slash or a colon before any `=`."""
_ENDINGS = (".safetensors", ".safetensors.index.json")
"""What a path may leave out."""


def protect(
    model: str | Path,
    output: str | Path,
    *,
    method: str | Method = "spread-features",
    data: str | Path | None = None,
    params: Mapping[str, Any] | None = None,
    level: float = EXACT_LEVEL,
    self_test: str = "quick",
    passphrase: str | None = None,
    compute: Compute | None = None,
    quiet: bool = False,
) -> Path:
    """Write a folder with the marked model, the key, a commitment and a report: what `amb protect` does; the folder.

    `model` is a reference or a path; the marked copy is written in the form in which it came. `data` is a folder of images
    like those that the model will see; without it the embedded ones serve. The key is drawn from the operating system's
    randomness. Stopped, the same call goes on. Raises AmbError.
    """
    request, at = plan_protection(model, method, data, params, level, self_test, compute, quiet=quiet)
    return protect_model(request, Path(output), at, passphrase)


def plan_protection(
    model: str | Path,
    method: str | Method,
    data: str | Path | None,
    params: Mapping[str, Any] | None,
    level: float,
    self_test: str,
    compute: Compute | None,
    *,
    quiet: bool,
) -> tuple[Request, Workplace]:
    """What will be done, looked up and checked. Raises UsageError."""
    registry = manager().registry
    ref = resolve_model(model)
    chosen = registry.method(method, {name: str(value) for name, value in (params or {}).items()})
    request = Request(ref, chosen, find_images(ref, data, registry), level, self_test)
    return request, Workplace(registry, compute or pick_compute("auto"), pick_progress(quiet))


def resolve_model(text: str | Path) -> str:
    """A reference as it is; a path that is there, perhaps with options behind it, as `file/<path>`. Raises MissingError."""
    path, mark, options = str(text).partition(":")
    there = Path(path).expanduser()
    is_there = there.exists() or any(there.with_name(f"{there.name}{ending}").exists() for ending in _ENDINGS)
    if not is_there and path.partition("/")[0] not in manager().registry.loaders.classes:
        raise MissingError(
            f"There is no file {path}, and no model of that name. Give a path, or a reference: `amb list models`."
        )
    return f"file/{there.resolve()}{mark}{options}" if is_there else str(text)


def find_images(ref: str, data: str | Path | None, registry: Registry) -> Suite:
    """The images of a folder of one's own, shared out by role; the embedded ones without a folder."""
    if data is None:
        return registry.suite("tiny")
    folder = Path(data).expanduser().resolve()
    if not folder.is_dir():
        raise MissingError(f"The folder of images {folder} does not exist. Give a folder: --data.")
    os.environ[DATA] = str(folder.parent)  # travels as a variable, see `amb.runtime.paths`
    return registry.suites.create(Spec("folder", {"model": ref, "data": folder.name}))


def verify(
    suspect: str | Path | VisionModel | Answer,
    key: str | Path,
    *,
    unmarked: str | Path | None = None,
    negatives: Sequence[str | Path] = (),
    level: float | None = None,
    passphrase: str | None = None,
    compute: Compute | None = None,
) -> Finding:
    """Read a key on a suspect and say what follows: what `amb verify` does.

    `suspect` is a reference, a path, a model, or a function from images, (n, 3, height, width) in [0, 1], to the features of
    each. `key` is the folder that `amb protect` wrote. `unmarked` is the unmarked model, where the key does not find it.
    `negatives` are innocent models, for methods without an exact null; `SOURCE=REF` says which of them are relatives. Raises AmbError.
    """
    opened = open_key(
        Path(key), (lambda: passphrase) if passphrase is not None else partial(ask_passphrase, None, confirm=False)
    )
    method = manager().registry.method(opened.key.method)
    at = Workplace(manager().registry, compute or pick_compute("auto"), pick_progress(quiet=True))
    (finding,) = verify_suspects(
        opened,
        method,
        [make_suspect(suspect, method, at)],
        unmarked=find_unmarked(opened, unmarked, at),
        negatives=[make_negative(each, method, at) for each in negatives],
        level=level,
        compute=at.compute,
    )
    return finding


def make_suspect(given: str | Path | VisionModel | Answer, method: Method, at: Workplace) -> Suspect:
    """Whatever is in doubt, seen as the method may see it. Raises AmbError."""
    from amb.api.vision import VisionModel
    from amb.ownership.answers import AnsweredView

    if callable(given) and not isinstance(given, VisionModel):
        return Suspect("the suspect", None, AnsweredView(given, method.access))
    model = given.place(at.compute) if isinstance(given, VisionModel) else at.load(resolve_model(given))
    return open_suspect(model.ref if isinstance(given, VisionModel) else str(given), model, method)


def make_negative(given: str | Path, method: Method, at: Workplace) -> Suspect:
    """An innocent model. Of `SOURCE=REF` those with one source count once, as relatives do. Raises AmbError."""
    named = _SOURCED.fullmatch(given) if isinstance(given, str) else None
    if named is None:
        return make_suspect(given, method, at)
    return replace(make_suspect(named["ref"], method, at), source=named["source"])


def find_unmarked(opened: OpenedKey, given: str | Path | None, at: Workplace) -> Callable[[], VisionModel]:
    """Loads the unmarked model to which the key is bound: the one that is given, or the one that was protected.

    Raises UsageError, when it is loaded, where it is another one.
    """

    def load() -> VisionModel:
        ref = resolve_model(given) if given is not None else opened.facts.unmarked
        try:
            model = at.load(ref)
        except AmbError as error:
            raise MissingError(
                f"The unmarked model {ref} cannot be loaded: {error} Say where it is: --unmarked."
            ) from None
        if model.full_digest() != opened.facts.unmarked_digest:
            raise UsageError(
                f"{ref} is not the unmarked model of this key: its digest is another. Give that one: --unmarked."
            )
        return model

    return load


def judge(
    evidence: str | Path | Evidence,
    *,
    suspect: str | Path | None = None,
    key: str | Path | None = None,
    unmarked: str | Path | None = None,
    negatives: Sequence[str | Path] = (),
    signers: Sequence[str | Path] = (),
    tsa_root: str | Path | None = None,
    suspect_date: datetime | None = None,
    n_keys: int | None = None,
    images: str | Path | None = None,
    level: float | None = None,
    passphrase_fd: int | None = None,
    compute: Compute | None = None,
) -> Judgement:
    """Replay somebody's evidence: what `amb judge` does. What is not given is taken on trust. Raises AmbError."""
    found = evidence if isinstance(evidence, Evidence) else read_evidence(Path(evidence))
    at = Workplace(manager().registry, compute or pick_compute("auto"), pick_progress(quiet=True))
    method = at.registry.method(str(found.finding.get("method", "")))
    opened = _open_for_judge(found, key, passphrase_fd)
    bench = Bench(
        suspect=make_suspect(suspect, method, at) if suspect is not None else None,
        opened=opened,
        unmarked=find_unmarked(opened, unmarked, at) if opened and (unmarked or method.access == "weights") else None,
        unmarked_name=str(unmarked)
        if unmarked is not None
        else f"{opened.facts.unmarked}, as the key names it"
        if opened
        else "",
        negatives=[make_negative(each, method, at) for each in negatives],
        signers=[load_public(Path(each)) for each in signers],
        certificates=read_certificates(Path(tsa_root)) if tsa_root else (),
        suspect_date=suspect_date.replace(tzinfo=UTC) if suspect_date else None,
        n_keys=n_keys,
        images=read_folder(images, at.registry) if images is not None else None,
        level=level,
        compute=at.compute,
    )
    return judge_evidence(found, method, bench)


def read_folder(data: str | Path, registry: Registry, most: int = 1024) -> Tensor:
    """Images of a folder, (n, 3, height, width) in [0, 1], `most` at most. Raises AmbError."""
    import torch

    suite = find_images("file/none", data, registry)
    roles: tuple[Role, ...] = ("owner", "attacker", "trigger", "test")
    parts = [split.batch(range(min(len(split), most))).images for split in map(suite.split, roles) if len(split)]
    return torch.cat(parts)[:most]


def _open_for_judge(found: Evidence, key: str | Path | None, passphrase_fd: int | None) -> OpenedKey | None:
    """The key that the judge was given, or the one that the evidence opens."""
    ask = partial(ask_passphrase, passphrase_fd, confirm=False)
    if key is not None:
        return open_key(Path(key), ask)
    if not (members := opened_in(found)):
        return None
    with open_scratch() as folder:
        for name in (KEY, SALT, ABOUT):
            write_new(folder / name, members.get(name, b""), SECRET)
        return open_key(folder, ask)
