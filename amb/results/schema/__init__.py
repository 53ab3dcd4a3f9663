"""The published form of the documents that amb writes: models that check them, and JSON Schemas made of the models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from amb.results.versions import SCHEMA, Readable

DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"

Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Seconds = Annotated[float, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
RunId = Annotated[str, Field(pattern="^[0-9A-Za-z][0-9A-Za-z_-]{0,99}$")]
"""Such as `20261122-083934-826780-c6d1b5`; it names a folder, so it holds nothing that a path could be made of."""


class Open(BaseModel):
    """A part of a document. Keys are added over time within a schema number, so further ones are let through."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Closed(BaseModel):
    """A part that holds what is named and nothing else."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


class CellForm(Open):
    """One cell: a line of `results.jsonl`. Every figure of a cell that is not `ok` is null."""

    FIGURES: ClassVar = (
        "bound", "trial_fpr", "detection_rate", "interval", "curve", "bit_error_rate", "tau", "alpha", "p_values",
        "n_trials", "n_negatives", "fpr_supported",
    )  # fmt: skip
    CLAIM: ClassVar = ("claim", "p_value", "basis", "level", "n_sources", "alphabet", "paper_rule")
    """Figures of a cell since schema 2; before, it had `owned` for the paper's rule."""

    method: str
    """Canonical spec."""
    attack: str
    """Canonical spec of the chain; `none` where nothing was done."""
    suspect: str
    kind: Literal["positive", "negative", "forged"]
    sibling: bool
    seed: Count
    source: str = ""
    group: str = ""
    status: Literal["ok", "skipped", "failed"]
    cached: bool
    reason: str
    claim: bool | None = None
    """Whether the suspect may be claimed: p_value is at most level."""
    p_value: Fraction | None = None
    basis: Literal["exact", "calibrated"] | None = None
    """`exact`: binomial over all symbols. `calibrated`: rank among sources of innocent models."""
    level: Fraction | None = None
    n_sources: Count | None = None
    alphabet: Annotated[int, Field(ge=2)] | None = None
    paper_rule: bool | None = None
    """R exceeds the bound of eq. 13."""
    bound: float | None
    trial_fpr: Fraction | None
    detection_rate: Fraction | None
    interval: Annotated[list[Fraction], Field(min_length=2, max_length=2)] | None
    curve: Annotated[list[Fraction], Field(min_length=2)] | None
    bit_error_rate: Fraction | None
    tau: Count | None
    alpha: Fraction | None
    p_values: dict[Literal["binomial", "permutation", "calibrated"], Fraction] | None
    margin: float | None
    n_trials: Annotated[int, Field(ge=1)] | None
    n_negatives: Count | None
    fpr_supported: Fraction | None
    utility: dict[str, float]
    utility_drop: float | None = None
    utility_lost: float | None = None
    """What schema 1 calls `utility_drop`."""
    destroyed: bool = False
    report: dict[str, Any] = {}
    seconds: dict[str, Seconds]
    """`embed`, `attack`, `extract`."""
    peak_memory_mib: float | None
    digests: dict[str, str]
    """`model`, `key`, `evidence`."""

    @model_validator(mode="after")
    def _check_verdict(self) -> CellForm:
        """A verdict has all of its figures."""
        needed = self.FIGURES if "owned" in (self.model_extra or {}) else (*self.CLAIM, *self.FIGURES)
        missing = [name for name in needed if getattr(self, name) is None]
        missing += sorted({"embed", "attack", "extract"} - set(self.seconds))
        missing += sorted({"binomial", "permutation", "calibrated"} - set(self.p_values or ()))
        if self.status == "ok" and missing:
            raise ValueError(f"a judged cell needs {', '.join(missing)}")
        if self.tau is not None and self.curve is not None and self.tau >= len(self.curve):
            raise ValueError("tau lies beyond the curve")
        return self


class ReportCellForm(CellForm):
    """A cell as a report holds it: with what its run says of all its cells."""

    suite: str
    owner: str
    sweep: str | None
    run: str


class ProfileForm(Open):
    """Activation profile of the owner, an entry for each block."""

    top: list[float]
    median: list[float]
    massive_share: list[float]
    block: int | None
    block_choice: str
    n_images: Count

    @model_validator(mode="after")
    def _check_lengths(self) -> ProfileForm:
        if not len(self.top) == len(self.median) == len(self.massive_share):
            raise ValueError("its lists differ in length")
        return self


class EmbeddingForm(Open):
    """What is said of an embedding."""

    method: str
    seconds: Seconds
    utility_before: dict[str, float]
    utility_after: dict[str, float]
    similarity: dict[str, float | None]
    report: dict[str, Any]
    digests: dict[str, str]

    @model_validator(mode="after")
    def _check_figures(self) -> EmbeddingForm:
        if not set(self.utility_before) <= set(self.utility_after):
            raise ValueError("utility_after lacks a figure of utility_before")
        return self


class MachineForm(Open):
    """What a run was computed on."""

    system: str
    architecture: str
    cpus: Count | None


class RunForm(Open):
    """What is said of a run beside its cells."""

    id: RunId
    folder: str
    """Where its files lie; in a bundle, within it."""
    sweep: str | None = None
    suite: str
    owner: str
    methods: list[str]
    n_cells: Count | None = None
    """Of the whole run; what of them a killed one has finished are the cells that are there."""
    n_finished: Count | None = None
    """Once it has ended: those that it finished."""
    plan_digest: str | None = None
    """Of all that its results follow from."""
    seed: Count
    alpha: Fraction
    device: str
    compute: dict[str, Any] | None = None
    """Precision, the device's name, and torch's switches; absent in results of before it was recorded."""
    data: dict[str, Any] | None = None
    """Images that served each role, where they come from a data set on disk: counts and digests."""
    started: str
    versions: dict[str, str]
    plugins: dict[str, str]
    machine: MachineForm
    git_commit: str | None
    jobs: Annotated[int, Field(ge=1)] = 1
    executor: str | None = None
    """What computed the jobs of a sweep; absent in results of before there was a choice."""
    profile: ProfileForm | None = None
    embeddings: list[EmbeddingForm]
    links: dict[str, str]


class EstimateForm(Closed):
    """A figure with its interval."""

    value: float | None
    low: float | None
    high: float | None


class ColumnForm(Closed):
    """A column of a table."""

    name: str
    digits: Count
    text: bool
    seconds: bool = False
    """Whether its figures are times in seconds."""
    priority: Annotated[int, Field(ge=1)] = 1
    """1 where it stays on a narrow terminal; the higher, the sooner it goes."""


class TableForm(Closed):
    """What a layout made of cells, before any format."""

    title: str
    columns: list[ColumnForm]
    rows: list[list[str | bool | int | float | EstimateForm | None]]
    notes: list[str]
    findings: list[str] = []
    """What the table shows, in plain sentences."""


class RunDocument(Open):
    """`amb run --format json`; `run.json` is the same without tables."""

    schema_: Readable = Field(alias="schema")
    run: RunForm
    cells: list[CellForm]
    tables: list[TableForm] = []


class ReportDocument(Open):
    """`amb report --format json` and `amb leaderboard --format json`."""

    schema_: Readable = Field(alias="schema")
    runs: list[RunForm]
    cells: list[ReportCellForm]
    tables: list[TableForm]


class BundledFile(Closed):
    """A file of a bundle."""

    sha256: Sha256
    bytes: Count


class BundledRun(Closed):
    """A run of a bundle."""

    digest: Sha256
    """Of its facts, its cells and its wrong symbols, whatever packed them."""
    cells: Count


class Manifest(Closed):
    """`manifest.json` of a bundle: what is in it, each file with its SHA-256."""

    schema_: Readable = Field(alias="schema")
    format: Literal["amb-results"]
    amb: str
    """Version of amb that wrote the bundle; the versions that computed the results stand in each run."""
    runs: dict[RunId, BundledRun]
    files: dict[str, BundledFile]
    digest: Sha256
    """SHA-256 of this manifest without this key, as JSON with sorted keys and no blanks: of the whole bundle."""


DOCUMENTS: Final[dict[str, type[BaseModel]]] = {
    "run": RunDocument,
    "report": ReportDocument,
    "cell": CellForm,
    "bundle": Manifest,
}
"""The documents whose schema is published, as `amb/results/schema/<name>.json`."""


def json_schema(name: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a document: `run`, `report`, `cell` or `bundle`."""
    found = DOCUMENTS[name].model_json_schema(by_alias=True)
    return {"$schema": DRAFT, "$id": f"urn:amb:schema:{SCHEMA}:{name}", **found}


def write(folder: Path = Path(__file__).parent) -> None:
    """Write the published schemas anew."""
    for name in DOCUMENTS:
        text = json.dumps(json_schema(name), indent=1, ensure_ascii=False)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
