"""The page at /docs: the API's reference from its OpenAPI schema, without anything from outside."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

_STYLE = """
:root { color-scheme: light dark; --line: #8886; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
code, pre { font-family: ui-monospace, monospace; font-size: 0.9em; }
pre { border: 1px solid var(--line); border-radius: 4px; padding: 0.75rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: 0.5rem 0 1rem; }
th, td { border-bottom: 1px solid var(--line); padding: 0.35rem 0.6rem 0.35rem 0;
  text-align: left; vertical-align: top; }
section { border-top: 1px solid var(--line); margin-top: 2rem; }
.scroll { overflow-x: auto; }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>{{ style }}</style>
</head>
<body>
<header>
<h1>{{ title }}</h1>
<p>{{ description }}</p>
<p>The same as a machine-readable schema: <a href="openapi.json">openapi.json</a>.</p>
</header>
<nav aria-label="Routes"><ul>
{% for one in operations %}
<li><a href="#{{ one.id }}"><code>{{ one.method }} {{ one.path }}</code></a></li>
{% endfor %}
</ul></nav>
<main>
{% for one in operations %}
<section aria-labelledby="{{ one.id }}">
<h2 id="{{ one.id }}"><code>{{ one.method }} {{ one.path }}</code></h2>
{% for paragraph in one.paragraphs %}<p>{{ paragraph }}</p>
{% endfor %}
{% if one.needs_key %}<p>Needs a key: <code>Authorization: Bearer eh_...</code></p>{% endif %}
{% if one.fields %}<h3>Body</h3>{{ fields(one.fields) }}{% endif %}
{% if one.example %}<h3>Example</h3><pre tabindex="0">{{ one.example }}</pre>{% endif %}
<h3>Answers</h3>
<div class="scroll"><table>
<tr><th scope="col">Status</th><th scope="col">Meaning</th><th scope="col">Body</th></tr>
{% for status, meaning, body in one.answers %}
<tr><td>{{ status }}</td><td>{{ meaning }}</td>
<td>{% if body %}<a href="#{{ body }}">{{ body }}</a>{% endif %}</td></tr>
{% endfor %}
</table></div>
</section>
{% endfor %}
<section><h2>Bodies</h2>
{% for name, rows in schemas %}
<h3 id="{{ name }}">{{ name }}</h3>{{ fields(rows) }}
{% endfor %}
</section>
</main>
</body>
</html>
"""

_FIELDS = """{% macro fields(rows) %}
<div class="scroll"><table>
<tr><th scope="col">Field</th><th scope="col">Type</th><th scope="col">Meaning</th></tr>
{% for name, type, meaning in rows %}
<tr><td><code>{{ name }}</code></td><td>{{ type }}</td><td>{{ meaning }}</td></tr>
{% endfor %}
</table></div>
{% endmacro %}"""


def style_hash() -> str:
    """Return the page's style as a source of a Content-Security-Policy."""
    digest = hashlib.sha256(_STYLE.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def render_reference(schema: Mapping[str, Any]) -> str:
    """Return the page for an OpenAPI schema."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string(_FIELDS + _PAGE)
    schemas = schema.get("components", {}).get("schemas", {})
    return template.render(
        title=schema["info"]["title"],
        description=schema["info"].get("description", ""),
        style=Markup(_STYLE),  # our own, and its hash is in the header
        operations=[
            _operation(path, method, operation, schemas)
            for path, operations in schema["paths"].items()
            for method, operation in operations.items()
        ],
        schemas=[
            (name, _rows(one)) for name, one in sorted(schemas.items()) if one.get("properties")
        ],
    )


def _operation(
    path: str, method: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]
) -> dict[str, Any]:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    name = _name(body.get("schema", {}))
    asked = schemas.get(name, {})
    examples = asked.get("examples", [])
    text = operation.get("description", "").replace("**", "").replace("`", "")
    return {
        "id": f"{method}{path}".replace("/", "-"),
        "path": path,
        "method": method.upper(),
        "paragraphs": [part.replace("\n", " ") for part in text.split("\n\n") if part],
        "needs_key": bool(operation.get("security")),
        "fields": _rows(asked),
        "example": json.dumps(examples[0], indent=2, ensure_ascii=False) if examples else "",
        "answers": [
            (status, answer["description"], _answer_name(answer))
            for status, answer in sorted(operation["responses"].items())
        ],
    }


def _answer_name(answer: Mapping[str, Any]) -> str:
    return _name(answer.get("content", {}).get("application/json", {}).get("schema", {}))


def _name(schema: Mapping[str, Any]) -> str:
    return schema.get("$ref", "").rpartition("/")[2]


def _rows(schema: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    required = schema.get("required", ())
    return [
        (
            name,
            _type(one) + ("" if name in required else ", optional"),
            one.get("description", ""),
        )
        for name, one in schema.get("properties", {}).items()
    ]


def _type(schema: Mapping[str, Any]) -> str:
    """Write a type in a few words."""
    if "$ref" in schema:
        return _name(schema)
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return " or ".join(dict.fromkeys(_type(one) for one in schema[choice]))
    if "enum" in schema or "const" in schema:
        values = schema.get("enum") or [schema["const"]]
        return " or ".join(json.dumps(one) for one in values)
    kind = schema.get("type", "any")
    if kind == "array" and "items" in schema:
        kind = f"array of {_type(schema['items'])}"
    limits = [
        f"{words} {schema[key]}"
        for key, words in (
            ("maxLength", "at most"),
            ("maxItems", "at most"),
            ("maxProperties", "at most"),
        )
        if key in schema
    ]
    return f"{kind} ({', '.join(limits)})" if limits else kind
