"""The light world's observations, and the assessor that passes its reading through.

There is no field to be computed: a node's health gives |g| and its trust directly. What takes time in a verdict (that a
KPI is *lastingly* outside its limits) is counted here as plainly as possible.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from metrics.assessment import Assessment
from metrics.gravity import FieldReading
from metrics.kpi import KpiStatus
from metrics.kpi_verdict import KpiVerdict
from metrics.observation import Observation

COHERENCE_MIN = 0.90
LASTING_TICKS = 15
DISAGREEMENT_MAX = 0.03


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LightObservation(Observation):
    """A tick of the light world, which shows its reading instead of signals."""

    reading: FieldReading
    active: NDArray[np.bool_]
    disagreement: float


def reading_of(tick: int, gravity: NDArray[np.float64], trusted: NDArray[np.bool_], clusters: int) -> FieldReading:
    """A reading with |g| along its second component, in a healthy environment."""
    components = np.zeros((len(gravity), 3))
    components[:, 1] = gravity
    samples, cluster_gravity, cluster_order = _fine(len(gravity), clusters)
    return FieldReading(
        tick=tick,
        gravity=gravity,
        components=components,
        samples=samples,
        trusted=trusted,
        cluster_gravity=cluster_gravity,
        cluster_order=cluster_order,
        mean_field=0.96 + 0j,
        unit=0.4,
        spread=1.0,
    )


@cache
def _fine(nodes: int, clusters: int) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]]:
    """What is the same in every tick: each node's samples, each cluster's |g| and order."""
    made = np.full(nodes, 100, dtype=np.int32), np.full(clusters, 0.2), np.full(clusters, 0.97)
    for column in made:
        column.flags.writeable = False
    return made


class LightAssessor:
    """Stands in for `metrics.assessment.Assessor`: the verdict on a tick is what the world shows."""

    def __init__(self) -> None:
        self._low_ticks = 0
        self._fine = {
            name: KpiVerdict(name, value, KpiStatus.HEALTHY, KpiStatus.HEALTHY)
            for name, value in (("gas", 0.97), ("action_cost", 0.02), ("delta_entropy", 0.0005))
        }

    def assess(self, observation: Observation) -> Assessment:
        """The verdict on one tick."""
        if not isinstance(observation, LightObservation):
            raise TypeError("the light world's observations only")
        coherence = observation.kpis["coherence"]
        low = coherence < COHERENCE_MIN
        self._low_ticks = min(2 * LASTING_TICKS, self._low_ticks + 1) if low else max(0, self._low_ticks - 1)
        verdict = KpiVerdict(
            "coherence",
            coherence,
            KpiStatus.WARNING if low else KpiStatus.HEALTHY,
            KpiStatus.WARNING if self._low_ticks >= LASTING_TICKS else KpiStatus.HEALTHY,
        )
        return Assessment(
            tick=observation.tick,
            plant_time_s=observation.plant_time_s,
            received_s=observation.received_s,
            kpis={"coherence": verdict, **self._fine},
            topology=observation.topology,
            reading=observation.reading,
            active=observation.active,
            disagreement=observation.disagreement,
            sensors_doubted=observation.disagreement > DISAGREEMENT_MAX,
            anomalies=(),
            scores={},
            plant_safe_mode=observation.safe_mode,
        )
