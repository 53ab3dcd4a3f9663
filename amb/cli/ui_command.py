"""`amb ui`: MLflow's own server on the tracking data of an output folder, opened at the comparison."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from amb.cli import options

if TYPE_CHECKING:
    from amb.tracking.server import Server

PATIENCE = 120.0
"""Seconds that the server may take to start."""

EPILOG = """
\b
Examples:
  amb ui
  amb ui --sweep table2
  amb ui --sweep table2 --port 5000 --no-browser

\b
Pages, printed one a line:
  comparison  summary of each method side by side: parallel coordinates, every figure
  methods     charts of the summaries: method by attack, R(tau) by tau, utility against detection, seconds
  cells       table of every cell, the highest detection rate first
  attacks     charts of every cell

docs/schema.md says what each metric, parameter and tag means. Ctrl-C stops the server.
"""


@click.command(name="ui", epilog=EPILOG)
@click.option("--sweep", metavar="NAME", help="Only the runs of this sweep.")
@options.output_dir
@click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on; by default one that is free.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--no-browser", is_flag=True, help="Print the addresses, open nothing.")
def command(sweep: str | None, output_dir: Path, port: int | None, host: str, no_browser: bool) -> int:
    """Look at what has run in MLflow: serve it on this machine and open the comparison.

    Where MLFLOW_TRACKING_URI names a server, its addresses are printed and nothing is started.
    """
    from amb.tracking.connection import is_remote, strip_password, tracking_uri
    from amb.tracking.links import connect, links
    from amb.tracking.server import pick_port, serving

    client, experiment = connect(output_dir)
    uri = tracking_uri(output_dir)
    pages = links(client, experiment, sweep, _print_message)
    if is_remote(uri):
        address = strip_password(uri).rstrip("/")
        _print_pages(address, address, pages, no_browser)
        return 0
    _warn_of_others(host)
    signal.signal(signal.SIGTERM, _raise_interrupt)
    try:
        with serving(output_dir, host, pick_port(host, port), PATIENCE, _Waiting()) as server:
            _print_pages(server.address, server.quiet_address, pages, no_browser)
            _wait_until_stopped(server)
    except KeyboardInterrupt:
        _print_message("stopped.")
    return 0


def _print_pages(address: str, shown: str, pages: Mapping[str, str], no_browser: bool) -> None:
    """The address on one line, then the pages as they are best shown; the comparison in the browser."""
    import webbrowser

    click.echo(address)
    for name, page in pages.items():
        click.echo(f"{name:<10}  {shown}{page}")
    if not no_browser and not webbrowser.open(shown + pages["comparison"]):
        _print_message("no browser was found here; open an address above.")


def _wait_until_stopped(server: Server) -> None:
    """Wait for Ctrl-C. Raises AmbError where the server goes away by itself."""
    from amb.errors import AmbError

    _print_message("Ctrl-C stops the server.")
    code = server.process.wait()
    raise AmbError(f"MLflow's server stopped by itself, with exit code {code}. Its log is {server.log}.")


def _warn_of_others(host: str) -> None:
    import ipaddress

    try:
        alone = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        alone = False
    if not alone:
        _print_message(f"warning: on {host}, whoever reaches this machine can read and change what is tracked.")


class _Waiting:
    """Says now and then that the server is still starting."""

    def __init__(self) -> None:
        self.next = 0.0

    def __call__(self, elapsed: float) -> None:
        if elapsed >= self.next:
            _print_message(f"MLflow's server is starting, {elapsed:.0f} s (10 to 30 s are usual)")
            self.next += 5


def _raise_interrupt(_number: int, _frame: Any) -> None:
    """SIGTERM stops as Ctrl-C does."""
    raise KeyboardInterrupt


def _print_message(text: str) -> None:
    from amb.errors import printable

    print(printable(text), file=sys.stderr, flush=True)
