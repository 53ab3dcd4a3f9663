"""Draw the rooms of `amb/` from their imports, layered by who knows whom, into `docs/img/rooms.svg`."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache
from html import escape
from pathlib import Path
from typing import Final, NamedTuple

CORE: Final = Path(__file__).parents[1] / "amb"
PICTURE: Final = Path(__file__).parent / "img" / "rooms.svg"
ON_THE_WAY: Final = frozenset(
    {"cli", "python", "execution", "evaluation", "models", "store", "plugin", "api", "runtime"}
)
"""The rooms that one run goes through, from the command line to the verdict."""

WIDTH, HEIGHT, GAP, GUTTER, EDGE = 340, 72, 26, 96, 28
LETTERS: Final = 48
"""That fit into a line of a box, which has two."""
ABOUT: Final = {
    "api": "What plugins build on and are handed: components, models, keys, evidence, plans.",
    "cli": "The command line, a file for each command.",
    "evaluation": "Every figure and every verdict: statistics, thresholds, utility, activations.",
    "execution": "One run, from plan to verdict: engine, steps, workers, cost.",
    "models": "From a reference or a file to a model: checkpoints, heads, a cache.",
    "ownership": "What an owner and a judge do: commitments, receipts, seals, signatures.",
    "plugin": "How plugins are found: hooks, manager, registry.",
    "python": "The front door from Python: run, sweep, results as frames, tables and figures.",
    "report": "What people read: layouts, tables, figures, formats, the page.",
    "results": "What runs leave behind: documents, schemas, bundles, and their check.",
    "runtime": "The machine: device, precision, batch sizes that fit, paths, progress.",
    "store": "Where finished steps are kept: entries, leases, a cache of what lies elsewhere.",
    "sweeps": "Many plans from one YAML file or mapping.",
    "testing": "Contracts for plugins, and a toy model and suite.",
    "tracking": "MLflow: what is written to it, its server and views.",
    "training": "The visible training loop, in steps that fit into memory.",
}
"""Each room in a few words."""
STYLE: Final = """
  .ground { fill: #ffffff } .box { fill: #f6f8fa; stroke: #afb8c1 } .way { fill: #ddf4ff; stroke: #218bff }
  .name { fill: #1f2328; font: 600 16px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace }
  .what, .note { fill: #424a53; font: 12px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif }
  .line { fill: none; stroke: #6e7781; stroke-width: 1.6 } .head { fill: #6e7781 }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117 } .box { fill: #161b22; stroke: #484f58 } .way { fill: #0d2847; stroke: #58a6ff }
    .name { fill: #f0f6fc } .what, .note { fill: #b1bac4 } .line { stroke: #8b949e } .head { fill: #8b949e }
  }
"""

TIP: Final = (
    '<marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
    '<path class="head" d="M0 0 10 5 0 10z"/></marker>'
)
"""The head of an arrow."""

Graph = Mapping[str, frozenset[str]]
"""For each room, the rooms that its files import."""


class Place(NamedTuple):
    """The upper left corner of a box."""

    x: int
    y: int


def find_rooms() -> Graph:
    """The packages of `amb/` and whom their files import, inside functions and for types too."""
    files = {path.parent.name: sorted(path.parent.rglob("*.py")) for path in sorted(CORE.glob("*/__init__.py"))}
    return {
        room: frozenset(other for path in paths for other in _imported_rooms(path) if other in files and other != room)
        for room, paths in files.items()
    }


def _imported_rooms(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        yield from (module.split(".")[1] for module in modules if module.startswith("amb."))


def keep_nearest(graph: Graph) -> Graph:
    """Without the arrows that a longer way makes plain."""

    @cache
    def reached(room: str) -> frozenset[str]:
        return graph[room].union(*(reached(other) for other in graph[room]))

    return {
        room: frozenset(other for other in known if not any(other in reached(via) for via in known))
        for room, known in graph.items()
    }


def find_layers(graph: Graph) -> Mapping[str, int]:
    """How many rooms lie below each, on the longest way down."""

    @cache
    def layer(room: str) -> int:
        return 1 + max((layer(other) for other in graph[room]), default=-1)

    return {room: layer(room) for room in graph}


def find_spine(graph: Graph, layers: Mapping[str, int]) -> list[str]:
    """The longest way from the top to the bottom, on the run's way where it can be chosen."""

    def rank(room: str) -> tuple[int, bool, str]:
        return layers[room], room in ON_THE_WAY, room

    way = [max(graph, key=rank)]
    while graph[way[-1]]:
        way.append(max(graph[way[-1]], key=rank))
    return way


def place_rooms(graph: Graph) -> Mapping[str, Place]:
    """The spine in the first column, every other room beside it in its layer."""
    layers = find_layers(graph)
    spine, top = find_spine(graph, layers), max(layers.values())
    places = {}
    for room in sorted(graph, key=lambda each: (-layers[each], each not in spine, each)):
        y = EDGE + (top - layers[room]) * (HEIGHT + GAP)
        column = sum(place.y == y for place in places.values()) if room not in spine else 0
        places[room] = Place(EDGE + column * (WIDTH + GUTTER), y)
    return places


def draw() -> str:
    """The picture as SVG."""
    graph = find_rooms()
    places, nearest = place_rooms(graph), keep_nearest(graph)
    width = max(place.x for place in places.values()) + WIDTH + EDGE
    bottom = max(place.y for place in places.values()) + HEIGHT
    size = f'width="{width}" height="{bottom + 72}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom + 72}" {size} role="img">',
        "<title>The rooms of amb and who imports whom</title>",
        f"<style>{STYLE}</style>",
        f"<defs>{TIP}</defs>",
        f'<rect class="ground" {size} rx="12"/>',
        *_draw_arrows(nearest, places),
        *(line for room, place in places.items() for line in _draw_room(room, place)),
        *_draw_notes(bottom),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _draw_room(room: str, place: Place) -> Iterator[str]:
    kind = "way" if room in ON_THE_WAY else "box"
    yield f'<rect class="{kind}" x="{place.x}" y="{place.y}" width="{WIDTH}" height="{HEIGHT}" rx="8"/>'
    yield f'<text class="name" x="{place.x + 14}" y="{place.y + 24}">{escape(room)}/</text>'
    for at, line in enumerate(textwrap.wrap(ABOUT[room], LETTERS)):
        yield f'<text class="what" x="{place.x + 14}" y="{place.y + 43 + 17 * at}">{escape(line)}</text>'


def _draw_arrows(graph: Graph, places: Mapping[str, Place]) -> Iterator[str]:
    for room in sorted(graph):
        for other in sorted(graph[room]):
            yield f'<path class="line" marker-end="url(#tip)" d="{_find_path(places[room], places[other])}"/>'


def _find_path(start: Place, end: Place) -> str:
    """Straight down inside a column, else a curve through the gutter between two."""
    if start.x == end.x:
        x = start.x + WIDTH // 2
        return f"M{x} {start.y + HEIGHT}V{end.y - 2}"
    right = end.x > start.x
    x1, x2 = (start.x + WIDTH, end.x - 2) if right else (start.x, end.x + WIDTH + 2)
    y1, y2 = start.y + HEIGHT * 2 // 3, end.y + HEIGHT // 3
    middle = (x1 + x2) // 2
    return f"M{x1} {y1}C{middle} {y1} {middle} {y2} {x2} {y2}"


def _draw_notes(bottom: int) -> Iterator[str]:
    yield f'<rect class="way" x="{EDGE}" y="{bottom + 18}" width="16" height="16" rx="4"/>'
    for at, text in enumerate(
        (
            "On the way of one run, from the command line to the verdict.",
            "A room may import what its arrows lead to, at any distance, and errors.py; never what lies above it.",
        )
    ):
        yield f'<text class="note" x="{EDGE + 26 * (at == 0)}" y="{bottom + 31 + 23 * at}">{text}</text>'


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
