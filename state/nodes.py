"""What happens to each node at each tick: read back, confirm, isolate, renew, re-admit.

The order within a tick is fixed: first what is in flight is settled by what the plant itself shows, then the evidence
is counted, then the whole field is doubted (storm, contradicted sensors), and only then is anything new intended, the
worst first. Per cluster one isolation at a time, then look again, unless a node exceeds twice the critical value:
one bad node lifts its healthy peers.

Source: docs/model.md sections 3 and 5, docs/architecture.md "Isolation policy".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from metrics.assessment import Assessment
from numpy.typing import NDArray

from metrics.gravity import FieldReading
from metrics.observation import Topology
from state.action import IsolateNode, Reply, RestoreNode
from state.confirmation import Confirmation
from state.decision import Draft
from state.durable import Intent, IntentKind, NodeRecord, NodeStatus
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

DOUBLE = 2.0  # a node beyond twice the critical gravity need not wait for a second look
RENEW_BEFORE_S = 60.0


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
        self._topology: Topology | None = None
        self._nodes = self._counters(0)
        self._clusters = self._counters(0)
        self._replied_at: dict[str, float] = {}
        self._first_look_s: dict[str, float] = {}
        self.storm: tuple[int, int] | None = None

    def count(self, assessment: Assessment) -> None:
        """Take the tick's evidence in, whatever state the controller is in."""
        reading, topology, active = assessment.reading, assessment.topology, assessment.active
        self.storm = None
        if reading is None or topology is None or active is None:
            return
        if self._topology is None or self._topology.nodes != topology.nodes:
            self._nodes = self._counters(len(topology.nodes))
            self._clusters = self._counters(len(topology.clusters))
        self._topology = topology
        bad = self._nodes.update(reading.gravity, reading.trusted)
        self._clusters.update(reading.cluster_gravity, _clusters_trusted(topology, reading, active))
        assessed = int(np.count_nonzero(reading.trusted & active))
        looking_bad = int(np.count_nonzero(bad & active))
        if assessed >= self._policy.evidence_nodes_min and looking_bad >= self._policy.storm_fraction * assessed:
            self.storm = (looking_bad, assessed)

    def restart(self) -> None:
        """Let every node be confirmed afresh."""
        self._nodes.restart()
        self._clusters.restart()

    def replied(self, draft: Draft, key: str, reply: Reply, reason: str, received_s: float) -> None:
        """Take the plant's answer to an action on a node."""
        self._replied_at[key] = received_s
        kind = {
            Reply.APPLIED: EventKind.ACTION_APPLIED,
            Reply.REFUSED: EventKind.ACTION_REFUSED,
            Reply.UNKNOWN: EventKind.ACTION_UNKNOWN,
        }[reply]
        draft.record(kind, key=key, **({"reason": reason} if reason else {}))
        if reply is Reply.REFUSED:
            intent = draft.state.intents[key]
            draft.record(EventKind.ISOLATION_FAILED, key=key, node=intent.node, reason=reason)

    def settle(self, draft: Draft, assessment: Assessment) -> None:
        """Believe what the plant shows of what is in flight; give up on what does not show in time."""
        topology, active = assessment.topology, assessment.active
        if topology is None or active is None:
            return
        for intent in list(draft.state.intents.values()):
            replied_at = self._replied_at.get(intent.key)
            index = topology.index.get(intent.node)
            if replied_at is None or index is None or assessment.received_s <= replied_at:
                continue  # seen before the plant can have acted: it says nothing about this action
            self._read_back(draft, intent, bool(active[index]))
            if intent.key not in draft.state.intents and intent.kind is IntentKind.ISOLATE:
                self._look_again(assessment, int(topology.cluster_of[index]))
        self._notice_outsiders(draft, topology, active)

    def govern(self, draft: Draft, assessment: Assessment, licence: Licence) -> None:
        """Confirm wells, and intend what is to be done about nodes."""
        reading, topology, active = assessment.reading, assessment.topology, assessment.active
        if reading is None or topology is None or active is None or not licence.watching:
            return
        self._confirm_wells(draft, topology, reading, active)
        standing = self._standing(draft, topology, reading, active)
        self._isolate(draft, standing, reading, licence)
        self._blocked_clusters(draft, standing, reading)
        self._readmit(draft, topology, reading, licence)

    def restore(self, draft: Draft, node: str, reason: str) -> None:
        """Intend to let a node take part again."""
        key = f"restore-{draft.state.actions + 1}"
        draft.record(EventKind.RESTORATION_INTENDED, key=key, node=node, reason=reason)
        draft.act(RestoreNode(key, node))

    def reconcile(self, draft: Draft, now_received_s: float) -> None:
        """After a restart nothing is known of what was in flight: look before believing anything."""
        for key in draft.state.intents:
            self._replied_at[key] = now_received_s

    def _counters(self, subjects: int) -> Confirmation:
        return Confirmation(subjects, critical=self._policy.gravity_critical, clean_below=self._policy.readmit_gravity)

    def _read_back(self, draft: Draft, intent: Intent, active: bool) -> None:  # noqa: FBT001 - what the plant shows
        first_look_s = self._first_look_s.setdefault(intent.key, draft.now_s)
        wanted_active = intent.kind is IntentKind.RESTORE
        believed = intent.kind is not IntentKind.RENEW or intent.reply is Reply.APPLIED
        if active is wanted_active and believed:
            verified = {
                IntentKind.ISOLATE: EventKind.ISOLATION_VERIFIED,
                IntentKind.RENEW: EventKind.RENEWAL_VERIFIED,
                IntentKind.RESTORE: EventKind.RESTORATION_VERIFIED,
            }[intent.kind]
            draft.record(verified, key=intent.key, node=intent.node)
        elif draft.now_s - first_look_s >= self._policy.verify_s:
            reason = f"not seen at the plant within {self._policy.verify_s:g} s"
            draft.record(EventKind.ISOLATION_FAILED, key=intent.key, node=intent.node, reason=reason)
        else:
            return
        self._replied_at.pop(intent.key, None)
        self._first_look_s.pop(intent.key, None)
        if self._topology is not None and intent.kind is IntentKind.RESTORE:
            self._nodes.restart(np.array([self._topology.index[intent.node]]))

    def _look_again(self, assessment: Assessment, cluster: int) -> None:
        """The others of the cluster were pulled by the node that has just gone: confirm them anew."""
        if assessment.reading is None or assessment.topology is None:
            return
        near = assessment.reading.gravity <= DOUBLE * self._policy.gravity_critical
        self._nodes.restart(np.flatnonzero(near & (assessment.topology.cluster_of == cluster)))

    def _notice_outsiders(self, draft: Draft, topology: Topology, active: NDArray[np.bool_]) -> None:
        """A node that we hold isolated and that the plant shows taking part has been let in by somebody else."""
        in_flight = {intent.node for intent in draft.state.intents.values()}
        for node, record in list(draft.state.nodes.items()):
            index = topology.index.get(node)
            if record.status is NodeStatus.ISOLATED and node not in in_flight and index is not None and active[index]:
                draft.record(EventKind.ISOLATION_EXPIRED, node=node, reason="the plant shows it taking part")
                self._nodes.restart(np.array([index]))

    def _confirm_wells(
        self, draft: Draft, topology: Topology, reading: FieldReading, active: NDArray[np.bool_]
    ) -> None:
        confirmed = np.flatnonzero((self._nodes.bad >= self._policy.confirm_ticks) & active)
        for index in confirmed[np.argsort(-reading.gravity[confirmed], kind="stable")]:
            node = topology.nodes[index]
            if node not in draft.state.wells:
                h, q, k = (float(value) for value in reading.components[index])
                draft.record(
                    EventKind.GRAVITY_WELL_CONFIRMED,
                    subject=node,
                    gravity=float(reading.gravity[index]),
                    components={"h": h, "q": q, "k": k},
                    ticks=int(self._nodes.bad[index]),
                )
        for index in np.flatnonzero(self._clusters.bad >= self._policy.confirm_ticks):
            cluster = topology.clusters[index]
            if cluster not in draft.state.wells:
                draft.record(
                    EventKind.GRAVITY_WELL_CONFIRMED,
                    subject=cluster,
                    gravity=float(reading.cluster_gravity[index]),
                    components={},
                    ticks=int(self._clusters.bad[index]),
                )
        self._forget_wells(draft, topology, reading)

    def _forget_wells(self, draft: Draft, topology: Topology, reading: FieldReading) -> None:
        cluster_index = {cluster: i for i, cluster in enumerate(topology.clusters)}
        for subject in sorted(draft.state.wells):
            if subject in cluster_index:
                gravity, trusted = reading.cluster_gravity[cluster_index[subject]], True
            elif subject in topology.index:
                index = topology.index[subject]
                gravity, trusted = reading.gravity[index], bool(reading.trusted[index])
            else:
                continue
            if trusted and gravity <= self._policy.gravity_critical:
                draft.record(EventKind.GRAVITY_WELL_GONE, subject=subject)

    def _standing(self, draft: Draft, topology: Topology, reading: FieldReading, active: NDArray[np.bool_]) -> Standing:
        out = ~active
        for node in draft.state.out_of_service():
            if node in topology.index:
                out[topology.index[node]] = True
        state = draft.state
        tokens = self._policy.tokens(state.tokens, draft.now_s - state.tokens_at_s, len(topology.nodes))
        return Standing(topology, out, int(np.count_nonzero(reading.trusted & active)), tokens, draft.now_s)

    def _isolate(self, draft: Draft, standing: Standing, reading: FieldReading, licence: Licence) -> None:
        topology, policy = standing.topology, self._policy
        candidates = np.flatnonzero((self._nodes.bad >= policy.confirm_ticks) & ~standing.out)
        if not len(candidates):
            return
        busy = {
            int(topology.cluster_of[topology.index[intent.node]])
            for intent in draft.state.intents.values()
            if intent.node in topology.index
        }
        for index in candidates[np.argsort(-reading.gravity[candidates], kind="stable")]:
            node, gravity = topology.nodes[index], float(reading.gravity[index])
            cluster = int(topology.cluster_of[index])
            refusal = forbid_isolation(policy, standing, int(index))
            must_look_again = cluster in busy and gravity <= DOUBLE * policy.gravity_critical
            if refusal is None and must_look_again:
                limit = DOUBLE * policy.gravity_critical
                refusal = Refusal("isolate", Guard.LOOK_AGAIN, node, gravity, limit, draft.now_s)
            if refusal is None and licence.forbidden_by is not None:
                refusal = Refusal("isolate", licence.forbidden_by, node, gravity, policy.gravity_critical, draft.now_s)
            if refusal is not None:
                self._refuse(draft, refusal, gravity)
                continue
            self._intend_isolation(draft, standing, reading, int(index))
            busy.add(cluster)

    def _intend_isolation(self, draft: Draft, standing: Standing, reading: FieldReading, index: int) -> None:
        topology, policy, state = standing.topology, self._policy, draft.state
        node, gravity = topology.nodes[index], float(reading.gravity[index])
        standing.take_out(index)
        record = state.nodes.get(node)
        forgiven = _forgiven(record, draft.now_s, policy)
        offence = max(0, (record.offences if record else 0) - forgiven) + 1
        ttl_s = max(policy.ttl_s, policy.backoff_s(offence) + RENEW_BEFORE_S)
        h, q, k = (float(value) for value in reading.components[index])
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
            reason=f"|g| {gravity:.2f} above {policy.gravity_critical:g} for {int(self._nodes.bad[index])} ticks",
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

    def _blocked_clusters(self, draft: Draft, standing: Standing, reading: FieldReading) -> None:
        """A whole cluster is never isolated node by node: the guards of all its nodes at once decide, and say no."""
        for index in np.flatnonzero(self._clusters.bad >= self._policy.confirm_ticks):
            refusal = forbid_cluster(self._policy, standing, int(index))
            if refusal is not None:
                self._refuse(draft, refusal, float(reading.cluster_gravity[index]))

    def _readmit(self, draft: Draft, topology: Topology, reading: FieldReading, licence: Licence) -> None:
        in_flight = {intent.node for intent in draft.state.intents.values()}
        for node, record in list(draft.state.nodes.items()):
            index = topology.index.get(node)
            if index is None or node in in_flight:
                continue
            clean = int(self._nodes.clean[index])
            if record.status is NodeStatus.PROBATION and clean >= self._policy.probation_ticks:
                draft.record(EventKind.NODE_READMITTED, node=node)
            elif record.status is NodeStatus.ISOLATED:
                self._end_or_renew(draft, node, record, clean, licence, trusted=bool(reading.trusted[index]))

    def _end_or_renew(
        self, draft: Draft, node: str, record: NodeRecord, clean: int, licence: Licence, *, trusted: bool
    ) -> None:
        policy = self._policy
        time_out_s, backoff_s = draft.now_s - record.isolated_s, policy.backoff_s(record.offences)
        may_return = clean >= policy.probation_ticks and time_out_s >= backoff_s
        must_renew = trusted and not may_return and draft.now_s >= record.until_s - RENEW_BEFORE_S
        if not may_return and not must_renew:
            return
        rule = "restore" if may_return else "renew"
        if licence.forbidden_by is not None:
            draft.refuse(Refusal(rule, licence.forbidden_by, node, time_out_s, backoff_s, draft.now_s))
        elif may_return:
            self.restore(draft, node, f"clean for {clean} ticks, out for {time_out_s:g} s")
        else:
            self._renew(draft, node)

    def _renew(self, draft: Draft, node: str) -> None:
        key = f"renew-{draft.state.actions + 1}"
        ttl_s = self._policy.ttl_s
        draft.record(EventKind.RENEWAL_INTENDED, key=key, node=node, until_s=draft.now_s + ttl_s)
        draft.act(IsolateNode(key, node, ttl_s))


def _forgiven(record: NodeRecord | None, now_s: float, policy: IsolationPolicy) -> int:
    """Offences taken back for healthy time since full re-admission."""
    if record is None or record.status is not NodeStatus.HEALTHY:
        return 0
    return min(record.offences, int((now_s - record.since_s) // policy.forgive_s))


def _clusters_trusted(topology: Topology, reading: FieldReading, active: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A cluster is judged where at least half of its active nodes gave trusted evidence."""
    bins = len(topology.clusters)
    present = np.bincount(topology.cluster_of[active], minlength=bins)
    trusted = np.bincount(topology.cluster_of[active & reading.trusted], minlength=bins)
    return (trusted > 0) & (2 * trusted >= present)
