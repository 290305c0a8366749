"""A backtest's document as text for people: what would have been done, why, and how two configurations compare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from controller.wording import printable

SHOWN = 20  # of each list; the document in JSON has all of it

Document = Mapping[str, Any]


def text(document: Document) -> str:
    """All of it, one fact a line."""
    return "\n".join(_printable(line) for line in _lines(document)) + "\n"


def _printable(line: str) -> str:
    """`printable`, with the indentation that it would take away."""
    said = line.lstrip(" ")
    return " " * (len(line) - len(said)) + printable(said)


def _lines(document: Document) -> Iterator[str]:
    held = document["recording"]
    yield (
        f"{held['source']}: {held['ticks']} ticks from {held['first_s']:g} s to {held['last_s']:g} s, "
        f"{held['nodes']} nodes, {len(held['metrics'])} metrics, {len(held['kpis'])} KPIs, {held['rows']} rows used, "
        f"{held['bad_rows']} bad"
    )
    yield from _some([f"  line {bad['line']}: {bad['reason']}" for bad in held["bad"]])
    if held["ignored"]:
        yield f"  not known and not used: {', '.join(held['ignored'])}"
    yield "not applied here: " + "; ".join(document["not_applied"])
    for moment in document["at"]:
        yield f"suspects at {moment['at_s']:g} s:"
        yield from _suspects(moment["suspects"])
    for judged in document["configurations"]:
        yield ""
        yield f"configuration {judged['name']}"
        yield from _configuration(judged)
    if document["comparison"] is not None:
        yield ""
        yield from _comparison(document["comparison"])


def _configuration(judged: Document) -> Iterator[str]:
    yield f"  {len(judged['incidents'])} incidents"
    lines = []
    for incident in judged["incidents"]:
        worst = incident["suspects"][0]
        lines.append(
            f"  [{incident['from_s']:g} to {incident['to_s']:g} s] {worst['node']} {worst['g']:.2f} g"
            f"{_because(worst['why'])}"
        )
    yield from _some(lines)
    yield f"  {len(judged['decisions'])} decisions"
    yield from _some([_decision(decision) for decision in judged["decisions"]])
    yield from _some(
        [
            f"  withheld: {held['rule']} {held['subject']} by {held['guard']} ({held['observed']:.3g}, limit "
            f"{held['limit']:.3g}), {held['ticks']} ticks from {held['first_s']:g} s"
            for held in judged["withheld"]
        ]
    )
    yield from _some(
        [f"  anomaly: [{found['first_s']:g} s] {found['reason']} ({found['count']}x)" for found in judged["anomalies"]]
    )
    totals = judged["totals"]
    yield "  " + ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in totals.items())


def _decision(decision: Document) -> str:
    data = decision["data"]
    reason = data.get("reason") or data.get("guard") or data.get("direction") or ""
    kind = decision["kind"].lower().replace("_", " ")
    told = f"  [{decision['at_s']:g} s] {kind} {decision['subject']}".rstrip()
    return told + (f": {reason}" if reason else "") + _because(decision.get("why", []))


def _suspects(found: Sequence[Document]) -> Iterator[str]:
    for rank, suspect in enumerate(found, start=1):
        yield f"  {rank}. {suspect['node']} {suspect['g']:.2f} g at {suspect['at_s']:g} s{_because(suspect['why'])}"


def _because(why: Sequence[Document]) -> str:
    """The strongest reason in words."""
    if not why:
        return ""
    first = why[0]
    if "deviation" not in first:
        return f", {first['kpi']} {first['value']:.2f}"
    told = f", {first['kpi']} {first['deviation']:+.1f} deviations"
    if first["view"] is not None:
        told += f" ({first['view'].replace('_', ' ')} {abs(first['distance']):.1f} times the usual excess)"
    return told + ("" if first["since_s"] is None else f" since {first['since_s']:g} s")


def _comparison(compared: Document) -> Iterator[str]:
    names = [side["name"] for side in compared["sides"]]
    yield f"{'':24}" + "".join(f"{name[-24:]:>26}" for name in names)
    for what in compared["sides"][0]["totals"]:
        yield f"{what.replace('_', ' '):24}" + "".join(f"{side['totals'][what]:26g}" for side in compared["sides"])
    yield f"{'cost, node-seconds':24}" + "".join(f"{side['cost_node_s']:26g}" for side in compared["sides"])
    yield f"{names[1]} is {compared['verdict']}"


def _some(lines: Sequence[str]) -> Iterator[str]:
    yield from lines[:SHOWN]
    if len(lines) > SHOWN:
        yield f"  ... and {len(lines) - SHOWN} more"
