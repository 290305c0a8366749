"""What must hold of everything that becomes durable: replay, epochs, time, rates, back-offs, pauses, evidence."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from controller.simulation.evidence import EvidenceBook
from controller.simulation.ground import Ground, ViolatedError
from metrics.observation import Topology
from state.durable import POLICY, DurableState
from state.event import Event, EventKind
from state.machine import PhaseMachine
from state.restore import restored

LAG_MAX_S = 10.0
SLACK_S = 1e-6
ACTIONS = frozenset({EventKind.ISOLATION_INTENDED, EventKind.RESTORATION_INTENDED, EventKind.TRIAL_STARTED})
UNDONE = frozenset({EventKind.ISOLATION_FAILED, EventKind.ACTION_ABANDONED})


class JournalChecks:
    """Watches the disk.

    Args:
        ground: the facts.
        told: whoever else is to know of each event.

    Attributes:
        shadow: the durable state as the synced bytes give it.
        events: how many there are so far.
        epoch: of the latest.
    """

    def __init__(self, ground: Ground, told: Callable[[Event], None]) -> None:
        self.shadow = DurableState(PhaseMachine(daemon=True))
        self.events = 0
        self._ground, self._told = ground, told
        self._nodes = 0
        self.epoch = 0
        self._at_s = 0.0
        self._lost_s = -math.inf  # true time that the governor's time is behind: what is lost is never made up for
        self._tokens: tuple[float, float] | None = None  # tokens left, and when
        self._pause_until_s = 0.0
        self._isolated: dict[str, tuple[float, float]] = {}  # when, and for how long at least
        self._offences: dict[str, int] = {}
        self._isolating: dict[str, tuple[str, str]] = {}  # key to node and by whom

    def synced(self, rows: Sequence[tuple[Any, ...]], evidence: EvidenceBook, topology: Topology | None) -> None:
        """Rows have become durable."""
        sizes = _sizes(topology)
        self._nodes = sizes[0]
        for _, epoch, body, *_ in rows:
            plain = json.loads(body)
            event = Event(EventKind(plain["kind"]), plain["at_s"], plain["data"])
            self.events += 1
            if epoch < self.epoch:
                raise ViolatedError("epochs_never_decrease", f"{event.kind} of epoch {epoch} after {self.epoch}")
            self.epoch = epoch
            self._time(event)
            self._check(event, evidence)
            self._ground.note(event, sizes)
            self._told(event)
            if event.kind is EventKind.SNAPSHOT:
                kept = restored(event.data["state"], daemon=True)  # type: ignore[arg-type]  # as it was written
                if kept.snapshot() != self.shadow.snapshot():
                    raise ViolatedError("replay_gives_the_state", "a snapshot is not what its events give")
            else:
                self.shadow.apply(event)

    def _time(self, event: Event) -> None:
        """The governor's time never goes back, and never gains on true time, whatever clocks and restarts do."""
        if event.at_s < self._at_s:
            raise ViolatedError("time_goes_on", f"{event.kind} at {event.at_s} s after {self._at_s} s")
        self._at_s = event.at_s
        if self._ground.tick_s is None:
            return  # until the plant has been seen, nobody knows how old it is
        lost_s = self._ground.tick_s - event.at_s
        if lost_s < self._lost_s - SLACK_S:
            gained_s = self._lost_s - lost_s
            raise ViolatedError("no_clock_moves_a_timer", f"{event.kind}: the governor's time gained {gained_s:g} s")
        self._lost_s = max(self._lost_s, lost_s)

    def _check(self, event: Event, evidence: EvidenceBook) -> None:
        data: Any = event.data
        if event.kind in ACTIONS:
            self._may_act(event, evidence)
        match event.kind:
            case EventKind.ISOLATION_INTENDED:
                self._isolation(event, evidence)
            case EventKind.RESTORATION_INTENDED if data["by"] == POLICY:
                self._backoff(event)
            case EventKind.OFFENCE_FORGIVEN:
                self._offences[data["node"]] -= 1
            case EventKind.ISOLATION_VERIFIED:
                self._isolating.pop(data["key"], None)
            case EventKind.PAUSE_REQUESTED:
                self._pause_until_s = data["until_s"]
            case EventKind.RESUMED:
                if event.at_s < self._pause_until_s and "resume" not in self._ground.commands:
                    raise ViolatedError("pause_is_kept", f"it ended at {event.at_s} s, not at {self._pause_until_s} s")
                self._ground.commands = [name for name in self._ground.commands if name != "resume"]
        if event.kind in UNDONE and data["key"] in self._isolating:
            node, by = self._isolating.pop(data["key"])
            self._offences[node] -= by == POLICY

    def _may_act(self, event: Event, evidence: EvidenceBook) -> None:
        ground = self._ground
        if ground.paused:
            raise ViolatedError("pause_is_kept", f"{event.kind} in an acknowledged pause")
        policy = ground.policy
        if evidence.storm(policy.gravity_critical, policy.storm_fraction, policy.evidence_nodes_min, event.at_s):
            raise ViolatedError("a_storm_is_no_evidence", f"{event.kind} while the field is suspect")
        if evidence.lag_s > LAG_MAX_S:
            raise ViolatedError("evidence_is_fresh", f"{event.kind} on a tick that lags by {evidence.lag_s:g} s")

    def _isolation(self, event: Event, evidence: EvidenceBook) -> None:
        data: Any = event.data
        policy, node, by = self._ground.policy, str(data["node"]), str(data["by"])
        if by == POLICY:
            bad = evidence.bad_ticks(node, policy.gravity_critical)
            if bad < policy.confirm_ticks or not evidence.shows_active(node):
                raise ViolatedError("evidence_counts", f"{node} was to be isolated after {bad} bad ticks")
        offences = self._offences[node] = self._offences.get(node, 0) + (by == POLICY)
        if data["offence"] != offences:
            raise ViolatedError("offences_are_kept", f"{node}: offence {data['offence']}, counted {offences}")
        least_s = min(policy.backoff_max_s, policy.backoff_base_s * max(1, offences))
        if data["backoff_s"] < least_s - SLACK_S:
            raise ViolatedError("backoff_is_kept", f"{node}: back-off {data['backoff_s']} s, at least {least_s} s")
        self._isolated[node] = (event.at_s, float(data["backoff_s"]))
        self._isolating[str(data["key"])] = (node, by)
        self._spend_token(event)

    def _backoff(self, event: Event) -> None:
        node = str(event.data["node"])
        since_s, backoff_s = self._isolated[node]
        if event.at_s - since_s < backoff_s - SLACK_S:
            raise ViolatedError("backoff_is_kept", f"{node} was let in after {event.at_s - since_s} s of {backoff_s} s")

    def _spend_token(self, event: Event) -> None:
        policy = self._ground.policy
        scaled = policy.rate_share * self._nodes
        burst, per_minute = max(policy.burst, scaled), max(policy.rate_per_minute, scaled)
        left, at_s = self._tokens or (burst, event.at_s)
        left = min(burst, left + per_minute / 60.0 * (event.at_s - at_s)) - 1.0
        if left < -SLACK_S:
            raise ViolatedError("rate_is_kept", f"{event.data['node']}: {left:.3f} tokens left")
        self._tokens = (left, event.at_s)


def _sizes(topology: Topology | None) -> tuple[int, dict[str, int]]:
    if topology is None:
        return 0, {}
    return len(topology.nodes), {n: int(topology.sizes[topology.cluster_of[i]]) for n, i in topology.index.items()}
