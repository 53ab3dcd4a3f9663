"""Checks cells against which symbols were wrong: the figures that anybody can compute again without the key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from amb.errors import printable
from amb.results.aggregate import by_method, judged, negatives
from amb.results.records import CellRecord, JudgedRecord

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from amb.api.records import Evidence, Verdict

TOLERANCE: Final = 1e-6
"""How far a figure may lie from the one computed again: what libraries of another version may differ by."""

LONGEST: Final = 2**14
"""Trials, and symbols of a trial, in evidence that is computed again; a key has some hundreds."""
MOST_COMPARED: Final = 2 * 10**10
"""Symbols that are compared for the bounds of one method's negatives: some 2,000 negatives of 4,096 symbols."""


class Mismatch(Exception):  # noqa: N818 (its text is the reason that the error for the user gives)
    """A figure that does not follow from the wrong symbols."""


def check_cells(cells: Sequence[CellRecord], errors: Mapping[str, NDArray[np.uint8]]) -> None:
    """Compute R(tau), its curve and interval, BER, the bound of eq. 13 and the verdict of every judged cell of a run.

    `errors` holds which symbols were wrong, (trials, symbols) in 0 and 1, by digest of the evidence. What rests on the
    messages or on other models (the p-values, utility, seconds) is not computed again. Raises Mismatch with the cell's
    name, also where a judged cell has no evidence and where evidence belongs to no cell.
    """
    known = judged(cells)
    wanted = {_find_digest(cell) for cell in known}
    for spare in sorted(set(errors) - wanted):
        raise Mismatch(f"the evidence {spare} belongs to no cell")
    evidence = {digest: _make_evidence(wrong) for digest, wrong in errors.items()}
    _check_work(known, evidence)
    bounds = _Bounds(known, evidence)
    for cell in known:
        if _find_digest(cell) not in evidence:
            raise Mismatch(f"{_name_cell(cell)}: there is no evidence of it")
        _check_length(cell, evidence[_find_digest(cell)])
        for what, said, found in _compare_figures(cell.verdict, evidence[_find_digest(cell)], bounds.find(cell)):
            if not _is_close(said, found):
                raise Mismatch(
                    f"{_name_cell(cell)}: {what} is said to be {said!s:.40}; its evidence gives {found!s:.40}"
                )


def _check_work(known: Sequence[JudgedRecord], evidence: Mapping[str, Evidence]) -> None:
    """Each negative is judged by the others, so many take long, and a stranger may claim any number. Raises Mismatch."""
    for method, cells in by_method(negatives(known)).items():
        symbols = [evidence[_find_digest(cell)].expected.size for cell in cells if _find_digest(cell) in evidence]
        if (work := sum(symbols) * len(symbols)) > MOST_COMPARED:
            raise Mismatch(
                f"{printable(method[:200])} has {len(symbols):,} negatives: {work:.1e} comparisons of symbols"
            )


def _check_length(cell: JudgedRecord, evidence: Evidence) -> None:
    """A curve has a value for each number of wrong symbols: looked at before as many are made. Raises Mismatch."""
    if max(evidence.expected.shape) > LONGEST or len(cell.verdict.curve) != evidence.expected.shape[1] + 1:
        shape = " x ".join(map(str, evidence.expected.shape))
        raise Mismatch(
            f"{_name_cell(cell)}: the curve R(tau) has {len(cell.verdict.curve)} values; its evidence gives {shape} symbols"
        )


def _compare_figures(verdict: Verdict, evidence: Evidence, bound: float) -> Iterator[tuple[str, Any, Any]]:
    """Each figure as it is said and as it is found."""
    from amb.evaluation.rates import binomial_p, bit_error_rate, detection_curve, errors

    rho = errors(evidence)
    n_detected = int((rho <= verdict.tau).sum())
    yield "the number of trials", verdict.n_trials, len(rho)
    yield "the detection rate", verdict.detection_rate, n_detected / len(rho)
    yield "the bit error rate", verdict.bit_error_rate, bit_error_rate(evidence)
    yield "the curve R(tau)", list(verdict.curve), detection_curve(rho, evidence.expected.shape[1]).tolist()
    yield "the interval", list(verdict.interval), _compute_interval(n_detected, len(rho))
    yield "the bound of eq. 13", verdict.bound, bound
    yield "the paper's rule", verdict.paper_rule, verdict.detection_rate > verdict.bound
    yield (
        "the claim",
        verdict.claim,
        verdict.p_value <= verdict.level and (verdict.basis == "exact" or verdict.n_sources > 0),
    )
    if verdict.basis == "exact":
        right = int((evidence.expected == evidence.observed).sum())
        yield "the p-value", verdict.p_value, binomial_p(right, evidence.expected.size, 1 / verdict.alphabet)


class _Bounds:
    """The bounds of eq. 13 of one run, each computed once: it rests on the negatives, never on the suspect itself."""

    def __init__(self, cells: Sequence[JudgedRecord], evidence: Mapping[str, Evidence]) -> None:
        self._evidence = evidence
        self._negatives = by_method(cell for cell in negatives(cells) if _find_digest(cell) in evidence)
        self._known: dict[tuple[Any, ...], float] = {}

    def find(self, cell: JudgedRecord) -> float:
        """As computed again; as it is said where the run does not hold all negatives, as with forged keys' own."""
        others = [each for each in self._negatives.get(cell.method, []) if each is not cell]
        if cell.kind == "forged" or len(others) != cell.verdict.n_negatives:
            return float(cell.verdict.bound)
        left_out = id(cell) if cell.kind == "negative" else None
        asked = (cell.method, cell.verdict.tau, cell.verdict.alpha, left_out)
        if asked not in self._known:
            self._known[asked] = self._compute(cell, [self._evidence[_find_digest(each)] for each in others])
        return self._known[asked]

    def _compute(self, cell: JudgedRecord, others: Sequence[Evidence]) -> float:
        from amb.evaluation.bounds import false_detection_bound

        if len({each.expected.shape for each in others}) > 1:
            raise Mismatch(f"{_name_cell(cell)}: its negatives were read with keys of different sizes")
        return false_detection_bound(others, cell.verdict.tau, cell.verdict.alpha)


@cache
def _compute_interval(n_detected: int, n: int) -> list[float]:
    """Kept, because many cells share it and it takes longest."""
    from amb.evaluation.intervals import clopper_pearson

    return list(clopper_pearson(n_detected, n))


def _make_evidence(wrong: NDArray[np.uint8]) -> Evidence:
    """Evidence with the same errors; messages are taken as zeros."""
    import numpy as np

    from amb.api.records import Evidence

    return Evidence(np.broadcast_to(np.uint8(0), wrong.shape), wrong)  # takes no memory


def _is_close(said: Any, found: Any) -> bool:
    import numpy as np

    return np.shape(said) == np.shape(found) and bool(np.allclose(said, found, rtol=0, atol=TOLERANCE))


def _find_digest(cell: CellRecord) -> str:
    return str(cell.digests.get("evidence"))


def _name_cell(cell: CellRecord) -> str:
    return printable(cell.name[:200])
