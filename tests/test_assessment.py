"""The assessment of a tick: verdicts, own KPIs, doubts and anomalies."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from metrics.assessment import Assessor
from metrics.kpi import CATALOGUE, KpiStatus, with_limits
from metrics.observation import SIGNAL_NAMES, NodeSignals, Observation, Parameters, Topology
from qecs.cluster import Cluster
from qecs.fault_kinds import FaultKind
from qecs.faults import Fault

H, W, C, U = KpiStatus.HEALTHY, KpiStatus.WARNING, KpiStatus.CRITICAL, KpiStatus.UNKNOWN


class Governed:
    """A reference cluster, observed and assessed."""

    def __init__(self, nodes=50, seed=2):
        self.cluster = Cluster(nodes, seed=seed)
        self.topology = Topology(self.cluster.node_ids, self.cluster.cluster_ids, self.cluster.cluster_of)
        self.assessor = Assessor()
        self.anomalies = []

    def observe(self):
        snapshot = self.cluster.step()
        signals = {name: np.asarray(snapshot.signals[name], dtype=np.float64) for name in SIGNAL_NAMES}
        signals["active"] = snapshot.signals["active"]
        return Observation(
            snapshot.tick,
            snapshot.time_s,
            snapshot.time_s,
            snapshot.kpis,
            self.topology,
            NodeSignals(**signals),
            Parameters(**self.cluster.parameters.to_dict()),
            snapshot.safe_mode,
        )

    def run(self, ticks):
        for _ in range(ticks):
            assessment = self.assessor.assess(self.observe())
            self.anomalies += assessment.anomalies
        return assessment


def of_kpi(tick, **kpis):
    return Observation(tick, float(tick), float(tick), kpis)


def test_a_healthy_cluster_is_healthy_throughout():
    """After the warm-up every KPI is known and lastingly healthy, nothing is doubted and nobody is a well."""
    plant = Governed()
    assessment = plant.run(150)
    assert set(assessment.kpis) == set(CATALOGUE)
    assert {verdict.persistent for verdict in assessment.kpis.values()} == {H}
    assert assessment.unhealthy() == ()
    assert assessment.kpis["gravity_wells"].value == 0.0
    assert assessment.kpis["stable_clusters"].value == 7.0
    assert not assessment.sensors_doubted
    assert assessment.plant_safe_mode is False
    assert assessment.active.all()
    assert plant.anomalies == []


def test_wells_and_stable_clusters_are_our_own_figures():
    """A byzantine node is counted as a well, and its cluster is no longer stable."""
    plant = Governed()
    plant.run(100)
    plant.cluster.inject(Fault("bad", FaultKind.BYZANTINE, nodes=("node-0003",)))
    assessment = plant.run(40)
    assert assessment.kpis["gravity_wells"].value == 1.0
    assert assessment.kpis["stable_clusters"].value == 6.0


def test_own_figures_are_unknown_before_the_evidence():
    """Before anybody is trusted the number of wells is unknown, not 0."""
    assessment = Governed().run(19)
    assert math.isnan(assessment.kpis["gravity_wells"].value)
    assert assessment.kpis["gravity_wells"].status is U


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.95] * 30, H),
        ([0.95] * 29, U),
        ([0.95] * 15 + [0.89] * 15, H),
        ([0.95] * 14 + [0.89] * 16, W),
        ([0.95] * 14 + [0.84] * 16, C),
        ([0.95] * 15 + [0.84] * 15, H),
        ([0.89] * 16 + [0.84] * 14, W),
        ([0.84] * 30 + [math.nan] * 20, C),
        ([0.95] * 30 + [math.nan] * 31, U),
        ([0.95, math.nan] * 30, H),
        ([math.nan] * 60, U),
    ],
)
def test_lasting_status_is_what_more_than_half_the_window_says(values, expected):
    """One value decides nothing; missing values are skipped for as long as the window, then nothing is known."""
    assessor = Assessor()
    for tick, value in enumerate(values):
        assessment = assessor.assess(of_kpi(tick, coherence=value))
    assert assessment.kpis["coherence"].persistent is expected
    assert assessment.unhealthy() == (("coherence",) if expected in (W, C) else ())


def test_limits_come_from_the_catalogue():
    """An assessor with other limits judges by them."""
    assessor = Assessor(with_limits({"coherence": {"healthy": 0.97}}), persistence_ticks=2)
    for tick in range(3):
        assessment = assessor.assess(of_kpi(tick, coherence=0.96))
    assert assessment.kpis["coherence"].status is W
    assert assessment.kpis["coherence"].persistent is W


def test_kpis_without_limit_are_healthy_while_known():
    """A KPI that is only watched is healthy when finite and unknown when missing."""
    assessment = Assessor().assess(of_kpi(1, supply=1e6))
    assert assessment.kpis["supply"].persistent is H
    assert assessment.kpis["entropy"].persistent is U


def test_a_plant_without_nodes_has_no_field():
    """Without nodes there is no reading, and published figures stand for our own."""
    assessment = Assessor().assess(of_kpi(1, coherence=0.7, coherence_service=0.95, gravity_wells=2.0))
    assert assessment.reading is None
    assert assessment.active is None
    assert assessment.kpis["gravity_wells"].value == 2.0
    assert assessment.disagreement == pytest.approx(0.25)
    assert assessment.sensors_doubted


def test_the_same_tick_again_is_no_new_evidence():
    """A stale observation repeats the verdicts, trusts nobody, tells no anomaly and moves no window."""
    plant = Governed()
    first = plant.run(60)
    observation = replace(plant.observe(), tick=first.tick, received_s=99.0)
    again = plant.assessor.assess(observation)
    assert again.kpis == first.kpis
    assert again.received_s == 99.0
    assert first.reading.trusted.all()
    assert not again.reading.trusted.any()
    assert again.anomalies == ()


def test_a_restarted_plant_is_learnt_anew():
    """When ticks fall back nothing of the old life is judged."""
    assessor = Assessor(persistence_ticks=5)
    for tick in range(10, 30):
        assessor.assess(of_kpi(tick, coherence=0.8))
    assert assessor.assess(of_kpi(1, coherence=0.95)).kpis["coherence"].persistent is U


def test_a_lasting_breach_is_told_once():
    """An anomaly is told when a KPI becomes lastingly critical, with the limit, and not again while it stays so."""
    assessor = Assessor()
    told = []
    for tick in range(90):
        told += assessor.assess(of_kpi(tick, coherence=0.84 if tick >= 30 else 0.95)).anomalies
    lasting = [anomaly for anomaly in told if "lastingly" in anomaly.reason]
    assert [(anomaly.kpi, anomaly.severity, anomaly.at_s) for anomaly in lasting] == [("coherence", "critical", 45.0)]
    assert "0.85" in lasting[0].reason


def test_a_jump_within_the_limits_is_told_by_the_detector():
    """A strange value is told although it is allowed, once, with its score."""
    assessor, rng = Assessor(), np.random.default_rng(1)
    told = []
    for tick in range(130):
        value = 0.99 if tick >= 125 else float(rng.normal(0.95, 0.001))
        assessment = assessor.assess(of_kpi(tick, coherence=value))
        told += assessment.anomalies
    assert [(anomaly.kpi, anomaly.severity, anomaly.at_s) for anomaly in told] == [("coherence", "warning", 125.0)]
    assert assessment.scores["coherence"] > 8.0
    assert math.isnan(assessment.scores["gas"])


def test_doubted_sensors_are_told_once():
    """Sensor noise raises D beyond 0.03; one critical anomaly tells it, and no node is accused meanwhile."""
    plant = Governed()
    plant.run(100)
    plant.cluster.inject(Fault("noise", FaultKind.SENSOR_NOISE))
    assessment = plant.run(60)
    assert assessment.sensors_doubted
    doubts = [anomaly for anomaly in plant.anomalies if "sensors are doubted" in anomaly.reason]
    assert [anomaly.severity for anomaly in doubts] == ["critical"]
    assert all(anomaly.node is None for anomaly in plant.anomalies)


def test_a_lying_node_is_told_and_so_is_the_figure_that_does_not_add_up():
    """A stealthy node is named, and published coherence differs from what the reported phases add up to."""
    plant = Governed(nodes=5)
    plant.run(100)
    plant.cluster.inject(Fault("lie", FaultKind.STEALTH, nodes=("node-0002",)))
    plant.run(60)
    liars = [anomaly for anomaly in plant.anomalies if anomaly.node is not None]
    assert [(anomaly.node, anomaly.kpi) for anomaly in liars] == [("node-0002", "coherence_service")]
    assert "its report is doubted" in liars[0].reason
    figures = [anomaly.reason for anomaly in plant.anomalies if "recomputed" in anomaly.reason]
    assert len(figures) == 1
    assert "published coherence 0.7" in figures[0]
    assert "recomputed 0.9" in figures[0]


def test_a_doctored_action_cost_is_told():
    """A plant that publishes half its action cost is found out, once."""
    plant = Governed(nodes=50)
    for _ in range(140):
        observation = plant.observe()
        kpis = dict(observation.kpis) | {"action_cost": observation.kpis["action_cost"] * 0.2}
        plant.anomalies += plant.assessor.assess(replace(observation, kpis=kpis)).anomalies
    told = [anomaly for anomaly in plant.anomalies if "recomputed" in anomaly.reason]
    assert [anomaly.kpi for anomaly in told] == ["action_cost"]


def test_garbage_signals_are_survived():
    """Whole signals of NaN and infinities break no tick, and nobody is trusted on them."""
    plant = Governed()
    plant.run(60)
    for garbage in (math.nan, math.inf, -math.inf, 1e308):
        observation = plant.observe()
        signals = {name: np.full(50, garbage) for name in SIGNAL_NAMES if name != "active"}
        assessment = plant.assessor.assess(replace(observation, signals=replace(observation.signals, **signals)))
        assert not assessment.reading.trusted.any()
    before = len(plant.anomalies)
    assert plant.run(30).reading.trusted.all()
    assert len(plant.anomalies) == before
    assert plant.run(1).kpis["stable_clusters"].value == 7.0
