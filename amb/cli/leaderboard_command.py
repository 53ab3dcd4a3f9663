"""`amb leaderboard`: methods ranked per suite and threat model, over several stores and bundles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from amb.cli import options
from amb.results.thieves import THREATS

if TYPE_CHECKING:
    from collections.abc import Sequence

_THREATS = "\n".join(f"  {name:<11} {threat}" for name, threat in THREATS.items())
EPILOG = f"""
\b
Examples:
  amb leaderboard
  amb leaderboard amb-results theirs.amb.zip --suite tiny
  amb leaderboard *.amb.zip --format html -o leaderboard.html

\b
Threat models, weakest first:
{_THREATS}
"""


@click.command(name="leaderboard", epilog=EPILOG)
@click.argument("sources", nargs=-1, metavar="[DIR|BUNDLE]...", type=click.Path(path_type=Path))
@click.option("--suite", metavar="SPEC", help="Only this suite.")
@options.format_
@options.output
def command(sources: tuple[Path, ...], suite: str | None, format_: str, output: Path | None) -> None:
    """Rank methods, with the evidence behind each row, over output folders and exported bundles.

    Without a source it reads amb-results. Bundles are verified as `amb import` does it. A method without evidence
    enough is shown and not ranked.
    """
    from amb.api.digests import finite
    from amb.plugin.manager import manager
    from amb.report.formats import reporter_of
    from amb.report.layouts.leaderboard import with_leaderboard

    registry = manager().registry
    reporter = reporter_of(format_, registry)
    text = reporter.render(
        finite(with_leaderboard(_collect_sources(sources or (Path("amb-results"),)), registry, suite))
    )
    options.write(text, output, "leaderboard")


def _collect_sources(sources: Sequence[Path]) -> dict[str, dict[str, Any]]:
    from amb.results.collect import collect

    return {str(path): _collect_bundle(path) if path.is_file() else collect(path) for path in sources}


def _collect_bundle(path: Path) -> dict[str, Any]:
    """What `collect` gives of a bundle, once it is verified and unpacked to a folder for the moment."""
    import tempfile

    from amb.results.bundle import read_bundle, write_runs
    from amb.results.collect import collect

    with tempfile.TemporaryDirectory(prefix="amb-") as folder:
        write_runs(read_bundle(path), Path(folder))
        return collect(Path(folder))
