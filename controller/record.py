"""Everything that a run leaves behind in memory: what the report, the plots and the proposals are made from.

The journal holds what happened for good; this record adds what is only evidence (KPI values, check results, refusals).
It is filled by the loop and read when the run ends. Memory grows with the ticks of a run; a daemon trims it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from metrics.assessment import Anomaly, Assessment
from metrics.kpi import Kpi
from state.event import Event
from state.governor import Refusal
from state.outcome import Outcome
from state.phase import Phase
from state.verdict import PhaseResult


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event with its place in the journal's chain."""

    seq: int
    hash: str
    event: Event


@dataclass(slots=True)
class KpiHistory:
    """KPI values by tick, with the controller's state at each.

    Attributes:
        plant_time_s: plant time of each tick, s.
        phases: the controller's state at each tick.
        values: KPI name to one value a tick; NaN where unknown.
    """

    plant_time_s: list[float] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)

    def append(self, assessment: Assessment, phase: Phase) -> None:
        """Add one tick."""
        ticks = len(self.plant_time_s)
        self.plant_time_s.append(assessment.plant_time_s)
        self.phases.append(phase)
        for name, verdict in assessment.kpis.items():
            self.values.setdefault(name, [math.nan] * ticks).append(verdict.value)
        for series in self.values.values():
            if len(series) == ticks:
                series.append(math.nan)

    def trim(self, ticks_max: int) -> None:
        """Forget all but the latest `ticks_max` ticks."""
        del self.plant_time_s[:-ticks_max], self.phases[:-ticks_max]
        for series in self.values.values():
            del series[:-ticks_max]


@dataclass(slots=True)
class RunRecord:
    """One run.

    Attributes:
        run_id: unique; no part of what two equal runs must share.
        plant, system: the plant's name and the governed system.
        nodes, clusters, seed, scenario, ticks: what was asked for; nodes and clusters are 0 for a plant without nodes.
        dry_run: True where nothing was to be acted upon.
        catalogue: the KPIs with the limits in force.
        phases: results in order.
        history: KPI values.
        events: every journaled event, in order.
        anomalies: what the detectors found.
        refusals: each decision not to act, by its explanation, with how often it was taken.
        proposals: the improvement proposals of Phase IV.
        wall_started, wall_s: wall-clock fields, excluded from reproducibility.
        outcome: set when the run has ended.
    """

    run_id: str
    plant: str
    system: str
    nodes: int
    clusters: int
    seed: int
    scenario: str
    ticks: int
    dry_run: bool
    catalogue: Mapping[str, Kpi]
    wall_started: str
    phases: list[PhaseResult] = field(default_factory=list)
    history: KpiHistory = field(default_factory=KpiHistory)
    events: list[Recorded] = field(default_factory=list)
    anomalies: list[Anomaly] = field(default_factory=list)
    refusals: dict[Refusal, int] = field(default_factory=dict)
    proposals: list[Mapping[str, object]] = field(default_factory=list)
    wall_s: float = 0.0
    outcome: Outcome | None = None
    still_isolated: tuple[tuple[str, float], ...] = ()

    def where(self) -> dict[str, object]:
        """On what it was made, for those who read about it."""
        return {
            "plant": self.plant,
            "system": self.system,
            "nodes": self.nodes,
            "clusters": self.clusters,
            "seed": self.seed,
            "scenario": self.scenario,
        }

    def refuse(self, refusals: Iterable[Refusal]) -> None:
        """Count refusals; one explanation is kept once, whatever the values were each time."""
        for refusal in refusals:
            self.refusals[refusal] = self.refusals.get(refusal, 0) + 1

    def trim(self, items_max: int) -> None:
        """Forget all but the latest `items_max` ticks, events, anomalies and refusals, as a daemon must."""
        self.history.trim(items_max)
        del self.events[:-items_max], self.anomalies[:-items_max], self.phases[:-items_max]
        for refusal in list(self.refusals)[:-items_max]:
            del self.refusals[refusal]
