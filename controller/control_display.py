"""What do a daemon's answers look like on a terminal? Tables and lines for status, nodes, explanations and proposals.

Whatever came over the network is stripped of control characters and never read as markup. A field that an answer lacks
is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from controller import proposal_text
from controller.wording import printable, quantity

_STATUS_STYLES = {
    "healthy": "green",
    "suspect": "yellow",
    "isolating": "yellow",
    "isolated": "bold red",
    "probation": "cyan",
    "ok": "green",
    "finding": "bold red",
    "skipped": "dim",
}
_HEALTH_STYLES = {"STABLE": "green", "WARNING": "yellow", "CRITICAL": "bold red"}
_PHASE_STYLES = {"SAFE_MODE": "bold red", "PAUSED": "yellow", "ISOLATING": "yellow", "HEALING": "magenta"}
_KPIS = ("coherence", "gas", "rsi", "action_cost", "lambda_opt", "delta_lambda")
_EVENTS = 10
_TO_SECONDS = len("2026-01-31T12:00:00")

Json = Mapping[str, Any]


def status(state: Json) -> RenderableType:
    """Where the controller stands."""
    phase = str(state.get("phase", "?"))
    table = _table("", "", title=None, header=False)
    table.add_row(
        "phase", Text(f"{phase}: {printable(str(state.get('meaning', '')))}", _PHASE_STYLES.get(phase, "bold"))
    )
    for name, text in _standing(state):
        table.add_row(name, Text(printable(text)))
    return table


def _standing(state: Json) -> Iterable[tuple[str, str]]:
    held, pause, trial = state.get("safe_mode"), state.get("pause"), state.get("trial")
    if held:
        yield "held because", str(held.get("reason"))
        yield "way out", str(held.get("way_out"))
    if pause:
        yield "paused by", f"{pause.get('by')}: {pause.get('reason')} (until {_plant_time(pause.get('until_s'))})"
    yield from _plant(state)
    if state.get("unhealthy"):
        yield "outside limits", ", ".join(map(str, state["unhealthy"]))
    if state.get("wells"):
        yield "gravity wells", ", ".join(map(str, state["wells"]))
    for item in state.get("blocked") or ():
        yield "blocked", f"{item.get('subject')} by {item.get('guard')}"
    if state.get("in_flight"):
        yield "in flight", ", ".join(f"{item.get('kind')} {item.get('node')}" for item in state["in_flight"])
    for item in state.get("exemptions") or ():
        yield "exempt", f"{item.get('node')} ({item.get('kind')}) by {item.get('owner')}: {item.get('reason')}"
    if trial:
        yield "trial", f"{trial.get('number')}, {trial.get('direction')}"
    for item in state.get("waiting") or ():
        yield "approved", f"{item.get('proposal')} waits for {item.get('waits_for')}"
    yield from _not_done(state)
    journal = state.get("journal") or {}
    yield "journal", f"event {journal.get('seq')}, epoch {state.get('epoch')}, version {state.get('version')}"


def _plant(state: Json) -> Iterable[tuple[str, str]]:
    if state.get("connected") is False:
        yield "plant lost", "it does not answer and is tried again; whoever is out stays out until its time limit"
    yield "plant", f"{state.get('plant')} ({state.get('system', '')}), tick {state.get('tick')}"
    if state.get("dry_run"):
        yield "dry run", "it assesses and acts on nothing"
    yield "nodes", f"{state.get('nodes', '?')}, {state.get('out', '?')} out"


def _not_done(state: Json) -> Iterable[tuple[str, str]]:
    refusals = state.get("refusals") or ()
    if refusals:
        told = (f"{item.get('rule')} by {item.get('guard')} {item.get('count')} times" for item in refusals)
        yield "not done", "; ".join(told)


def nodes(found: Sequence[Json], total: int) -> RenderableType:
    """A table of nodes, the worst first."""
    table = _table("node", "cluster", "|g|", "status", "until", "offences", "why", title=None)
    table.columns[2].justify = table.columns[5].justify = "right"
    for node in found:
        standing = str(node.get("status", "?"))
        exemption = node.get("exemption")
        why = str(node.get("why", "")) + (f" (exempt: {exemption.get('reason')})" if exemption else "")
        table.add_row(
            _plain(node.get("node")),
            _plain(node.get("cluster")),
            _gravity(node.get("gravity")),
            Text(printable(standing), _STATUS_STYLES.get(standing, "")),
            _plain(str(node.get("until") or "")[:_TO_SECONDS]),
            _plain(node.get("offences", "")),
            _plain(why),
        )
    if total <= len(found):
        return table
    return Group(table, Text(f"and {total - len(found)} more: ask for them with --limit", "dim"))


def explanation(data: Json) -> RenderableType:
    """Why a node stands where it stands, or why an event happened."""
    parts: list[RenderableType] = []
    event, node, cluster = data.get("event"), data.get("node"), data.get("cluster")
    if event:
        parts.append(Text(f"event {event.get('seq')} at {_plant_time(event.get('at_s'))}: {event.get('kind')}", "bold"))
        parts += [_plain(event.get("text", "")), _plain(json.dumps(event.get("data", {}), sort_keys=True))]
    if node:
        parts.append(nodes([node], 1))
        parts += [_plain(f"  {name} {_number(value)}") for name, value in (node.get("components") or {}).items()]
    if cluster:
        gravity, limit = _number(cluster.get("gravity")), _number(cluster.get("limit"))
        parts.append(_plain(f"cluster {cluster.get('cluster')}: |g| {gravity}, limit {limit}"))
    if data.get("blocked_by"):
        parts.append(Text(f"a gravity well that guard {data['blocked_by']} forbids to isolate", "yellow"))
    for item in data.get("not_done") or ():
        parts.append(
            _plain(
                f"not done: {item.get('rule')}, guard {item.get('guard')}: {_number(item.get('observed'))}, limit "
                f"{_number(item.get('limit'))}, {item.get('count')} times, last at {_plant_time(item.get('last_s'))}"
            )
        )
    events = list(data.get("events") or ())[-_EVENTS:]
    parts += [_plain(f"{item.get('seq'):>6}  {_plant_time(item.get('at_s'))}  {item.get('text')}") for item in events]
    return Group(*parts)


def proposals(found: Sequence[Json]) -> RenderableType:
    """A table of proposals."""
    table = _table("id", "status", "kind", "title", title=None)
    for proposal in found:
        table.add_row(*(_plain(proposal.get(name, "")) for name in ("id", "status", "kind", "title")))
    return table if found else Text("no proposals yet")


def proposal(found: Json) -> RenderableType:
    """One proposal in full."""
    parts: list[RenderableType] = [
        Text(printable(f"{found.get('id')}  {proposal_text.standing(found)}"), "bold"),
        _plain(found.get("title", "")),
        _plain(found.get("summary", "")),
    ]
    parts += [_plain(f"  {line}") for line in proposal_text.lines(found)]
    if found.get("status") in ("proposed", "approved") and found.get("expires_s") is not None:
        parts.append(_plain(f"  expires at {_plant_time(found['expires_s'])} of plant time"))
    parts += [_plain(f"  $ {item.get('command')}   # {item.get('does')}") for item in found.get("commands") or ()]
    anchor = found.get("anchor") or {}
    if anchor:
        parts.append(_plain(f"  anchored at journal event {anchor.get('seq')}, {anchor.get('hash')}"))
    return Group(*parts)


def tokens(found: Sequence[Sequence[str]]) -> RenderableType:
    """A table of tokens, without the tokens."""
    table = _table("name", "role", "created", "expires", "standing", title=None)
    for row in found:
        table.add_row(*map(_plain, row))
    return table if found else Text("no tokens yet: iace token create NAME --role operator")


def findings(found: Sequence[tuple[str, str, str, str]]) -> RenderableType:
    """A table of what the doctor found: name, standing, what is the matter, how to mend it."""
    table = _table("check", "", "found", "mend it by", title=None)
    for name, standing, text, mend in found:
        table.add_row(name, Text(standing, _STATUS_STYLES.get(standing, "")), _plain(text), _plain(mend))
    return table


def tick_line(tick: Json) -> str:
    """One tick on one line."""
    told = [f"{name} {_number(tick.get(name))}" for name in _KPIS if tick.get(name) is not None]
    wells = tick.get("gravity_well_count")
    head = f"{tick.get('timestamp')} tick {tick.get('tick')} {tick.get('phase')} {tick.get('system_health')}"
    return printable(f"{head}  {', '.join(told)}, wells {_number(wells)}")


def watched(tick: Json, state: Json, worst: Sequence[Json]) -> RenderableType:
    """The live view of one tick."""
    health = str(tick.get("system_health"))
    head = Text(printable(f"{tick.get('timestamp')}  tick {tick.get('tick')}  "), "bold")
    head.append(health, _HEALTH_STYLES.get(health, ""))
    figures = Text("  ".join(f"{name} {_number(tick.get(name))}" for name in _KPIS))
    return Group(head, figures, status(state), nodes(worst, len(worst)))


def _table(*columns: str, title: str | None, header: bool = True) -> Table:
    table = Table(box=SIMPLE_HEAD, title=title, show_header=header, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _plain(value: object) -> Text:
    return Text("" if value is None else printable(str(value)))


def _gravity(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, int | float) else "unknown"


def _number(value: object) -> str:
    return quantity(float(value)) if isinstance(value, int | float) else "unknown"


def _plant_time(value: object) -> str:
    return f"{value:.0f} s" if isinstance(value, int | float) else "?"
