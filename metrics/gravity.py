"""The gravity field: which node drags its cluster out of coherence, and how hard?

Every node is left out once: what would its cluster gain in coherence without it (h), in which direction does it pull
(q), and how much worse does it serve than its peers (k)? The three, smoothed over 20 ticks and measured in units of g0,
are the vector g; |g| beyond a critical value is a gravity well. g0 grows with the spread that all nodes show together,
so that a change of the environment does not turn healthy nodes into wells.

Bad service need not wait for the averages to come round. By how much worse a node serves than its peers, beyond what
is allowed for and usual with it, adds up tick after tick (a CUSUM); two thirds of the sum take the place of k where
that is more. Service is what was committed, so that bad phase sensors have no part in it. While the environment drifts,
only what lasts counts, and who was a well before.

Assumptions: reported phases and amplitudes mean what they say (`crosscheck.py` asks whether to believe them), and most
of a node's peers are healthy. Left out: what should be done about a well, which is the governor's question.

A node without usable signals is left out of every sum, keeps its averages as they are and is not trusted in that tick.
An isolated node weighs nothing and is measured as if it had been re-added. O(N) a tick, on preallocated arrays.

Source: docs/model.md section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from metrics.errors import BadDataError
from metrics.leave_one_out import COUNT_MAX, Bools, Floats, Indices, LeaveOneOut
from metrics.median import median
from metrics.observation import SIGNAL_NAMES, NodeSignals, Observation, Topology

GRAVITY_CRITICAL = 1.5  # G_CRIT: no healthy node-tick of 7 million exceeded 1.35
GRAVITY_UNIT = 0.40  # g0 in a healthy environment
EVIDENCE_TICKS = 20  # the time constant of the averages: less is mostly their start at 0
PRIOR_SPREAD = 0.12  # spread of q in a healthy system, towards which a small sample is shrunk
PRIOR_NODES = 20.0  # and how many nodes that prior counts for: the raw MAD of 5 nodes is useless
REFERENCE_SPREAD = 0.18  # spread of q up to which the unit g0 stays at its base
NORMAL_MAD = 1.4826  # from median absolute deviation to standard deviation, for a normal distribution
USUAL_TICKS = 40.0  # time constant of the shortfall that is usual with a node
SHORTFALL_SHARE = 2.0 / 3.0  # of S, to be counted as k: healthy nodes then stay as far below the critical |g| as before
FAILING_MIN = 0.3  # S or k from which a node is not asked how much all nodes differ
SETTLED_SPREAD_MAX = 0.16  # spread of q beyond which the environment may be drifting: healthy in 99 ticks of 100

AnyArray = TypeVar("AnyArray", bound=NDArray[np.generic])


@dataclass(frozen=True, slots=True, eq=False)
class FieldReading:
    """The field at one tick; every array is read-only.

    Attributes:
        tick: the plant's tick it was read at.
        gravity: float64[N], |g|; the last known value where a node gives no new evidence.
        components: float64[N, 3], h₊, q and k₊, each over g0; for k₊ two thirds of S where that counted.
        samples: int32[N], ticks of usable evidence so far; isolation does not reset it, a long gap does.
        trusted: bool[N], new evidence in this tick and enough of it behind.
        cluster_gravity: float64[M], |g_c| of each cluster within the system, in the nodes' unit: a drift that spreads
            all nodes spreads all clusters too, and must not make wells of them.
        cluster_order: float64[M], order parameter R_c of the active nodes in this tick; NaN without any.
        mean_field: z, the mean of a·e^{iθ} over the active nodes of the whole system; NaN without any.
        unit: g0 of this tick.
        spread: g0 over its base, 1 in a healthy environment: how much more than usual all nodes differ together.
    """

    tick: int
    gravity: Floats
    components: Floats
    samples: NDArray[np.int32]
    trusted: Bools
    cluster_gravity: Floats
    cluster_order: Floats
    mean_field: complex
    unit: float
    spread: float


class GravityField:
    """The field of one plant, read tick after tick.

    Args:
        g0: base unit of g.
        tau_ticks: time constant of the moving averages.
        evidence_ticks: evidence before a node is trusted; a gap in its signals longer than this starts it afresh.
    """

    def __init__(
        self, *, g0: float = GRAVITY_UNIT, tau_ticks: float = 20.0, evidence_ticks: int = EVIDENCE_TICKS
    ) -> None:
        self._g0 = g0
        self._tau_ticks = tau_ticks
        self._evidence_ticks = evidence_ticks
        self._averages: LeaveOneOut | None = None
        self._tick = 0

    def update(self, observation: Observation) -> FieldReading:
        """Take in one observation and read the field.

        After a gap of k ticks the averages move as far as k ticks with these signals would have moved them. A tick that
        was read before is no new evidence: nothing moves and nobody is trusted. An earlier tick means that the plant
        started afresh, and so does the field. Nodes that join start without evidence, nodes that stay keep theirs.

        Raises:
            BadDataError: the observation has no nodes, or a signal has not one entry for each node.
        """
        topology, signals = _nodes_of(observation)
        averages = self._averages_for(topology, observation.tick)
        usable = _usable(signals)
        sums = averages.sum_vectors(signals, usable)
        fresh, weight, usual_weight = averages.weigh(usable, sums, observation.tick)
        averages.smooth(signals, sums, weight)
        averages.smooth_clusters(sums, observation.tick)
        averages.count_shortfall(signals, fresh, sums, usual_weight)
        h, q, k = components = np.empty((3, len(fresh)))
        np.maximum(averages.h, 0.0, out=h)
        q[:] = averages.q
        averages.service_deficit(sums, out=k)
        spread = _spread(q, sums.outside, np.flatnonzero((averages.shortfall >= FAILING_MIN) | (k >= FAILING_MIN)))
        unit = self._g0 * max(1.0, spread / REFERENCE_SPREAD)
        components /= unit
        gravity = np.sqrt(np.einsum("ij,ij->j", components, components))
        shortfall = averages.shortfall * (SHORTFALL_SHARE / unit)
        if spread > SETTLED_SPREAD_MAX:
            shortfall *= averages.standing_out
        averages.standing_out = shortfall >= np.maximum(gravity, GRAVITY_CRITICAL)
        _count_shortfall(shortfall, gravity, components)
        return FieldReading(
            tick=observation.tick,
            gravity=_frozen(gravity),
            components=_frozen(components).T,
            samples=_frozen(averages.samples.copy()),
            trusted=_frozen(fresh & (averages.samples >= self._evidence_ticks)),
            cluster_gravity=_frozen(np.hypot(np.maximum(averages.cluster_h, 0.0), averages.cluster_q) / unit),
            cluster_order=_frozen(sums.order()),
            mean_field=sums.mean_field(),
            unit=unit,
            spread=unit / self._g0,
        )

    def _averages_for(self, topology: Topology, tick: int) -> LeaveOneOut:
        averages = self._averages
        if averages is None or tick < self._tick:
            averages = LeaveOneOut(
                topology,
                tick,
                tau_ticks=self._tau_ticks,
                usual_ticks=USUAL_TICKS,
                gap_max_ticks=self._evidence_ticks,
            )
        elif not _same(averages.topology, topology):
            averages = averages.moved_to(topology, tick)
        self._averages, self._tick = averages, tick
        return averages


def _nodes_of(observation: Observation) -> tuple[Topology, NodeSignals]:
    topology, signals = observation.topology, observation.signals
    if topology is None or signals is None:
        raise BadDataError(f"tick {observation.tick}: a gravity field needs nodes, and the observation has none")
    for name in SIGNAL_NAMES:
        shape = getattr(signals, name).shape
        if shape != (len(topology.nodes),):
            raise BadDataError(
                f"tick {observation.tick}: signal {name} has shape {shape}, expected ({len(topology.nodes)},), "
                "one entry for each node of the topology"
            )
    return topology, signals


def _usable(signals: NodeSignals) -> Bools:
    """bool[N]: finite phase and amplitude, and counts that can be counts; NaN fails every comparison."""
    usable = np.isfinite(signals.phase)
    usable &= np.isfinite(signals.participation)
    for counts in (signals.arrivals, signals.commits):
        usable &= counts >= 0.0
        usable &= counts <= COUNT_MAX
    return usable


def _count_shortfall(shortfall: Floats, gravity: Floats, components: Floats) -> None:
    """Let service alone speak, where it says more than phases and service have said over the averages' time."""
    nodes = np.flatnonzero(shortfall > gravity)
    gravity[nodes], components[2, nodes] = shortfall[nodes], shortfall[nodes]
    components[:2, nodes] = 0.0


def _spread(q: Floats, outside: Indices, failing: Indices) -> float:
    """r: how much the counted nodes differ in q, shrunk towards what is usual.

    Nodes that clearly serve worse than their peers are not asked, as long as most others are: many equally bad ones
    would else widen the unit until none of them stood out.
    """
    if failing.size and 2 * failing.size < len(q) - outside.size:
        outside = np.union1d(outside, failing)
    spread = np.abs(np.delete(q, outside) if outside.size else q)
    n = len(spread)
    m = NORMAL_MAD * median(spread) if n else 0.0
    return float(np.sqrt((n * m**2 + PRIOR_NODES * PRIOR_SPREAD**2) / (n + PRIOR_NODES)))


def _same(one: Topology, other: Topology) -> bool:
    return one is other or (
        one.nodes == other.nodes and one.clusters == other.clusters and bool((one.cluster_of == other.cluster_of).all())
    )


def _frozen(array: AnyArray) -> AnyArray:
    array.setflags(write=False)
    return array
