"""Protecting a checkpoint: mark it, write it as it came, test it, commit to it. What is finished is not done again.

Everything is made beside the final folder, in one that its owner alone can enter, and renamed when all of it is there.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from filelock import FileLock, Timeout

from amb.api.digests import finite
from amb.api.records import Key
from amb.errors import StoreError, UsageError
from amb.evaluation.claims import exact_test
from amb.execution.provenance import find_versions
from amb.models.checkpoint import load_checkpoint, save_checkpoint
from amb.models.references import build_model
from amb.ownership.commitment import SALT_BYTES, Commitment, Preprocessing, Weights, commit_key, utc_now
from amb.ownership.files import SECRET, write_new
from amb.ownership.form import Form, digest_files, find_form
from amb.ownership.key_facts import KeyFacts, forbid_core_dumps
from amb.ownership.key_folder import write_key_folder
from amb.ownership.protect_report import render_report
from amb.ownership.reading import read_model
from amb.ownership.self_test import run_self_test
from amb.ownership.under_way import ROOT, Protection, Request, Workplace
from amb.runtime.timing import measure
from amb.store.entries import StoreEntry

if TYPE_CHECKING:
    from amb.api.vision import VisionModel

MODEL, KEY, COMMITMENT, REPORT, FACTS = "model", "key", "commitment.json", "report.html", "report.json"
_KEY_FILE: Final = "key.safetensors"
_FEW_IMAGES: Final = 32
"""On which both models are compared where there is no self-test."""


def protect(request: Request, target: Path, at: Workplace, passphrase: str | None = None) -> Path:
    """Write `target` with the marked model, the key, the commitment and the report; `target` itself.

    Raises UsageError where `target` exists, or where what was begun there is of another request, StoreError where the disk
    refuses. The same call goes on where one before it was stopped.
    """
    forbid_core_dumps()
    under_way = Protection(request, target, at)
    with _open_draft(under_way):
        if not under_way.finished.exists():
            made = _make_all(under_way)
            _assemble(under_way, made, passphrase)
        shutil.rmtree(under_way.draft / "steps", ignore_errors=True)
        (under_way.draft / ROOT).unlink(missing_ok=True)
        under_way.finished.rename(target)
    shutil.rmtree(under_way.draft, ignore_errors=True)
    return target


def refuse_taken(target: Path) -> None:
    """Raise UsageError where something is there already."""
    if target.exists():
        raise UsageError(f"{target} exists already, and a protected model is never written over. Give another: -o.")


@contextmanager
def _open_draft(under_way: Protection) -> Iterator[None]:
    """The folder beside the target, for one process at a time; what was begun there is gone on with."""
    draft, target = under_way.draft, under_way.target
    refuse_taken(target)
    try:
        draft.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(draft / ".lock", timeout=0):
            _begin(under_way)
            yield
    except Timeout:
        raise UsageError(f"Another process is protecting into {target}. Wait for it, or give another: -o.") from None
    except OSError as error:
        text = (
            f"{draft} cannot be written: {error.strerror or error}. What is finished stays; the same command goes on."
        )
        raise StoreError(text) from None


def _begin(under_way: Protection) -> None:
    """Draw the root secret, once; refuse to go on with somebody else's draft."""
    note, asked = under_way.draft / "request", under_way.request.digest()
    if note.exists() and note.read_text(encoding="utf-8") != asked:
        raise UsageError(
            f"{under_way.draft} holds the beginning of another request (model, method, data or version differ). "
            "Finish that with its own command, remove the folder, or give another: -o."
        )
    note.write_text(asked, encoding="utf-8")
    root = under_way.draft / ROOT
    if not root.exists() and not under_way.finished.exists():
        write_new(root, secrets.token_bytes(SALT_BYTES), SECRET)


class Made(NamedTuple):
    """What the steps have made."""

    key: Key
    files: Path
    """Folder of the marked model's files."""
    facts: Mapping[str, Any]
    """Of all steps: what the report and the commitment say."""


def _make_all(under_way: Protection) -> Made:
    unmarked = under_way.at.load(under_way.request.model)
    form = find_form(under_way.request.model, unmarked, under_way.at.registry)
    embedded = under_way.step("embed", partial(_make_embedding, under_way, unmarked))
    written = under_way.step("write", partial(_make_files, under_way, form, unmarked, embedded))
    key = Key.load(embedded.folder / _KEY_FILE)
    shipped = form.read(written.folder).place(under_way.at.compute)
    tested = under_way.step("test", partial(_make_tests, under_way, key, unmarked, shipped))
    digests = {"unmarked": unmarked.full_digest(), "marked": shipped.full_digest()}
    inputs = {"image_size": unmarked.backbone.image_size, "mean": unmarked.backbone.mean, "std": unmarked.backbone.std}
    facts = {**embedded.facts, **written.facts, **tested.facts, "digests": digests, "preprocessing": inputs}
    return Made(key, written.folder, {**facts, "unmarked_files": form.digest_files()})


def _make_embedding(under_way: Protection, unmarked: VisionModel, folder: Path) -> dict[str, Any]:
    method = under_way.request.method
    if reason := method.skip(unmarked.facts()):
        raise UsageError(f"{method.name} cannot protect this model: {reason}.")
    under_way.at.progress.say(f"embedding {method.canonical()} in {unmarked.ref}")
    with under_way.context("embed", "owner", "trigger") as ctx, measure(ctx.device) as spent:
        embedding = method.embed(unmarked, ctx)
    replace(embedding.key, reproducible=False).save(folder / _KEY_FILE)
    save_checkpoint(embedding.model, folder / "marked")
    return {"embedding": {**embedding.facts, **ctx.notes}, "seconds": spent.seconds, "memory": spent.peak_memory_mib}


def _make_files(
    under_way: Protection, form: Form, unmarked: VisionModel, embedded: StoreEntry, folder: Path
) -> dict[str, Any]:
    build = partial(build_model, registry=under_way.at.registry)
    marked = load_checkpoint(embedded.folder / "marked", unmarked.ref, build)
    return {"changed": form.write(unmarked, marked, folder)}


def _make_tests(
    under_way: Protection, key: Key, unmarked: VisionModel, shipped: VisionModel, _: Path
) -> dict[str, Any]:
    method = under_way.request.method
    own = read_model(method, key, shipped, lambda: unmarked)
    if method.null == "exact" and not exact_test(own, under_way.request.level).claim:
        raise UsageError(
            f"The marked model as it was written does not carry the mark at level {under_way.request.level:g}, so it would "
            "protect nothing. Give more strength, more steps, or images like those that the model sees: --set, --data."
        )
    from amb.evaluation.utility import compare

    tested = under_way.request.self_test != "none"
    with under_way.context("utility", "attacker", "test") as ctx:
        measure_utility = under_way.request.suite.utility if tested else lambda *_: {}
        before, after = dict(measure_utility(unmarked, ctx)), dict(measure_utility(shipped, ctx))
        alike = dict(compare(unmarked, shipped, ctx, **({} if tested else {"n": _FEW_IMAGES})))
    rows = run_self_test(under_way, key, unmarked, shipped) if tested else []
    return {"utility": {"before": before, "after": after}, "similarity": alike, "self_test": rows}


def _list_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.name != "record.json"]


def _assemble(under_way: Protection, made: Made, passphrase: str | None) -> None:
    """Everything under its final name, in a folder that is renamed when it is whole."""
    request, draft = under_way.request, under_way.draft / ".finished"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o755)
    (draft / MODEL).mkdir()
    for path in _list_files(made.files):
        os.link(path, draft / MODEL / path.name)
        (draft / MODEL / path.name).chmod(0o644)  # it is to be shipped
    data = made.key.to_bytes()  # once: the library writes its header in any order
    salt = write_key_folder(draft / KEY, data, passphrase)
    unmarked = made.facts["digests"]["unmarked"]
    KeyFacts(method=made.key.method, unmarked=request.model, unmarked_digest=unmarked, level=request.level).write(
        draft / KEY
    )
    commitment = _commit(request, made, commit_key(salt, data))
    commitment.write(draft / COMMITMENT)
    facts = {**made.facts, "model": request.model, "method": made.key.method, "commitment": commitment.digest}
    (draft / FACTS).write_text(json.dumps(finite(facts), indent=1) + "\n", encoding="utf-8")
    (draft / REPORT).write_text(render_report(facts, commitment), encoding="utf-8")
    draft.rename(under_way.finished)


def _digest_triggers(key: Key) -> str | None:
    """SHA-256 of the images that the key is read on, with their shape; None where it needs none."""
    if (images := key.tensors.get("triggers")) is None:
        return None
    return hashlib.sha256(str(images.shape).encode() + images.tobytes()).hexdigest()


def _commit(request: Request, made: Made, key: str) -> Commitment:
    """The commitment to what was made."""
    method, facts = request.method, made.facts
    exact = method.null == "exact"
    return Commitment(
        created=utc_now(),
        key=key,
        method=made.key.method,
        statistic="number of right symbols, binomial"
        if exact
        else "detection rate, rank among sources of innocent models",
        level=request.level,
        preprocessing=Preprocessing(**facts["preprocessing"]),
        unmarked=Weights(tensors=facts["digests"]["unmarked"], files=facts["unmarked_files"]),
        marked=Weights(tensors=facts["digests"]["marked"], files=digest_files(_list_files(made.files))),
        images=_digest_triggers(made.key),
        claim=method.claims,
        software=find_versions(),
    )
