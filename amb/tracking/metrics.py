"""What MLflow is told of a run, its methods and its cells: metrics, parameters and tags by name; pure functions."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from amb.api.digests import digest_of
from amb.errors import printable
from amb.evaluation.primary_utility import primary_utility, utility_drop
from amb.results.aggregate import (
    attacked,
    average_curve,
    count_claims,
    forged,
    group_by,
    highest_rate,
    judged,
    mean,
    mean_seconds,
    negatives,
    positives,
    siblings,
    usable,
)
from amb.tracking.tracked_run import varied

if TYPE_CHECKING:
    from amb.api.records import EmbeddingFacts, Verdict
    from amb.results.records import CellRecord, JudgedRecord
    from amb.results.run_records import EmbeddingRecord
    from amb.tracking.tracked_run import TrackedRun

    Embedding = EmbeddingFacts | EmbeddingRecord

Curves = Mapping[str, Sequence[float]]
"""Metrics stepped by tau: value number i belongs to tau = i."""
SUPERSEDED: Final = "amb.superseded"
"""Tag of summaries and cells: `true` where the same question was answered again since; `amb ui` sees to it."""
_LONGEST_NAME: Final = 120
_LONGEST_VALUE: Final = 5000


def key(text: str) -> str:
    """The text as (a part of) a name that MLflow accepts: letters, digits, `_`, `-`, `.` and space, at most 120.

    What is cut ends in a digest, so that two long names stay two.
    """
    allowed = re.sub(r"[^A-Za-z0-9_\-. ]", "_", text).strip(" .") or "_"
    return allowed if len(allowed) <= _LONGEST_NAME else f"{allowed[:100]}.{digest_of(text)[:8]}"


def text(value: object) -> str:
    """A value as it is stored: on one line, without control characters, at most 5000 characters."""
    return printable(str(value))[:_LONGEST_VALUE]


# A cell


def cell_metrics(cell: CellRecord) -> dict[str, float]:
    """Every figure of a cell; the detection curve is apart, in `cell_curves`."""
    figures = {
        **(_list_verdict(cell.verdict) if cell.verdict else {}),  # first: MLflow's comparison starts with it
        **_list_seconds(cell.seconds),
        **_list_utility(cell.utility),
        "utility_drop": cell.utility_drop,
        "peak_memory_mib": cell.peak_memory_mib,
        "cached": float(cell.cached),
    }
    return _drop_unknown(figures)


def cell_curves(cell: CellRecord) -> Curves:
    """R(tau) by tau: the paper's Fig. 3."""
    return {"detection_rate_at_tau": cell.verdict.curve} if cell.verdict else {}


def cell_params(run: TrackedRun, cell: CellRecord) -> dict[str, Any]:
    """The words of a cell, the specs behind them, and every parameter of the method under its own name."""
    return {
        **_list_asked(run, cell.method),
        "attack": attack_of(cell),
        "attack_spec": cell.attack,
        "suspect": cell.suspect,
        "device": run.facts.device,
        "precision": run.precision,
        **{f"method.{key(name)}": value for name, value in run.method(cell.method).params.items()},
    }


def cell_tags(run: TrackedRun, cell: CellRecord) -> dict[str, str]:
    """What a cell is filtered and grouped by."""
    tags = {
        **run_tags(run, "cell"),
        "kind": cell.kind,
        "group": cell.group or "",
        "sibling": str(cell.sibling).lower(),
        "destroyed": str(bool(cell.destroyed)).lower(),
        "suspect": cell.suspect,
        "status": cell.status,
        **{f"digest.{key(name)}": digest for name, digest in cell.digests.items()},
    }
    return tags | ({"reason": cell.reason} if cell.reason else {})


def attack_of(cell: CellRecord) -> str:
    """An attack as it was asked for (`prune40`); for an innocent model the spec of what was done to it."""
    return cell.suspect if cell.kind == "positive" and cell.is_attacked else cell.attack


# A method of a run: the summary above its cells


def summary_params(run: TrackedRun, method: str) -> dict[str, Any]:
    """The words of a method's summary, and the parameters in which it differs from its namesakes."""
    own = run.method(method)
    differs = varied([each for each in run.methods if each.name == own.name])
    return {**_list_asked(run, method), **{f"method.{key(name)}": own.params.get(name) for name in differs}}


def summary_metrics(cells: Sequence[CellRecord], embedding: Embedding | None) -> dict[str, float]:
    """What the cells of a method amount to; destroyed suspects count neither for nor against it."""
    known = judged(cells)
    marked, innocents = usable(positives(known)), negatives(known)
    return _drop_unknown(
        {
            **_summarise_positives(marked),  # first: MLflow's comparison starts with it
            **_summarise_embedding(embedding),
            **_list_seconds({**_average_seconds(known), "embed": embedding.seconds if embedding else None}),
            **_summarise_innocents(innocents, forged(known)),
            **_separate(marked, innocents),
            "n_destroyed": sum(bool(cell.destroyed) for cell in known),
            "n_not_judged": len(cells) - len(known),
            "peak_memory_mib": max((cell.peak_memory_mib or 0 for cell in known), default=None),
        }
    )


def summary_curves(cells: Sequence[CellRecord]) -> Curves:
    """R(tau) by tau: the mean over usable positive suspects, and the highest of the negatives."""
    known = judged(cells)
    innocents = [cell.verdict.curve for cell in negatives(known)]
    return {
        "detection_rate_at_tau": average_curve(_choose_attacked(usable(positives(known)))),
        "worst_innocent_at_tau": [max(rates) for rates in zip(*innocents, strict=False)],
    }


def run_tags(run: TrackedRun, level: str) -> dict[str, str]:
    """Where a run, a summary or a cell comes from: level, run, sweep, versions and commit."""
    versions = {f"version.{key(name)}": value for name, value in run.facts.versions.items()}
    commit = run.facts.git_commit
    origin = versions | ({"git_commit": commit, "mlflow.source.git.commit": commit} if commit else {})
    sweep = {"amb.sweep": run.facts.sweep} if run.facts.sweep else {}
    superseded = {} if level == "run" else {SUPERSEDED: "false"}
    return {"amb.level": level, "amb.run": run.facts.id, **superseded, **sweep, **origin}


def _list_asked(run: TrackedRun, method: str) -> dict[str, Any]:
    return {
        "method": run.label(method),
        "method_spec": method,
        "suite": run.facts.suite,
        "owner": run.facts.owner,
        "seed": run.facts.seed,
        "alpha": run.facts.alpha,
    }


def _choose_attacked(marked: Sequence[JudgedRecord]) -> Sequence[JudgedRecord]:
    """The suspects that an attack made; where none was asked for, the unattacked one."""
    return attacked(marked) or marked


def _summarise_positives(marked: Sequence[JudgedRecord]) -> dict[str, float | None]:
    """Detection over attacks: mean, by family, by attack; and how many suspects it rests on."""
    shown = _choose_attacked(marked)
    families = group_by(marked, lambda cell: cell.family or "none")
    return {
        "detection_rate": mean(cell.rate for cell in shown),
        "claim": mean(float(cell.claim) for cell in shown),
        "margin": min((cell.verdict.margin for cell in shown if cell.verdict.margin is not None), default=None),
        "n_positives": len(shown),
        **{f"family/{key(name)}": mean(cell.rate for cell in cells) for name, cells in families.items()},
        **{f"attack/{key(attack_of(cell))}": cell.rate for cell in marked},
    }


def _summarise_innocents(innocents: Sequence[JudgedRecord], made_up: Sequence[JudgedRecord]) -> dict[str, float | None]:
    """What the key reads on models that it should not open."""
    return {
        "worst_innocent": highest_rate(innocents),
        "worst_sibling": highest_rate(siblings(innocents)),
        "n_negatives": len(innocents),
        "false_claims": count_claims(innocents),
        "forged_claims": count_claims(made_up) if made_up else None,
    }


def _separate(marked: Sequence[JudgedRecord], innocents: Sequence[JudgedRecord]) -> dict[str, float | None]:
    """How well positive suspects are told from negative ones, as `amb report --layout suspects` has it."""
    from amb.evaluation.claims import supported_fpr
    from amb.evaluation.separation import auc, tpr_at_fpr

    above, below = [cell.rate for cell in marked], [cell.rate for cell in innocents]
    if not above or not below:
        return {}
    lowest = supported_fpr(len(below))
    found = tpr_at_fpr(above, below, lowest)
    return {
        "auc": auc(above, below).value,
        "fpr_supported": lowest,
        "tpr_at_fpr_supported": found.value if found else None,
    }


def _summarise_embedding(embedding: Embedding | None) -> dict[str, float | None]:
    """What the embedded model is worth, and what share of that embedding cost."""
    if embedding is None:
        return {}
    before, after = embedding.utility_before, embedding.utility_after
    return {**_list_utility(after), "utility_drop": utility_drop(before, after)}


def _list_verdict(verdict: Verdict) -> dict[str, float | None]:
    return {
        "detection_rate": verdict.detection_rate,
        "interval_low": verdict.interval[0],
        "interval_high": verdict.interval[1],
        "bit_error_rate": verdict.bit_error_rate,
        "claim": float(verdict.claim),
        "paper_rule": float(verdict.paper_rule),
        "p_value": verdict.p_value,
        "level": verdict.level,
        "n_sources": verdict.n_sources,
        "bound": verdict.bound,
        "margin": verdict.margin,
        "tau": verdict.tau,
        "n_trials": verdict.n_trials,
        "n_negatives": verdict.n_negatives,
        "fpr_supported": verdict.fpr_supported,
        **{f"p/{key(name)}": value for name, value in verdict.p_values.items()},
    }


def _list_utility(figures: Mapping[str, float]) -> dict[str, float | None]:
    """Every figure, and the one that says best what the model is worth under one name for all models."""
    best = primary_utility(figures)
    return {**{f"utility/{key(name)}": value for name, value in figures.items()}, "utility/main": best and best[1]}


def _list_seconds(seconds: Mapping[str, float | None]) -> dict[str, float | None]:
    return {f"seconds/{key(name)}": value for name, value in seconds.items()}


def _average_seconds(cells: Sequence[JudgedRecord]) -> dict[str, float | None]:
    return {name: mean_seconds(cells, name) for name in dict.fromkeys(name for cell in cells for name in cell.seconds)}


def _drop_unknown(figures: Mapping[str, float | None]) -> dict[str, float]:
    """MLflow keeps neither nothing nor infinity."""
    return {name: float(value) for name, value in figures.items() if value is not None and math.isfinite(value)}
