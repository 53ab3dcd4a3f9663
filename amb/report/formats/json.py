"""`--format json`: the document of the run as it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from amb.api.digests import finite
from amb.api.interfaces import Reporter


class JsonReporter(Reporter):
    """One JSON document on standard output."""

    name: ClassVar[str] = "json"

    def render(self, document: Mapping[str, Any]) -> str:
        return json.dumps(finite(document), indent=1, allow_nan=False)
