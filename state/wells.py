"""Which nodes and clusters are gravity wells, and does so much look bad at once that the evidence itself is suspect?

The counters are volatile: after a restart, a topology of other nodes or a hold everybody is confirmed anew. Only what
they lead to, a well confirmed or gone, is a durable fact. What is to be done about a well is not decided here.

Source: docs/model.md sections 3 and 5; the storm rule follows Kubernetes' node-lifecycle controller.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metrics.gravity import FieldReading
from metrics.observation import Topology
from state.confirmation import Confirmation
from state.decision import Draft
from state.event import EventKind
from state.isolation import ROUNDING, IsolationPolicy
from state.view import NodeView

GONE_TICKS = 20  # the span of the field's averages
DRIFT_SPREAD = 1.15  # beyond it the environment has changed; a detuned cluster leaves the spread of the nodes at 1.0
RECORDED_MAX = 10_000  # wells that are made durable, the worst: more than that is no matter of nodes any more
DRIFT_TICKS = 60  # for how long that is remembered: isolating the worst of the drifted narrows the spread for a while


class WellWatch:
    """The wells of one plant.

    Attributes:
        nodes, clusters: how long each has looked bad, calm or clean.
        looking_bad: bool[N], active nodes that look bad in this tick.
        storm: nodes that look bad and nodes assessed in this tick, where that is a storm; else None.
        sighted: True where at least one active node gave trusted evidence in this tick.
    """

    def __init__(self, policy: IsolationPolicy) -> None:
        self._policy = policy
        self._topology: Topology | None = None
        self.nodes = self._counters(0)
        self.clusters = self._counters(0)
        self.looking_bad = np.zeros(0, dtype=np.bool_)
        self.storm: tuple[int, int] | None = None
        self.sighted = False
        self._drift_ticks = 0

    def count(self, seen: NodeView | None, spared: frozenset[str] = frozenset()) -> None:
        """Take the tick's evidence in; that of the nodes `spared`, on which somebody is working, says nothing."""
        self.storm, self.sighted = None, False
        if seen is None:
            return
        if not _same(self._topology, seen.topology):
            self.nodes = self._counters(len(seen.topology.nodes))
            self.clusters = self._counters(len(seen.topology.clusters))
        self._topology = seen.topology
        trusted, assessed = seen.reading.trusted, seen.assessed()
        if spared:
            at = [seen.topology.index[node] for node in spared if node in seen.topology.index]
            trusted, assessed = trusted.copy(), assessed.copy()
            trusted[at] = assessed[at] = False
        bad = self.nodes.update(seen.reading.gravity, trusted)
        self._drift_ticks = DRIFT_TICKS if seen.reading.spread >= DRIFT_SPREAD else max(0, self._drift_ticks - 1)
        self.clusters.update(self._cluster_gravity(seen.reading), _clusters_trusted(seen))
        policy, count = self._policy, int(np.count_nonzero(assessed))
        self.looking_bad = bad & seen.active
        looking_bad = int(np.count_nonzero(self.looking_bad))
        self.sighted = count > 0
        if count >= policy.evidence_nodes_min and looking_bad >= policy.storm_fraction * count - ROUNDING:
            self.storm = (looking_bad, count)

    def confirmed(self) -> NDArray[np.bool_]:
        """bool[N], nodes that have looked bad for long enough, isolated ones among them."""
        return self.nodes.confirmed(self._policy.confirm_ticks)

    def confirmed_clusters(self) -> NDArray[np.intp]:
        """Indices of the clusters that have looked bad for long enough."""
        return np.flatnonzero(self.clusters.confirmed(self._policy.confirm_ticks))

    def record(self, draft: Draft, seen: NodeView) -> None:
        """Make new wells durable, the worst first, and those that are gone."""
        topology, reading = seen.topology, seen.reading
        nodes = np.flatnonzero(self.confirmed() & seen.active)
        for index in nodes[np.argsort(-reading.gravity[nodes], kind="stable")][:RECORDED_MAX].tolist():
            if topology.nodes[index] in draft.state.wells:
                continue
            h, q, k = (float(value) for value in reading.components[index])
            ticks, gravity = int(self.nodes.bad[index]), float(reading.gravity[index])
            _confirm(draft, topology.nodes[index], gravity, ticks, {"h": h, "q": q, "k": k})
        for index in self.confirmed_clusters():
            ticks, gravity = int(self.clusters.bad[index]), float(reading.cluster_gravity[index])
            _confirm(draft, topology.clusters[index], gravity, ticks, {})
        for subject in sorted(draft.state.wells):
            if self._gone(subject, seen):
                draft.record(EventKind.GRAVITY_WELL_GONE, subject=subject)

    def restart(self) -> None:
        """Let every node and cluster be confirmed afresh."""
        self.nodes.restart()
        self.clusters.restart()

    def restart_node(self, index: int) -> None:
        """Let one node be confirmed afresh."""
        self.nodes.restart(np.array([index]))

    def look_again(self, seen: NodeView, cluster: int, spared_below: float) -> None:
        """Let the nodes of a cluster be confirmed afresh, but for those with |g| beyond `spared_below`."""
        near = ~(seen.reading.gravity > spared_below)
        self.nodes.restart(np.flatnonzero(near & (seen.topology.cluster_of == cluster)))

    def _counters(self, subjects: int) -> Confirmation:
        return Confirmation(subjects, critical=self._policy.gravity_critical, clean_below=self._policy.readmit_gravity)

    def _cluster_gravity(self, reading: FieldReading) -> NDArray[np.float64]:
        """float64[M], |g_c|; 0 in a drift, which pulls every cluster its own way: that is healed, not isolated."""
        return np.zeros_like(reading.cluster_gravity) if self._drift_ticks else reading.cluster_gravity

    def _gone(self, subject: str, seen: NodeView) -> bool:
        """A well is gone when it is out, or calm for a while: one that hovers at the critical value is still one."""
        index = seen.topology.index.get(subject)
        if index is not None:
            return not seen.active[index] or int(self.nodes.calm[index]) >= GONE_TICKS
        clusters = seen.topology.clusters
        return subject not in clusters or int(self.clusters.calm[clusters.index(subject)]) >= GONE_TICKS


def _confirm(draft: Draft, subject: str, gravity: float, ticks: int, components: dict[str, float]) -> None:
    if subject not in draft.state.wells:
        draft.record(
            EventKind.GRAVITY_WELL_CONFIRMED, subject=subject, gravity=gravity, components=components, ticks=ticks
        )


def _clusters_trusted(seen: NodeView) -> NDArray[np.bool_]:
    """bool[M]: a cluster is judged where at least half of its active nodes gave trusted evidence."""
    topology = seen.topology
    bins = len(topology.clusters)
    present = np.bincount(topology.cluster_of[seen.active], minlength=bins)
    trusted = np.bincount(topology.cluster_of[seen.assessed()], minlength=bins)
    judged: NDArray[np.bool_] = (trusted > 0) & (2 * trusted >= present)
    return judged


def _same(one: Topology | None, other: Topology) -> bool:
    if one is None or one is other:
        return one is other
    same_names = one.nodes == other.nodes and one.clusters == other.clusters
    return same_names and bool((one.cluster_of == other.cluster_of).all())
