"""What is strange in this tick that was not before? Every finding of the measuring modules, told once, in words.

Four sources: a KPI that the detector finds strange, a KPI that is now lastingly beyond a limit, a figure that the plant
publishes other than its nodes add up to, and nodes (or all sensors) whose reports their service contradicts. An anomaly
is told when it begins, and again only after it has ended.

Left out: gravity wells, which the governor follows itself, and what should be done about any of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from metrics.crosscheck import DISAGREEMENT_MAX
from metrics.detector import DetectorScores
from metrics.kpi import Kpi, KpiStatus
from metrics.kpi_verdict import KpiVerdict
from metrics.observation import NodeId, Topology
from metrics.recompute import Mismatch

CONTRADICTION_MAX = 0.30  # share of attempts; honest nodes stay below .15 even when they fail
CONTRADICTION_END = 0.15
NODES_TOLD_MAX = 10  # a tick; a million anomalies would tell nobody anything

_RANK = {KpiStatus.UNKNOWN: 0, KpiStatus.HEALTHY: 0, KpiStatus.WARNING: 1, KpiStatus.CRITICAL: 2}


@dataclass(frozen=True, slots=True)
class Anomaly:
    """Something strange that began in this tick.

    Attributes:
        kpi: the figure that shows it.
        node: the node that shows it, None for the whole plant.
        score: how strange, in the unit of what found it: the detector's score, or a difference.
        severity: "warning" or "critical".
        reason: what was seen, with the values, for people.
        at_s: plant time, s.
    """

    kpi: str
    node: NodeId | None
    score: float
    severity: str
    reason: str
    at_s: float


class AnomalyWatch:
    """Remembers what has been told, so that each anomaly is told once."""

    def __init__(self, catalogue: Mapping[str, Kpi]) -> None:
        self._catalogue = catalogue
        self._lasting: dict[str, KpiStatus] = {}
        self._doubted = False
        self._contradicting: set[NodeId] = set()

    def of_kpis(self, verdicts: Mapping[str, KpiVerdict], scores: DetectorScores, at_s: float) -> Iterator[Anomaly]:
        """KPIs that became strange, and KPIs that became lastingly unhealthy or worse."""
        found = zip(verdicts.values(), scores.score, scores.onset, strict=True)
        for index, (verdict, score, onset) in enumerate(found):
            name = verdict.name
            if onset:
                severity = "critical" if verdict.status is KpiStatus.CRITICAL else "warning"
                reason = f"{name} = {verdict.value:.4g} is unusual: {scores.reason(index)}"
                yield Anomaly(name, None, float(score), severity, reason, at_s)
            if _RANK[verdict.persistent] > _RANK[self._lasting.get(name, KpiStatus.UNKNOWN)]:
                limit = self._catalogue[name].limit
                reason = f"{name} = {verdict.value:.4g} and lastingly beyond its {verdict.persistent} limit ({limit})"
                yield Anomaly(name, None, float(score), verdict.persistent.value, reason, at_s)
            self._lasting[name] = verdict.persistent

    def of_figures(self, mismatches: Sequence[Mismatch], at_s: float) -> Iterator[Anomaly]:
        """Figures that the plant publishes other than its nodes add up to."""
        for found in mismatches:
            reason = (
                f"published {found.kpi} {found.published:.4g}, recomputed {found.recomputed:.4g} "
                f"from the nodes' signals: they differ by more than {found.tolerance:.2g}"
            )
            yield Anomaly(found.kpi, None, abs(found.published - found.recomputed), "warning", reason, at_s)

    def of_sensors(self, disagreement: float, at_s: float) -> Iterator[Anomaly]:
        """Doubt of all sensors together; over once D is below half its limit."""
        if disagreement > DISAGREEMENT_MAX and not self._doubted:
            reason = (
                f"nodes serve better than their reported phases allow, by {disagreement:.1%} of all attempts "
                f"(limit {DISAGREEMENT_MAX:.0%}): the phase sensors are doubted"
            )
            yield Anomaly("coherence_service", None, disagreement, "critical", reason, at_s)
        limit = DISAGREEMENT_MAX / 2 if self._doubted else DISAGREEMENT_MAX
        self._doubted = disagreement > limit

    def of_nodes(self, topology: Topology, contradictions: NDArray[np.float64], at_s: float) -> Iterator[Anomaly]:
        """Nodes whose reported phase their service contradicts, worst first; none while all sensors are doubted."""
        size = np.abs(contradictions)
        index = topology.index
        self._contradicting = {n for n in self._contradicting if n in index and size[index[n]] > CONTRADICTION_END}
        if self._doubted:
            return
        beyond = np.flatnonzero(size > CONTRADICTION_MAX)
        worst = (topology.nodes[i] for i in beyond[np.argsort(-size[beyond], kind="stable")])
        for node in islice((node for node in worst if node not in self._contradicting), NODES_TOLD_MAX):
            share = float(contradictions[index[node]])
            how, suspect = ("better", "its sensor") if share > 0 else ("worse", "its report")
            reason = (
                f"{node} serves {how} than its reported phase allows, by {abs(share):.0%} of its attempts: "
                f"{suspect} is doubted"
            )
            self._contradicting.add(node)
            yield Anomaly("coherence_service", node, abs(share), "warning", reason, at_s)
