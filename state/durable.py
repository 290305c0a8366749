"""What the controller must not forget: the state that is rebuilt exactly by applying the journal's events again.

`apply` is the only way in. It takes past facts, so it never refuses on grounds of policy; a fact that contradicts the
state (an answer to an action that was never intended, a transition that is not in the table) means that the journal is
not ours or not whole, and raises. Moving averages and confirmation counters are not here: they restart cold.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any

from metrics.errors import BadDataError
from metrics.haru.tuning import trust_after
from state.action import Reply
from state.command import ExemptionKind
from state.event import Event, EventKind
from state.machine import TRIGGERS, Facts, PhaseMachine
from state.phase import Phase
from state.proposal_record import ProposalRecord, ProposalStatus, remember

SELF_ENDING: frozenset[EventKind | None] = frozenset({None, EventKind.STORM_DETECTED, EventKind.SENSORS_DOUBTED})
RETRIED: frozenset[EventKind | None] = frozenset({EventKind.PHASE_FAILED, EventKind.PHASE_UNDECIDED})
COMMANDS_KEPT = 256  # a repeated command is recognised among so many; a client that repeats does so within minutes
STATE_VERSION = 3  # of what the state holds and what events mean for it; a snapshot of another one cannot be compared
POLICY = "policy"  # who isolated a node, where nobody did by hand
TRIAL = "trial"  # who brought a proposal where it stands, where its trial did

# Directions of a trial that are no direction of the fixed-step rule.
GRAY_BOX, ALPHA, IMPROVEMENT = "gray_box", "alpha", "improvement"
ASIDE = frozenset({ALPHA, IMPROVEMENT})  # nothing is ill: such a trial that fails is no failure to heal
MODELLED = frozenset({GRAY_BOX, IMPROVEMENT})  # the model's word, on which its trust depends


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
        offences: isolations by the policy; they lengthen the back-off and are forgotten on healthy evidence.
        backoff_s: least time out of that isolation.
        by: who isolated it: the policy, or an operator, whose isolation ends by hand or by its time limit.
        flapping: True where it came back once too often: a person has to let it in.
    """

    status: NodeStatus
    since_s: float
    isolated_s: float = 0.0
    until_s: float = 0.0
    offences: int = 0
    backoff_s: float = 0.0
    by: str = POLICY
    flapping: bool = False


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
class PauseRecord:
    """An operator's pause; `acknowledged` once nothing is under way any more. Times are plant seconds."""

    by: str
    reason: str
    since_s: float
    until_s: float
    acknowledged: bool = False


@dataclass(slots=True)
class Exemption:
    """A node that is left alone, from when until when; times are plant seconds."""

    kind: ExemptionKind
    owner: str
    reason: str
    from_s: float
    until_s: float


class RollbackFault(StrEnum):
    """Whose fault a rollback is: the values', the plant's that did not take them, or nobody's."""

    VALUES = "values"
    PLANT = "plant"
    NOBODY = "nobody"


@dataclass(slots=True)
class Trial:
    """An open parameter trial.

    Attributes:
        number: 1 for the first.
        key: idempotency key of the change.
        previous: the last good parameters, to which a rollback leads.
        proposed: the parameters on trial.
        direction: which rule of the tuner proposed it, or which way.
        baseline: what was measured before.
        applied: True once the change was read back.
        applied_s: plant time of that.
        rollback_key: set once a rollback is intended.
        rollback_s: plant time of that.
        fault: why it is rolled back; see `RollbackFault`.
        proposal: the approved proposal that it carries out, or None.
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
    fault: RollbackFault | None = None
    proposal: str | None = None


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
        failed_trials: in a row that were rolled back, or kept without helping, since the last exhaustion.
        trust: in the tuner's model; share of its reach that a proposal may use.
        exhaustions: times in a row that healing gave up.
        exhausted_until_s: plant time until which nothing is tried.
        trial_tokens, trial_tokens_at_s: trials left in the bucket at that time; None before the first.
        alpha_s: plant time of the latest change of α, None before the first.
        last_direction, last_kept: what the latest closed trial tried, and whether it was kept.
        last_disturbance_s: plant time at which SAFE_MODE or a pause was left, or a probe ended.
        safe_mode: why SAFE_MODE holds, or None.
        safe_mode_cause: the kind of event that led there.
        probes: open probes with how each is undone.
        safe_mode_since_s: plant time at which SAFE_MODE began.
        phase_failures: how often in a row a phase has not passed; lengthens the wait before it is tried again.
        pause: an operator's pause, asked for or acknowledged.
        exemptions: nodes that are left alone, by name.
        commands: the latest commands by idempotency key: what was asked for and what was answered.
        proposals: the improvement proposals by id, the oldest first.
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
    trust: float = 1.0
    exhaustions: int = 0
    exhausted_until_s: float = 0.0
    trial_tokens: float | None = None
    trial_tokens_at_s: float = 0.0
    alpha_s: float | None = None
    last_direction: str = ""
    last_kept: bool = False
    last_disturbance_s: float = 0.0
    safe_mode: str | None = None
    safe_mode_cause: EventKind | None = None
    probes: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    safe_mode_since_s: float = 0.0
    phase_failures: int = 0
    pause: PauseRecord | None = None
    exemptions: dict[str, Exemption] = field(default_factory=dict)
    commands: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    proposals: dict[str, ProposalRecord] = field(default_factory=dict)

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
            facts = Facts(event.data.get("exit_code") == 0, self.safe_mode is not None, bool(self.intents))
            refusal = self.machine.fire(event.kind, facts)
            if refusal is not None:
                raise BadDataError(f"event at {event.at_s} s contradicts the state: {refusal}")
        try:
            _APPLY.get(event.kind, _nothing)(self, event)
        except KeyError as missing:
            raise BadDataError(f"{event.kind} at {event.at_s} s names {missing}, of which nothing is known") from None

    def become(self, other: DurableState) -> None:
        """Take everything over from `other`, for those who hold on to this object."""
        for item in fields(self):
            setattr(self, item.name, getattr(other, item.name))

    def snapshot(self) -> bytes:
        """The state as canonical JSON: equal states give equal bytes."""
        return json.dumps(self.as_plain(), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()

    def as_plain(self) -> dict[str, Any]:
        """The state as JSON values; `restored` is the way back."""
        return {
            "phase": self.machine.phase,
            "came_from": self.machine.came_from,
            "epoch": self.epoch,
            "nodes": {name: _plain(record) for name, record in self.nodes.items()},
            "intents": {key: _plain(intent) for key, intent in self.intents.items()},
            "wells": sorted(self.wells),
            "blocked": dict(self.blocked),
            "actions": self.actions,
            "tokens": self.tokens,
            "tokens_at_s": self.tokens_at_s,
            "trial": asdict(self.trial) if self.trial else None,
            "trials": self.trials,
            "failed_trials": self.failed_trials,
            "trust": self.trust,
            "exhaustions": self.exhaustions,
            "exhausted_until_s": self.exhausted_until_s,
            "trial_tokens": self.trial_tokens,
            "trial_tokens_at_s": self.trial_tokens_at_s,
            "alpha_s": self.alpha_s,
            "last_direction": self.last_direction,
            "last_kept": self.last_kept,
            "last_disturbance_s": self.last_disturbance_s,
            "safe_mode": self.safe_mode,
            "safe_mode_cause": self.safe_mode_cause,
            "probes": dict(self.probes),
            "safe_mode_since_s": self.safe_mode_since_s,
            "phase_failures": self.phase_failures,
            "pause": asdict(self.pause) if self.pause else None,
            "exemptions": {node: _plain(exemption) for node, exemption in self.exemptions.items()},
            "commands": [{"key": key, **asked} for key, asked in self.commands.items()],
            "proposals": [asdict(record) for record in self.proposals.values()],
        }

    def out_of_service(self) -> set[str]:
        """Nodes that are out, on their way out, or of whom that is unknown: all of these count towards every budget."""
        out = {
            name for name, record in self.nodes.items() if record.status in (NodeStatus.ISOLATING, NodeStatus.ISOLATED)
        }
        return out | {intent.node for intent in self.intents.values() if intent.kind is not IntentKind.RESTORE}


def _plain(record: NodeRecord | Intent | Exemption) -> dict[str, Any]:
    """The fields of a flat record; `asdict` copies deeply, which costs ten times as much."""
    return {name: getattr(record, name) for name in record.__slots__}


def replay(state: DurableState, events: Iterable[Event]) -> DurableState:
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
    intent, by = _intend(IntentKind.ISOLATE, state, event), _text(event, "by")
    offences = state.nodes[intent.node].offences if intent.node in state.nodes else 0
    state.nodes[intent.node] = NodeRecord(
        NodeStatus.ISOLATING,
        event.at_s,
        event.at_s,
        intent.until_s,
        offences + (by == POLICY),
        _number(event, "backoff_s"),
        by,
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


def _renewal_failed(state: DurableState, event: Event) -> None:
    state.intents.pop(_text(event, "key"))


def _action_abandoned(state: DurableState, event: Event) -> None:
    intent = state.intents.pop(_text(event, "key"))
    if intent.kind is IntentKind.ISOLATE:
        _never_isolated(state, intent.node, event.at_s)


def _never_isolated(state: DurableState, node: str, at_s: float) -> None:
    """What it had done before stays on record, this time does not count."""
    record = state.nodes.pop(node)
    earlier = record.offences - (record.by == POLICY)
    if earlier > 0:
        state.nodes[node] = NodeRecord(NodeStatus.HEALTHY, at_s, offences=earlier)


def _isolation_expired(state: DurableState, event: Event) -> None:
    _on_probation(state, _text(event, "node"), event.at_s)


def _on_probation(state: DurableState, node: str, at_s: float) -> None:
    record = state.nodes[node]
    record.status, record.since_s = NodeStatus.PROBATION, at_s


def _readmitted(state: DurableState, event: Event) -> None:
    node = _text(event, "node")
    record = state.nodes[node]
    record.status, record.since_s = NodeStatus.HEALTHY, event.at_s
    _forget_if_spotless(state, node)


def _offence_forgiven(state: DurableState, event: Event) -> None:
    node = _text(event, "node")
    state.nodes[node].offences -= 1
    _forget_if_spotless(state, node)


def _forget_if_spotless(state: DurableState, node: str) -> None:
    record = state.nodes[node]
    if record.offences <= 0 and record.status is NodeStatus.HEALTHY:
        del state.nodes[node]


def _flapping(state: DurableState, event: Event) -> None:
    state.nodes[_text(event, "node")].flapping = True


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
        proposal=data.get("proposal"),
    )
    if state.trial.proposal is not None:
        state.proposals[state.trial.proposal].trial = state.trial.number
    _carried_out(state, state.trial, event, ProposalStatus.APPLIED, "its values are on trial")
    state.trials += 1
    state.actions += 1
    state.trial_tokens, state.trial_tokens_at_s = _number(event, "tokens"), event.at_s
    if state.trial.direction == ALPHA:
        state.alpha_s = event.at_s


def _trial_applied(state: DurableState, event: Event) -> None:
    trial = _open_trial(state)
    trial.applied, trial.applied_s = True, event.at_s


def _rollback_intended(state: DurableState, event: Event) -> None:
    trial = _open_trial(state)
    trial.rollback_key, trial.rollback_s = _text(event, "key"), event.at_s
    trial.fault = RollbackFault(_text(event, "fault"))
    state.actions += 1
    # Why it is taken back is known here, and that it has been only once the plant shows it.
    _carried_out(state, trial, event, ProposalStatus.APPLIED, _judged(trial, event))


def _trial_kept(state: DurableState, event: Event) -> None:
    trial = _close_trial(state, kept=True)
    data, replaced = event.data, event.data.get("replaced")
    if data.get("healed"):
        state.failed_trials = state.exhaustions = 0
        state.exhausted_until_s = 0.0
    elif not (any(data.get(name) for name in ("improved", "interrupted", "well")) or trial.direction in ASIDE):
        state.failed_trials += 1
    if trial.direction in MODELLED and not replaced:
        state.trust = trust_after(state.trust, kept=True)
    proven = data.get("healed") or data.get("improved")
    unproven = ProposalStatus.ROLLED_BACK if replaced else ProposalStatus.APPLIED  # it is no longer in force, or it is
    _carried_out(state, trial, event, ProposalStatus.VERIFIED if proven else unproven, _judged(trial, event))


def _trial_rolled_back(state: DurableState, event: Event) -> None:
    trial = _close_trial(state, kept=False)
    if trial.fault != RollbackFault.NOBODY and trial.direction not in ASIDE:
        state.failed_trials += 1
    if trial.fault == RollbackFault.VALUES and trial.direction in MODELLED:
        state.trust = trust_after(state.trust, kept=False)
    _carried_out(state, trial, event, ProposalStatus.ROLLED_BACK)


def _carried_out(
    state: DurableState, trial: Trial, event: Event, status: ProposalStatus, reason: str | None = None
) -> None:
    """What a trial means for its proposal; None leaves the reason as it is."""
    if trial.proposal is not None:
        record = state.proposals[trial.proposal]
        record.move(status, event.at_s, by=TRIAL, reason=record.reason if reason is None else reason)


def _judged(trial: Trial, event: Event) -> str:
    """Why a trial ends, with what was measured before it and since, as far as that was journaled."""
    data: Mapping[str, Any] = event.data
    told, measured, found = str(data.get("reason", "")), data.get("measured") or {}, data.get("comparison")
    compared = "objective" if trial.direction == IMPROVEMENT else "violation"
    for name in ("violation", "objective"):
        if name in measured and name in trial.baseline:
            told += f"; {name} {trial.baseline[name]:.4f} to {measured[name]:.4f}"
            told += f" (noise alone up to {found['beyond']:.4f})" if found and name == compared else ""
    return told


def _close_trial(state: DurableState, *, kept: bool) -> Trial:
    trial = _open_trial(state)
    # Whoever interrupts a trial says nothing about its direction, which is then tried again.
    if trial.direction not in ASIDE:
        state.last_direction, state.last_kept = trial.direction, kept or trial.fault == RollbackFault.NOBODY
    state.trial = None
    return trial


def _healing_exhausted(state: DurableState, event: Event) -> None:
    state.exhaustions = int(_number(event, "exhaustions"))
    state.exhausted_until_s = _number(event, "until_s")
    state.failed_trials = 0


def _rollback_failed(state: DurableState, event: Event) -> None:
    _hold(state, event, f"a rollback failed: {_text(event, 'reason')}")
    reason = f"its rollback failed: {_text(event, 'reason')}"
    _carried_out(state, _open_trial(state), event, ProposalStatus.APPLIED, reason)
    state.trial = None


def _storm(state: DurableState, event: Event) -> None:
    _hold(
        state, event, f"storm: {_number(event, 'bad'):.0f} of {_number(event, 'assessed'):.0f} nodes look bad at once"
    )


def _doubted(state: DurableState, event: Event) -> None:
    _hold(state, event, f"sensors contradict service by {_number(event, 'disagreement'):.3f}")


def _phase_passed(state: DurableState, _event: Event) -> None:
    state.phase_failures = 0


def _phase_not_passed(state: DurableState, event: Event) -> None:
    state.phase_failures += 1
    if state.phase is Phase.SAFE_MODE:
        _hold(state, event, f"{event.data.get('phase')} has not passed")


def _breached(state: DurableState, event: Event) -> None:
    _hold(state, event, f"invariant {_text(event, 'invariant')} does not hold")


def _safe_mode_left(state: DurableState, event: Event) -> None:
    state.safe_mode = state.safe_mode_cause = None
    state.last_disturbance_s = event.at_s


def _pause_requested(state: DurableState, event: Event) -> None:
    in_force = state.phase is Phase.PAUSED  # it is prolonged, or shortened
    state.pause = PauseRecord(
        _text(event, "by"), _text(event, "reason"), event.at_s, _number(event, "until_s"), acknowledged=in_force
    )


def _paused(state: DurableState, event: Event) -> None:
    if state.pause is None:
        raise KeyError("a pause that was asked for")
    state.pause.acknowledged, state.pause.since_s = True, event.at_s


def _resumed(state: DurableState, event: Event) -> None:
    state.pause = None
    state.last_disturbance_s = event.at_s


def _commanded(state: DurableState, event: Event) -> None:
    key = event.data.get("key")
    if key is not None:
        state.commands[str(key)] = {name: event.data[name] for name in ("asked", "accepted", "answer")}
        while len(state.commands) > COMMANDS_KEPT:
            del state.commands[next(iter(state.commands))]


def _exempted(state: DurableState, event: Event) -> None:
    state.exemptions[_text(event, "node")] = Exemption(
        ExemptionKind(_text(event, "kind")),
        _text(event, "owner"),
        _text(event, "reason"),
        _number(event, "from_s"),
        _number(event, "until_s"),
    )


def _exemption_ended(state: DurableState, event: Event) -> None:
    del state.exemptions[_text(event, "node")]


def _proposal_written(state: DurableState, event: Event) -> None:
    data: Mapping[str, Any] = event.data
    record = ProposalRecord(_text(event, "id"), ProposalStatus.PROPOSED, event.at_s, since_s=event.at_s)
    record.sha256 = str(data.get("sha256", ""))
    for name in ("expires_s", "parameters", "settings"):
        setattr(record, name, data.get(name))
    record.previous = data.get("from")
    if record.parameters is not None:
        record.direction = _text(event, "direction")
    remember(state.proposals, record, None if state.trial is None else state.trial.proposal)


def _proposal_decided(state: DurableState, event: Event) -> None:
    record, status = state.proposals[_text(event, "id")], ProposalStatus(_text(event, "status"))
    record.move(status, event.at_s, by=_text(event, "by"), reason=str(event.data.get("reason", "")))


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
    # What ends by itself gives way to anything, and what is tried again to what needs a person; else the first stands.
    held = state.safe_mode_cause
    if held in SELF_ENDING or (held in RETRIED and event.kind not in SELF_ENDING | RETRIED):
        state.safe_mode, state.safe_mode_cause, state.safe_mode_since_s = reason, event.kind, event.at_s


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
    EventKind.RESTARTED: _run_started,
    EventKind.PHASE_PASSED: _phase_passed,
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
    EventKind.RENEWAL_FAILED: _renewal_failed,
    EventKind.ACTION_ABANDONED: _action_abandoned,
    EventKind.ISOLATION_EXPIRED: _isolation_expired,
    EventKind.NODE_READMITTED: _readmitted,
    EventKind.OFFENCE_FORGIVEN: _offence_forgiven,
    EventKind.NODE_FLAPPING: _flapping,
    EventKind.TRIAL_STARTED: _trial_started,
    EventKind.TRIAL_APPLIED: _trial_applied,
    EventKind.TRIAL_KEPT: _trial_kept,
    EventKind.ROLLBACK_INTENDED: _rollback_intended,
    EventKind.TRIAL_ROLLED_BACK: _trial_rolled_back,
    EventKind.ROLLBACK_FAILED: _rollback_failed,
    EventKind.HEALING_EXHAUSTED: _healing_exhausted,
    EventKind.STORM_DETECTED: _storm,
    EventKind.SENSORS_DOUBTED: _doubted,
    EventKind.INVARIANT_BREACHED: _breached,
    EventKind.SAFE_MODE_LEFT: _safe_mode_left,
    EventKind.PAUSE_REQUESTED: _pause_requested,
    EventKind.PAUSED: _paused,
    EventKind.RESUMED: _resumed,
    EventKind.COMMANDED: _commanded,
    EventKind.COMMAND_REFUSED: _commanded,
    EventKind.NODE_EXEMPTED: _exempted,
    EventKind.EXEMPTION_ENDED: _exemption_ended,
    EventKind.PROPOSAL_WRITTEN: _proposal_written,
    EventKind.PROPOSAL_DECIDED: _proposal_decided,
    EventKind.PROBE_INTENDED: _probe_intended,
    EventKind.PROBE_ENDED: _probe_ended,
}
