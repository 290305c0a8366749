"""What the controller must not forget: the state that is rebuilt exactly by applying the journal's events again.

`apply` is the only way in. It takes past facts, so it never refuses on grounds of policy; a fact that contradicts the
state (an answer to an action that was never intended, a transition that is not in the table) means that the journal is
not ours or not whole, and raises. Moving averages and confirmation counters are not here: they restart cold.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from metrics.errors import BadDataError
from state.action import Reply
from state.event import Event, EventKind
from state.machine import TRIGGERS, PhaseMachine
from state.phase import Phase

SELF_ENDING: frozenset[EventKind | None] = frozenset({None, EventKind.STORM_DETECTED, EventKind.SENSORS_DOUBTED})


class NodeStatus(StrEnum):
    """Where a node stands with the controller; SUSPECT is volatile and never stored."""

    HEALTHY = "healthy"
    SUSPECT = "suspect"
    ISOLATING = "isolating"
    ISOLATED = "isolated"
    PROBATION = "probation"


class IntentKind(StrEnum):
    """What an action on a node is meant to do."""

    ISOLATE = "isolate"
    RENEW = "renew"
    RESTORE = "restore"


@dataclass(slots=True)
class NodeRecord:
    """One node that is not, or not long, simply healthy.

    Attributes:
        status: where it stands.
        since_s: plant time at which it took that status.
        isolated_s: plant time of its latest isolation.
        until_s: time limit of that isolation.
        offences: isolations so far; they lengthen the back-off and are forgotten on healthy evidence.
    """

    status: NodeStatus
    since_s: float
    isolated_s: float = 0.0
    until_s: float = 0.0
    offences: int = 0


@dataclass(slots=True)
class Intent:
    """An action on a node whose effect has not been read back yet."""

    key: str
    kind: IntentKind
    node: str
    at_s: float
    until_s: float
    reply: Reply | None = None


@dataclass(slots=True)
class Trial:
    """An open parameter trial.

    Attributes:
        number: 1 for the first.
        key: idempotency key of the change.
        previous: the last good parameters, to which a rollback leads.
        proposed: the parameters on trial.
        direction: which rule of the tuner proposed it.
        baseline: what was measured before.
        applied: True once the change was read back.
        applied_s: plant time of that.
        rollback_key: set once a rollback is intended.
        rollback_s: plant time of that.
    """

    number: int
    key: str
    previous: Mapping[str, float]
    proposed: Mapping[str, float]
    direction: str
    baseline: Mapping[str, float]
    started_s: float
    applied: bool = False
    applied_s: float = 0.0
    rollback_key: str | None = None
    rollback_s: float = 0.0


@dataclass(slots=True)
class DurableState:
    """The whole durable state.

    Attributes:
        machine: the phase, moved along the table.
        epoch: the fencing epoch of every action.
        nodes: records of the nodes that are not simply healthy, by name.
        intents: actions in flight, by idempotency key.
        wells: confirmed gravity wells (nodes or clusters) that are still in place.
        blocked: well to the guard that last forbade to isolate it.
        actions: actions intended so far; numbers their keys.
        tokens: isolation tokens left in the bucket at `tokens_at_s`; None before the first isolation.
        trial: the open trial.
        trials: trials started so far.
        failed_trials: rolled back in a row.
        last_direction, last_kept: what the latest closed trial tried, and whether it was kept.
        last_disturbance_s: plant time at which a node went out or came back.
        safe_mode: why SAFE_MODE holds, or None.
        safe_mode_cause: the kind of event that led there.
        probes: open probes with how each is undone.
    """

    machine: PhaseMachine
    epoch: int = 0
    nodes: dict[str, NodeRecord] = field(default_factory=dict)
    intents: dict[str, Intent] = field(default_factory=dict)
    wells: set[str] = field(default_factory=set)
    blocked: dict[str, str] = field(default_factory=dict)
    actions: int = 0
    tokens: float | None = None
    tokens_at_s: float = 0.0
    trial: Trial | None = None
    trials: int = 0
    failed_trials: int = 0
    last_direction: str = ""
    last_kept: bool = False
    last_disturbance_s: float = 0.0
    safe_mode: str | None = None
    safe_mode_cause: EventKind | None = None
    probes: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def phase(self) -> Phase:
        """The present phase."""
        return self.machine.phase

    def apply(self, event: Event) -> None:
        """Take one fact in.

        Raises:
            BadDataError: the fact contradicts the state.
        """
        if event.kind in TRIGGERS:
            refusal = self.machine.fire(event.kind, coherent=event.data.get("exit_code") == 0)
            if refusal is not None:
                raise BadDataError(f"event at {event.at_s} s contradicts the state: {refusal}")
        try:
            _APPLY.get(event.kind, _nothing)(self, event)
        except KeyError as missing:
            raise BadDataError(f"{event.kind} at {event.at_s} s names {missing}, of which nothing is known") from None

    def snapshot(self) -> bytes:
        """The state as canonical JSON: equal states give equal bytes."""
        plain = {
            "phase": self.machine.phase,
            "came_from": self.machine.came_from,
            "epoch": self.epoch,
            "nodes": {name: asdict(record) for name, record in self.nodes.items()},
            "intents": {key: asdict(intent) for key, intent in self.intents.items()},
            "wells": sorted(self.wells),
            "blocked": self.blocked,
            "actions": self.actions,
            "tokens": self.tokens,
            "tokens_at_s": self.tokens_at_s,
            "trial": asdict(self.trial) if self.trial else None,
            "trials": self.trials,
            "failed_trials": self.failed_trials,
            "last_direction": self.last_direction,
            "last_kept": self.last_kept,
            "last_disturbance_s": self.last_disturbance_s,
            "safe_mode": self.safe_mode,
            "safe_mode_cause": self.safe_mode_cause,
            "probes": self.probes,
        }
        return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()

    def out_of_service(self) -> set[str]:
        """Nodes that are out, on their way out, or of whom that is unknown: all of these count towards every budget."""
        out = {
            name for name, record in self.nodes.items() if record.status in (NodeStatus.ISOLATING, NodeStatus.ISOLATED)
        }
        return out | {intent.node for intent in self.intents.values() if intent.kind is not IntentKind.RESTORE}


def replay(state: DurableState, events: list[Event]) -> DurableState:
    """`state` after all of `events`; the same object, changed."""
    for event in events:
        state.apply(event)
    return state


def _nothing(_state: DurableState, _event: Event) -> None:
    """An event that only changes the phase, or only tells."""


def _run_started(state: DurableState, event: Event) -> None:
    state.epoch = int(_number(event, "epoch"))


def _well_confirmed(state: DurableState, event: Event) -> None:
    state.wells.add(_text(event, "subject"))


def _well_gone(state: DurableState, event: Event) -> None:
    subject = _text(event, "subject")
    state.wells.discard(subject)
    state.blocked.pop(subject, None)


def _blocked(state: DurableState, event: Event) -> None:
    state.blocked[_text(event, "subject")] = _text(event, "guard")


def _intend(kind: IntentKind, state: DurableState, event: Event) -> Intent:
    key, node = _text(event, "key"), _text(event, "node")
    until_s = float(event.data.get("until_s") or 0.0)  # type: ignore[arg-type]  # absent for a restoration
    intent = Intent(key, kind, node, event.at_s, until_s)
    state.intents[key] = intent
    state.actions += 1
    return intent


def _isolation_intended(state: DurableState, event: Event) -> None:
    intent = _intend(IntentKind.ISOLATE, state, event)
    offences = state.nodes[intent.node].offences if intent.node in state.nodes else 0
    forgotten = int(_number(event, "forgiven"))
    state.nodes[intent.node] = NodeRecord(
        NodeStatus.ISOLATING, event.at_s, event.at_s, intent.until_s, max(0, offences - forgotten) + 1
    )
    state.tokens, state.tokens_at_s = _number(event, "tokens"), event.at_s


def _renewal_intended(state: DurableState, event: Event) -> None:
    _intend(IntentKind.RENEW, state, event)


def _restoration_intended(state: DurableState, event: Event) -> None:
    _intend(IntentKind.RESTORE, state, event)


def _replied(reply: Reply, state: DurableState, event: Event) -> None:
    key = _text(event, "key")
    if key in state.intents:
        state.intents[key].reply = reply
    elif state.trial is None or key not in (state.trial.key, state.trial.rollback_key):
        raise KeyError(key)


def _isolation_verified(state: DurableState, event: Event) -> None:
    intent = state.intents.pop(_text(event, "key"))
    record = state.nodes[intent.node]
    record.status, record.since_s = NodeStatus.ISOLATED, event.at_s
    state.wells.discard(intent.node)
    state.blocked.pop(intent.node, None)
    state.last_disturbance_s = event.at_s


def _renewal_verified(state: DurableState, event: Event) -> None:
    intent = state.intents.pop(_text(event, "key"))
    state.nodes[intent.node].until_s = intent.until_s


def _restoration_verified(state: DurableState, event: Event) -> None:
    intent = state.intents.pop(_text(event, "key"))
    _on_probation(state, intent.node, event.at_s)


def _isolation_failed(state: DurableState, event: Event) -> None:
    intent = state.intents.pop(_text(event, "key"))
    if intent.kind is IntentKind.ISOLATE:
        _never_isolated(state, intent.node, event.at_s)
    _hold(state, event, f"{intent.kind} of {intent.node} failed: {_text(event, 'reason')}")


def _never_isolated(state: DurableState, node: str, at_s: float) -> None:
    """What it had done before stays on record, this time does not count."""
    earlier = state.nodes.pop(node).offences - 1
    if earlier > 0:
        state.nodes[node] = NodeRecord(NodeStatus.HEALTHY, at_s, offences=earlier)


def _isolation_expired(state: DurableState, event: Event) -> None:
    _on_probation(state, _text(event, "node"), event.at_s)


def _on_probation(state: DurableState, node: str, at_s: float) -> None:
    record = state.nodes[node]
    record.status, record.since_s = NodeStatus.PROBATION, at_s
    state.last_disturbance_s = at_s


def _readmitted(state: DurableState, event: Event) -> None:
    record = state.nodes[_text(event, "node")]
    record.status, record.since_s = NodeStatus.HEALTHY, event.at_s


def _trial_started(state: DurableState, event: Event) -> None:
    data: Mapping[str, Any] = event.data
    state.trial = Trial(
        number=int(data["trial"]),
        key=str(data["key"]),
        previous=dict(data["from"]),
        proposed=dict(data["to"]),
        direction=str(data["direction"]),
        baseline=dict(data["baseline"]),
        started_s=event.at_s,
    )
    state.trials += 1
    state.actions += 1


def _trial_applied(state: DurableState, event: Event) -> None:
    trial = _open_trial(state)
    trial.applied, trial.applied_s = True, event.at_s


def _rollback_intended(state: DurableState, event: Event) -> None:
    trial = _open_trial(state)
    trial.rollback_key, trial.rollback_s = _text(event, "key"), event.at_s
    state.actions += 1


def _trial_closed(state: DurableState, event: Event) -> None:
    state.last_direction, state.last_kept = _open_trial(state).direction, event.kind is EventKind.TRIAL_KEPT
    state.failed_trials = 0 if state.last_kept else state.failed_trials + 1
    state.trial = None


def _rollback_failed(state: DurableState, event: Event) -> None:
    _hold(state, event, f"a rollback failed: {_text(event, 'reason')}")
    state.trial = None


def _storm(state: DurableState, event: Event) -> None:
    _hold(
        state, event, f"storm: {_number(event, 'bad'):.0f} of {_number(event, 'assessed'):.0f} nodes look bad at once"
    )


def _doubted(state: DurableState, event: Event) -> None:
    _hold(state, event, f"sensors contradict service by {_number(event, 'disagreement'):.3f}")


def _phase_not_passed(state: DurableState, event: Event) -> None:
    if state.phase is Phase.SAFE_MODE:
        _hold(state, event, f"{event.data.get('phase')} has not passed")


def _breached(state: DurableState, event: Event) -> None:
    _hold(state, event, f"invariant {_text(event, 'invariant')} does not hold")


def _safe_mode_left(state: DurableState, event: Event) -> None:
    state.safe_mode = state.safe_mode_cause = None
    state.last_disturbance_s = event.at_s


def _probe_intended(state: DurableState, event: Event) -> None:
    state.probes[_text(event, "probe")] = dict(event.data)


def _probe_ended(state: DurableState, event: Event) -> None:
    probe = state.probes.pop(_text(event, "probe"))
    # The node was made ill by ourselves: it bears no offence for it, though it may still be out.
    node = probe.get("node")
    if node in state.out_of_service():
        state.nodes[node].offences = 0
    elif node is not None:
        state.nodes.pop(node, None)
    state.last_disturbance_s = event.at_s


def _hold(state: DurableState, event: Event, reason: str) -> None:
    # A reason that needs a person outranks one that goes away by itself; otherwise the first one stands.
    if state.safe_mode_cause in SELF_ENDING:
        state.safe_mode, state.safe_mode_cause = reason, event.kind


def _open_trial(state: DurableState) -> Trial:
    if state.trial is None:
        raise KeyError("an open trial")
    return state.trial


def _text(event: Event, name: str) -> str:
    return str(event.data[name])


def _number(event: Event, name: str) -> float:
    value = event.data[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadDataError(f"{event.kind}: {name} must be a number, not {value!r}")
    return float(value)


_APPLY = {
    EventKind.RUN_STARTED: _run_started,
    EventKind.PHASE_FAILED: _phase_not_passed,
    EventKind.PHASE_UNDECIDED: _phase_not_passed,
    EventKind.GRAVITY_WELL_CONFIRMED: _well_confirmed,
    EventKind.GRAVITY_WELL_GONE: _well_gone,
    EventKind.ISOLATION_BLOCKED: _blocked,
    EventKind.ISOLATION_INTENDED: _isolation_intended,
    EventKind.RENEWAL_INTENDED: _renewal_intended,
    EventKind.RESTORATION_INTENDED: _restoration_intended,
    EventKind.ACTION_APPLIED: lambda state, event: _replied(Reply.APPLIED, state, event),
    EventKind.ACTION_REFUSED: lambda state, event: _replied(Reply.REFUSED, state, event),
    EventKind.ACTION_UNKNOWN: lambda state, event: _replied(Reply.UNKNOWN, state, event),
    EventKind.ISOLATION_VERIFIED: _isolation_verified,
    EventKind.RENEWAL_VERIFIED: _renewal_verified,
    EventKind.RESTORATION_VERIFIED: _restoration_verified,
    EventKind.ISOLATION_FAILED: _isolation_failed,
    EventKind.ISOLATION_EXPIRED: _isolation_expired,
    EventKind.NODE_READMITTED: _readmitted,
    EventKind.TRIAL_STARTED: _trial_started,
    EventKind.TRIAL_APPLIED: _trial_applied,
    EventKind.TRIAL_KEPT: _trial_closed,
    EventKind.ROLLBACK_INTENDED: _rollback_intended,
    EventKind.TRIAL_ROLLED_BACK: _trial_closed,
    EventKind.ROLLBACK_FAILED: _rollback_failed,
    EventKind.STORM_DETECTED: _storm,
    EventKind.SENSORS_DOUBTED: _doubted,
    EventKind.INVARIANT_BREACHED: _breached,
    EventKind.SAFE_MODE_LEFT: _safe_mode_left,
    EventKind.PROBE_INTENDED: _probe_intended,
    EventKind.PROBE_ENDED: _probe_ended,
}
