"""What became of every isolation and every trial of a run, told from its events alone?

The journal holds single facts; people ask about stories: who was taken out, why, was it verified, is it back? These
stories are a pure function of the events, so they read the same live, in a report and from a journal of last week.

Assumption: the events are in the journal's order. What contradicts it (an answer to an unknown key) is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from state.event import Event, EventKind


@dataclass(frozen=True, slots=True)
class Isolation:
    """One isolation of one node, from the intent to the return.

    Attributes:
        key: idempotency key of the intent.
        node, cluster: who.
        gravity: |g| when it was decided.
        components: h, q and k of the gravity vector.
        reason: why, in a sentence.
        offence: 1 for the first time.
        probe: the probe that made the node ill on purpose, or None.
        intended_at_s, applied_at_s, verified_at_s, restored_at_s: plant times; None for what has not happened.
        until_s: time limit, the latest renewal included.
        renewals: verified renewals of the limit.
        failure: why it could not be carried out, or None.
        return_reason: why the node was let in again, or None.
    """

    key: str
    node: str
    cluster: str
    gravity: float
    components: Mapping[str, float]
    reason: str
    offence: int
    probe: str | None
    intended_at_s: float
    until_s: float
    applied_at_s: float | None = None
    verified_at_s: float | None = None
    restored_at_s: float | None = None
    renewals: int = 0
    failure: str | None = None
    return_reason: str | None = None

    @property
    def verified(self) -> bool:
        """True where the plant itself showed the node as isolated."""
        return self.verified_at_s is not None

    @property
    def out(self) -> bool:
        """True while the node is out, or may be."""
        return self.restored_at_s is None and self.failure is None


@dataclass(frozen=True, slots=True)
class Blocked:
    """A gravity well that a safety guard forbade to isolate."""

    subject: str
    gravity: float
    guard: str
    observed: float
    limit: float
    at_s: float


@dataclass(frozen=True, slots=True)
class TrialStory:
    """One parameter trial.

    Attributes:
        trial: 1 for the first.
        key: idempotency key of the change.
        before, after: the parameters before and on trial.
        direction: which rule of the tuner proposed it.
        reason: why it was made.
        baseline, measured: means over the windows before and after; `measured` is None where it never came to that.
        started_at_s, applied_at_s, ended_at_s: plant times; None for what has not happened.
        outcome: "open", "kept", "rolled_back" or "rollback_failed".
        rollback_reason: why it was rolled back, or None.
        diagnosis: whose fault the KPIs were held to be, with the evidence; see `state.diagnosis`.
    """

    trial: int
    key: str
    before: Mapping[str, float]
    after: Mapping[str, float]
    direction: str
    reason: str
    baseline: Mapping[str, float]
    started_at_s: float
    measured: Mapping[str, float] | None = None
    applied_at_s: float | None = None
    ended_at_s: float | None = None
    outcome: str = "open"
    rollback_reason: str | None = None
    diagnosis: Mapping[str, Any] | None = None

    def changed(self) -> dict[str, tuple[float, float]]:
        """The parameters that differ, each from and to."""
        return {
            name: (self.before[name], value) for name, value in self.after.items() if self.before.get(name) != value
        }


@dataclass(frozen=True, slots=True)
class Timeline:
    """The stories of a run, each kind in the order in which they began."""

    isolations: tuple[Isolation, ...]
    blocked: tuple[Blocked, ...]
    trials: tuple[TrialStory, ...]


def timeline(events: Iterable[Event]) -> Timeline:
    """The stories that `events` amount to."""
    teller = _Teller()
    for event in events:
        teller.hear(event)
    return Timeline(tuple(teller.isolations.values()), tuple(teller.blocked), tuple(teller.trials.values()))


class _Teller:
    def __init__(self) -> None:
        self.isolations: dict[str, Isolation] = {}
        self.blocked: list[Blocked] = []
        self.trials: dict[int, TrialStory] = {}
        self._probes: dict[str, str] = {}  # the node that an open probe made ill, to the probe
        self._renewals: dict[str, float] = {}  # key of a renewal to its new time limit

    def hear(self, event: Event) -> None:
        """Take one event in."""
        tell = _TELL.get(event.kind)
        if tell is not None:
            tell(self, event.data, event.at_s)

    def probe_intended(self, data: Mapping[str, Any], _at_s: float) -> None:
        if "node" in data:
            self._probes[data["node"]] = data["probe"]

    def probe_ended(self, data: Mapping[str, Any], _at_s: float) -> None:
        self._probes = {node: probe for node, probe in self._probes.items() if probe != data["probe"]}

    def isolation_intended(self, data: Mapping[str, Any], at_s: float) -> None:
        self.isolations[data["key"]] = Isolation(
            key=data["key"],
            node=data["node"],
            cluster=data["cluster"],
            gravity=data["gravity"],
            components=dict(data["components"]),
            reason=data["reason"],
            offence=data["offence"],
            probe=self._probes.get(data["node"]),
            intended_at_s=at_s,
            until_s=data["until_s"],
        )

    def applied(self, data: Mapping[str, Any], at_s: float) -> None:
        if data["key"] in self.isolations:
            self._isolation(data["key"], applied_at_s=at_s)

    def isolation_verified(self, data: Mapping[str, Any], at_s: float) -> None:
        if data["key"] in self.isolations:
            self._isolation(data["key"], verified_at_s=at_s)

    def isolation_failed(self, data: Mapping[str, Any], _at_s: float) -> None:
        # The key of a renewal or a return that failed is none of an isolation: the node is still out.
        if data["key"] in self.isolations:
            self._isolation(data["key"], failure=data["reason"])

    def renewal_intended(self, data: Mapping[str, Any], _at_s: float) -> None:
        self._renewals[data["key"]] = data["until_s"]

    def renewal_verified(self, data: Mapping[str, Any], _at_s: float) -> None:
        story = self._latest(data["node"])
        if story is not None:
            until_s = self._renewals.get(data["key"], story.until_s)
            self._isolation(story.key, until_s=until_s, renewals=story.renewals + 1)

    def restoration_intended(self, data: Mapping[str, Any], _at_s: float) -> None:
        story = self._latest(data["node"])
        if story is not None:
            self._isolation(story.key, return_reason=data["reason"])

    def restored(self, data: Mapping[str, Any], at_s: float) -> None:
        story = self._latest(data["node"])
        if story is not None:
            self._isolation(story.key, restored_at_s=at_s)

    def expired(self, data: Mapping[str, Any], at_s: float) -> None:
        self.restoration_intended(data, at_s)
        self.restored(data, at_s)

    def isolation_blocked(self, data: Mapping[str, Any], at_s: float) -> None:
        self.blocked.append(
            Blocked(data["subject"], data["gravity"], str(data["guard"]), data["observed"], data["limit"], at_s)
        )

    def trial_started(self, data: Mapping[str, Any], at_s: float) -> None:
        self.trials[data["trial"]] = TrialStory(
            trial=data["trial"],
            key=data["key"],
            before=dict(data["from"]),
            after=dict(data["to"]),
            direction=data["direction"],
            reason=data["reason"],
            baseline=dict(data["baseline"]),
            started_at_s=at_s,
            diagnosis=data.get("diagnosis"),
        )

    def trial_applied(self, data: Mapping[str, Any], at_s: float) -> None:
        self._trial(data, applied_at_s=at_s)

    def trial_kept(self, data: Mapping[str, Any], at_s: float) -> None:
        self._trial(data, outcome="kept", ended_at_s=at_s, measured=data.get("measured"))

    def rollback_intended(self, data: Mapping[str, Any], _at_s: float) -> None:
        self._trial(data, rollback_reason=data["reason"], measured=data.get("measured"))

    def rolled_back(self, data: Mapping[str, Any], at_s: float) -> None:
        self._trial(data, outcome="rolled_back", ended_at_s=at_s)

    def rollback_failed(self, data: Mapping[str, Any], at_s: float) -> None:
        self._trial(data, outcome="rollback_failed", ended_at_s=at_s)

    def _latest(self, node: str) -> Isolation | None:
        return next((story for story in reversed(self.isolations.values()) if story.node == node and story.out), None)

    def _isolation(self, key: str, **changes: Any) -> None:  # noqa: ANN401 - the fields of `Isolation`
        self.isolations[key] = replace(self.isolations[key], **changes)

    def _trial(self, data: Mapping[str, Any], **changes: Any) -> None:  # noqa: ANN401 - the fields of `TrialStory`
        if data["trial"] in self.trials:
            self.trials[data["trial"]] = replace(self.trials[data["trial"]], **changes)


_TELL: Mapping[EventKind, Callable[[_Teller, Mapping[str, Any], float], None]] = {
    EventKind.PROBE_INTENDED: _Teller.probe_intended,
    EventKind.PROBE_ENDED: _Teller.probe_ended,
    EventKind.ISOLATION_INTENDED: _Teller.isolation_intended,
    EventKind.ACTION_APPLIED: _Teller.applied,
    EventKind.ISOLATION_VERIFIED: _Teller.isolation_verified,
    EventKind.ISOLATION_FAILED: _Teller.isolation_failed,
    EventKind.RENEWAL_INTENDED: _Teller.renewal_intended,
    EventKind.RENEWAL_VERIFIED: _Teller.renewal_verified,
    EventKind.RESTORATION_INTENDED: _Teller.restoration_intended,
    EventKind.RESTORATION_VERIFIED: _Teller.restored,
    EventKind.ISOLATION_EXPIRED: _Teller.expired,
    EventKind.ISOLATION_BLOCKED: _Teller.isolation_blocked,
    EventKind.TRIAL_STARTED: _Teller.trial_started,
    EventKind.TRIAL_APPLIED: _Teller.trial_applied,
    EventKind.TRIAL_KEPT: _Teller.trial_kept,
    EventKind.ROLLBACK_INTENDED: _Teller.rollback_intended,
    EventKind.TRIAL_ROLLED_BACK: _Teller.rolled_back,
    EventKind.ROLLBACK_FAILED: _Teller.rollback_failed,
}
