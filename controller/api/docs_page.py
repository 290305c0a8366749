"""How does the OpenAPI document read? One HTML page without scripts and without anything from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
h1{font-size:1.6rem}h2{margin-top:2.5rem;border-bottom:1px solid #d0d7de;text-transform:capitalize}
code{font:13px ui-monospace,monospace;background:#f3f4f6;padding:.1em .3em;border-radius:4px}
details{border:1px solid #d0d7de;border-radius:6px;margin:.6rem 0;padding:.5rem .8rem}
summary{cursor:pointer}.method{display:inline-block;min-width:3.2rem;font-weight:700}
.get{color:#0a5cad}.post{color:#8a4a00}table{border-collapse:collapse;margin:.5rem 0;width:100%}
td,th{text-align:left;vertical-align:top;padding:.2rem .6rem .2rem 0;border-bottom:1px solid #eaeef2}
@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}code{background:#1f2630}
details,h2,td,th{border-color:#30363d}.get{color:#6cb6ff}.post{color:#f0a868}}
"""
_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
CONTENT_SECURITY_POLICY = f"default-src 'none'; style-src 'sha256-{_DIGEST}'; frame-ancestors 'none'; base-uri 'none'"


def page(document: Mapping[str, Any]) -> str:
    """The page for an OpenAPI document."""
    info = document["info"]
    groups: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            groups.setdefault(operation["tags"][0], []).append(_operation(document, path, method, operation))
    body = "".join(f"<h2>{escape(tag)}</h2>{''.join(operations)}" for tag, operations in groups.items())
    title = f"{escape(info['title'])} {escape(info['version'])}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title} HTTP API</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>{title} HTTP API</h1><p>{escape(info['description'])} The same for programs: "
        f'<a href="/openapi.json">/openapi.json</a>. Errors are '
        '<code>{"status":"error","message":…}</code>. Tokens go into the header '
        "<code>Authorization: Bearer TOKEN</code>.</p>"
        f"{body}</body></html>"
    )


def _operation(document: Mapping[str, Any], path: str, method: str, operation: Mapping[str, Any]) -> str:
    access = "token" if operation.get("security") else "open"
    rows = [*_parameters(operation), *_body(document, operation)]
    fields = (
        f"<table><tr><th>name</th><th>in</th><th>type</th><th>about</th></tr>{''.join(rows)}</table>" if rows else ""
    )
    answers = "".join(
        f"<tr><td>{escape(status)}</td><td>{escape(answer['description'])}</td></tr>"
        for status, answer in sorted(operation["responses"].items())
    )
    return (
        f'<details><summary><span class="method {escape(method)}">{escape(method.upper())}</span> '
        f"<code>{escape(path)}</code> {escape(operation['summary'])}</summary>"
        f"<p>{escape(operation['description'])} ({access})</p>{fields}"
        f"<table><tr><th>status</th><th>means</th></tr>{answers}</table></details>"
    )


def _parameters(operation: Mapping[str, Any]) -> Iterator[str]:
    for parameter in operation["parameters"]:
        yield _row(parameter["name"], parameter["in"], parameter["schema"], required=parameter["required"])


def _body(document: Mapping[str, Any], operation: Mapping[str, Any]) -> Iterator[str]:
    for content in operation.get("requestBody", {}).get("content", {}).values():
        schema = _resolved(document, content["schema"])
        for name, field in schema["properties"].items():
            yield _row(name, "body", _resolved(document, field), required=name in schema.get("required", ()))


def _resolved(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    found: Mapping[str, Any] = document["components"]["schemas"][name] if name else schema
    return found


def _row(name: str, place: str, schema: Mapping[str, Any], *, required: bool) -> str:
    about = schema.get("description", "")
    needed = "" if required else ", optional"
    return (
        f"<tr><td><code>{escape(name)}</code></td><td>{place}{needed}</td>"
        f"<td>{escape(_kind(schema))}</td><td>{escape(about)}</td></tr>"
    )


def _kind(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(str(item) or '""' for item in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_kind(item) for item in schema["anyOf"] if item.get("type") != "null")
    return str(schema.get("format") or schema.get("type", "any"))
