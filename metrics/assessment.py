"""All that is known of one tick, as one verdict: KPIs against limits, the gravity field, doubts and anomalies.

The `Assessor` brings together what each measuring module sees: the published KPIs and two of our own (gravity wells,
stable clusters), their limits now and lastingly, the field, the cross-checks and a detector. It decides nothing: what
an assessment means for the plant is the governor's question. HARU tells the environment behind the figures and where
they are heading.

An observation of a tick that was assessed before is no new evidence: its assessment comes again, without anomalies and
with no node trusted. An earlier tick means that the plant started afresh, and everything is learnt anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from metrics.anomalies import Anomaly, AnomalyWatch
from metrics.anomaly.incidents import IncidentDetector
from metrics.crosscheck import DISAGREEMENT_MAX, SensorCrossCheck
from metrics.detector import Detector, DetectorScores
from metrics.gravity import EVIDENCE_TICKS, GRAVITY_CRITICAL, GRAVITY_UNIT, FieldReading, GravityField
from metrics.haru.ahead import KpiAhead, KpiForecast
from metrics.haru.costs import CostShares
from metrics.haru.environment import EnvironmentIdentifier
from metrics.haru.plant_model import Environment
from metrics.kpi import CATALOGUE, Kpi, KpiStatus
from metrics.kpi_verdict import KpiVerdict, Persistence
from metrics.observation import NodeSignals, Observation, Topology
from metrics.recompute import Recomputation
from metrics.smoothing import gap_weight

__all__ = ["Anomaly", "Assessment", "Assessor", "KpiVerdict"]

PERSISTENCE_TICKS = 30
STABLE_ORDER_MIN = 0.90  # order parameter from which a cluster counts as stable
STABLE_TAU_TICKS = 15.0


@dataclass(frozen=True, slots=True, eq=False)
class Assessment:
    """The verdict on one tick.

    Attributes:
        tick: the plant's tick.
        plant_time_s: the plant's time, s.
        received_s: the controller's monotonic time of receipt, s.
        kpis: a verdict for each KPI of the catalogue.
        topology: None for a plant without nodes, and so for `reading` and `active`.
        reading: the gravity field.
        active: bool[N], nodes that the plant does not hold isolated.
        disagreement: D, by how much service contradicts the phase sensors; NaN while unknown.
        sensors_doubted: D is beyond 0.03: what the field shows may be the sensors' fault.
        anomalies: those that began in this tick.
        scores: the detector's score of each KPI, NaN while unknown.
        plant_safe_mode: what the plant says of its own safe mode.
        environment: as HARU identifies it from the phases; None where the plant shows none, or too little is known.
        costs: what the action cost is made of; None for a plant without nodes.
        forecasts: of the KPIs that the couplings move, by name; without those of which too little is known.
    """

    tick: int
    plant_time_s: float
    received_s: float
    kpis: Mapping[str, KpiVerdict]
    topology: Topology | None
    reading: FieldReading | None
    active: NDArray[np.bool_] | None
    disagreement: float
    sensors_doubted: bool
    anomalies: tuple[Anomaly, ...]
    scores: Mapping[str, float]
    plant_safe_mode: bool | None
    environment: Environment | None = None
    costs: CostShares | None = None
    forecasts: Mapping[str, KpiForecast] = field(default_factory=dict)

    def unhealthy(self) -> tuple[str, ...]:
        """Names of the KPIs that are lastingly beyond a limit."""
        lasting = (KpiStatus.WARNING, KpiStatus.CRITICAL)
        return tuple(name for name, verdict in self.kpis.items() if verdict.persistent in lasting)


class Assessor:
    """Turns observations of one plant, in order, into assessments.

    Args:
        catalogue: the KPIs and their limits.
        gravity_critical: |g| beyond which a node is a gravity well, likewise for clusters.
        g0: base unit of g.
        evidence_ticks: ticks of evidence before a node is trusted.
        persistence_ticks: values that a lasting status is judged by.
        detector: makes a detector for so many KPIs.
    """

    def __init__(
        self,
        catalogue: Mapping[str, Kpi] = CATALOGUE,
        *,
        gravity_critical: float = GRAVITY_CRITICAL,
        g0: float = GRAVITY_UNIT,
        evidence_ticks: int = EVIDENCE_TICKS,
        persistence_ticks: int = PERSISTENCE_TICKS,
        detector: Callable[[int], Detector] = IncidentDetector,
    ) -> None:
        def start() -> _Run:
            return _Run(
                catalogue,
                GravityField(g0=g0, evidence_ticks=evidence_ticks),
                detector(len(catalogue)),
                gravity_critical,
                persistence_ticks,
            )

        self._start = start
        self._run = start()

    def assess(self, observation: Observation) -> Assessment:
        """The verdict on `observation`.

        Raises:
            BadDataError: a signal has not one entry for each node of the topology.
        """
        last = self._run.last
        if last is not None and observation.tick == last.tick:
            return _repeated(last, observation)
        if last is not None and observation.tick < last.tick:
            self._run = self._start()
        return self._run.assess(observation)


class _Run:
    """What is known of one uninterrupted life of the plant."""

    def __init__(
        self,
        catalogue: Mapping[str, Kpi],
        field: GravityField,
        detector: Detector,
        gravity_critical: float,
        persistence_ticks: int,
    ) -> None:
        self.last: Assessment | None = None
        self._catalogue = catalogue
        self._field = field
        self._detector = detector
        self._gravity_critical = gravity_critical
        self._persistence = {name: Persistence(kpi, persistence_ticks) for name, kpi in catalogue.items()}
        self._sensors = SensorCrossCheck()
        self._recomputation = Recomputation()
        self._watch = AnomalyWatch(catalogue)
        self._identifier = EnvironmentIdentifier()
        self._ahead = KpiAhead(catalogue)
        self._orders = np.zeros(0)

    def assess(self, observation: Observation) -> Assessment:
        """The verdict on an observation of a later tick."""
        gap_ticks = 1 if self.last is None else observation.tick - self.last.tick
        has_nodes = observation.topology is not None and observation.signals is not None
        reading = self._field.update(observation) if has_nodes else None
        disagreement = self._sensors.update(observation, reading)
        values = self._values(observation, reading, gap_ticks)
        verdicts = {name: self._persistence[name].update(value) for name, value in values.items()}
        scores = self._detector.update(observation.plant_time_s, np.array(list(values.values())))
        self._identifier.update(observation)
        assessment = Assessment(
            tick=observation.tick,
            plant_time_s=observation.plant_time_s,
            received_s=observation.received_s,
            kpis=MappingProxyType(verdicts),
            topology=observation.topology,
            reading=reading,
            active=None if observation.signals is None else observation.signals.active,
            disagreement=disagreement,
            sensors_doubted=disagreement > DISAGREEMENT_MAX,
            anomalies=(),
            scores=MappingProxyType(dict(zip(values, scores.score.tolist(), strict=True))),
            plant_safe_mode=observation.safe_mode,
            environment=self._identifier.environment(),
            costs=self._identifier.costs(),
            forecasts=self._ahead.update(observation),
        )
        self.last = replace(assessment, anomalies=tuple(self._anomalies(observation, assessment, scores, gap_ticks)))
        return self.last

    def _anomalies(
        self, observation: Observation, assessment: Assessment, scores: DetectorScores, gap_ticks: int
    ) -> Iterator[Anomaly]:
        watch, at_s = self._watch, observation.plant_time_s
        yield from watch.of_kpis(assessment.kpis, scores, at_s)
        yield from watch.of_sensors(assessment.disagreement, at_s)
        if assessment.reading is not None and observation.topology is not None:
            yield from watch.of_figures(self._recomputation.update(observation, assessment.reading, gap_ticks), at_s)
            yield from watch.of_nodes(observation.topology, self._sensors.contradictions(), at_s)

    def _values(self, observation: Observation, reading: FieldReading | None, gap_ticks: int) -> dict[str, float]:
        """The published KPIs, and the two that follow from the field instead where there is one."""
        own: dict[str, float] = {}
        if reading is not None and observation.signals is not None:
            own["gravity_wells"], own["stable_clusters"] = self._counts(reading, observation.signals, gap_ticks)
        return {name: own.get(name, float(observation.kpis.get(name, math.nan))) for name in self._catalogue}

    def _counts(self, reading: FieldReading, signals: NodeSignals, gap_ticks: int) -> tuple[float, float]:
        """Gravity wells and stable clusters; NaN before any active node is trusted."""
        orders = reading.cluster_order
        if self._orders.shape != orders.shape:
            self._orders = orders.copy()
        step = gap_weight(gap_ticks, STABLE_TAU_TICKS) * (orders - self._orders)
        self._orders = np.where(np.isnan(self._orders), orders, self._orders + np.nan_to_num(step))
        assessed = signals.active & reading.trusted
        if not assessed.any():
            return math.nan, math.nan
        wells = np.count_nonzero(assessed & (reading.gravity > self._gravity_critical))
        in_order = (self._orders >= STABLE_ORDER_MIN) & ~np.isnan(orders)
        stable = np.count_nonzero(in_order & (reading.cluster_gravity < self._gravity_critical))
        return float(wells), float(stable)


def _repeated(last: Assessment, observation: Observation) -> Assessment:
    """The last assessment once more, as what it is: no new evidence."""
    reading = last.reading
    if reading is not None:
        nobody = np.zeros_like(reading.trusted)
        nobody.setflags(write=False)
        reading = replace(reading, trusted=nobody)
    return replace(last, received_s=observation.received_s, reading=reading, anomalies=())
