"""Files of the Hugging Face hub: looked for in the local cache, fetched where that is allowed, else named in one line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import amb
from amb import Fetch, is_offline

_REPO: Final = re.compile(r"(?!.*(--|\.\.))(?!.*\.git$)[\w-][\w.-]*(/[\w-][\w.-]*)?(?<![.-])", re.ASCII)
_REVISION: Final = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*", re.ASCII)  # no way out of the cache folder
_LONGEST: Final = 96
"""Letters of a repository's name on the hub; a revision here has no more."""
_PATIENCE: Final = 5
"""Seconds to wait for the hub's first word; a machine without a network says so at once."""


class HubFiles(NamedTuple):
    """The files of a model, by where they lie on the hub."""

    ref: str
    """As users write it: `timm/vit_base_patch16_224.mae`."""
    repo: str
    files: Sequence[str]
    revision: str | None = None


def hub_files(ref: str, text: str, files: Sequence[str]) -> HubFiles:
    """The files of `<org>/<name>` or `<name>`, perhaps with `@<revision>`. Raises CheckpointError."""
    repo, at, revision = text.partition("@")
    fits = _REPO.fullmatch(repo) and (not at or _REVISION.fullmatch(revision))
    if not fits or max(len(repo), len(revision)) > _LONGEST:
        raise amb.CheckpointError(
            f"{ref[:200]} names no repository of the hub. Write hf/<organisation>/<name>[@<revision>]."
        )
    return HubFiles(ref, repo, files, revision or None)


def fetches(wanted: HubFiles) -> list[Fetch]:
    """What has to be fetched, and whether it is here; asks nobody but the file system."""
    found = []
    for file in wanted.files:
        path = _find_cached(wanted, file)
        size = path.stat().st_size if path else None
        found.append(Fetch(f"{file} of {wanted.ref}", _write_command(wanted, [file]), size, path is not None))
    return found


def fetch(wanted: HubFiles) -> list[Path]:
    """Every file, in order, in the cache. What is there is not asked for again. Raises MissingError."""
    missing = [file for file in wanted.files if _find_cached(wanted, file) is None]
    if missing and is_offline():
        raise _explain_missing(wanted, missing, "and nothing may be fetched (--offline or HF_HUB_OFFLINE)")
    return [_find_cached(wanted, file) or _download_file(wanted, file, missing) for file in wanted.files]


def _find_cached(wanted: HubFiles, file: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(wanted.repo, file, revision=wanted.revision)
    return Path(path) if isinstance(path, str) else None


def _download_file(wanted: HubFiles, file: str, missing: Sequence[str]) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    try:  # one question, for downloading asks six times over half a minute before it gives up
        get_hf_file_metadata(hf_hub_url(wanted.repo, file, revision=wanted.revision), timeout=_PATIENCE)
        return Path(hf_hub_download(wanted.repo, file, revision=wanted.revision, etag_timeout=_PATIENCE))
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise amb.MissingError(
            f"The hub has no repository for {wanted.ref}, or keeps it to itself. {_LOG_IN}"
        ) from None
    except EntryNotFoundError:
        raise amb.MissingError(
            f"{wanted.repo} has no {file} on the hub, and amb reads no other form of weights (see docs/models)."
        ) from None
    except Exception as error:  # noqa: BLE001 (the client raises what its transport raises, whichever that is)
        why = f"and the hub cannot be reached ({type(error).__name__})"
        raise _explain_missing(wanted, missing, why) from None


def _explain_missing(wanted: HubFiles, files: Sequence[str], why: str) -> amb.MissingError:
    from huggingface_hub.constants import HF_HUB_CACHE

    what = "The weights" if any(file.endswith(".safetensors") for file in files) else "The files"
    return amb.MissingError(
        f"{what} of {wanted.ref} are not on this machine, {why}. Where there is a network, run "
        f"`{_write_command(wanted, files)}`, which puts them in {HF_HUB_CACHE}; or copy that folder."
    )


def _write_command(wanted: HubFiles, files: Sequence[str]) -> str:
    at = f" --revision {wanted.revision}" if wanted.revision else ""
    return f"hf download {wanted.repo} {' '.join(files)}{at}"


_LOG_IN: Final = "Look for misspellings; for a private or gated one, run `hf auth login`."
