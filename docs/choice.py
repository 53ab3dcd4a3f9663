"""Write `docs/choice.md`: which method for which access and thief, from the results in an output folder."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Final

import amb
from amb.report.formats.text import MarkdownReporter
from amb.runtime.wording import count

PAGE: Final = Path(__file__).parent / "choice.md"
INTRO: Final = """# Which method for which thief

You know what you will get to see of a suspect (its labels, logits, features or weights) and whom you fear. The table says which methods
then had a valid claim, on how many models, and beside it how often they claimed an innocent one. It holds for the models and attacks that
were run, and for no others: [what a claim rests on](statistics.md), [who the thieves are](threats.md),
[the same for your own results](#make-it-anew).
"""
OUTRO: Final = """## Make it anew

This page is made from results, and nothing on it is written by hand:

```sh
python docs/choice.py amb-results     # of all results in that folder; a second word names a sweep
```

`amb report --layout choice` prints the same tables in any format, and the HTML report has them as a section. To say which of two methods
is better against a thief, compare them pair by pair: `amb compare spread-features spread-weights`.
"""


def main(folder: Path, sweep: str | None = None, page: Path = PAGE) -> None:
    """Write the page. Raises AmbError where there are no results."""
    page.write_text(make_page(amb.load_results(folder, sweep=sweep)), encoding="utf-8")


def make_page(results: amb.Results) -> str:
    """The page of some results."""
    tables = [table.to_json() for table in results.table("choice")]
    return "\n".join([INTRO, _describe_results(results), "", MarkdownReporter().render({"tables": tables}), "", OUTRO])


def _describe_results(results: amb.Results) -> str:
    """What the figures rest on."""
    runs = results.parsed.runs
    statuses = Counter(cell.status for cell in results.cells)
    sweeps = sorted({run.sweep for run in runs if run.sweep})
    seeds = sorted({cell.seed for cell in results.judged})
    of = f" of {', '.join(f'`{name}`' for name in sweeps)}" if sweeps else ""
    versions = ", ".join(sorted({run.versions.get("amb", "unknown") for run in runs}))
    cells = f"{count(statuses['ok'], 'cell')} judged, {statuses['skipped']:,} skipped and {statuses['failed']:,} failed"
    return f"{cells}{of}; seeds {', '.join(map(str, seeds))}; amb {versions}."


if __name__ == "__main__":
    main(Path(*sys.argv[1:2] or ["amb-results"]), *sys.argv[2:3])
