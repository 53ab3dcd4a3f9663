"""The pages of what Python code can use: every name of `amb` and `amb.testing`, as its source declares it."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cache
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import amb
from amb import testing

GROUPS: Final[Mapping[str, tuple[str, str, Sequence[str]]]] = {
    "front_door": (
        "The front door",
        "What the command line does, from Python, with the same words. [The tutorial](/docs/python.md) shows it at work.",
        ["run", "sweep", "load_results", "compare", "Results", "Sweep", "Compute", "list", "get_method", "get_attack", "get_suite",
         "load_model", "build_model", "protect", "verify", "judge"],
    ),
    "components": (
        "What a plugin writes",
        "Subclass one and [register it](hooks.md): [a method](/docs/write_method.md), [an attack](/docs/write_attack.md).",
        ["Component", "Method", "Attack", "Forgery", "Edit", "Suite", "ModelLoader", "Reporter", "Executor"],
    ),
    "words": (
        "Words and small values",
        "What components declare themselves with.",
        ["Access", "Null", "Protected", "Knows", "Thief", "Role", "Task", "LrSchedule", "Independent", "Sibling", "ModelFacts",
         "Work", "Needs", "Fetch", "CheckpointFiles", "ClaimKind"],
    ),
    "records": (
        "What passes between",
        "From the key to the verdict, and the plan that says which cells there are. Observers are handed these.",
        ["Key", "KeyAudit", "Embedding", "Evidence", "Verdict", "Cell", "CellResult", "EmbeddingFacts", "SuspectFacts", "StoredFile", "Plan",
         "Suspect", "Run"],
    ),
    "executors": (
        "Where jobs are computed",
        "What an executor is given and what it tells, see [clusters](/docs/clusters.md).",
        ["Pool", "Assignment", "Report"],
    ),
    "vision": (
        "Models as methods and attacks see them",
        "Images are float in [0, 1], (images, 3, height, width); models resize and normalise.",
        ["VisionModel", "SuspectView", "Backbone", "BlockParts", "Affine", "Matrix", "ClassificationHead", "SegmentationHead",
         "HEADS", "edited"],
    ),
    "data": (
        "Context and data",
        "What a component is given to work with, and how images are walked through.",
        ["Context", "Batch", "Split", "in_order", "shuffled", "endless", "read_ahead"],
    ),
    "training": (
        "Training",
        "For attacks that tune and methods that train: one visible loop, and steps that fit into memory.",
        ["TrainingConfig", "tune", "fit", "new_head", "train_classifier", "GradientAccumulator", "BatchSizeLimiter", "train_held", "measure_drift", "read_signs", "measure_likelihood"],
    ),
    "measuring": (
        "Measuring",
        "Figures for methods and suites. Verdicts are the harness's: [what they rest on](/docs/statistics.md).",
        ["count_errors", "detection_rate", "label_agreement", "forge_labels", "explain_other_classes", "require_forgery", "measure_utility", "activation_profile", "choose_block"],
    ),
    "secrets": (
        "Keys that follow from a secret",
        "For methods whose key is 256 bits and nothing that a claimant could choose: what is drawn, what is refused, what is left to forge.",
        ["Streams", "open_secret", "draw_secret", "require_sound", "require_same", "refuse_key", "require_key", "grind", "audit_secret"],
    ),
    "files": (
        "Model files",
        "A model on disk is safetensors and a card ([the form](/docs/schema.md)). Nothing is unpickled.",
        ["load_checkpoint", "save_checkpoint", "read_card", "read_weights", "fill_by_library", "refuse_misfit",
         "refuse_unsound", "limit_to_file", "has_weights", "list_files", "read_shapes", "read_json_object", "say_once",
         "PICKLE"],
    ),
    "settings": (
        "Settings",
        "Where data lies and what may be fetched; [set as variables](/docs/python.md).",
        ["data_root", "DATA", "is_offline", "go_offline", "may_download", "Progress", "make_progress", "hush_torchao", "__version__"],
    ),
    "errors": (
        "Errors",
        "All that is expected to go wrong; each is one line: what was asked, what is true, what to do.",
        ["AmbError", "UsageError", "SpecError", "UnknownNameError", "BadParamsError", "PluginError", "CheckpointError",
         "MissingError", "MissingDependencyError", "AccessError", "NoHeadError", "OutOfMemoryError", "StoreError",
         "unknown_name", "near_names"],
    ),
}  # fmt: skip
"""Pages: their title, a sentence, and the names of `amb` on them. `hooks` and `testing` come beside."""
SHOWN: Final = {
    "amb.python.display": ["Tables", "Drawing"],
    "amb.results.records": ["CellRecord", "JudgedRecord"],
}
"""What the front door hands out and nobody makes; it stands on its page."""
HOOKS: Final = "Every hook that a plugin may implement, in a module that the entry-point group `amb` names."
TESTING: Final = (
    "For the tests of plugins: contracts to subclass, and a toy model, data and suite that train in seconds."
)


class Declared(NamedTuple):
    """Something public, under the name by which it is imported, with its declaration in the source."""

    name: str
    module: str
    node: ast.AST
    doc: str

    @property
    def short(self) -> str:
        """The name without its module."""
        return self.name.rpartition(".")[2]


def write_python_pages(reference: Path) -> None:
    """A page for each group, and the list of them."""
    folder = reference / "python"
    folder.mkdir()
    pages = {key: (title, about, find_group(key)) for key, (title, about, _) in GROUPS.items()}
    pages["hooks"] = ("Hooks", HOOKS, find_hooks())
    pages["testing"] = ("Tests of plugins", TESTING, [find(f"amb.testing.{name}") for name in testing.__all__])
    known = {each.name for _, _, found in pages.values() for each in found}
    for key, (title, about, found) in pages.items():
        parts = [f"# {title}", about, *(render(each, known) for each in found)]
        (folder / f"{key}.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    (reference / "python.md").write_text(_render_list(pages), encoding="utf-8")


def find_group(key: str) -> list[Declared]:
    """What stands on a page of names of `amb`."""
    found = [find(f"amb.{name}") for name in GROUPS[key][2]]
    shown = SHOWN if key == "front_door" else {}
    return found + [find(f"{module}.{name}") for module, names in shown.items() for name in names]


def find_hooks() -> list[Declared]:
    """The marker, and every hook."""
    hooks = [node.name for node in _tree("amb.plugin.specs").body if isinstance(node, ast.FunctionDef)]
    return [find("amb.hookimpl"), *(find(f"amb.plugin.specs.{name}") for name in hooks)]


def find(name: str) -> Declared:
    """The declaration behind a name that can be imported, wherever it stands."""
    module, _, short = name.rpartition(".")
    home, real = amb._PLACE_OF.get(short, (module, short)) if module == "amb" else (module, short)  # noqa: SLF001
    if module == "amb.testing":
        home = vars(testing)[short].__module__
    body = _tree(home).body
    for node, following in zip(body, [*body[1:], None], strict=True):
        if _name_of(node) == real:
            return Declared(name, home, node, _doc_of(node, following))
    raise LookupError(f"{name} is not declared at the top of {home}.")


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(inspect.getsource(import_module(module)))


def _name_of(node: ast.AST) -> str:
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return node.target.id
    return node.name if isinstance(node, ast.FunctionDef | ast.ClassDef) else ""


def _doc_of(node: ast.AST, following: ast.AST | None) -> str:
    """A docstring: inside a class or function, under anything else."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return ast.get_docstring(node) or ""
    if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
        return inspect.cleandoc(str(following.value.value))
    return ""


# Rendering: directives of Sphinx's Python domain, so that names are in the index and types in signatures are links


def render(declared: Declared, known: set[str]) -> str:
    """The directive of something public, with its members in it."""
    node, text = declared.node, render_text(declared.doc, known)
    node = _spell_defaults(node, declared.module)
    owner = declared.name.rpartition(".")[0]
    head = f"```{{py:currentmodule}} {owner}\n```\n\n"
    title = f"## {declared.short.replace('_', chr(92) + '_')}\n\n"
    if isinstance(node, ast.ClassDef):
        inside = "\n\n".join([_render_bases(node, known), text, *_render_members(node, known)])
        directive = "exception" if declared.short.endswith("Error") else "class"
        return head + title + _render_directive(directive, declared.short + _constructor_of(node), inside, 4)
    if isinstance(node, ast.FunctionDef):
        return head + title + _render_directive("function", declared.short + _signature_of(node), text)
    return head + title + _render_directive("data", declared.short, text, options=_value_of(node))


def render_text(doc: str, known: set[str]) -> str:
    """A docstring as Markdown: paragraphs, code where it is indented, public names and errors as links."""
    parts = [part for part in re.split(r"\n\s*\n", doc.strip("\n")) if part.strip()]
    return "\n\n".join(
        f"```text\n{part}\n```" if part.startswith("    ") else _link_names(" ".join(part.split()), known)
        for part in parts
    )


def _link_names(text: str, known: set[str]) -> str:
    pieces = re.split(r"(`[^`]+`|\b[A-Z]\w*Error\b)", text)
    return "".join(_link_name(piece, known) if at % 2 else _escape(piece) for at, piece in enumerate(pieces))


def _link_name(piece: str, known: set[str]) -> str:
    name = piece.strip("`").removeprefix("amb.")
    return f"{{py:obj}}`~amb.{name}`" if f"amb.{name}" in known else piece


def _escape(text: str) -> str:
    return re.sub(r"([\\*_\[\]<>{}#|$])", r"\\\1", text)


def _render_bases(node: ast.ClassDef, known: set[str]) -> str:
    bases = [ast.unparse(each) for each in node.bases if f"amb.{ast.unparse(each)}" in known]
    return f"Is a {', '.join(f'{{py:obj}}`~amb.{name}`' for name in bases)}." if bases else ""


def _spell_defaults(node: ast.AST, module: str) -> ast.AST:
    """The declaration with plain values where a default is named by a constant of its module."""

    class Speller(ast.NodeTransformer):
        def visit_arguments(self, given: ast.arguments) -> ast.arguments:
            for default in (*given.defaults, *given.kw_defaults):
                value = getattr(import_module(module), default.id, None) if isinstance(default, ast.Name) else None
                if isinstance(value, str | int | float):
                    default.id = repr(value)  # the tree is unparsed only, so a text may stand for a name
            return given

    return Speller().visit(deepcopy(node))


def _attributes_of(init: ast.FunctionDef) -> Iterator[tuple[str, str]]:
    """The attributes that an __init__ sets and describes."""
    for node, following in pairwise(init.body):
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Attribute) and (doc := _doc_of(node, following)):
            yield target.attr, doc


def _render_members(node: ast.ClassDef, known: set[str]) -> Iterator[str]:
    for member, following in zip(node.body, [*node.body[1:], None], strict=True):
        name = _name_of(member)
        if name == "__init__" and isinstance(member, ast.FunctionDef):
            for attribute, doc in _attributes_of(member):
                yield _render_directive("attribute", attribute, render_text(doc, known))
        text = render_text(_doc_of(member, following), known)
        if name.startswith("_") or name in {"", "kind", "model_config"}:
            continue
        if not isinstance(member, ast.FunctionDef):
            yield _render_directive("attribute", name, text, options=_value_of(member))
        elif _is_marked(member, "property", "cached_property"):
            options = {"type": ast.unparse(member.returns)} if member.returns else {}
            yield _render_directive("property", name, text, options=options)
        else:
            marks = {"classmethod": "", "staticmethod": ""} if _is_marked(member, "classmethod", "staticmethod") else {}
            chosen = {mark: "" for mark in marks if _is_marked(member, mark)}
            yield _render_directive("method", name + _signature_of(member, bound=True), text, options=chosen)


def _render_directive(kind: str, head: str, text: str, fence: int = 3, options: Mapping[str, str] | None = None) -> str:
    """One directive; a class needs a longer fence than what stands in it."""
    lines = [f":{name}: {value}".rstrip() for name, value in (options or {}).items()]
    ticks = "`" * (fence + 1 + text.startswith("```") if fence == 3 else 6)
    return "\n".join([f"{ticks}{{py:{kind}}} {head}", *lines, "", text.strip(), ticks])


def _is_marked(node: ast.FunctionDef, *names: str) -> bool:
    return any(ast.unparse(each) in names for each in node.decorator_list)


def _signature_of(node: ast.FunctionDef, *, bound: bool = False) -> str:
    """Arguments as they are declared, without self."""
    arguments = ast.unparse(node.args)
    if bound and not _is_marked(node, "staticmethod"):
        arguments = re.sub(r"^(self|cls)(, )?(/, )?", "", arguments)
    return f"({arguments})" + (f" -> {ast.unparse(node.returns)}" if node.returns else "")


def _constructor_of(node: ast.ClassDef) -> str:
    """How one makes it: what its __init__ takes, or the fields of a dataclass or a named tuple."""
    for member in node.body:
        if isinstance(member, ast.FunctionDef) and member.name == "__init__":
            return _signature_of(member, bound=True).removesuffix(" -> None")
    is_value = any(ast.unparse(each).startswith("dataclass") for each in node.decorator_list)
    if not is_value and "NamedTuple" not in [ast.unparse(each) for each in node.bases]:
        return ""
    fields = [each for each in node.body if isinstance(each, ast.AnnAssign) and not _name_of(each).startswith("_")]
    return f"({', '.join(_field_of(each) for each in fields if 'ClassVar' not in ast.unparse(each.annotation))})"


def _field_of(node: ast.AnnAssign) -> str:
    given = "" if node.value is None else f" = {_plain_value(node.value)}"
    return f"{_name_of(node)}: {ast.unparse(node.annotation)}{given}"


def _plain_value(value: ast.expr) -> str:
    """A default; `...` for one that is made anew each time."""
    text = ast.unparse(value)
    return "..." if text.startswith(("field(", "dataclasses.field(")) else text


def _value_of(node: ast.AST) -> dict[str, str]:
    """Type and value of an attribute, as directive options."""
    options = {}
    if isinstance(node, ast.AnnAssign):
        kind = re.sub(r"^(ClassVar|Final)\[(.*)\]$", r"\2", ast.unparse(node.annotation))
        options |= {"type": kind} if kind != "Final" else {}
    value = getattr(node, "value", None)
    if value is not None and not ast.unparse(value).startswith(("field(", "pluggy.")):
        options["value"] = " ".join(ast.unparse(value).split())
    return options


def _render_list(pages: Mapping[str, tuple[str, str, Sequence[Declared]]]) -> str:
    lines = [
        "# Python",
        "",
        "Every public name. What begins with an underscore, and any module that is not named here, may change at any",
        "time; [how stable the rest is](/docs/stability.md).",
        "",
    ]
    for key, (title, about, found) in pages.items():
        names = ", ".join(f"{{py:obj}}`~{each.name}`" for each in found)
        lines += [
            f"[{title}](python/{key}.md)",
            f": {about.replace('](hooks.md)', '](python/hooks.md)')}",
            "",
            f"  {names}",
            "",
        ]
    return "\n".join([*lines, "```{toctree}", ":hidden:", "", *(f"python/{key}" for key in pages), "```", ""])
