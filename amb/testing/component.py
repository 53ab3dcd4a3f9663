"""What holds for every component, of whatever kind: the base of the contracts."""

from __future__ import annotations

import json

from amb.api.component import Component, parameter_rows
from amb.api.spec import parse_spec


class ComponentContract:
    """What holds for every component."""

    def check_component(self, component: Component) -> None:
        """Round-trips through its text, documents itself and every parameter."""
        spec = parse_spec(component.canonical())
        assert spec.name == component.name
        assert type(component).create(spec.params) == component
        assert (type(component).__doc__ or "").strip(), "the class needs a docstring: `amb show` prints it"
        undocumented = [row["parameter"] for row in parameter_rows(type(component)) if not row["help"]]
        assert not undocumented, f"parameters without a docstring under them: {undocumented}"
        json.dumps(component.definition())
