"""What MLflow's run table and charts show when amb opens them: columns, charts and order, as one of its shared views.

MLflow keeps a view that somebody shares as JSON in a tag of the experiment, and opens it by the tag's name.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

TAG: Final = "mlflow.sharedViewState."
"""MLflow's prefix of the tags that hold views; the rest is the view's key in an address."""

_COLUMNS: Final = {
    "summary": (
        *("params.`method`", "params.`owner`", "params.`seed`"),
        *("metrics.`detection_rate`", "metrics.`claim`", "metrics.`worst_innocent`", "metrics.`margin`"),
        *("metrics.`auc`", "metrics.`utility/main`", "metrics.`utility_drop`"),
        *("metrics.`seconds/embed`", "metrics.`seconds/extract`"),
    ),
    "cell": (
        *("params.`method`", "params.`attack`", "tags.`kind`", "tags.`group`", "params.`seed`"),
        *("metrics.`detection_rate`", "metrics.`claim`", "metrics.`margin`"),
        *("metrics.`utility/main`", "metrics.`utility_drop`"),
        *("metrics.`seconds/embed`", "metrics.`seconds/attack`", "metrics.`seconds/extract`"),
    ),
}
_PARALLEL: Final = {
    "summary": (["method"], ["worst_innocent", "utility/main", "seconds/embed", "seconds/extract", "detection_rate"]),
    "cell": (["method", "attack"], ["utility/main", "seconds/embed", "seconds/extract", "detection_rate"]),
}
"""Axes of the parallel coordinates, parameters then metrics; the last one gives the colour."""
_MOST_AXES: Final = 16
"""Attacks that have an axis."""
_MOST_SIDE_BY_SIDE: Final = 8
_TITLES: Final = 120
"""Letters of all titles of one plot beside a list of runs on a screen of 1440 pixels."""
_LINES: Final = {"summary": ("detection_rate_at_tau", "worst_innocent_at_tau"), "cell": ("detection_rate_at_tau",)}
_BARS: Final = ("detection_rate", "seconds/embed", "seconds/extract")
_AS_MEASURED: Final = {"useGlobalLineSmoothing": False, "lineSmoothness": 0}
_WIDE: Final = "Side by side"
_SMALL: Final = "By tau, utility and seconds"


def view(level: str, query: str, metrics: Sequence[str]) -> str:
    """The view of a level (`summary` or `cell`) for runs that match a query, as MLflow reads it.

    `metrics` are those that the runs have: attacks among them become an axis each.
    """
    return json.dumps(
        {
            "searchFilter": query,
            "orderByKey": "metrics.`detection_rate`",
            "orderByAsc": False,
            "selectedColumns": list(_COLUMNS[level]),
            "runsHiddenMode": "SHOW_ALL",
            "compareRunCharts": _make_charts(level, metrics),
            "columnOrder": list(_COLUMNS[level]),
            "isAccordionReordered": True,  # else MLflow sorts the sections by name
            "compareRunSections": [
                _make_section(_WIDE, 1),
                _make_section(_SMALL, 3),
                *map(_make_section, _list_other_sections(metrics)),
            ],
        }
    )


def _make_charts(level: str, metrics: Sequence[str]) -> list[dict[str, Any]]:
    params, figures = _PARALLEL[level]
    attacks = [name for name in metrics if name.startswith("attack/")][:_MOST_AXES]
    axes = [figures, *_split_axes(attacks)]
    return [
        *(_make_chart("PARALLEL", _WIDE, each[0], **_choose_parallel_axes(params, each)) for each in axes),
        *(_make_chart("LINE", _SMALL, name, metricKey=name, **_AS_MEASURED) for name in _LINES[level]),
        _make_chart("SCATTER", _SMALL, "utility", **_choose_axes("utility/main", "detection_rate")),
        *(_make_chart("BAR", _SMALL, name, metricKey=name) for name in _BARS),
    ]


def _split_axes(names: Sequence[str]) -> list[list[str]]:
    """Axes in as many plots as it takes for their titles to stand side by side."""
    longest = max(map(len, names), default=1)
    each = max(2, min(_MOST_SIDE_BY_SIDE, _TITLES // longest))
    return [list(names[at : at + each]) for at in range(0, len(names), each)]


def _choose_parallel_axes(params: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
    return {"selectedParams": list(params), "selectedMetrics": list(metrics), "showAllRuns": True}


def _choose_axes(x: str, y: str) -> dict[str, Any]:
    return {"xaxis": {"key": x, "type": "METRIC"}, "yaxis": {"key": y, "type": "METRIC"}}


def _make_chart(kind: str, section: str, name: str, **more: Any) -> dict[str, Any]:
    own = {"type": kind, "uuid": f"amb-{kind}-{name}", "metricSectionId": section}
    return {**own, "runsCountToCompare": 100, "deleted": False, "isGenerated": False, **more}


def _make_section(name: str, columns: int | None = None) -> dict[str, Any]:
    """A group of charts, open where it is amb's own; MLflow adds a chart for every other metric to the others."""
    own = {"uuid": name, "name": name, "display": columns is not None, "isReordered": False, "deleted": False}
    return own | ({"columns": columns} if columns else {})


def _list_other_sections(metrics: Sequence[str]) -> list[str]:
    groups = {name.rpartition("/")[0] or "Model metrics" for name in metrics}
    return sorted(groups | {"Model metrics", "System metrics"})
