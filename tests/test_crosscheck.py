"""The sensor cross-check: corrupt sensors are doubted for as long as they are corrupt, real faults never are."""

from __future__ import annotations

import math

import numpy as np
import pytest

from metrics.crosscheck import DISAGREEMENT_MAX, SensorCrossCheck
from metrics.gravity import GravityField
from metrics.observation import SIGNAL_NAMES, ClusterId, NodeId, NodeSignals, Observation, Topology
from qecs.cluster import Cluster
from qecs.fault_kinds import FaultKind
from qecs.faults import Fault

WARM_UP_TICKS = 100


class Watched:
    """A reference cluster under a fault that begins at once, with |g| and D of each tick from then on."""

    def __init__(self, nodes, seed, fault, ticks):
        cluster = Cluster(nodes, seed=seed)
        topology = Topology(cluster.node_ids, cluster.cluster_ids, cluster.cluster_of)
        field, check = GravityField(), SensorCrossCheck()
        self.disagreement, self.wells = [], []
        beyond = np.zeros(nodes, dtype=np.int64)
        for tick in range(WARM_UP_TICKS + ticks):
            if tick == WARM_UP_TICKS and fault is not None:
                cluster.inject(fault)
            snapshot = cluster.step()
            signals = {name: np.asarray(snapshot.signals[name], dtype=np.float64) for name in SIGNAL_NAMES}
            signals["active"] = snapshot.signals["active"]
            observation = Observation(
                snapshot.tick, snapshot.time_s, 0.0, snapshot.kpis, topology, NodeSignals(**signals)
            )
            reading = field.update(observation)
            disagreement = check.update(observation, reading)
            beyond = np.where(reading.trusted & (reading.gravity > 1.5), beyond + 1, 0)
            if tick >= WARM_UP_TICKS:
                self.disagreement.append(disagreement)
                self.wells.append(np.flatnonzero(beyond >= 3).tolist())
        self.held = [value > DISAGREEMENT_MAX for value in self.disagreement]
        self.contradictions = check.contradictions()


@pytest.mark.parametrize(("nodes", "seeds"), [(5, 6), (50, 2), (1000, 1)])
def test_sensor_noise_is_held_for_long_and_nobody_isolated(nodes, seeds):
    """Under sensor noise the hold begins within 15 ticks, lasts, and no node is confirmed bad outside it."""
    for seed in range(seeds):
        run = Watched(nodes, seed, Fault("noise", FaultKind.SENSOR_NOISE), 60)
        assert run.held.index(True) < 15
        assert sum(run.held) >= 40
        assert not any(wells and not held for wells, held in zip(run.wells, run.held, strict=True))


@pytest.mark.parametrize(("nodes", "seeds"), [(5, 8), (50, 2)])
def test_static_sensor_errors_isolate_nobody(nodes, seeds):
    """Errors that stay the same are as dangerous: whenever they make a node look bad, the hold is on."""
    for seed in range(seeds):
        run = Watched(nodes, seed, Fault("static", FaultKind.SENSOR_STATIC), 80)
        assert not any(wells and not held for wells, held in zip(run.wells, run.held, strict=True))


REAL_FAULTS = [
    None,
    Fault("f", FaultKind.BYZANTINE, count=1),
    Fault("f", FaultKind.STEALTH, count=1),
    Fault("f", FaultKind.SILENT, count=1),
    Fault("f", FaultKind.SLOW, count=1),
    Fault("f", FaultKind.DETUNED, count=1),
    Fault("f", FaultKind.FLAPPING, count=1),
    Fault("f", FaultKind.CLUSTER, cluster="cluster-00"),
    Fault("f", FaultKind.SURGE),
    Fault("f", FaultKind.ENTROPY_SPIKE),
    Fault("f", FaultKind.DRIFT, channels={"omega": 0.15}),
    Fault("f", FaultKind.DRIFT, channels={"w0": 0.06}),
    Fault("f", FaultKind.DRIFT, channels={"sigma_m": 0.5}),
]


@pytest.mark.parametrize("nodes", [5, 50])
@pytest.mark.parametrize("fault", REAL_FAULTS, ids=lambda fault: "healthy" if fault is None else fault.kind.value)
def test_real_faults_are_never_mistaken_for_sensors(nodes, fault):
    """Whatever really goes wrong, isolation is not delayed by a single tick; only wash trading comes near the limit."""
    run = Watched(nodes, 11, fault, 80)
    washing = fault is not None and fault.kind is FaultKind.ENTROPY_SPIKE
    assert max(run.disagreement) < (0.028 if washing else 0.015)


@pytest.mark.parametrize("nodes", [5, 50])
def test_a_common_bias_is_no_reason_to_hold(nodes):
    """When all sensors are off by the same angle relative phases are right, and so is |g|: nothing is held."""
    run = Watched(nodes, 3, Fault("bias", FaultKind.SENSOR_BIAS), 80)
    assert not any(run.held)


def test_a_lying_node_contradicts_its_own_service():
    """A stealthy node commits far less than its reported phase promises; all others agree with theirs."""
    run = Watched(50, 5, Fault("lie", FaultKind.STEALTH, nodes=("node-0007",)), 40)
    others = np.delete(run.contradictions, 7)
    assert run.contradictions[7] < -0.6
    assert np.abs(others).max() < 0.05


def plain(tick, phase, commits, retries, **kpis):
    n = len(phase)
    topology = Topology(tuple(NodeId(f"n{i}") for i in range(n)), (ClusterId("c"),), np.zeros(n, dtype=np.int32))
    signals = {name: np.zeros(n) for name in SIGNAL_NAMES} | {
        "phase": np.asarray(phase, dtype=np.float64),
        "participation": np.ones(n),
        "arrivals": np.full(n, 20.0),
        "commits": np.asarray(commits, dtype=np.float64),
        "retries": np.asarray(retries, dtype=np.float64),
        "active": np.ones(n, dtype=np.bool_),
    }
    return Observation(tick, float(tick), 0.0, kpis, topology, NodeSignals(**signals))


def run_plain(ticks, *args):
    field, check = GravityField(), SensorCrossCheck()
    for tick in range(1, ticks + 1):
        observation = plain(tick, *args)
        value = check.update(observation, field.update(observation))
    return value


def test_excess_by_hand():
    """Two nodes at ±90° promise 1/8 of 0.995; if all attempts succeed D settles at 1 − 0.995/8."""
    phase = [math.pi / 2, -math.pi / 2, 0.0]
    value = run_plain(300, phase, [20.0, 20.0, 19.9], [0.0, 0.0, 0.1])
    assert value == pytest.approx(2 / 3 * (1 - 0.995 / 8), abs=1e-6)


def test_unknown_before_fifteen_ticks_of_attempts():
    """Without enough attempts D is NaN, which doubts nobody."""
    assert math.isnan(run_plain(14, [0.0, 0.0], [20.0, 20.0], [0.0, 0.0]))
    assert not math.isnan(run_plain(15, [0.0, 0.0], [20.0, 20.0], [0.0, 0.0]))
    assert math.isnan(run_plain(50, [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]))


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, -5.0, 1e308])
@pytest.mark.parametrize("signal", ["phase", "commits", "retries"])
def test_garbage_of_one_node_changes_little(signal, garbage):
    """A node whose signals are no evidence is left out, and D stays finite and small."""
    values = {"phase": [0.0] * 4, "commits": [20.0] * 4, "retries": [0.0] * 4}
    values[signal][1] = garbage
    value = run_plain(30, values["phase"], values["commits"], values["retries"])
    assert math.isfinite(value)
    # A finite phase is evidence, whatever its size: cos(−5) and cos(1e308) promise less than is served.
    assert abs(value) < (0.25 if signal == "phase" and math.isfinite(garbage) else 0.01)


def test_a_plant_without_nodes_is_judged_by_what_it_publishes():
    """Without nodes D is C_svc − C as published, NaN where one is missing."""
    check = SensorCrossCheck()
    both = Observation(1, 1.0, 0.0, {"coherence_service": 0.95, "coherence": 0.75})
    assert check.update(both, None) == pytest.approx(0.20)
    assert math.isnan(check.update(Observation(2, 2.0, 0.0, {"coherence": 0.9}), None))
