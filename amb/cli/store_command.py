"""`amb store`: what lies in a store, whether it is whole, what nobody needs, and copies of it."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from amb.cli import options

if TYPE_CHECKING:
    from amb.store.listing import EntrySize
    from amb.store.store import Store

EPILOG = """
\b
Examples:
  amb store ls
  amb store du --store s3://my-bucket/store --format json
  amb store verify --output-dir others
  amb store gc --results amb-results --yes
  amb store cp amb-results/store s3://my-bucket/store

Without --store, it is the one of the output folder.
"""


@click.group(name="store", epilog=EPILOG)
def command() -> None:
    """Look after the store, where finished steps are kept: on a folder, or on an object store such as s3://BUCKET/FOLDER."""


_format = click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", show_default=True)
_kinds = click.option("--kind", "kinds", multiple=True, metavar="KIND", help="Only this kind of entry. Repeatable.")


def _placed(below: Callable[..., Any]) -> Callable[..., Any]:
    for option in (_format, options.store, options.output_dir):
        below = option(below)
    return below


@command.command(name="ls", epilog=EPILOG)
@_kinds
@_placed
def ls_command(output_dir: Path, store: str | None, format_: str, kinds: tuple[str, ...]) -> None:
    """List the entries, a line each: kind, digest, files and bytes with tabs between."""
    from amb.store.listing import list_store

    entries = [entry for entry in list_store(_open(output_dir, store)).entries if not kinds or entry.kind in kinds]
    if format_ == "json":
        _print_json([_to_json(entry) for entry in entries])
        return
    for entry in entries:
        click.echo(f"{entry.kind}\t{entry.digest}\t{entry.n_files}\t{entry.n_bytes}")


@command.command(name="du", epilog=EPILOG)
@_placed
def du_command(output_dir: Path, store: str | None, format_: str) -> None:
    """Say how many entries of each kind there are and how large they are, and what lies beside them."""
    from amb.store.listing import list_store

    opened = _open(output_dir, store)
    listing = list_store(opened)
    sizes: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for entry in listing.entries:
        _add(sizes[entry.kind], 1, entry.n_bytes)
    beside = [sum(file.size for file in listing.others), _size_cache(opened)]
    total = [sum(column) for column in zip(*sizes.values(), strict=True)] or [0, 0]
    if format_ == "json":
        kinds = {kind: {"entries": n, "bytes": size} for kind, (n, size) in sizes.items()}
        _print_json({"store": opened.location, "kinds": kinds, "entries": total[0], "bytes": total[1],
                     "under_way_bytes": beside[0], "cache_bytes": beside[1]})  # fmt: skip
        return
    for kind, (n, size) in [*sizes.items(), ("total", total)]:
        click.echo(f"{kind:<12} {n:>9,} {_spell_bytes(size):>12}")
    click.echo(f"{'under way':<12} {'':>9} {_spell_bytes(beside[0]):>12}")
    click.echo(f"{'cache':<12} {'':>9} {_spell_bytes(beside[1]):>12}")


@command.command(name="verify", epilog=EPILOG)
@_kinds
@_placed
def verify_command(output_dir: Path, store: str | None, format_: str, kinds: tuple[str, ...]) -> int:
    """Read every byte of every entry and compare its digests. Exit code 1 where one is damaged; it is computed again when used."""
    from amb.store.listing import verify_store

    found = list(verify_store(_open(output_dir, store), kinds))
    damaged = [(entry, why) for entry, why in found if why]
    if format_ == "json":
        _print_json({"entries": len(found), "damaged": [{**_to_json(entry), "why": why} for entry, why in damaged]})
        return 1 if damaged else 0
    for entry, why in damaged:
        click.echo(f"{entry.kind}\t{entry.digest}\t{why}")
    _say(f"{_count(len(found))}, {len(damaged)} damaged.")
    return 1 if damaged else 0


@command.command(name="gc", epilog=EPILOG)
@click.option(
    "--results",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    multiple=True,
    help="Also entries older than a day that no results of this output folder refer to. Name every folder that uses the store.",
)
@click.option("--cache", is_flag=True, help="Also this machine's copies of what lies elsewhere.")
@click.option("-y", "--yes", is_flag=True, help="Remove it. Without, it is only said what would go.")
@_placed
def gc_command(
    output_dir: Path, store: str | None, format_: str, results: tuple[Path, ...], cache: bool, yes: bool
) -> None:
    """Remove what killed processes left: drafts, leases, uploads without a record; and what the options name.

    What somebody computes at the moment is left alone; a lease of another machine is looked at for a minute to find out.
    """
    from amb.results.collect import find_runs
    from amb.store.waste import find_digests, find_waste, remove_waste

    opened = _open(output_dir, store)
    referred = None
    if results:
        runs = [run for folder in results for run in find_runs(folder)]
        referred = {digest for run in runs for digest in find_digests([dict(run.facts), *run.read_cells()])}
    waste = find_waste(opened, referred, cache=cache, say=_say)
    if yes:
        remove_waste(opened, waste)
    n_bytes = sum(file.size for file in waste.files) + sum(entry.n_bytes for entry in waste.entries)
    if format_ == "json":
        entries = [_to_json(entry) for entry in waste.entries]
        _print_json({"removed": yes, "files": [file.path for file in waste.files], "entries": entries,
                     "bytes": n_bytes, "cache_bytes": waste.n_cached})  # fmt: skip
        return
    for entry in waste.entries:
        click.echo(f"{entry.kind}\t{entry.digest}\t{entry.n_bytes}")
    for file in waste.files:
        click.echo(f"{file.path}\t\t{file.size}")
    what = f"{_count(len(waste.entries))} and {len(waste.files)} leftover files of {_spell_bytes(n_bytes)}"
    cached = f", {_spell_bytes(waste.n_cached)} of cache" if waste.n_cached else ""
    _say(f"{what}{cached} {'removed.' if yes else 'would go: say --yes. Nothing was removed.'}")


@command.command(name="cp", epilog=EPILOG)
@click.argument("source", metavar="SOURCE")
@click.argument("target", metavar="TARGET")
@_kinds
@_format
@options.quiet
def cp_command(source: str, target: str, kinds: tuple[str, ...], format_: str, quiet: bool) -> int:
    """Copy the entries of the store SOURCE that TARGET lacks: folders or URLs. What is there is left as it is.

    Every file is checked on the way. Stopped or killed, the same command goes on. Exit code 1 where an entry is damaged.
    """
    from amb.runtime.progress import make_progress
    from amb.store.copies import copy_entries
    from amb.store.listing import list_store
    from amb.store.store import open_store

    progress = make_progress(quiet)
    ours, theirs = (open_store(each, progress.say) for each in (source, target))
    entries = [entry for entry in list_store(ours).entries if not kinds or entry.kind in kinds]
    found = list(copy_entries(ours, theirs, progress.track(entries, "entries", len(entries))))
    n = {what: sum(each == what for _, each in found) for what in ("copied", "there")}
    damaged = [(entry, what) for entry, what in found if what not in n]
    if format_ == "json":
        _print_json({**n, "damaged": [{**_to_json(entry), "why": what} for entry, what in damaged]})
    else:
        for entry, what in damaged:
            click.echo(f"{entry.kind}\t{entry.digest}\t{what}")
        _say(f"{_count(len(found))}: {n['copied']} copied, {n['there']} were there, {len(damaged)} damaged.")
    return 1 if damaged else 0


def _open(output_dir: Path, store: str | None) -> Store:
    """The store that is asked for. Raises MissingError where a folder is none."""
    from amb.errors import MissingError
    from amb.store.store import open_store

    if store is None and not (output_dir / "store").is_dir():
        raise MissingError(
            f"There is no store in {output_dir}. Run something first, or give another: --store or --output-dir."
        )
    return open_store(store or output_dir / "store", _say)


def _size_cache(store: Store) -> int:
    from amb.store.remote import RemotePlace

    is_remote = isinstance(store.place, RemotePlace)
    return sum(file.size for file in store.place.cache.list_files()) if is_remote else 0  # type: ignore[attr-defined]


def _add(total: list[int], n: int, size: int) -> None:
    total[0] += n
    total[1] += size


def _to_json(entry: EntrySize) -> Mapping[str, Any]:
    return {"kind": entry.kind, "digest": entry.digest, "files": entry.n_files, "bytes": entry.n_bytes}


def _print_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    import json

    click.echo(json.dumps(value, indent=1))


def _count(n: int) -> str:
    return f"{n:,} {'entry' if n == 1 else 'entries'}"


def _spell_bytes(n: int) -> str:
    size, units = float(n), iter(("B", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while size >= 1024 and unit != "TiB":
        size, unit = size / 1024, next(units)
    return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"


def _say(line: str) -> None:
    from amb.errors import printable

    print(printable(line), file=sys.stderr)
