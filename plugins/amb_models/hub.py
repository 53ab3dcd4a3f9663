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


class Source(NamedTuple):
    """Where the files of a model lie on the hub."""

    ref: str
    """As users write it: `timm/vit_base_patch16_224.mae`."""
    repo: str
    files: Sequence[str]
    revision: str | None = None


def source_of(ref: str, text: str, files: Sequence[str]) -> Source:
    """The source that `<org>/<name>` or `<name>`, perhaps with `@<revision>`, is. Raises CheckpointError."""
    repo, at, revision = text.partition("@")
    fits = _REPO.fullmatch(repo) and (not at or _REVISION.fullmatch(revision))
    if not fits or max(len(repo), len(revision)) > _LONGEST:
        raise amb.CheckpointError(
            f"{ref[:200]} names no repository of the hub. Write hf/<organisation>/<name>[@<revision>]."
        )
    return Source(ref, repo, files, revision or None)


def fetches(source: Source) -> list[Fetch]:
    """What the source needs, and whether it is here; asks nobody but the file system."""
    found = []
    for file in source.files:
        path = _cached(source, file)
        size = path.stat().st_size if path else None
        found.append(Fetch(f"{file} of {source.ref}", _command(source, [file]), size, path is not None))
    return found


def fetch(source: Source) -> list[Path]:
    """Every file of the source, in order, in the cache. What is there is not asked for again. Raises MissingError."""
    missing = [file for file in source.files if _cached(source, file) is None]
    if missing and is_offline():
        raise _missing(source, missing, "and nothing may be fetched (--offline or HF_HUB_OFFLINE)")
    return [_cached(source, file) or _download(source, file, missing) for file in source.files]


def _cached(source: Source, file: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(source.repo, file, revision=source.revision)
    return Path(path) if isinstance(path, str) else None


def _download(source: Source, file: str, missing: Sequence[str]) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    try:  # one question, for downloading asks six times over half a minute before it gives up
        get_hf_file_metadata(hf_hub_url(source.repo, file, revision=source.revision), timeout=_PATIENCE)
        return Path(hf_hub_download(source.repo, file, revision=source.revision, etag_timeout=_PATIENCE))
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise amb.MissingError(
            f"The hub has no repository for {source.ref}, or keeps it to itself. {_LOG_IN}"
        ) from None
    except EntryNotFoundError:
        raise amb.MissingError(
            f"{source.repo} has no {file} on the hub, and amb reads no other form of weights (see docs/models)."
        ) from None
    except Exception as error:  # noqa: BLE001 (the client raises what its transport raises, whichever that is)
        why = f"and the hub cannot be reached ({type(error).__name__})"
        raise _missing(source, missing, why) from None


def _missing(source: Source, files: Sequence[str], why: str) -> amb.MissingError:
    from huggingface_hub.constants import HF_HUB_CACHE

    what = "The weights" if any(file.endswith(".safetensors") for file in files) else "The files"
    return amb.MissingError(
        f"{what} of {source.ref} are not on this machine, {why}. Where there is a network, run "
        f"`{_command(source, files)}`, which puts them in {HF_HUB_CACHE}; or copy that folder."
    )


def _command(source: Source, files: Sequence[str]) -> str:
    at = f" --revision {source.revision}" if source.revision else ""
    return f"hf download {source.repo} {' '.join(files)}{at}"


_LOG_IN: Final = "Look for misspellings; for a private or gated one, run `hf auth login`."
