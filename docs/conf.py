"""Settings of the documentation site; `docs/generate.py` lays out the sources that they are used on."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING

from amb import __version__

if TYPE_CHECKING:
    import click
    from sphinx.application import Sphinx

project = "amb"
version = release = __version__
extensions = ["myst_parser", "sphinx_click"]
root_doc = "index"
nitpicky = True

myst_enable_extensions = ["deflist", "html_image"]
myst_heading_anchors = 3  # as GitHub makes them, so that a link to a heading works in both places

python_maximum_signature_line_length = 100
python_use_unqualified_type_names = True
nitpick_ignore_regex = [("py:class", r"(?!amb\.).*")]
"""Types in signatures that are not public names of amb stay words; a link that a page asks for must have an end."""
toc_object_entries = False

html_theme = "furo"
html_title = f"amb {__version__}"
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False


def setup(app: Sphinx) -> None:
    """Help texts are written for the terminal: say what in them is code, and keep examples as they are."""
    for part in ("description", "options", "arguments"):
        app.connect(f"sphinx-click-process-{part}", _as_restructured_text)
    app.connect("sphinx-click-process-epilog", _as_it_is)


def _as_restructured_text(app: Sphinx, context: click.Context, lines: list[str]) -> None:
    lines[:] = [re.sub(r"\|(?=\w)", r"\\|", re.sub(r"(?<!`)(`[^`]+`)(?!`)", r"`\1`", line)) for line in lines]


def _as_it_is(app: Sphinx, context: click.Context, lines: list[str]) -> None:
    epilog = inspect.cleandoc((context.command.epilog or "").replace("\b\n", ""))
    lines[:] = [".. code-block:: text", "", *(f"   {line}" for line in epilog.splitlines()), ""] if epilog else []
