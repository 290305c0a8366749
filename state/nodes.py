"""What is done about each node at each tick: isolate, renew, re-admit, and say why not.

The order within a tick is fixed: first the evidence is counted, then what is in flight is settled by what the plant
itself shows, then the whole field is doubted (storm, contradicted sensors), and only then is anything new intended, the
worst first. Per cluster one isolation at a time, then look again, unless a node exceeds twice the critical value:
one bad node lifts its healthy peers.

Source: docs/model.md sections 3 and 5, docs/architecture.md "Isolation policy".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metrics.assessment import Assessment
from state.action import IsolateNode, Reply, RestoreNode
from state.decision import Draft
from state.durable import IntentKind, NodeRecord, NodeStatus
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
RENEW_BEFORE_S = 120.0  # a trial forbids renewals for some 70 s, and no isolation may run out meanwhile


@dataclass(frozen=True, slots=True)
class Licence:
    """What the state allows this tick.

    Attributes:
        watching: wells are confirmed and journaled.
        forbidden_by: the guard that forbids every new action on nodes, or None.
    """

    watching: bool
    forbidden_by: Guard | None = None


class NodeGovernance:
    """The nodes of one plant. Its counters are volatile; everything durable goes through the draft."""

    def __init__(self, policy: IsolationPolicy) -> None:
        self._policy = policy
        self._wells = WellWatch(policy)
        self._in_flight = ReadBack(policy.verify_s)

    @property
    def storm(self) -> tuple[int, int] | None:
        """Nodes that look bad and nodes assessed in the latest tick, where that is a storm; else None."""
        return self._wells.storm

    @property
    def sighted(self) -> bool:
        """Whether any active node gave trusted evidence in the latest tick."""
        return self._wells.sighted

    def count(self, assessment: Assessment) -> None:
        """Take the tick's evidence in, whatever state the controller is in."""
        self._wells.count(view(assessment))

    def restart(self) -> None:
        """Let every node be confirmed afresh."""
        self._wells.restart()

    def replied(self, draft: Draft, key: str, reply: Reply, reason: str, received_s: float) -> None:
        """Take the plant's answer to an action on a node."""
        self._in_flight.replied(draft, key, reply, reason, received_s)

    def reconcile(self, draft: Draft, now_received_s: float) -> None:
        """After a restart nothing is known of what was in flight: look before believing anything."""
        self._in_flight.reconcile(draft, now_received_s)

    def settle(self, draft: Draft, assessment: Assessment) -> None:
        """Take in what the plant shows of what is in flight, and of what it did by itself."""
        seen = view(assessment)
        if seen is None:
            return
        index = seen.topology.index
        for intent in self._in_flight.settle(draft, seen):
            if intent.node in index and intent.kind is IntentKind.ISOLATE:
                # The others of the cluster were pulled by the node that has just gone.
                cluster = int(seen.topology.cluster_of[index[intent.node]])
                self._wells.look_again(seen, cluster, DOUBLE * self._policy.gravity_critical)
            elif intent.node in index and intent.kind is IntentKind.RESTORE:
                self._wells.restart_node(index[intent.node])
        for node in self._in_flight.notice_outsiders(draft, seen):
            self._wells.restart_node(index[node])

    def govern(self, draft: Draft, assessment: Assessment, licence: Licence) -> None:
        """Confirm wells, and intend what is to be done about nodes; a storm confirms nothing."""
        seen = view(assessment)
        if seen is None or not licence.watching:
            return
        if self._wells.storm is None:
            self._wells.record(draft, seen)
            standing = self._standing(draft, seen)
            self._isolate(draft, standing, seen, licence)
            self._blocked_clusters(draft, standing, seen)
        self._readmit(draft, seen, licence)

    def restore(self, draft: Draft, node: str, reason: str) -> None:
        """Intend to let a node take part again."""
        key = f"restore-{draft.state.actions + 1}"
        draft.record(EventKind.RESTORATION_INTENDED, key=key, node=node, reason=reason)
        draft.act(RestoreNode(key, node))

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
        candidates = np.flatnonzero(self._wells.confirmed() & ~standing.out)
        busy = {
            int(topology.cluster_of[topology.index[intent.node]])
            for intent in draft.state.intents.values()
            if intent.node in topology.index
        }
        for index in candidates[np.argsort(-gravity[candidates], kind="stable")].tolist():
            cluster = int(topology.cluster_of[index])
            refusal = self._forbid(standing, index, float(gravity[index]), licence, busy=cluster in busy)
            if refusal is not None:
                self._refuse(draft, refusal, float(gravity[index]))
                continue
            self._intend_isolation(draft, standing, seen, index)
            busy.add(cluster)

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

    def _intend_isolation(self, draft: Draft, standing: Standing, seen: NodeView, index: int) -> None:
        topology, policy, state = seen.topology, self._policy, draft.state
        node, gravity = topology.nodes[index], float(seen.reading.gravity[index])
        standing.take_out(index)
        record = state.nodes.get(node)
        forgiven = _forgiven(record, draft.now_s, policy)
        offence = (record.offences if record else 0) - forgiven + 1
        ttl_s = self._ttl_s(offence)
        h, q, k = (float(value) for value in seen.reading.components[index])
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
            forgiven=forgiven,
            tokens=standing.tokens,
            reason=f"|g| {gravity:.2f} above {policy.gravity_critical:g} for {int(self._wells.nodes.bad[index])} ticks",
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
        for node, record in list(draft.state.nodes.items()):
            index = seen.topology.index.get(node)
            if index is None or node in in_flight:
                continue
            clean = int(self._wells.nodes.clean[index])
            if record.status is NodeStatus.PROBATION and clean >= self._policy.probation_ticks:
                draft.record(EventKind.NODE_READMITTED, node=node)
            elif record.status is NodeStatus.ISOLATED:
                self._end_or_renew(draft, node, record, clean, licence, trusted=bool(seen.reading.trusted[index]))

    def _end_or_renew(
        self, draft: Draft, node: str, record: NodeRecord, clean: int, licence: Licence, *, trusted: bool
    ) -> None:
        policy = self._policy
        time_out_s, backoff_s = draft.now_s - record.isolated_s, policy.backoff_s(record.offences)
        may_return = trusted and clean >= policy.probation_ticks and time_out_s >= backoff_s
        must_renew = trusted and not may_return and draft.now_s >= record.until_s - RENEW_BEFORE_S
        if not may_return and not must_renew:
            return
        rule = "restore" if may_return else "renew"
        if licence.forbidden_by is not None:
            draft.refuse(Refusal(rule, licence.forbidden_by, node, time_out_s, backoff_s, draft.now_s))
        elif may_return:
            self.restore(draft, node, f"clean for {clean} ticks, out for {time_out_s:g} s")
        else:
            self._renew(draft, node, record)

    def _renew(self, draft: Draft, node: str, record: NodeRecord) -> None:
        key, ttl_s = f"renew-{draft.state.actions + 1}", self._ttl_s(record.offences)
        draft.record(EventKind.RENEWAL_INTENDED, key=key, node=node, until_s=draft.now_s + ttl_s)
        draft.act(IsolateNode(key, node, ttl_s))

    def _ttl_s(self, offences: int) -> float:
        """The time limit of an isolation: never so short that its back-off could not be sat out."""
        return max(self._policy.ttl_s, self._policy.backoff_s(offences) + RENEW_BEFORE_S)


def _forgiven(record: NodeRecord | None, now_s: float, policy: IsolationPolicy) -> int:
    """Offences taken back for healthy time since full re-admission."""
    if record is None or record.status is not NodeStatus.HEALTHY:
        return 0
    return min(record.offences, int((now_s - record.since_s) // policy.forgive_s))
