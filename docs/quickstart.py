"""Write `docs/quickstart.ipynb` and its outputs: the text of the notebook is kept here, the outputs come from running it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

import nbformat
from nbclient import NotebookClient

NOTEBOOK: Final = Path(__file__).parent / "quickstart.ipynb"
KERNEL: Final = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
CELLS: Final = (
    """# A verdict in a minute

`amb` asks of a method of ownership verification: does it claim the models that were copied, and does it stay silent on the
others? This notebook puts one fingerprint, IPGuard, through that protocol on the embedded suite `tiny`: a vision transformer
of 0.7 million weights, with innocent models beside it. It needs no GPU, no network and no data set.

It is short: one method, two attacks, one seed. To say what a method is worth takes [more of each](../benchmarks/README.md).""",
    """>>> import amb

amb.list("suites")""",
    """`amb.run` takes the words of the command line. The fingerprint is made on the owner's model. One attack prunes that model, the
other adds noise to its weights and rounds them. Then every suspect is asked for its labels.""",
    """>>> results = amb.run("ipguard", ["prune40", "noise:sigma=0.05+quantize-bf16"])
results""",
    """The copies (`positive`) are claimed, the innocent models (`negative`) are not. Siblings come from the same unmarked source.
A fingerprint leaves the owner's model as it is, so here they would be the protected model itself, and they are skipped.

## As a frame

A row for each cell, with everything that was measured.""",
    """>>> frame = results.to_frame()
judged = frame[frame["status"] == "ok"]
columns = ["suspect", "kind", "detection_rate", "detection_rate_low", "detection_rate_high", "claim", "utility_knn"]
judged[columns].round(3)""",
    """## A verdict

`claim` says that the rate of matching labels lies above that of every source of innocent models. How many sources there
are bounds what can be said, and the verdict says that too: see [what it rests on](statistics.md).""",
    """>>> verdict = results.verdict("prune40")
print(f"claim: {verdict.claim}, since p = {verdict.p_value:.3f} ≤ {verdict.level:.3f} ({verdict.basis})")
print(f"rests on {verdict.n_trials} trials and {verdict.n_negatives} innocent models,")
print(f"of {verdict.n_sources} sources, which can support no false positive rate below {verdict.level:.3f}")""",
    """## A figure

How well the rate tells copies from innocent models, over all thresholds. The interval is wide, for the suspects are few.""",
    """>>> results.figure("roc")""",
    """What was computed is kept: run the cell with `amb.run` again, and it is read from `amb-results/`. Go on with
[the front door from Python](python.md) or [a method of your own](write_method.md).""",
)
"""Text, or code that begins with a prompt."""


def make_notebook() -> nbformat.NotebookNode:
    """The notebook without outputs."""
    new = nbformat.v4
    cells = [
        new.new_code_cell(text.removeprefix(">>> ")) if text.startswith(">>> ") else new.new_markdown_cell(text)
        for text in CELLS
    ]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"  # else it is drawn anew each time
    return new.new_notebook(cells=cells, metadata=KERNEL)


def run_notebook(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Execute it in a folder; the outputs come into it."""
    client = NotebookClient(notebook, timeout=600, record_timing=False, resources={"metadata": {"path": str(folder)}})
    client.execute()


def main() -> None:
    """Write the notebook with the outputs of a run."""
    notebook = make_notebook()
    with tempfile.TemporaryDirectory() as folder:
        run_notebook(notebook, Path(folder))
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()
