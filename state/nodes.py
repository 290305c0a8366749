"""What is done about each node at each tick: isolate, renew, re-admit, and say why not.

The order within a tick is fixed: first the evidence is counted, then what is in flight is settled by what the plant
itself shows, then the whole field is doubted (storm, contradicted sensors), and only then is anything new intended, the
worst first. Per cluster one isolation at a time, then look again, unless a node exceeds twice the critical value:
one bad node lifts its healthy peers.

Source: docs/model.md sections 3 and 5, docs/architecture.md "Isolation policy".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metrics.assessment import Assessment
from state.action import IsolateNode, Reply, RestoreNode
from state.command import ExemptionKind
from state.decision import Draft
from state.dry_run import DryRun
from state.durable import POLICY, Intent, IntentKind, NodeRecord, NodeStatus
from state.event import EventKind
from state.isolation import (
    SAFETY_GUARDS,
    Guard,
    IsolationPolicy,
    Refusal,
    Standing,
    forbid_cluster,
    forbid_isolation,
)
from state.readback import ReadBack
from state.view import NodeView, view
from state.wells import WellWatch

DOUBLE = 2.0  # a node beyond twice the critical gravity need not wait for a second look
CONSIDERED_MAX = 10_000  # nodes about which something is decided in one tick, the worst; no budget allows more
RENEW_BEFORE_S = 120.0  # a trial forbids renewals for some 70 s, and no isolation may run out meanwhile


@dataclass(frozen=True, slots=True)
class Licence:
    """What the state allows this tick.

    Attributes:
        watching: wells are confirmed and journaled.
        forbidden_by: the guard that forbids every new action on nodes, or None.
        static: whoever is out stays out: time limits are renewed whatever the evidence, and nobody is let in.
        suspected_by: the guard that suspects the evidence as a whole, or None.
        renewals_forbidden_by: the guard that forbids even renewals, because nothing may be done at all, or None.
    """

    watching: bool
    forbidden_by: Guard | None = None
    static: bool = False
    suspected_by: Guard | None = None
    renewals_forbidden_by: Guard | None = None


class NodeGovernance:
    """The nodes of one plant. Its counters are volatile; everything durable goes through the draft."""

    def __init__(self, policy: IsolationPolicy) -> None:
        self._policy = policy
        self._wells = WellWatch(policy)
        self._in_flight = ReadBack(policy.verify_s)
        self._dry_run = DryRun(policy)
        self._spared: frozenset[str] = frozenset()
        self._healthy: dict[str, tuple[int, float]] = {}  # calm ticks, and their time since an offence was taken back
        self._renewed_at: dict[str, float] = {}
        self._due: set[str] = set()  # nodes that are out while nobody knows for how much longer
        self._seen: NodeView | None = None
        self._latest: tuple[int, float] | None = None  # tick and plant time
        self._tick_s = 1.0

    @property
    def storm(self) -> tuple[int, int] | None:
        """Nodes that look bad and nodes assessed in the latest tick, where that is a storm; else None."""
        return self._wells.storm

    @property
    def sighted(self) -> bool:
        """Whether any active node gave trusted evidence in the latest tick."""
        return self._wells.sighted

    def count(self, assessment: Assessment, spared: frozenset[str] = frozenset()) -> None:
        """Take the tick's evidence in, but for that of the nodes `spared`, whatever state the controller is in."""
        if self._latest is not None and assessment.tick > self._latest[0]:
            self._tick_s = (assessment.plant_time_s - self._latest[1]) / (assessment.tick - self._latest[0])
        self._latest = (assessment.tick, assessment.plant_time_s)
        self._seen, self._spared = view(assessment), spared
        self._wells.count(self._seen, spared)

    def restart(self) -> None:
        """Let every node be confirmed afresh."""
        self._wells.restart()
        self._healthy.clear()
        self._renewed_at.clear()

    def replied(self, draft: Draft, key: str, reply: Reply, reason: str, received_s: float) -> None:
        """Take the plant's answer to an action on a node."""
        self._in_flight.replied(draft, key, reply, reason, received_s)

    def reconcile(self, draft: Draft, now_received_s: float) -> None:
        """After a restart nothing is known of what was in flight: look before believing anything.

        Nor is it known for how long we were away, while the plant's time limits went on: whoever is out is renewed.
        """
        self.restart()
        self._in_flight.reconcile(draft, now_received_s)
        self._due = draft.state.out_of_service()

    def settle(self, draft: Draft, assessment: Assessment) -> None:
        """Take in what the plant shows of what is in flight, and of what it did by itself."""
        seen = view(assessment)
        if seen is None:
            return
        index = seen.topology.index
        for intent in self._in_flight.settle(draft, seen):
            self._notice_flapping(draft, intent)
            if intent.kind is IntentKind.RENEW and draft.state.nodes[intent.node].until_s == intent.until_s:
                self._due.discard(intent.node)
            if intent.node in index and intent.kind is IntentKind.ISOLATE:
                # The others of the cluster were pulled by the node that has just gone.
                cluster = int(seen.topology.cluster_of[index[intent.node]])
                self._wells.look_again(seen, cluster, DOUBLE * self._policy.gravity_critical)
            elif intent.node in index and intent.kind is IntentKind.RESTORE:
                self._wells.restart_node(index[intent.node])
        for node in self._in_flight.notice_outsiders(draft, seen):
            self._wells.restart_node(index[node])

    def _notice_flapping(self, draft: Draft, intent: Intent) -> None:
        """An isolation by the policy, once too often, has taken effect: from now on a person decides."""
        record = draft.state.nodes.get(intent.node)
        if record is None or intent.kind is not IntentKind.ISOLATE or record.status is not NodeStatus.ISOLATED:
            return
        if record.by == POLICY and record.offences >= self._policy.flap_offences:
            draft.record(EventKind.NODE_FLAPPING, node=intent.node, offences=record.offences)

    def govern(self, draft: Draft, assessment: Assessment, licence: Licence) -> None:
        """Confirm wells, and intend what is to be done about nodes; a storm confirms nothing, and says of whom."""
        seen = view(assessment)
        if seen is None or not licence.watching:
            return
        if self._wells.storm is None:
            self._wells.record(draft, seen)
            standing = self._standing(draft, seen)
            self._isolate(draft, standing, seen, licence)
            self._blocked_clusters(draft, standing, seen)
        else:
            self._leave(draft, seen, np.flatnonzero(self._wells.looking_bad), Guard.STORM)
        if self._spared:
            bad = seen.assessed() & (seen.reading.gravity > self._policy.gravity_critical)
            spared = (seen.topology.index.get(node) for node in self._spared)
            left = sorted(index for index in spared if index is not None and bad[index])
            self._leave(draft, seen, np.array(left, dtype=np.intp), Guard.MAINTENANCE)
        self._readmit(draft, seen, licence)

    def restore(self, draft: Draft, node: str, reason: str, by: str = POLICY) -> None:
        """Intend to let a node take part again."""
        key = f"restore-{draft.state.actions + 1}"
        draft.record(EventKind.RESTORATION_INTENDED, key=key, node=node, reason=reason, by=by)
        draft.act(RestoreNode(key, node))

    @property
    def shortest_s(self) -> float:
        """An isolation that is asked for may not be shorter: it would end before it was verified."""
        return self._policy.verify_s

    def knows(self, node: str) -> bool:
        """Whether the latest tick showed a node of that name."""
        return self._seen is not None and node in self._seen.topology.index

    def isolate_by_hand(
        self, draft: Draft, node: str, licence: Licence, *, by: str, reason: str, for_s: float | None
    ) -> Refusal | None:
        """Intend to take a node out because a person says so; the refusal, if a guard forbids it."""
        seen = self._seen
        if seen is None:
            return Refusal("isolate", Guard.EVIDENCE_NODES, node, 0.0, self._policy.evidence_nodes_min, draft.now_s)
        index, standing = seen.topology.index[node], self._standing(draft, seen)
        gravity = float(seen.reading.gravity[index])
        guard = Guard.IN_FLIGHT if standing.out[index] else licence.forbidden_by
        if guard is not None:
            return Refusal("isolate", guard, node, gravity, self._policy.gravity_critical, draft.now_s)
        refusal = self._exempted(draft, node, gravity) or forbid_isolation(self._policy, standing, index)
        if refusal is None:
            self._intend_isolation(draft, standing, seen, index, by=by, reason=reason, for_s=for_s)
        return refusal

    def _standing(self, draft: Draft, seen: NodeView) -> Standing:
        state, topology = draft.state, seen.topology
        out = ~seen.active
        for node in state.out_of_service():
            if node in topology.index:
                out[topology.index[node]] = True
        tokens = self._policy.tokens(state.tokens, draft.now_s - state.tokens_at_s, len(topology.nodes))
        return Standing(topology, out, int(np.count_nonzero(seen.assessed())), tokens, draft.now_s)

    def _isolate(self, draft: Draft, standing: Standing, seen: NodeView, licence: Licence) -> None:
        topology, gravity = seen.topology, seen.reading.gravity
        if licence.forbidden_by is Guard.DRY_RUN:
            self._dry_run.stand(
                standing, lambda index: int(self._wells.nodes.clean[index]) >= self._policy.probation_ticks
            )
        candidates = np.flatnonzero(self._wells.confirmed() & ~standing.out)
        busy = {
            int(topology.cluster_of[topology.index[intent.node]])
            for intent in draft.state.intents.values()
            if intent.node in topology.index
        }
        for index in _worst_first(draft, candidates, gravity, Guard.LOOK_AGAIN):
            cluster = int(topology.cluster_of[index])
            value = float(gravity[index])
            refusal = self._exempted(draft, topology.nodes[index], value)
            refusal = refusal or self._forbid(standing, index, value, licence, busy=cluster in busy)
            if refusal is not None:
                self._refuse(draft, refusal, float(gravity[index]))
                if refusal.guard is Guard.DRY_RUN:
                    self._dry_run.take_out(standing, index)
                    busy.add(cluster)
                continue
            self._intend_isolation(draft, standing, seen, index)
            busy.add(cluster)

    def _leave(self, draft: Draft, seen: NodeView, nodes: NDArray[np.intp], guard: Guard) -> None:
        """Say of nodes that look bad, before any of them is confirmed, why they are left alone."""
        gravity, critical = seen.reading.gravity, self._policy.gravity_critical
        for index in _worst_first(draft, nodes, gravity, guard):
            draft.refuse(
                Refusal("isolate", guard, seen.topology.nodes[index], float(gravity[index]), critical, draft.now_s)
            )

    def _forbid(
        self, standing: Standing, index: int, gravity: float, licence: Licence, *, busy: bool
    ) -> Refusal | None:
        node, critical, at_s = standing.topology.nodes[index], self._policy.gravity_critical, standing.at_s
        refusal = forbid_isolation(self._policy, standing, index)
        if refusal is None and busy and gravity <= DOUBLE * critical:
            refusal = Refusal("isolate", Guard.LOOK_AGAIN, node, gravity, DOUBLE * critical, at_s)
        if refusal is None and self._wells.clusters.bad[standing.topology.cluster_of[index]]:
            # The cluster as a whole goes astray: its nodes then look bad against each other without being the cause.
            refusal = Refusal("isolate", Guard.CLUSTER_WELL, node, gravity, critical, at_s)
        if refusal is None and licence.forbidden_by is not None:
            refusal = Refusal("isolate", licence.forbidden_by, node, gravity, critical, at_s)
        return refusal

    def _exempted(self, draft: Draft, node: str, gravity: float) -> Refusal | None:
        exemption = draft.state.exemptions.get(node)
        if exemption is None or not exemption.from_s <= draft.now_s < exemption.until_s:
            return None
        guard = Guard.VETO if exemption.kind is ExemptionKind.VETO else Guard.MAINTENANCE
        return Refusal("isolate", guard, node, gravity, self._policy.gravity_critical, draft.now_s)

    def _intend_isolation(
        self,
        draft: Draft,
        standing: Standing,
        seen: NodeView,
        index: int,
        *,
        by: str = POLICY,
        reason: str = "",
        for_s: float | None = None,
    ) -> None:
        topology, policy, state = seen.topology, self._policy, draft.state
        node, gravity = topology.nodes[index], _finite(seen.reading.gravity[index])
        standing.take_out(index)
        self._due.discard(node)
        record = state.nodes.get(node)
        offence = (record.offences if record else 0) + (by == POLICY)
        backoff_s = policy.backoff_s(node, offence)
        ttl_s = for_s if for_s is not None else self._ttl_s(backoff_s)
        h, q, k = (_finite(value) for value in seen.reading.components[index])
        key = f"isolate-{state.actions + 1}"
        draft.record(
            EventKind.ISOLATION_INTENDED,
            key=key,
            node=node,
            cluster=topology.clusters[topology.cluster_of[index]],
            gravity=gravity,
            components={"h": h, "q": q, "k": k},
            until_s=draft.now_s + ttl_s,
            offence=offence,
            backoff_s=backoff_s,
            by=by,
            tokens=standing.tokens,
            reason=reason
            or f"|g| {gravity:.2f} above {policy.gravity_critical:g} for {int(self._wells.nodes.bad[index])} ticks",
        )
        draft.act(IsolateNode(key, node, ttl_s))

    def _refuse(self, draft: Draft, refusal: Refusal, gravity: float) -> None:
        draft.refuse(refusal)
        if refusal.guard in SAFETY_GUARDS and draft.state.blocked.get(refusal.subject) != refusal.guard:
            draft.record(
                EventKind.ISOLATION_BLOCKED,
                subject=refusal.subject,
                gravity=gravity,
                guard=refusal.guard,
                observed=refusal.observed,
                limit=refusal.limit,
            )

    def _blocked_clusters(self, draft: Draft, standing: Standing, seen: NodeView) -> None:
        """A whole cluster is never isolated node by node: the guards of all its nodes at once decide, and say no."""
        for index in self._wells.confirmed_clusters().tolist():
            refusal = forbid_cluster(self._policy, standing, index)
            if refusal is not None:
                self._refuse(draft, refusal, float(seen.reading.cluster_gravity[index]))

    def _readmit(self, draft: Draft, seen: NodeView, licence: Licence) -> None:
        in_flight = {intent.node for intent in draft.state.intents.values()}
        for node, record in sorted(draft.state.nodes.items()):
            index = seen.topology.index.get(node)
            if index is None or node in in_flight:
                continue
            clean = int(self._wells.nodes.clean[index])
            self._forgive(draft, node, record, int(self._wells.nodes.calm[index]))
            if record.status is NodeStatus.PROBATION and clean >= self._policy.probation_ticks:
                draft.record(EventKind.NODE_READMITTED, node=node)
            elif record.status is NodeStatus.ISOLATED:
                self._end_or_renew(draft, node, record, clean, licence, trusted=bool(seen.reading.trusted[index]))

    def _end_or_renew(
        self, draft: Draft, node: str, record: NodeRecord, clean: int, licence: Licence, *, trusted: bool
    ) -> None:
        if record.by != POLICY and not record.flapping:
            return  # an operator's isolation ends by hand, or by the time limit that was asked for
        policy, time_out_s = self._policy, draft.now_s - record.isolated_s
        held_back = self._held_back(record, clean, time_out_s, trusted=trusted)
        if held_back is None and licence.forbidden_by is None:
            self.restore(draft, node, f"clean for {clean} ticks, out for {time_out_s:g} s")
            return
        guard, observed, limit = held_back or (licence.forbidden_by, clean, policy.probation_ticks)
        draft.refuse(Refusal("restore", str(guard), node, observed, limit, draft.now_s))
        runs_out = draft.now_s >= record.until_s - RENEW_BEFORE_S and (trusted or licence.static or record.flapping)
        renewed_s = draft.now_s - self._renewed_at.get(node, -math.inf)
        stays = held_back is not None or licence.static
        if stays and (runs_out or node in self._due) and renewed_s >= policy.verify_s:
            self._renew(draft, node, record, licence)

    def _held_back(
        self, record: NodeRecord, clean: int, time_out_s: float, *, trusted: bool
    ) -> tuple[Guard, float, float] | None:
        """Why a node that is out may not return yet, with what was observed and the limit, or None."""
        if record.flapping:
            return Guard.FLAPPING, record.offences, self._policy.flap_offences
        if not trusted or clean < self._policy.probation_ticks:
            return Guard.NOT_CLEAN, clean, self._policy.probation_ticks
        return (Guard.BACKOFF, time_out_s, record.backoff_s) if time_out_s < record.backoff_s else None

    def _renew(self, draft: Draft, node: str, record: NodeRecord, licence: Licence) -> None:
        self._renewed_at[node] = draft.now_s  # a renewal that fails is not tried again at every tick
        guard = licence.renewals_forbidden_by
        if guard is not None:
            draft.refuse(Refusal("renew", guard, node, draft.now_s, record.until_s, draft.now_s))
            return
        key, ttl_s = f"renew-{draft.state.actions + 1}", self._ttl_s(record.backoff_s)
        draft.record(EventKind.RENEWAL_INTENDED, key=key, node=node, until_s=draft.now_s + ttl_s)
        draft.act(IsolateNode(key, node, ttl_s))

    def _ttl_s(self, backoff_s: float) -> float:
        """The time limit of an isolation: never so short that its back-off could not be sat out."""
        return max(self._policy.ttl_s, backoff_s + RENEW_BEFORE_S)

    def _forgive(self, draft: Draft, node: str, record: NodeRecord, calm: int) -> None:
        """Take an offence back for healthy evidence: ticks that were seen and not bad, not mere time."""
        if record.status is not NodeStatus.HEALTHY or record.offences == 0:
            self._healthy.pop(node, None)
            return
        before, healthy_s = self._healthy.get(node, (0, 0.0))
        if calm < before:  # it has looked bad in between
            before, healthy_s = 0, 0.0
        healthy_s += (calm - before) * self._tick_s
        if healthy_s >= self._policy.forgive_s:
            draft.record(EventKind.OFFENCE_FORGIVEN, node=node, offences=record.offences - 1)
            healthy_s = 0.0
        self._healthy[node] = (calm, healthy_s)


def _worst_first(draft: Draft, nodes: NDArray[np.intp], gravity: NDArray[np.float64], guard: Guard) -> list[int]:
    """The worst of the nodes, not more than can be considered in a tick; of the rest it is said that they were not."""
    worst_first: list[int] = nodes[np.argsort(-gravity[nodes], kind="stable")].tolist()
    if len(worst_first) > CONSIDERED_MAX:
        rest = f"{len(worst_first) - CONSIDERED_MAX} further nodes"
        draft.refuse(Refusal("isolate", guard, rest, len(worst_first), CONSIDERED_MAX, draft.now_s))
    return worst_first[:CONSIDERED_MAX]


def _finite(value: float) -> float:
    """What a journal can carry: evidence that is not known reads as 0 there, which only a person may act upon."""
    return float(value) if np.isfinite(value) else 0.0
