"""Everything that a run leaves behind in memory: what the report, the plots and the proposals are made from.

The journal holds what happened for good; this record adds what is only evidence (KPI values, check results, refusals).
It is filled by the loop and read when the run ends. Memory grows with the ticks of a run; a daemon trims it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace

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


@dataclass(frozen=True, slots=True)
class Refused:
    """Decisions not to act that have one explanation, under the limits of one time.

    Attributes:
        latest: with the values of the last time.
        first_s: plant time of the first time.
        count: how often.
        worst: the highest value that the guard saw.
        together: how many subjects it held at once, at most.
        waiting, longest: ticks in a row, of late and at most.
    """

    latest: Refusal
    first_s: float
    count: int = 0
    worst: float = -math.inf
    together: int = 1
    waiting: int = 0
    longest: int = 0

    def again(self, refusal: Refusal, together: int = 1, previous_s: float = math.inf) -> Refused:
        """With one more of them; `previous_s` is the plant time of the tick before, where waits are counted."""
        waiting = self.waiting + 1 if self.count and self.latest.at_s >= previous_s else 1
        return replace(
            self,
            latest=refusal,
            count=self.count + 1,
            worst=max(self.worst, refusal.observed),
            together=max(self.together, together),
            waiting=waiting,
            longest=max(self.longest, waiting),
        )

    def as_dict(self) -> dict[str, object]:
        """For reports: with the latest values, and the time of the first."""
        return {**asdict(self.latest), "at_s": self.first_s, "count": self.count}


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
        refusals: the decisions not to act, by their explanation and by the limits under which they were taken.
        limits: numbers the sets of limits that have been in force; see `new_limits`.
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
    refusals: dict[tuple[int, Refusal], Refused] = field(default_factory=dict)
    limits: int = 0
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
        """Count the refusals of one decision; one explanation is kept once, whatever the values were each time."""
        refusals = tuple(refusals)
        together = Counter((one.rule, one.guard) for one in set(refusals))
        previous_s = self.history.plant_time_s[-2] if len(self.history.plant_time_s) > 1 else math.inf
        for one in refusals:
            key = (self.limits, one)
            known = self.refusals.get(key) or Refused(one, one.at_s)
            self.refusals[key] = known.again(one, together[one.rule, one.guard], previous_s)

    def new_limits(self) -> None:
        """Other limits are in force now: what is refused from here on is counted by itself."""
        self.limits += 1

    def under_present_limits(self) -> list[Refused]:
        """The refusals since the limits in force came into force."""
        return [refused for (limits, _), refused in self.refusals.items() if limits == self.limits]

    def trim(self, items_max: int) -> None:
        """Forget all but the latest `items_max` ticks, events, anomalies and refusals, as a daemon must."""
        self.history.trim(items_max)
        del self.events[:-items_max], self.anomalies[:-items_max], self.phases[:-items_max]
        for key in list(self.refusals)[:-items_max]:
            del self.refusals[key]
