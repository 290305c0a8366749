"""How does an event read? One sentence for each kind, the same in the console, the report and the journal's listing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from state.event import Event, EventKind


def sentence(event: Event) -> str:
    """The event as a sentence without time and full stop; an event that lacks its data is named by its kind."""
    try:
        return _SENTENCES[event.kind](event.data)
    except (KeyError, TypeError, ValueError):  # a journal of another version may lack what we would tell
        return event.kind.value.replace("_", " ").lower()


def quantity(value: float) -> str:
    """A number for people: four significant digits, whole numbers whole."""
    return f"{value:.4g}"


def changes(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    """What differs between two sets of parameters, e.g. "lambda1 0.3 → 0.375"; by name, as a journal keeps them."""
    return ", ".join(
        f"{name} {quantity(before[name])} → {quantity(value)}"
        for name, value in sorted(after.items())
        if name in before and before[name] != value
    )


def printable(text: str) -> str:
    """`text` on one line and without control characters: a plant's own words must not move anybody's cursor."""
    return "".join(character if character.isprintable() else " " for character in " ".join(text.split()))


def _phase(verb: str) -> Callable[[Mapping[str, Any]], str]:
    def text(data: Mapping[str, Any]) -> str:
        bad = [f"{name} {status}" for name, status in data["checks"].items() if status != "passed"]
        return f"{data['phase']} {verb}" + (f" ({', '.join(bad)})" if bad else f" ({len(data['checks'])} checks)")

    return text


def _because(data: Mapping[str, Any]) -> str:
    return f": {data['reason']}" if data.get("reason") else ""


def _asked(data: Mapping[str, Any]) -> str:
    asked = data["asked"]
    arguments = [f"{quantity(v) if isinstance(v, float) else v}" for k, v in asked.items() if k != "command" and v]
    return f"{data['by']}: {' '.join([asked['command'], *map(str, arguments)])}{_because(data)}; {data['answer']}"


_SENTENCES: Mapping[EventKind, Callable[[Mapping[str, Any]], str]] = {
    EventKind.RUN_STARTED: lambda data: f"run started (epoch {data['epoch']})",
    EventKind.RESTARTED: lambda data: f"governing goes on (epoch {data['epoch']}){_because(data)}",
    EventKind.PLANT_LOST: lambda data: f"the plant is lost{_because(data)}",
    EventKind.PHASE_PASSED: _phase("passed"),
    EventKind.PHASE_FAILED: _phase("failed"),
    EventKind.PHASE_UNDECIDED: _phase("is undecided"),
    EventKind.GRAVITY_WELL_CONFIRMED: lambda data: (
        f"{data['subject']} is a gravity well, |g| {data['gravity']:.2f} for {data['ticks']} ticks"
    ),
    EventKind.GRAVITY_WELL_GONE: lambda data: f"{data['subject']} is no gravity well any more",
    EventKind.ISOLATION_BLOCKED: lambda data: (
        f"{data['subject']} (|g| {data['gravity']:.2f}) may not be isolated: {data['guard']} would be "
        f"{quantity(data['observed'])}, the limit is {quantity(data['limit'])}"
    ),
    EventKind.ISOLATION_INTENDED: lambda data: f"isolating {data['node']} of {data['cluster']}{_because(data)}",
    EventKind.RENEWAL_INTENDED: lambda data: f"keeping {data['node']} out until {quantity(data['until_s'])} s",
    EventKind.RESTORATION_INTENDED: lambda data: f"letting {data['node']} in again{_because(data)}",
    EventKind.ACTION_APPLIED: lambda data: f"the plant applied {data['key']}",
    EventKind.ACTION_REFUSED: lambda data: f"the plant refused {data['key']}{_because(data)}",
    EventKind.ACTION_UNKNOWN: lambda data: f"the effect of {data['key']} is unknown{_because(data)}",
    EventKind.ISOLATION_VERIFIED: lambda data: f"{data['node']} is isolated, as the plant shows",
    EventKind.RENEWAL_VERIFIED: lambda data: f"{data['node']} stays out, as the plant shows",
    EventKind.RESTORATION_VERIFIED: lambda data: f"{data['node']} takes part again, as the plant shows",
    EventKind.ISOLATION_FAILED: lambda data: f"{data['key']} on {data['node']} failed{_because(data)}",
    EventKind.RENEWAL_FAILED: lambda data: f"the time limit of {data['node']} could not be renewed{_because(data)}",
    EventKind.ACTION_ABANDONED: lambda data: f"{data['key']} never took effect{_because(data)}",
    EventKind.ISOLATION_EXPIRED: lambda data: f"the isolation of {data['node']} has ended{_because(data)}",
    EventKind.ACTIONS_SETTLED: lambda _: "nothing is in flight any more",
    EventKind.NODE_READMITTED: lambda data: f"{data['node']} has passed its probation",
    EventKind.OFFENCE_FORGIVEN: lambda data: f"{data['node']} is forgiven an offence, {data['offences']} are left",
    EventKind.NODE_FLAPPING: lambda data: (
        f"{data['node']} has been isolated {data['offences']} times: it stays out until a person lets it in"
    ),
    EventKind.TRIAL_STARTED: lambda data: f"trial {data['trial']}: {changes(data['from'], data['to'])}{_because(data)}",
    EventKind.TRIAL_APPLIED: lambda data: f"trial {data['trial']} is in force, as the plant shows",
    EventKind.TRIAL_KEPT: lambda data: (
        f"trial {data['trial']} has ended{_because(data)}"
        if data.get("replaced")
        else f"trial {data['trial']} is kept: objective {quantity(data['measured']['objective'])}, "
        f"violation {quantity(data['measured']['violation'])}{_because(data)}"
    ),
    EventKind.ROLLBACK_INTENDED: lambda data: f"rolling trial {data['trial']} back{_because(data)}",
    EventKind.TRIAL_ROLLED_BACK: lambda data: f"trial {data['trial']} is rolled back, as the plant shows",
    EventKind.ROLLBACK_FAILED: lambda data: f"the rollback of trial {data['trial']} failed{_because(data)}",
    EventKind.STORM_DETECTED: lambda data: (
        f"{data['bad']} of {data['assessed']} nodes look bad at once: holding, as the sensors are suspect"
    ),
    EventKind.SENSORS_DOUBTED: lambda data: (
        f"sensors contradict service by {data['disagreement']:.3f} for {data['ticks']} ticks: holding"
    ),
    EventKind.INVARIANT_BREACHED: lambda data: f"invariant {data['invariant']} does not hold: {data['detail']}",
    EventKind.SAFE_MODE_LEFT: lambda data: f"SAFE_MODE left{_because(data)}",
    EventKind.HEALING_EXHAUSTED: lambda data: f"healing has run out of ideas{_because(data)}",
    EventKind.PAUSE_REQUESTED: lambda data: f"{data['by']} wants a pause{_because(data)}",
    EventKind.PAUSED: lambda _: "paused: nothing is under way any more",
    EventKind.RESUMED: lambda data: f"resumed by {data['by']}",
    EventKind.COMMANDED: _asked,
    EventKind.COMMAND_REFUSED: lambda data: f"refused: {_asked(data)}",
    EventKind.REQUESTS_REFUSED: lambda data: (
        "requests turned away: " + ", ".join(f"{why} {count} times" for why, count in sorted(data["counts"].items()))
    ),
    EventKind.CONFIG_RELOADED: lambda data: f"{data['by']}: in force now: {', '.join(data['changed'])}",
    EventKind.NODE_EXEMPTED: lambda data: (
        f"{data['node']} is left alone from {quantity(data['from_s'])} s to {quantity(data['until_s'])} s "
        f"({data['kind']} by {data['owner']}){_because(data)}"
    ),
    EventKind.EXEMPTION_ENDED: lambda data: f"{data['node']} is governed like all others again ({data['by']})",
    EventKind.PROPOSAL_DECIDED: lambda data: (
        f"proposal {data['id']} is {data['status']} ({data['by']}){_because(data)}"
    ),
    EventKind.STOPPED: lambda data: f"stopped: {data['reason']} (exit code {data['exit_code']})",
    EventKind.SNAPSHOT: lambda _: "snapshot of the whole state",
    EventKind.PROBE_INTENDED: lambda data: f"probe {data['probe']} starts",
    EventKind.PROBE_ENDED: lambda data: f"probe {data['probe']} ended",
    EventKind.WINDOW_ENDED: lambda _: "the governing window is over",
    EventKind.PROPOSAL_WRITTEN: lambda data: f"proposal {data['id']} written",
    EventKind.RUN_ENDED: lambda data: f"run ended: {data['name']} (exit code {data['exit_code']})",
}
