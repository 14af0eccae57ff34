"""The OpenAPI description as a page, in the dress of the page to draw on."""

from __future__ import annotations

import json
import re
from html import escape
from typing import Any

from triptych.gateway.web_files import html


def describe(openapi: dict[str, Any]) -> str:
    """HTML with every operation of `openapi`, its fields and its answers, by tags."""
    tags: dict[str, list[str]] = {}
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            shown = _operation(openapi, method.upper(), path, operation)
            tags.setdefault(operation["tags"][0], []).append(shown)
    info = openapi["info"]
    sections = "".join(f"<h3>{escape(tag)}</h3>{''.join(shown)}" for tag, shown in tags.items())
    said = f"<p>{escape(info['title'])} {escape(info['version'])}: {_text(info['description'])}</p>"
    return html("docs.html").replace("<!-- operations -->", said + sections)


def _operation(openapi: dict, method: str, path: str, operation: dict) -> str:
    parts = [f"<p>{_text(operation.get('description', ''))}</p>"]
    body = operation.get("requestBody")
    if body:
        for media_type, content in body["content"].items():
            fields = _fields(openapi, content["schema"])
            parts.append(_table(fields or [("body", media_type)]))
    parameters = [(one["name"], one["schema"], "") for one in operation.get("parameters", [])]
    parts.append(_table([_row(openapi, *parameter) for parameter in parameters]))
    answers = [(status, answer["description"]) for status, answer in operation["responses"].items()]
    parts.append(_table(answers))
    title = f"<code><b>{method}</b> {escape(path)}</code>"
    return f"<details><summary>{title}</summary>{''.join(parts)}</details>"


def _fields(openapi: dict, schema: dict) -> list[tuple[str, ...]]:
    schema = _resolved(openapi, schema)
    required = schema.get("required", [])
    return [
        _row(openapi, name, field, "required" if name in required else "")
        for name, field in schema.get("properties", {}).items()
    ]


def _row(openapi: dict, name: str, field: dict, required: str) -> tuple[str, ...]:
    default = field.get("default")
    note = required or ("" if default is None else f"default {json.dumps(default)}")
    parts = (field, *field.get("anyOf", ()))
    description = next((part["description"] for part in parts if "description" in part), "")
    return name, _kind(openapi, field), note, description


def _kind(openapi: dict, field: dict) -> str:
    field = _resolved(openapi, field)
    if "anyOf" in field:
        kinds = (_kind(openapi, one) for one in field["anyOf"] if one.get("type") != "null")
        return " or ".join(kinds)
    if "enum" in field:
        return ", ".join(map(json.dumps, field["enum"]))
    bounds = [
        f"{word} {field[key]:g}" if key != "pattern" else f"{word} {field[key]}"
        for key, word in (("minimum", "from"), ("maximum", "to"), ("pattern", "matching"))
        if key in field
    ]
    return " ".join([field.get("type", "anything"), *bounds])


def _resolved(openapi: dict, schema: dict) -> dict:
    name = schema.get("$ref", "").rpartition("/")[2]
    return openapi["components"]["schemas"][name] if name else schema


def _text(text: str) -> str:
    """HTML of a text, with what stands in backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _table(rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    lines = ("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div tabindex=0><table>{''.join(lines)}</table></div>"
