"""What MLflow is told of a run, its methods and its cells: metrics, parameters and tags by name; pure functions."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from amb.api.component import digest_of, value_text
from amb.errors import printable
from amb.evaluation.primary_utility import primary_utility, utility_drop

if TYPE_CHECKING:
    from amb.api.interfaces import Method
    from amb.api.records import Cell, CellResult, EmbeddingFacts, Verdict
    from amb.api.run import Run

Curves = Mapping[str, Sequence[float]]
"""Metrics stepped by tau: value number i belongs to tau = i."""
_LONGEST_NAME: Final = 120
_LONGEST_VALUE: Final = 5000
_SHOWN: Final = 10
"""Letters of a parameter that the parallel coordinates of MLflow 3.17 show."""


def key(text: str) -> str:
    """The text as (a part of) a name that MLflow accepts: letters, digits, `_`, `-`, `.` and space, at most 120.

    What is cut ends in a digest, so that two long names stay two.
    """
    allowed = re.sub(r"[^A-Za-z0-9_\-. ]", "_", text).strip(" .") or "_"
    return allowed if len(allowed) <= _LONGEST_NAME else f"{allowed[:100]}.{digest_of(text)[:8]}"


def text(value: object) -> str:
    """A value as it is stored: on one line, without control characters, at most 5000 characters."""
    return printable(str(value))[:_LONGEST_VALUE]


def labels(methods: Sequence[Method]) -> dict[str, str]:
    """A short name for each canonical method: its name, and the parameters in which its namesakes differ.

    Names that MLflow's comparison would show as the same ten letters are numbered.
    """
    named = _named(methods)
    starts = [name[:_SHOWN] for name in named.values()]
    return {
        spec: f"{number} {name}" if starts.count(name[:_SHOWN]) > 1 else name
        for number, (spec, name) in enumerate(named.items(), 1)
    }


def _named(methods: Sequence[Method]) -> dict[str, str]:
    found = {}
    for method in methods:
        namesakes = [each for each in methods if each.name == method.name]
        own = ",".join(f"{name}={value_text(getattr(method, name))}" for name in varied(namesakes))
        found[method.canonical()] = f"{method.name} {own}" if own else method.name
    return found


def varied(methods: Sequence[Method]) -> list[str]:
    """The parameters in which methods of one name differ."""
    fields = type(methods[0]).model_fields
    return [name for name in fields if len({value_text(getattr(each, name)) for each in methods}) > 1]


# A cell


def cell_metrics(result: CellResult) -> dict[str, float]:
    """Every figure of a cell; the detection curve is apart, in `cell_curves`."""
    figures = {
        **(_judged(result.verdict) if result.verdict else {}),  # first: MLflow's comparison starts with it
        **_seconds(result.seconds),
        **_utility(result.utility),
        "utility_drop": result.utility_drop,
        "peak_memory_mib": result.peak_memory_mib,
        "cached": float(result.cached),
    }
    return _finite(figures)


def cell_curves(result: CellResult) -> Curves:
    """R(tau) by tau: the paper's Fig. 3."""
    return {"detection_rate_at_tau": result.verdict.curve} if result.verdict else {}


def cell_params(run: Run, cell: Cell) -> dict[str, Any]:
    """The words of a cell, the specs behind them, and every parameter of the method under its own name."""
    method = next(each for each in run.plan.methods if each.canonical() == cell.method)
    return {
        **_asked(run, cell.method),
        "attack": attack_of(cell),
        "attack_spec": cell.attack,
        "suspect": cell.suspect,
        "device": run.plan.compute.device,
        "precision": run.plan.compute.precision,
        **{f"method.{name}": value for name, value in method.model_dump(mode="json").items()},
    }


def cell_tags(run: Run, result: CellResult) -> dict[str, str]:
    """What a cell is filtered and grouped by."""
    tags = {
        **run_tags(run, "cell"),
        "kind": result.cell.kind,
        "group": result.cell.group,
        "sibling": str(result.cell.sibling).lower(),
        "destroyed": str(result.destroyed).lower(),
        "suspect": result.cell.suspect,
        "status": result.status,
        **{f"digest.{name}": digest for name, digest in result.digests.items()},
    }
    return tags | ({"reason": result.reason} if result.reason else {})


def attack_of(cell: Cell) -> str:
    """An attack as it was asked for (`prune40`); for an innocent model the spec of what was done to it."""
    return cell.suspect if cell.kind == "positive" and cell.attack != "none" else cell.attack


# A method of a run: the summary above its cells


def summary_params(run: Run, method: str) -> dict[str, Any]:
    """The words of a method's summary, and the parameters in which it differs from its namesakes."""
    own = next(each for each in run.plan.methods if each.canonical() == method)
    differs = varied([each for each in run.plan.methods if each.name == own.name])
    values = own.model_dump(mode="json")
    return {**_asked(run, method), **{f"method.{name}": values[name] for name in differs}}


def summary_metrics(run: Run, method: str) -> dict[str, float]:
    """What the cells of a method amount to; destroyed suspects count neither for nor against it."""
    cells = _cells_of(run, method)
    positives = [cell for cell in cells if cell.cell.kind == "positive" and not cell.destroyed]
    negatives = [cell for cell in cells if cell.cell.kind == "negative"]
    embedding = next((each for each in run.embeddings if each.method == method), None)
    return _finite(
        {
            **_robust(positives),  # first: MLflow's comparison starts with it
            **_kept(embedding),
            **_seconds({**_mean_seconds(cells), "embed": embedding.seconds if embedding else None}),
            **_innocent(negatives, [cell for cell in cells if cell.cell.kind == "forged"]),
            **_apart(_rates(positives), _rates(negatives)),
            "n_destroyed": sum(cell.destroyed for cell in cells),
            "n_not_judged": sum(each.cell.method == method for each in run.results) - len(cells),
            "peak_memory_mib": max((cell.peak_memory_mib or 0 for cell in cells), default=None),
        }
    )


def summary_curves(run: Run, method: str) -> Curves:
    """R(tau) by tau: the mean over usable positive suspects, and the highest of the negatives."""
    cells = _cells_of(run, method)
    marked = [_verdict(cell).curve for cell in _attacked(cells)]
    innocent = [_verdict(cell).curve for cell in cells if cell.cell.kind == "negative"]
    return {
        "detection_rate_at_tau": [sum(rates) / len(rates) for rates in zip(*marked, strict=False)],
        "worst_innocent_at_tau": [max(rates) for rates in zip(*innocent, strict=False)],
    }


def run_tags(run: Run, level: str) -> dict[str, str]:
    """Where a run, a summary or a cell comes from: level, run, sweep, versions and commit."""
    versions = {f"version.{name}": value for name, value in run.facts["versions"].items()}
    commit = run.facts.get("git_commit")
    origin = versions | ({"git_commit": commit, "mlflow.source.git.commit": commit} if commit else {})
    sweep = {"amb.sweep": run.sweep} if run.sweep else {}
    return {"amb.level": level, "amb.run": run.id, **sweep, **origin}


def _asked(run: Run, method: str) -> dict[str, Any]:
    return {
        "method": labels(run.plan.methods)[method],
        "method_spec": method,
        "suite": run.plan.suite.canonical(),
        "owner": run.plan.owner,
        "seed": run.plan.seed,
        "alpha": run.plan.alpha,
    }


def _cells_of(run: Run, method: str) -> list[CellResult]:
    """The cells of a method that have a verdict."""
    return [each for each in run.results if each.cell.method == method and each.verdict]


def _attacked(cells: Sequence[CellResult]) -> list[CellResult]:
    """Usable positive suspects that an attack made; where none was asked for, the unattacked one."""
    usable = [cell for cell in cells if cell.cell.kind == "positive" and not cell.destroyed]
    return [cell for cell in usable if cell.cell.attack != "none"] or usable


def _robust(positives: Sequence[CellResult]) -> dict[str, float | None]:
    """Detection over attacks: mean, by family, by attack; and how many suspects it rests on."""
    attacked = _attacked(positives)
    families: dict[str, list[CellResult]] = {}
    for cell in positives:
        families.setdefault(cell.cell.group or "none", []).append(cell)
    return {
        "detection_rate": _mean(_rates(attacked)),
        "owned": _mean([float(_verdict(cell).owned) for cell in attacked]),
        "margin": min((margin for cell in attacked if (margin := _verdict(cell).margin) is not None), default=None),
        "n_positives": len(attacked),
        **{f"family/{key(name)}": _mean(_rates(cells)) for name, cells in families.items()},
        **{f"attack/{key(attack_of(cell.cell))}": _verdict(cell).detection_rate for cell in positives},
    }


def _innocent(negatives: Sequence[CellResult], forged: Sequence[CellResult]) -> dict[str, float | None]:
    """What the key reads on models that it should not open."""
    return {
        "worst_innocent": max(_rates(negatives), default=None),
        "worst_sibling": max(_rates([cell for cell in negatives if cell.cell.sibling]), default=None),
        "n_negatives": len(negatives),
        "false_claims": sum(_verdict(cell).owned for cell in negatives),
        "forged_claims": sum(_verdict(cell).owned for cell in forged) if forged else None,
    }


def _apart(positives: Sequence[float], negatives: Sequence[float]) -> dict[str, float | None]:
    """How well positive suspects are told from negative ones, as `amb report --layout suspects` has it."""
    from amb.evaluation.statistics import auc, supported_fpr, tpr_at_fpr

    if not positives or not negatives:
        return {}
    lowest = supported_fpr(len(negatives))
    found = tpr_at_fpr(positives, negatives, lowest)
    return {
        "auc": auc(positives, negatives).value,
        "fpr_supported": lowest,
        "tpr_at_fpr_supported": found.value if found else None,
    }


def _kept(embedding: EmbeddingFacts | None) -> dict[str, float | None]:
    """What the embedded model is worth, and what share of that embedding cost."""
    if embedding is None:
        return {}
    before, after = embedding.utility_before, embedding.utility_after
    return {**_utility(after), "utility_drop": utility_drop(before, after)}


def _judged(verdict: Verdict) -> dict[str, float | None]:
    return {
        "detection_rate": verdict.detection_rate,
        "interval_low": verdict.interval[0],
        "interval_high": verdict.interval[1],
        "bit_error_rate": verdict.bit_error_rate,
        "owned": float(verdict.owned),
        "bound": verdict.bound,
        "margin": verdict.margin,
        "tau": verdict.tau,
        "n_trials": verdict.n_trials,
        "n_negatives": verdict.n_negatives,
        "fpr_supported": verdict.fpr_supported,
        **{f"p/{name}": value for name, value in verdict.p_values.items()},
    }


def _utility(figures: Mapping[str, float]) -> dict[str, float | None]:
    """Every figure, and the one that says best what the model is worth under one name for all models."""
    best = primary_utility(figures)
    return {**{f"utility/{key(name)}": value for name, value in figures.items()}, "utility/main": best and best[1]}


def _seconds(seconds: Mapping[str, float | None]) -> dict[str, float | None]:
    return {f"seconds/{key(name)}": value for name, value in seconds.items()}


def _mean_seconds(cells: Sequence[CellResult]) -> dict[str, float | None]:
    names = dict.fromkeys(name for cell in cells for name in cell.seconds)
    return {name: _mean([cell.seconds[name] for cell in cells if name in cell.seconds]) for name in names}


def _rates(cells: Sequence[CellResult]) -> list[float]:
    return [_verdict(cell).detection_rate for cell in cells]


def _verdict(cell: CellResult) -> Verdict:
    if cell.verdict is None:
        raise ValueError(f"{cell.cell.suspect} has no verdict")
    return cell.verdict


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _finite(figures: Mapping[str, float | None]) -> dict[str, float]:
    """MLflow keeps neither nothing nor infinity."""
    return {name: float(value) for name, value in figures.items() if value is not None and math.isfinite(value)}
