"""`--format table`: what a person sees at the end of a run."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from amb.protocols import Reporter

if TYPE_CHECKING:
    from rich.table import Table

Cell = Mapping[str, Any]


class TableReporter(Reporter):
    """A table for each method, then what it rests on and where to look next."""

    name: ClassVar[str] = "table"

    def render(self, document: Mapping[str, Any]) -> str:
        from rich.console import Console

        run, cells = document["run"], document["cells"]
        console = Console(file=io.StringIO(), width=_width(), highlight=False, force_terminal=_colour(), no_color=None)
        for method in run["methods"]:
            rows = [cell for cell in cells if cell["method"] == method]
            embedding = next((each for each in run["embeddings"] if each["method"] == method), None)
            console.print(_table(method, rows, run), soft_wrap=False)
            for line in [*_notes(rows), *_findings(rows), *_embedding_lines(embedding)]:
                console.print(line, markup=False, soft_wrap=True)
            console.print()
        for name, where in {"results": run["folder"], **run.get("links", {})}.items():
            console.print(f"{name}: {where}", markup=False, soft_wrap=True)
        text: str = console.file.getvalue()  # type: ignore[attr-defined]
        return text.rstrip("\n")


def _table(method: str, rows: Sequence[Cell], run: Mapping[str, Any]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title=f"{method} · {run['owner']} · seed {run['seed']}", title_justify="left")
    tau = next((cell["tau"] for cell in rows if cell["tau"] is not None), None)
    table.add_column("suspect", overflow="fold")
    table.add_column("kind")
    table.add_column(f"R(τ={tau})" if tau is not None else "R(τ)", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("BER", justify="right", no_wrap=True)
    table.add_column("p perm.", justify="right", no_wrap=True)
    table.add_column("p calib.", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("utility", justify="right", overflow="fold")
    table.add_column("seconds", justify="right", no_wrap=True)
    for cell in rows:
        table.add_row(*_row(cell))
    return table


def _row(cell: Cell) -> list[str]:
    kind = "sibling" if cell["sibling"] else cell["kind"]
    if cell["status"] != "ok":
        return [cell["suspect"], kind, "–", "–", "–", "–", "–", cell["status"], "–", "–"]
    low, high = cell["interval"]
    return [
        cell["suspect"],
        kind,
        f"{cell['detection_rate']:.3f}",
        f"{low:.3f}–{high:.3f}",
        f"{cell['bit_error_rate']:.3f}",
        _p(cell["p_values"]["permutation"]),
        _p(cell["p_values"]["calibrated"]),
        _verdict(cell),
        _utility(cell["utility"]),
        "cached" if cell["cached"] else f"{cell['seconds']['attack'] + cell['seconds']['extract']:.1f}",
    ]


def _verdict(cell: Cell) -> str:
    if cell["kind"] == "positive":
        return "owned" if cell["owned"] else "missed"
    return "FALSE CLAIM" if cell["owned"] else "not owned"


def _p(value: float) -> str:
    return f"{value:.0e}" if value < 0.001 else f"{value:.3f}"


def _utility(utility: Mapping[str, float]) -> str:
    """The model's own task head where it has one, else the probe of its embedding."""
    for name, short in (("head_accuracy", "acc"), ("head_miou", "mIoU"), ("probe", "probe"), ("knn", "kNN")):
        if name in utility:
            return f"{short} {utility[name]:.3f}"
    return "–"


def _notes(rows: Sequence[Cell]) -> list[str]:
    """What the verdicts rest on, and why a row is missing."""
    lines = [f"{cell['suspect']}: {cell['status']}: {cell['reason']}" for cell in rows if cell["status"] != "ok"]
    judged = [cell for cell in rows if cell["status"] == "ok" and cell["kind"] == "positive"]
    if judged:
        last = judged[-1]
        lines.append(
            f"Rests on {last['n_trials']} triggers and {last['n_negatives']} negatives, which can support no false "
            f"positive rate below {last['fpr_supported']:.3f}; owned: R > {last['bound']:.3f} "
            f"(eq. 13 at alpha = {last['alpha']:g}, over all negatives). "
            f"On fair symbols one trigger passes tau = {last['tau']} with probability {last['trial_fpr']:.1e}."
        )
    return lines


def _findings(rows: Sequence[Cell]) -> list[str]:
    """The margin over the closest negative: what the choice of negatives decides."""
    negatives = [cell for cell in rows if cell["status"] == "ok" and cell["kind"] == "negative"]
    positives = [cell for cell in rows if cell["status"] == "ok" and cell["kind"] == "positive"]
    if not negatives or not positives:
        return []
    closest = max(negatives, key=lambda cell: cell["detection_rate"])
    weakest = min(positives, key=lambda cell: cell["detection_rate"])
    line = (
        f"Closest negative: {closest['suspect']} with R = {closest['detection_rate']:.3f}; "
        f"margin of the weakest positive ({weakest['suspect']}): {weakest['margin']:+.3f}."
    )
    claimed = [cell["suspect"] for cell in negatives if cell["owned"]]
    return [line, *([f"False claims: {', '.join(claimed)}."] if claimed else [])]


def _embedding_lines(embedding: Mapping[str, Any] | None) -> list[str]:
    """What embedding cost, what it kept, and what the method says of it."""
    if embedding is None:
        return []
    before, after = embedding["utility_before"], embedding["utility_after"]
    kept = ", ".join(f"{name} {before[name]:.3f} → {after[name]:.3f}" for name in before if name in after)
    alike = ", ".join(f"{name} {value:.3f}" for name, value in embedding["similarity"].items() if value is not None)
    said = ", ".join(
        f"{name.replace('_', ' ')} {value}"
        for name, value in embedding["report"].items()
        if not isinstance(value, dict)
    )
    lines = [f"Embedding: {embedding['seconds']:.1f} s; utility {kept}; clean features {alike}."]
    return [*lines, f"The method says: {said}."] if said else lines


def _width() -> int:
    import shutil
    import sys

    return shutil.get_terminal_size((130, 24)).columns if sys.stdout.isatty() else 130


def _colour() -> bool | None:
    """None lets rich follow NO_COLOR and FORCE_COLOR; text that goes to a pipe stays plain."""
    import os
    import sys

    if os.environ.get("NO_COLOR"):
        return False
    return True if sys.stdout.isatty() or os.environ.get("FORCE_COLOR") else None
