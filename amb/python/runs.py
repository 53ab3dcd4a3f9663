"""One run from Python: plan it, run it, look at what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from amb.api.interfaces import Attack, Method, Suite
from amb.api.plan import Plan
from amb.errors import BadParamsError
from amb.execution.execute import execute_plan
from amb.execution.planning import make_plan
from amb.models.references import require_models
from amb.plugin.manager import manager
from amb.python.notebook import pick_progress
from amb.python.results import Results
from amb.results.document import document
from amb.runtime.compute import Compute, pick_compute

DEFAULT_OUTPUT = "amb-results"


def run(
    method: str | Method | Sequence[str | Method],
    attacks: str | Attack | Sequence[str | Attack] = (),
    *,
    suite: str | Suite = "tiny",
    model: str | None = None,
    seed: int = 0,
    tau: int | None = None,
    alpha: float = 0.05,
    level: float = 1e-6,
    negatives: int = 0,
    params: Mapping[str, Any] | None = None,
    output_dir: str | Path = DEFAULT_OUTPUT,
    store: str | Path | None = None,
    device: str = "auto",
    compute: Compute | None = None,
    quiet: bool = False,
) -> Results:
    """Embed, attack, read the key on every suspect and decide: what `amb run` does, with the same words.

    A method, an attack or a suite is a spec such as `prune:amount=0.3`, or a component of one's own, which needs no
    plugin. `attacks` is a chain (`prune40+finetune-cosine`) or a list of chains. `params` are further parameters of the
    methods. `compute` says how to compute in more detail than `device`. What is finished lies in `output_dir`, or in `store`, a folder or a URL such as `s3://bucket/folder`, and is not
    computed again, also after Ctrl-C. Raises AmbError, in one line, for what is wrong with the request; a plugin that
    fails costs its own cells only, see `Results.failed`.
    """
    _require_spec(suite, Suite)
    words = {name: str(value) for name, value in (params or {}).items()}
    methods = _as_list(method, Method)
    if not methods:
        raise BadParamsError("No method was given, so there is nothing to run. `amb.list('methods')` names them.")
    plan = plan_run(
        methods, _as_list(attacks, Attack), suite=suite, model=model, seed=seed, tau=tau, alpha=alpha, level=level,
        negatives=negatives, params=words,
    )  # fmt: skip
    return run_plan(plan.on(compute or pick_compute(device)), Path(output_dir), quiet=quiet, store=store)


def plan_run(
    methods: Sequence[str | Method],
    attacks: Sequence[str | Attack] = (),
    *,
    params: Mapping[str, str] | None = None,
    **asked: Any,
) -> Plan:
    """What a run will do, looked up and checked, with the installed plugins. Raises UsageError."""
    return make_plan(manager().registry, methods=methods, attacks=attacks, method_params=params, **asked)


def run_plan(plan: Plan, output: Path, *, quiet: bool = False, store: str | Path | None = None) -> Results:
    """Every cell of a plan, in this process."""
    plugins, progress = manager(), pick_progress(quiet)
    require_models(plan.references(), plugins.registry)
    finished = execute_plan(plan, plugins, output, progress, store)
    return Results(document(finished), finished.folder, succeeded=not finished.failed)


def _as_list(given: Any, kind: type[Method | Attack]) -> list[Any]:
    """One spec or component, or several, as a list. Raises BadParamsError for anything else."""
    items = list(given) if isinstance(given, Iterable) and not isinstance(given, str | kind) else [given]
    for item in items:
        _require_spec(item, kind)
    return items


def _require_spec(given: Any, kind: type[Method | Attack | Suite]) -> None:
    if not isinstance(given, str | kind):
        what = "one made of it: write its name with ()" if isinstance(given, type) else "such a text"
        raise BadParamsError(
            f"{given!r} was given as {kind.kind}, which is a spec such as 'name:parameter=value', or a component. Give {what}."
        )
