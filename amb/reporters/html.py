"""`--format html`: one page that needs nothing beside itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from amb.protocols import Reporter
from amb.tables import tables_of

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: .5rem; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #8888; text-align: right; }
th { border-bottom-width: 2px; vertical-align: bottom; }
.text { text-align: left; overflow-wrap: anywhere; }
.notes { font-size: .9rem; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
{% for table in tables %}
<div class="wide" role="region" tabindex="0" aria-label="{{ table.title }}">
<table>
<caption>{{ table.title }}</caption>
<thead><tr>{% for column in table.columns %}
<th scope="col"{% if column.text %} class="text"{% endif %}>{{ column.name }}</th>{% endfor %}
</tr></thead>
<tbody>{% for row in table.texts() %}
<tr>{% for entry in row %}<td{% if table.columns[loop.index0].text %} class="text"{% endif %}>{{ entry }}</td>{% endfor %}</tr>
{%- endfor %}
</tbody>
</table>
</div>
{% if table.notes %}<ul class="notes">{% for note in table.notes %}
<li>{{ note }}</li>{% endfor %}
</ul>{% endif %}
{% endfor %}
</body>
</html>"""


class HtmlReporter(Reporter):
    """A page in light and dark with every table and its notes; whatever stands in a name is shown, not obeyed."""

    name: ClassVar[str] = "html"

    def render(self, document: Mapping[str, Any]) -> str:
        from jinja2 import Environment

        page = Environment(autoescape=True).from_string(_PAGE)
        return page.render(title="amb report", tables=tables_of(document))
