"""Lay out the sources of the documentation site: the repository's own pages, and a page of every component."""

from __future__ import annotations

import inspect
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from python_pages import write_python_pages

from amb.api.component import Component, parameter_rows, value_text
from amb.api.executors import Executor
from amb.api.interfaces import Attack, Forgery, Method, ModelLoader, Suite
from amb.api.spec import Spec, parse_spec
from amb.plugin.manager import manager
from amb.plugin.registry import Catalog

ROOT: Final = Path(__file__).parents[1]
PATTERNS: Final = ("*.md", "[a-z]*/README.md", "benchmarks/*/README.md", "docs/*.md", "amb/DECISIONS.md")
"""Where the repository's own pages are. A page keeps its place, so its links work here and on GitHub."""
LINKED: Final = re.compile(r"\]\(([^)#:\s]+)|\bsrc(?:set)?=\"([^\":]+)\"")
"""What a page links to or shows, of this repository."""
ABOUT: Final = {
    "methods": "What is judged: watermarks and fingerprints. `amb list methods` prints this list.",
    "attacks": "What thieves, and dishonest claimants, do. `amb list attacks` prints this list with all presets.",
    "suites": "What a method is judged on: an owner's model, data, innocent models. `amb list suites` prints this list.",
    "models": "Where models come from: a reference is `<loader>/<rest>`. `amb list models` prints what can be named.",
    "executors": "Where a sweep is computed, see [clusters](/docs/clusters.md). `amb list executors` prints this list.",
    "edits": "Changes of a network's structure that attacks write on a model's card, and that are replayed when it loads.",
}
COMMANDS: Final = """# Commands

```{eval-rst}
.. click:: amb.cli:cli
   :prog: amb
   :nested: full
```
"""


def main(target: Path) -> None:
    """Write everything into a new folder."""
    if target.exists():
        sys.exit(f"{target} is there already: remove it, or name another folder.")
    for page in pages():
        _copy(page, target)
    (target / "docs" / "index.md").rename(target / "index.md")
    reference = target / "reference"
    reference.mkdir()
    (reference / "commands.md").write_text(COMMANDS, encoding="utf-8")
    write_python_pages(reference)
    registry = manager().registry
    for kind in (*registry.kinds.values(), registry.edits):
        _write_kind(kind, reference)


def pages() -> list[Path]:
    """The repository's own pages."""
    return sorted({path for pattern in PATTERNS for path in ROOT.glob(pattern)})


def _copy(page: Path, target: Path) -> None:
    """A page, and the files and pictures beside it that it refers to."""
    found = (page.parent / (link or source) for link, source in LINKED.findall(page.read_text(encoding="utf-8")))
    for path in (page, *found):
        if path.is_file() and path.resolve().is_relative_to(ROOT):
            copy = target / path.resolve().relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy)


def _write_kind(kind: Catalog[Any], reference: Path) -> None:
    folder = reference / kind.listing
    folder.mkdir()
    components = []
    for name, cls in sorted(kind.classes.items()):
        parse_spec(name)  # raises where the name could not be typed, so it is safe as a file's name too
        (folder / f"{name}.md").write_text(component_page(kind, cls), encoding="utf-8")
        components.append((name, name, _documentation(cls).partition("\n")[0]))
    facts = {"title": kind.listing.capitalize(), "about": ABOUT[kind.listing], "listing": kind.listing}
    text = _environment().get_template("kind.md.jinja").render(**facts, components=components)
    (reference / f"{kind.listing}.md").write_text(text, encoding="utf-8")


def component_page(kind: Catalog[Any], cls: type[Component]) -> str:
    """The Markdown page of a component, from its declaration."""
    template = _environment().get_template("component.md.jinja")
    return template.render(
        name=cls.name,
        documentation=_documentation(cls),
        facts=[*_facts(cls), ("Source", cls.source or "this project"), ("From", str(kind.plugin_of(cls.name)))],
        example=_example(cls),
        parameters=[{**row, "default": _default(row["default"])} for row in parameter_rows(cls)],
        presets=[(name, _spec(cls.name, params)) for name, params in cls.presets.items()],
        lists=list(_lists(cls)),
    )


def _documentation(cls: type[Component]) -> str:
    return inspect.cleandoc(cls.__doc__ or "")


def _default(text: str) -> str:
    return "needs a value" if text.startswith("none:") else f"default {code(text)}"


def _spec(name: str, params: Mapping[str, Any]) -> str:
    return str(Spec(name, {key: value_text(value) for key, value in params.items()}))


def _usual(cls: type[Component]) -> tuple[str, Component] | None:
    """A spec that can be typed as it is, with its component: the defaults, or the first preset; None for neither."""
    choices = {cls.name: {}, **cls.presets}
    for name, params in choices.items():
        if all(field in params for field, info in cls.model_fields.items() if info.is_required()):
            return name, cls.create(params)
    return None


def _example(cls: type[Component]) -> str:
    name = (_usual(cls) or ("", None))[0]
    if name and issubclass(cls, Method):
        return f"amb run --method {name} --attack prune40"
    if name and issubclass(cls, Attack):
        return f"amb run --method activemark --attack {name}"
    if name and issubclass(cls, Suite):
        return f"amb run --suite {name} --method activemark --attack prune40"
    if name and issubclass(cls, Executor):
        return f"amb sweep benchmarks/paper/table2.yaml --executor {name}"
    return ""


def _facts(cls: type[Component]) -> Iterator[tuple[str, str]]:
    """What a kind of component declares beside its parameters."""
    component = (_usual(cls) or ("", None))[1]
    if issubclass(cls, Method):
        yield "Access", f"`{cls.access}`, which is what it asks of a suspect"
        yield "Protects", f"the {cls.protects}"
        yield "Usual τ", str(component.default_tau) if isinstance(component, Method) else "by its parameters"
    elif issubclass(cls, Attack):
        yield "Aims at", "the verification" if issubclass(cls, Forgery) else "the model"
        yield "The thief", cls.thief
        yield "The attacker knows", _knows(cls)
        if cls.requires:
            yield "Needs", ", ".join(f"`{name}`" for name in cls.requires) + ": `pip install activemark-bench[attacks]`"
        if cls.strength_parameter:
            yield "Strength", f"`{cls.strength_parameter}`, whose 0 changes nothing"
    elif issubclass(cls, Executor):
        yield "Computes", "in the process that asks" if cls.in_process else "in processes that import every component"
    elif isinstance(component, Suite):
        yield "Owner", f"`{component.owner()}`"
        yield "Tolerance", f"{component.tolerance:g} of the utility; what lost more counts as destroyed"


def _knows(cls: type[Attack]) -> str:
    """What the attacker has: the same for all specs, or by spec."""
    specs = {cls.name: {}, **cls.presets}
    required = {name for name, info in cls.model_fields.items() if info.is_required()}
    known = {name: cls.create(params).knows for name, params in specs.items() if required <= params.keys()}
    if len(set(known.values())) == 1:
        return f"the {next(iter(known.values()))}"
    return ", ".join(f"`{name}` the {what}" for name, what in known.items()) or "see the parameters"


def _lists(cls: type[Component]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Longer declarations, each as titled terms."""
    if issubclass(cls, Method) and cls.forgeries:
        yield "How its key is forged", [(what, f"{how}.") for what, how in cls.forgeries.items()]
    if issubclass(cls, ModelLoader) and (names := cls().names()):
        yield "References", [(f"{cls.name}/{name}", "") for name in names]
    if issubclass(cls, Suite) and (usual := _usual(cls)) and isinstance(suite := usual[1], Suite):
        yield "Innocent models", [(each.ref, f"class `{each.group}`") for each in suite.independents()]
        yield "Siblings", [(each.name, _made(each)) for each in suite.siblings()]
        yield "Further negatives are made by", [(spec, "") for spec in suite.perturbations()]


def _made(sibling: Any) -> str:
    return f"class `{sibling.group}`; attack `{sibling.attack}` on {f'`{sibling.ref}`' if sibling.ref else 'the owner'}"


def _environment() -> Environment:
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, autoescape=False)  # noqa: S701
    environment.filters |= {"prose": prose, "code": code}
    return environment


def code(text: str) -> str:
    """A code span, whatever backticks there are in the text."""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{text}{fence}" if fence == "`" else f"{fence} {text} {fence}"


def prose(text: str) -> str:
    """Text of a component as Markdown that means nothing but itself; what stands in backticks stays code."""
    paragraphs = re.split(r"\n\s*\n", text.strip())
    return "\n\n".join(_inline(" ".join(paragraph.split())) for paragraph in paragraphs)


def _inline(text: str) -> str:
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(part if part.startswith("`") and len(part) > 1 else _escaped(part) for part in parts)


def _escaped(text: str) -> str:
    escaped = re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text)
    return re.sub(r"arXiv (\d{4})\\\.(\d{4,5})", r"[arXiv \1.\2](https://arxiv.org/abs/\1.\2)", escaped)


if __name__ == "__main__":
    main(Path(*sys.argv[1:2] or ["build/site/source"]))
