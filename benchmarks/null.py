"""Fresh keys on every source of innocent models of `tiny`: whether the p-values of an exact null are what they claim to be.

Of the spread methods, what a suspect answers is asked once and its weights are aligned once; each key is then read on that, as
`extract` reads it. Of another method whose null is exact, `extract` itself reads each key.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binom, kstest

import amb
from amb.evaluation.claims import exact_test
from amb.evaluation.intervals import clopper_pearson
from amb.plugin.manager import manager
from amb_spread import features_torch, weights_torch
from amb_spread.alignment import align
from amb_spread.features import SpreadFeatures
from amb_spread.weights import SpreadWeights

ROLES: tuple[amb.Role, ...] = ("owner", "trigger", "attacker", "test")
LEVEL = 0.05
ALL_WRONG = 0.999
"""Share of p = 1 from which a source gives no coin at all: a difference of nothing."""

Reader = Callable[[amb.Key], amb.Evidence]


class Found(NamedTuple):
    """The p-values of a source's keys, and what share of them may reach the level at most."""

    p: NDArray[np.float64]
    attainable: float


def make_innocents(method: amb.Method, ctx: amb.Context) -> dict[str, amb.VisionModel]:
    """A model of every source and class that the suite has, made as a run makes them."""
    suite, owner = amb.get_suite("tiny"), amb.load_model("tiny/owner")
    found = {each.group: amb.load_model(each.ref) for each in suite.independents()}
    for sibling in suite.siblings():
        model = amb.load_model(sibling.ref) if sibling.ref else owner
        for attack in manager().registry.attack_chain(sibling.attack):
            model = attack.apply(
                model, replace(ctx, axes=(*ctx.axes, sibling.group), method=method, base=lambda: owner)
            )
        found[sibling.group] = model
    return found


def open_reader(
    method: amb.Method, suspect: amb.VisionModel, key: amb.Key, owner: amb.VisionModel, ctx: amb.Context
) -> Reader:
    """What reads a key on a suspect that is asked, or aligned, this once; of other methods each time."""
    if isinstance(method, SpreadFeatures):
        answers = features_torch.ask(amb.SuspectView(suspect, method.access), key)
        return partial(features_torch.read_answers, method, answers)
    if isinstance(method, SpreadWeights):
        differences = list(weights_torch.measure_differences(align(suspect, owner)[0], owner))
        return lambda key: weights_torch.read_differences(method, key, owner, differences)
    if method.null != "exact":
        raise SystemExit(f"{method} declares no exact null.")
    reading = replace(ctx, splits={}, base=lambda: owner)
    return lambda key: method.extract(amb.SuspectView(suspect, method.access), key, reading)


def read_sources(method: amb.Method, n_keys: int, seed: int) -> Mapping[str, Found]:
    """The p-values of `n_keys` keys on each source. A method that cannot read a source leaves it out."""
    owner = amb.load_model("tiny/owner")
    with tempfile.TemporaryDirectory() as folder:
        splits = {role: amb.get_suite("tiny").split(role) for role in ROLES}
        ctx = amb.Context((str(seed), "null"), splits, Path(folder))
        first = method.embed(owner, ctx).key
        innocents = make_innocents(method, ctx)
    with torch.no_grad():
        readers = {
            source: open_reader(method, model, first, owner, ctx)
            for source, model in innocents.items()
            if method.skip(model.facts(), first) is None
        }
        p: dict[str, list[float]] = {source: [] for source in readers}
        n_symbols = 0
        for draw in range(n_keys):  # keys outside, sources inside: a key's carriers are the same for all of them
            key = method.redraw(first, ctx.generator(f"key {draw}"))
            for source, read in readers.items():
                evidence = read(key)
                n_symbols = evidence.expected.size
                p[source].append(exact_test(evidence).p_value)
    return {source: Found(np.array(found), find_attainable(n_symbols)) for source, found in p.items()}


def find_attainable(n_symbols: int) -> float:
    """The largest tail of Bin(n, 1/2) that is no larger than the level: a binomial p-value is discrete."""
    tails = binom.sf(np.arange(-1, n_symbols), n_symbols, 0.5)
    return float(tails[tails <= LEVEL].max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", action="append", help="default: spread-features and spread-weights")
    parser.add_argument("--keys", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    print(
        f"| method | source | keys | share of p <= {LEVEL} | attainable | smallest p | KS p |\n|---|---|---|---|---|---|---|"
    )
    for name in asked.method or ["spread-features", "spread-weights"]:
        for source, (p, attainable) in read_sources(amb.get_method(name), asked.keys, asked.seed).items():
            if (p == 1).mean() > ALL_WRONG:
                print(f"| {name} | {source} | {len(p)} | no difference: p = 1 | | | |", flush=True)
                continue
            n_small = int((p <= LEVEL).sum())
            low, high = clopper_pearson(n_small, len(p))
            ks = kstest(p, "uniform", alternative="greater").pvalue
            share = f"{n_small / len(p):.3f} ({low:.3f}-{high:.3f})"
            print(
                f"| {name} | {source} | {len(p)} | {share} | {attainable:.3f} | {p.min():.1e} | {ks:.2g} |", flush=True
            )


if __name__ == "__main__":
    main()
