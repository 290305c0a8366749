"""The gravity field: its equations, its robustness against bad signals, and what it finds in a real cluster."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from metrics.errors import BadDataError
from metrics.gravity import FieldReading, GravityField
from metrics.observation import SIGNAL_NAMES, ClusterId, NodeId, NodeSignals, Observation, Topology
from qecs.cluster import Cluster
from qecs.fault_kinds import FaultKind
from qecs.faults import Fault


def topology_of(sizes):
    """Clusters of the given sizes."""
    cluster_of = np.repeat(np.arange(len(sizes)), sizes).astype(np.int32)
    nodes = tuple(NodeId(f"n{i}") for i in range(sum(sizes)))
    return Topology(nodes, tuple(ClusterId(f"c{i}") for i in range(len(sizes))), cluster_of)


def still(topology, tick, **changes):
    """An observation of aligned, equally served nodes, with some signals replaced."""
    n = len(topology.nodes)
    signals = {name: np.zeros(n) for name in SIGNAL_NAMES} | {
        "participation": np.ones(n),
        "arrivals": np.full(n, 20.0),
        "commits": np.full(n, 20.0),
        "active": np.ones(n, dtype=np.bool_),
    }
    return Observation(tick, float(tick), 0.0, {}, topology, NodeSignals(**(signals | changes)))


class Governed:
    """A reference cluster, observed."""

    def __init__(self, nodes, seed):
        self.cluster = Cluster(nodes, seed=seed)
        self.topology = Topology(self.cluster.node_ids, self.cluster.cluster_ids, self.cluster.cluster_of)

    def observe(self):
        snapshot = self.cluster.step()
        signals = {name: np.asarray(snapshot.signals[name], dtype=np.float64) for name in SIGNAL_NAMES}
        signals["active"] = snapshot.signals["active"]
        return Observation(
            snapshot.tick, snapshot.time_s, snapshot.time_s, snapshot.kpis, self.topology, NodeSignals(**signals)
        )


def settle(field, topology, ticks, **changes) -> FieldReading:
    for tick in range(1, ticks + 1):
        reading = field.update(still(topology, tick, **changes))
    return reading


def test_aligned_nodes_have_no_gravity():
    """In perfect order nothing is gained by removing anybody."""
    reading = settle(GravityField(), topology_of([3, 4]), 100)
    assert reading.gravity.max() < 1e-12
    assert reading.cluster_gravity.max() < 1e-12
    assert reading.unit == 0.40
    assert reading.trusted.all()


def test_components_of_one_node_out_of_phase():
    """h, q and k of a node at a right angle that commits half are what their definitions give by hand."""
    phase = np.array([math.pi / 2, 0.0, 0.0, 0.0])
    commits = np.array([10.0, 20.0, 20.0, 20.0])
    reading = settle(GravityField(), topology_of([4]), 400, phase=phase, commits=commits)
    h = 3.0 - abs(3.0 + 1.0j) * 3.0 / 4.0
    q = 1.0 * math.sqrt(3.0 / 4.0)
    k = 1.0 - 0.5
    assert reading.components[0] * reading.unit == pytest.approx([h, q, k], rel=1e-6)
    assert reading.gravity[0] == pytest.approx(math.hypot(h, q, k) / reading.unit, rel=1e-6)


def test_unit_grows_with_the_spread_of_all():
    """g0 is 0.40·max(1, r/0.18), r shrunk from the median |q| towards 0.12 with the weight of 20 nodes."""
    phase = np.tile([0.6, -0.6], 30)
    reading = settle(GravityField(), topology_of([60]), 600, phase=phase)
    m = 1.4826 * float(np.median(np.abs(reading.components[:, 1] * reading.unit)))
    r = math.sqrt((60 * m**2 + 20 * 0.12**2) / 80)
    assert r > 0.5
    assert reading.unit == pytest.approx(0.40 * r / 0.18, rel=1e-9)


def test_moving_average_has_the_time_constant_of_twenty_ticks():
    """After 20 ticks of a constant pull q has come 1 − (1 − 1/20)^20 of the way."""
    topology = topology_of([4])
    phase = np.array([0.5, 0.0, 0.0, 0.0])
    final = math.sin(0.5) * math.sqrt(3.0 / 4.0)
    reading = settle(GravityField(), topology, 20, phase=phase)
    assert reading.components[0, 1] * reading.unit == pytest.approx(final * (1 - 0.95**20), rel=1e-9)


def fails(field, topology, ticks, **changes):
    """|g| of node 0 in each of so many ticks, the first 100 ticks after the start, with some signals changed."""
    settle(field, topology, 100)
    later = (still(topology, tick, **changes) for tick in range(101, 101 + ticks))
    return np.array([field.update(observation).gravity[0] for observation in later])


def only_first(nodes, value, others):
    """A signal that differs at node 0."""
    return np.where(np.arange(nodes) == 0, value, others)


def test_who_stops_serving_is_a_well_in_two_ticks():
    """A node that commits nothing adds .7 a tick to S, and two thirds of it count as k, whatever its phase says."""
    field, topology = GravityField(), topology_of([7])
    gravity = fails(field, topology, 2, commits=only_first(7, 0.0, 20.0))
    first, second = 0.7, 0.7 + 0.7 - 1.0 / 40.0
    assert gravity == pytest.approx(np.array([first, second]) * 2.0 / 3.0 / 0.40)
    assert gravity[1] > 1.5
    reading = field.update(still(topology, 103, commits=only_first(7, 0.0, 20.0)))
    assert reading.components[0, :2].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(np.sqrt((reading.components**2).sum(axis=1)), reading.gravity)
    assert reading.gravity[1:].max() == 0.0


@pytest.mark.parametrize("lost", ["retries", "invalid"])
def test_who_fails_at_much_of_what_it_attempts_is_a_well_though_it_catches_up(lost):
    """A node that commits what arrives, but only after as many failures, has a shortfall of a half."""
    gravity = fails(GravityField(), topology_of([7]), 8, **{lost: only_first(7, 20.0, 0.0)})
    assert gravity[0] == pytest.approx(0.2 * 2.0 / 3.0 / 0.40)
    assert (np.diff(gravity) > 0.0).all()
    assert gravity[-1] > 1.5


def test_a_small_shortfall_never_adds_up():
    """Serving worse by less than the allowance leaves only what the averages say."""
    gravity = fails(GravityField(), topology_of([7]), 300, commits=only_first(7, 15.0, 20.0))
    assert gravity[-1] == pytest.approx(0.25 / 0.40, rel=1e-3)
    assert gravity.max() < 0.25 / 0.40 + 1e-9


@pytest.mark.parametrize(("head_start_ticks", "found"), [(3, True), (-20, False)])
def test_in_a_drift_only_who_stood_out_before_it_counts(head_start_ticks, found):
    """A node that fails before all nodes spread stays a well; service that gets worse in a drift has to last."""
    field, topology = GravityField(), topology_of([20])
    settle(field, topology, 100)
    apart = np.tile([0.6, -0.6], 10)
    gravity, units = [], []
    for tick in range(101, 141):
        changes = {}
        if tick > 110:
            changes["phase"] = apart
        if tick > 110 - head_start_ticks:
            changes["commits"] = only_first(20, 0.0, 20.0)
        reading = field.update(still(topology, tick, **changes))
        gravity.append(reading.gravity[0])
        units.append(reading.spread)
    assert max(units[:10]) == 1.0
    assert units[22] > 1.0
    assert (min(gravity[10:22]) > 1.5) == found


def test_what_is_usual_with_a_node_adds_up_no_more():
    """A lasting shortfall of a half is evidence while it is new; afterwards only the averages count."""
    gravity = fails(GravityField(), topology_of([7]), 400, commits=only_first(7, 10.0, 20.0))
    assert gravity.max() > 1.5
    assert gravity[-1] == pytest.approx(0.5 / 0.40, rel=1e-3)


def test_phases_alone_are_not_sudden():
    """A node that reports a phase across and serves well has to last: its sensor may be the one at fault."""
    gravity = fails(GravityField(), topology_of([7]), 6, phase=only_first(7, 2.0, 0.0))
    assert (gravity < 1.5).all()
    np.testing.assert_allclose(gravity, gravity[0] / 0.05 * (1.0 - 0.95 ** np.arange(1, 7)))


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -1.0, 1e300])
@pytest.mark.parametrize("lost", ["retries", "invalid"])
def test_a_shortfall_that_cannot_be_known_is_no_evidence(lost, garbage):
    """Without usable counts of what failed S stands still, for this node and for its peers."""
    field, topology = GravityField(), topology_of([7])
    counts = {"commits": only_first(7, 0.0, 20.0), lost: only_first(7, garbage, 0.0)}
    gravity = fails(field, topology, 3, **counts)
    assert gravity.max() < 0.4
    assert field.update(still(topology, 104)).gravity.max() < 0.4


def test_an_isolated_node_starts_afresh():
    """Being out is no service and no shortfall: what had added up is forgotten, and |g| is what lasts."""
    field, topology = GravityField(), topology_of([7])
    assert fails(field, topology, 3, commits=only_first(7, 0.0, 20.0))[-1] > 1.5
    out = {"active": ~np.eye(7, dtype=bool)[0], "commits": only_first(7, 0.0, 20.0), "arrivals": only_first(7, 0, 20.0)}
    assert field.update(still(topology, 104, **out)).gravity[0] < 0.5
    assert field.update(still(topology, 105)).gravity[0] < 0.5


def test_many_failing_nodes_do_not_hide_each_other():
    """A quarter of each cluster that stops at once is found whole, and nobody else, in two ticks."""
    field, topology = GravityField(), topology_of([8, 8, 8, 8])
    bad = np.arange(32) % 4 == 0
    settle(field, topology, 100)
    for tick in (101, 102, 103):
        reading = field.update(still(topology, tick, commits=np.where(bad, 0.0, 20.0)))
    assert (reading.gravity > 1.5).tolist() == bad.tolist()


def test_nothing_sudden_counts_while_all_nodes_differ():
    """Where the environment drifts a node that falls out of service has to last."""
    topology = topology_of([10])
    phase = np.linspace(-0.6, 0.6, 10)
    field = GravityField()
    settled = settle(field, topology, 100, phase=phase)
    assert settled.spread > 1.5
    commits = only_first(10, 2.0, 20.0)
    for tick in (101, 102, 103):
        drifting = field.update(still(topology, tick, phase=phase, commits=commits))
    assert drifting.components[0, 2] == pytest.approx((1.0 - 0.95**3) * 0.9 / drifting.unit, rel=0.01)


def test_a_gap_counts_as_its_ticks():
    """Observations every fifth tick with steady signals lead to the same averages as one every tick."""
    topology = topology_of([4])
    phase = np.array([0.5, 0.0, 0.0, 0.0])
    every, fifth = GravityField(), GravityField()
    fifth.update(still(topology, 1, phase=phase))
    every.update(still(topology, 1, phase=phase))
    for tick in range(2, 42):
        dense = every.update(still(topology, tick, phase=phase))
    for tick in range(6, 42, 5):
        sparse = fifth.update(still(topology, tick, phase=phase))
    assert dense.tick == sparse.tick == 41
    assert sparse.gravity == pytest.approx(dense.gravity, rel=1e-9)
    assert sparse.samples[0] == 9


def test_an_isolated_node_weighs_nothing_and_is_measured_as_if_readded():
    """An isolated node far out of phase leaves its peers at 0, while its own h is that of its re-addition."""
    phase = np.array([math.pi, 0.0, 0.0, 0.0])
    active = np.array([False, True, True, True])
    reading = settle(GravityField(), topology_of([4]), 400, phase=phase, active=active)
    assert reading.gravity[1:].max() < 1e-12
    assert reading.components[0, 0] * reading.unit == pytest.approx(3.0 - 2.0 * 3.0 / 4.0, rel=1e-6)
    assert reading.trusted[0]
    assert reading.samples[0] == 400


@pytest.mark.parametrize("signal", ["phase", "participation", "arrivals", "commits"])
@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, -1e300])
def test_garbage_of_one_node_poisons_nobody(signal, garbage):
    """A node without usable signals is not trusted, its peers read as if it were absent, and it recovers at once."""
    topology = topology_of([4])
    field = GravityField()
    before = settle(field, topology, 40)
    bad = np.array(getattr(still(topology, 41).signals, signal))
    bad[2] = garbage
    during = field.update(still(topology, 41, **{signal: bad}))
    finite_phase = signal == "phase" and math.isfinite(garbage)
    clipped = signal == "participation" and math.isfinite(garbage)
    assert np.isfinite(during.gravity).all()
    assert during.trusted.tolist() == [True, True, finite_phase or clipped, True]
    if not (finite_phase or clipped):
        assert during.gravity.max() < 1e-12
        assert during.samples[2] == before.samples[2]
        after = field.update(still(topology, 42))
        assert after.trusted.all()
        assert after.gravity.max() < 1e-12


def test_all_signals_missing_is_survived():
    """A tick in which nobody reports anything trusts nobody and changes no average."""
    topology = topology_of([3, 3])
    field = GravityField()
    before = settle(field, topology, 30, phase=np.array([0.4, 0, 0, 0, 0, 0.0]))
    during = field.update(still(topology, 31, phase=np.full(6, math.nan)))
    assert not during.trusted.any()
    assert during.gravity == pytest.approx(before.gravity)
    assert np.isnan(during.cluster_order).all()
    assert math.isnan(during.mean_field.real)


def test_evidence_is_needed_before_trust():
    """A node is trusted from its 20th tick of usable signals on, and after a long silence it starts afresh."""
    topology = topology_of([4])
    field = GravityField()
    assert not settle(field, topology, 19).trusted.any()
    assert field.update(still(topology, 20)).trusted.all()
    silent = np.array([math.nan, 0.0, 0.0, 0.0])
    for tick in range(21, 42):
        field.update(still(topology, tick, phase=silent))
    back = field.update(still(topology, 42))
    assert back.trusted.tolist() == [False, True, True, True]
    assert back.samples[0] == 1


def test_the_same_tick_again_is_no_evidence():
    """A stale observation moves no average, counts no sample and trusts nobody."""
    topology = topology_of([4])
    field = GravityField()
    first = settle(field, topology, 30)
    again = field.update(still(topology, 30, phase=np.array([2.0, 0.0, 0.0, 0.0])))
    assert not again.trusted.any()
    assert again.samples.tolist() == first.samples.tolist()
    assert again.gravity == pytest.approx(first.gravity, abs=1e-12)


def test_an_earlier_tick_starts_afresh():
    """A plant that restarts, so that its ticks fall back, is known nothing of."""
    topology = topology_of([4])
    field = GravityField()
    settle(field, topology, 30)
    reading = field.update(still(topology, 1))
    assert reading.samples.tolist() == [1, 1, 1, 1]


def test_nodes_that_stay_keep_their_evidence():
    """When the topology changes, nodes are followed by name."""
    field = GravityField()
    settle(field, topology_of([4]), 30, phase=np.array([0.0, 0.9, 0.0, 0.0]))
    smaller = Topology((NodeId("n1"), NodeId("n0"), NodeId("new")), (ClusterId("c0"),), np.zeros(3, dtype=np.int32))
    reading = field.update(still(smaller, 31))
    assert reading.samples.tolist() == [31, 31, 1]
    assert reading.gravity[0] > 0.5 > reading.gravity[1]


@pytest.mark.parametrize("left", [0, 1, 2])
def test_small_clusters_do_not_crash(left):
    """With 0, 1 or 2 active nodes in a cluster all is finite; a node without a peer to compare with is no evidence."""
    topology = topology_of([3, 3])
    active = np.array([i < left for i in range(3)] + [True] * 3)
    phase = np.array([0.7, -0.7, 0.3, 0.1, 0.0, 0.0])
    reading = settle(GravityField(), topology, 40, active=active, phase=phase)
    assert np.isfinite(reading.gravity).all()
    assert np.isfinite(reading.cluster_gravity).all()
    assert reading.trusted.tolist()[:3] == {0: [False] * 3, 1: [False, True, True], 2: [True] * 3}[left]


def test_a_node_without_work_is_not_blamed_for_it():
    """Below half an arrival a tick k is 0."""
    topology = topology_of([4])
    idle = np.array([0.4, 20.0, 20.0, 20.0])
    none = np.array([0.0, 20.0, 20.0, 20.0])
    reading = settle(GravityField(), topology, 200, arrivals=idle, commits=none)
    assert reading.components[0, 2] == 0.0


def test_readings_cannot_be_changed():
    """The arrays of a reading are read-only."""
    reading = settle(GravityField(), topology_of([4]), 2)
    for name in ("gravity", "components", "samples", "trusted", "cluster_gravity", "cluster_order"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(reading, name)[0] = 0


def test_an_observation_without_nodes_is_refused():
    """Without nodes there is no field, and the error says so."""
    with pytest.raises(BadDataError, match="tick 3: a gravity field needs nodes"):
        GravityField().update(Observation(3, 3.0, 0.0, {}))


def test_signals_of_another_length_are_refused():
    """A signal that has not one entry for each node is named, with both shapes."""
    observation = still(topology_of([4]), 7)
    wrong = replace(observation.signals, queue=np.zeros(3))
    with pytest.raises(BadDataError, match=r"tick 7: signal queue has shape \(3,\), expected \(4,\)"):
        GravityField().update(replace(observation, signals=wrong))


@pytest.mark.parametrize(
    ("nodes", "seeds", "ticks", "median", "upper"),
    [(5, 8, 200, (0.13, 0.27), 0.95), (50, 3, 250, (0.16, 0.24), 0.85), (1000, 1, 260, (0.18, 0.22), 0.75)],
)
def test_healthy_clusters_stay_far_below_critical(nodes, seeds, ticks, median, upper):
    """Healthy |g| has the published median and 99 % quantile, and no node-tick of 3·10⁵ exceeds 1.5."""
    gravity, unstable = [], 0.0
    for seed in range(seeds):
        plant, field = Governed(nodes, seed), GravityField()
        for tick in range(100 + ticks):
            reading = field.update(plant.observe())
            if tick >= 100:
                gravity.append(reading.gravity)
                unstable = max(unstable, float(reading.cluster_gravity.max()))
    flat = np.concatenate(gravity)
    assert median[0] < np.median(flat) < median[1]
    assert np.quantile(flat, 0.99) < upper
    assert flat.max() < 1.5
    assert unstable < 1.5


@pytest.mark.parametrize(
    ("kind", "latest"),
    [
        (FaultKind.BYZANTINE, 8),
        (FaultKind.SILENT, 10),
        (FaultKind.FLAPPING, 10),
        (FaultKind.STEALTH, 20),
        (FaultKind.DETUNED, 30),
        (FaultKind.SLOW, 45),
    ],
)
@pytest.mark.parametrize("nodes", [5, 50])
def test_bad_nodes_are_found(nodes, kind, latest):
    """A bad node has |g| > 1.5 for three ticks within the published delay, and no healthy one before it."""
    plant, field = Governed(nodes, 7), GravityField()
    for _ in range(100):
        field.update(plant.observe())
    bad = 3
    plant.cluster.inject(Fault("bad", kind, nodes=(plant.topology.nodes[bad],)))
    beyond = np.zeros(nodes, dtype=np.int64)
    delay = 0
    while beyond.max() < 3 and delay < latest:
        delay += 1
        reading = field.update(plant.observe())
        beyond = np.where(reading.trusted & (reading.gravity > 1.5), beyond + 1, 0)
    assert np.flatnonzero(beyond >= 3).tolist() == [bad]
    assert delay >= 3


def test_a_cluster_that_drifts_away_is_found():
    """With a whole cluster detuned |g_c| of that cluster alone rises beyond 1.5 within 30 ticks."""
    plant, field = Governed(50, 1), GravityField()
    for _ in range(100):
        field.update(plant.observe())
    plant.cluster.inject(Fault("bad", FaultKind.CLUSTER, cluster=plant.topology.clusters[2]))
    for _ in range(30):
        reading = field.update(plant.observe())
    assert np.flatnonzero(reading.cluster_gravity > 1.5).tolist() == [2]
