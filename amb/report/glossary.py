"""What each word in a table means, in a sentence or two: for `amb explain` and for whoever reads a table first."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from amb.errors import unknown_name


class Term(NamedTuple):
    """A word, what it means, and the page that says more."""

    word: str
    meaning: str
    page: str
    others: tuple[str, ...] = ()
    """Other forms under which tables have it."""


_CONCEPTS: Final = "docs/concepts.md"
_STATISTICS: Final = "docs/statistics.md"
_THREATS: Final = "docs/threats.md"

TERMS: Final = (
    Term("R(τ)", "Detection rate: the share of trials in which at most τ symbols were wrong, with its exact 95 % interval over trials. 1 where the key reads perfectly.", _STATISTICS, ("R", "R(tau)", "detection rate", "detection_rate", "R(τ) of usable", "R(τ) of forged", "R(τ) unattacked", "R(τ) attacked", "highest R", "highest innocent R", "R has to exceed", "R(τ) on them")),
    Term("τ", "Most wrong symbols with which a trial still counts as detected. Each method has its own; --tau sets another.", _STATISTICS, ("tau", "τ used", "calibrated τ")),
    Term("trial", "One trigger image or one trajectory on which the key is read; it holds several symbols: bits, or labels.", _CONCEPTS, ("trials", "n_trials", "extract ms a trial")),
    Term("BER", "Bit error rate: the share of wrong symbols over all trials. About .5 for bits where nothing is read.", _STATISTICS, ("bit error rate", "bit_error_rate", "avg. error")),
    Term("p perm.", "Permutation p-value: whether any message gets through, by exchanging messages among the triggers. Small on siblings too.", _STATISTICS, ("permutation", "p_permutation")),
    Term("p", "Probability that a model made without the key reads as well as this one. Exact: the binomial over all symbols, for methods whose symbols are fair draws on innocent models. Calibrated: the rank among sources of innocent models.", _STATISTICS, ("p_value", "basis", "exact", "level")),
    Term("p calib.", "Calibrated p-value: the rank of the suspect among the negatives, (1 + negatives at or above it) / (n + 1). Never below 1 / (n + 1).", _STATISTICS, ("calibrated", "p_calibrated")),
    Term("binomial", "P-value that takes every symbol for a fair coin. Exact where the method's null is; elsewhere symbols of one trial are correlated and it rejects too often, so the tables keep it apart as p_heuristic.", _STATISTICS, ("p_binomial", "p_heuristic", "heuristic")),
    Term("bound", "Equation 13 of the ActiveMark paper: the detection rate that innocent models exceed with probability at most alpha, if they are alike. The rule that claims where R is above it is no test of a model, and no claim here rests on it.", _STATISTICS, ("eq. 13", "eq13", "alpha", "paper_rule", "paper's rule")),
    Term("margin", "R of the suspect less the highest R among the negatives. Where it is negative an innocent model reads better.", _STATISTICS, ("above innocents, of usable",)),
    Term("verdict", "claim or missed for a suspect that descends from the protected model, no claim or FALSE CLAIM for an innocent one, destroyed for one that an attack has ruined.", _STATISTICS, ("claim", "claimed, of usable", "claimed, of attacked", "claimed, of all", "claimed", "claims", "no verdict", "missed")),
    Term("false claim", "A claim on an innocent model.", _STATISTICS, ("false claims", "forged claims")),
    Term("suspect", "A model on which the key is read.", _CONCEPTS, ("suspects", "models", "experiment")),
    Term("model", "A network with its weights: the protected one, or a suspect. Digests of it are of its weights.", _CONCEPTS),
    Term("positive", "A suspect that was made from the protected model: it should be found.", _CONCEPTS, ("n pos.", "positives", "kind", "model type")),
    Term("negative", "A suspect that has nothing to do with the protected model: the key should stay silent on it.", _CONCEPTS, ("n neg.", "negatives", "n_negatives", "innocent")),
    Term("sibling", "A negative made from the owner's own model before it was marked: the hardest to tell apart.", _CONCEPTS, ("unmarked", "unmarked owner")),
    Term("forged", "An innocent model read with a key that was made up for it after the fact.", _THREATS, ("forgery",)),
    Term("destroyed", "Said of a suspect that lost more of the protected model's utility than the suite tolerates. It counts neither for nor against robustness.", _STATISTICS, ("usable", "lost", "utility lost", "utility fall", "utility_drop")),
    Term("utility", "How well a model does its job, from 0 to 1: acc is its classification head, mIoU its segmentation head, probe and kNN are read from its embedding.", _STATISTICS, ("acc", "mIoU", "probe", "kNN", "head_accuracy", "head_miou")),
    Term("similarity", "How alike clean features are before and after embedding: cosine, and centred kernel alignment (cka).", _CONCEPTS, ("clean features", "cosine", "cka", "fidelity")),
    Term("source", "The model that a negative was made from. Models of one source are alike, so a calibrated claim ranks a suspect among sources, and n of them support no level below 1 / (n + 1).", _STATISTICS, ("sources", "n_sources")),
    Term("lowest FPR", "The smallest false positive rate that so many innocent models, or sources of them, can support by rank: 1 / (n + 1).", _STATISTICS, ("fpr_supported", "wanted FPR")),
    Term("held-out FPR", "False claims on the models of a source, by the threshold that all other sources give.", _STATISTICS, ("held-out",)),
    Term("AUC", "Probability that a positive suspect reads higher than a negative one, ties half, with Newcombe's interval.", _STATISTICS),
    Term("ARUC", "Area under the smaller of robustness and uniqueness as the threshold on R goes from 0 to 1.", _STATISTICS),
    Term("TPR", "Share of the positive suspects that are claimed where negatives are claimed at the rate after the @.", _STATISTICS),
    Term("swapped reads own", "Share of bits that still read as the image's own message after messages were exchanged among the triggers. Near 1 the decoder recites what it learnt by heart, and no message passes through the model.", "benchmarks/README.md", ("swapped reads injected", "swapped")),
    Term("expressive block", "The block where a few activations are far above the rest; ActiveMark writes its message there.", _CONCEPTS, ("block", "block choice", "top 5 |a|", "median |a|", "images with massive a.")),
    Term("class", "What an innocent model shares with the owner's, such as other-seed or registers.", _CONCEPTS, ("group",)),
    Term("family", "The kinds of attacks in a chain, such as prune+finetune.", _THREATS, ("families",)),
    Term("thief", "What the thief does or, where he knows more than the model, what he knows: whom a practitioner fears.", _THREATS),
    Term("access", "What a method asks to see of a suspect: its labels, logits, features or weights. Whoever sees more can use what asks for less.", _CONCEPTS, ("labels", "logits", "features", "weights", "access unknown")),
    Term("utility kept", "Share of the protected model's utility that is left after the attack of a thief who removed the claim.", _STATISTICS, ("thief keeps", "removing")),
    Term("difference", "Share claimed by one method less that by another on the same suspects, with Tango's interval; each of what is counted over counts once.", _STATISTICS, ("other method", "over", "claimed by other", "more", "fewer", "n", "skipped")),
    Term("p Holm", "P-value corrected for all the pairs of methods that were compared at once (Holm 1979).", _STATISTICS),
    Term("detectable", "The smallest true difference that so many suspects would show at 0.05 four times in five, at best. Where they show none at all there is none.", _STATISTICS),
    Term("seconds", "Time of embedding, of the attack and of reading the key, as measured when they were computed; cached where they were read from the store.", _CONCEPTS, ("attack s", "extract s", "extract", "embed s", "embed", "time s", "time", "cached")),
    Term("peak memory", "The most memory that a step took, in MiB: of the GPU where there is one, else of the process.", _CONCEPTS, ("embed MiB", "attack and extract MiB, mean", "most", "peak_memory_mib")),
    Term("rank", "Place among the methods of a suite and threat model. Methods whose intervals overlap share one; without enough evidence there is none.", _STATISTICS, ("evidence",)),
    Term("threat model", "What the thief knows: the model alone, the method that marked it, or the owner's key.", _THREATS, ("knows",)),
    Term("interval", "Where a rate lies with 95 % confidence, by the trials and seeds that there are.", _STATISTICS, ("interval_low", "interval_high", "low", "high")),
    Term("suite", "An owner's model with its data, its innocent models and the figures of its utility.", _CONCEPTS),
    Term("owner", "Who protects a model, and the model itself before it is marked.", _CONCEPTS),
    Term("method", "A watermark, which changes the model, or a fingerprint, which does not.", _CONCEPTS, ("methods",)),
    Term("attack", "What a thief does to the model, to lose the mark and keep the use; none where nothing was done.", _THREATS, ("attacks",)),
    Term("key", "The owner's secret. Tables hold its digest alone.", _CONCEPTS),
    Term("run", "One command's cells, with the versions and the machine that made them.", _CONCEPTS, ("runs", "id", "sweep", "from", "started", "device", "compute", "jobs", "machine", "amb", "torch", "git commit", "version", "package or plugin")),
    Term("work", "What a run has to do: images passed through the network to read, and to train on.", "docs/compute.md", ("part", "times", "images read", "images trained on", "TFLOP")),
    Term("needed", "A model or a data set that a run takes; missing ones are fetched where that is allowed.", "docs/data.md", ("state", "GiB")),
    Term("cell", "A method read on one suspect, at one seed. It ends ok, skipped (does not apply, with a reason) or failed.", _CONCEPTS, ("cells", "status", "reason")),
    Term("seed", "A seed is another key, another mark and other attacked models; means over seeds have intervals with seeds as clusters.", _STATISTICS, ("seeds",)),
)  # fmt: skip
"""In the order in which a reader meets them."""

_BY_WORD: Final[Mapping[str, Term]] = {
    word.casefold(): term for term in reversed(TERMS) for word in (term.word, *term.others)
}


def explain(word: str) -> Term:
    """The term that a word of a table stands for. Raises UnknownNameError.

    `TPR @ FPR .01` is found by its first word, `seconds_embed` by its first part, `prune40: R(τ)` by what follows the name.
    """
    asked = " ".join(re.sub(r"=[^)]*|\(\d+\)", "", word.casefold().rpartition(": ")[2]).split())
    found = next((_BY_WORD[each] for each in (asked, *re.split("[ _]", asked)[:1]) if each in _BY_WORD), None)
    if found is None:
        known = [each for term in TERMS for each in (term.word, *term.others)]
        raise unknown_name("word", word, known, "`amb explain` lists all of")
    return found
