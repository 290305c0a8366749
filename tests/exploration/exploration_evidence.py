"""What the governor is shown: assessments made of words for what each node, and the KPIs, look like."""

from __future__ import annotations

import math

import numpy as np

from metrics.assessment import Assessment
from metrics.gravity import FieldReading
from metrics.kpi import KpiStatus
from metrics.kpi_verdict import KpiVerdict
from metrics.observation import Topology

# The ranks tell which of several bad nodes is worse: the worst is taken first.
GRAVITY = {"good": 0.2, "gray": 1.0, "bad": 2.0, "bad 2": 2.1, "bad 3": 2.2, "worse": 4.0, "blind": math.nan}
RANKS = ("bad", "bad 2", "bad 3")
BAD = frozenset({*RANKS, "worse"})
KPIS = {
    "well": {"coherence": 0.96, "gas": 0.97, "action_cost": 0.02, "delta_entropy": 0.0005},
    "ill": {"coherence": 0.96, "gas": 0.97, "action_cost": 0.08, "delta_entropy": 0.0005},
    "worse": {"coherence": 0.80, "gas": 0.97, "action_cost": 0.30, "delta_entropy": 0.0005},
    "unknown": {"coherence": math.nan, "gas": 0.97, "action_cost": 0.02, "delta_entropy": 0.0005},
}


class Evidence:
    """Makes the assessments of one plant.

    Args:
        topology: of the plant.
        healing: whether KPIs are shown.
    """

    def __init__(self, topology: Topology, *, healing: bool) -> None:
        self._topology = topology
        self._healing = healing
        self._readings: dict[tuple[str, ...], FieldReading] = {}

    def assessment(
        self, tick: int, now_s: float, active: np.ndarray, evidence: tuple[str, ...], kpis: str, *, doubted: bool
    ) -> Assessment:
        """A tick as it is seen at once: what each node looks like, the KPIs, and whether sensors contradict service."""
        persistent = KpiStatus.HEALTHY if kpis == "well" else KpiStatus.WARNING
        verdicts = {}
        if self._healing:
            verdicts = {
                name: KpiVerdict(
                    name,
                    value,
                    KpiStatus.HEALTHY if math.isfinite(value) else KpiStatus.UNKNOWN,
                    persistent if name == "action_cost" else KpiStatus.HEALTHY,
                )
                for name, value in KPIS[kpis].items()
            }
        return Assessment(
            tick=tick,
            plant_time_s=now_s,
            received_s=now_s,
            kpis=verdicts,
            topology=self._topology,
            reading=self._reading(evidence),
            active=active,
            disagreement=0.1 if doubted else 0.0,
            sensors_doubted=doubted,
            anomalies=(),
            scores={},
            plant_safe_mode=False,
        )

    def _reading(self, evidence: tuple[str, ...]) -> FieldReading:
        if evidence not in self._readings:
            gravity = np.array([GRAVITY[what] for what in evidence])
            count, clusters = len(evidence), len(self._topology.clusters)
            self._readings[evidence] = FieldReading(
                tick=0,
                gravity=gravity,
                components=np.stack([np.zeros(count), gravity, np.zeros(count)], axis=1),
                samples=np.full(count, 100, dtype=np.int32),
                trusted=np.array([what != "blind" for what in evidence]),
                cluster_gravity=np.full(clusters, 0.2),
                cluster_order=np.full(clusters, 0.97),
                mean_field=0.96 + 0j,
                unit=0.4,
                spread=1.0,
            )
        return self._readings[evidence]


def is_storm(evidence: tuple[str, ...], active: list[bool], nodes_min: int, fraction: float) -> bool:
    """Whether so many of the nodes that were seen look bad that the evidence itself is suspect."""
    seen = [what for what, serves in zip(evidence, active, strict=True) if serves and what != "blind"]
    bad = sum(what in BAD for what in seen)
    return len(seen) >= nodes_min and bad >= fraction * len(seen) - 1e-9
