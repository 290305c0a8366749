"""What is only known by counting and timing along the way: the counters and durations that a scrape shows.

Counters start at zero with the process, as Prometheus expects, and every label value that is known beforehand is there
from the start, so that a rate sees the first increase. Used by the loop's thread; costs microseconds a tick.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from controller.clock import Clock
from metrics.assessment import Assessment
from metrics.errors import PlantUnavailableError
from metrics.export_snapshot import Durations
from metrics.kpi import Kpi
from metrics.observation import PARAMETER_BOUNDS, Observation
from state.event import Event, EventKind
from state.isolation import SAFETY_GUARDS

BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
TICK = "tick"  # the job that looks at the plant
TRANSACTIONS_MAX = 1e15  # in a tick: more is garbage, and would drown the sum
REASONS: Mapping[str, str] = {"h": "coherence", "q": "direction", "k": "service"}  # docs/model.md section 3
TRIAL_OUTCOMES: Mapping[EventKind, str] = {
    EventKind.TRIAL_KEPT: "kept",
    EventKind.TRIAL_ROLLED_BACK: "rolled_back",
    EventKind.ROLLBACK_FAILED: "rollback_failed",
}
_TRANSACTIONS = {"committed": "commits", "retried": "retries", "shed": "shed", "invalid": "invalid"}


@dataclass(slots=True)
class Stopwatch:
    """Durations by bucket."""

    _counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    _total_s: float = 0.0

    def add(self, duration_s: float) -> None:
        """Count one."""
        self._counts[bisect_left(BOUNDS_S, duration_s)] += 1
        self._total_s += duration_s

    def read(self) -> Durations:
        """What was counted so far."""
        return Durations(BOUNDS_S, tuple(self._counts), self._total_s)


class Meter:
    """The counters of one process.

    Args:
        kpis: names of the KPIs.

    Attributes:
        emission_tokens, burned_tokens, transactions, isolations, restorations, blocked, anomalies, trials,
        ticks_missed: as in `ExportSnapshot`.
        plant_requests, ticks: durations.
        plant_up: whether the last call to the plant was answered; None before the first.
        tick_interval_s: time between two scheduled ticks; None where nothing is scheduled.
        tick_lag_s: how late the last scheduled tick began; None where nothing is scheduled.
    """

    def __init__(self, kpis: Mapping[str, Kpi]) -> None:
        self.emission_tokens = 0.0
        self.burned_tokens = 0.0
        self.transactions: dict[str, float] = {}
        self.isolations = dict.fromkeys(REASONS.values(), 0)
        self.restorations = 0
        self.blocked = {guard.value: 0 for guard in sorted(SAFETY_GUARDS)}
        self.anomalies = {(kpi, severity): 0 for kpi in kpis for severity in ("warning", "critical")}
        self.trials = {(name, outcome): 0 for name in PARAMETER_BOUNDS for outcome in TRIAL_OUTCOMES.values()}
        self.ticks_missed = {TICK: 0}
        self.plant_requests = Stopwatch()
        self.ticks = Stopwatch()
        self.plant_up: bool | None = None
        self.tick_interval_s: float | None = None
        self.tick_lag_s: float | None = None
        self._reasons: dict[str, str] = {}
        self._tried: tuple[str, ...] = ()

    def tick(self, observation: Observation, assessment: Assessment) -> None:
        """Count what one tick brought."""
        self.emission_tokens += _counted(observation.kpis.get("emission"))
        self.burned_tokens += _counted(observation.kpis.get("burned"))
        if observation.signals is not None:
            for result, signal in _TRANSACTIONS.items():
                total = _sum(getattr(observation.signals, signal))
                self.transactions[result] = self.transactions.get(result, 0.0) + total
        for anomaly in assessment.anomalies:
            key = (anomaly.kpi, anomaly.severity)
            self.anomalies[key] = self.anomalies.get(key, 0) + 1

    def event(self, event: Event) -> None:
        """Count what an event tells."""
        data = event.data
        match event.kind:
            case EventKind.ISOLATION_INTENDED:
                self._reasons[str(data["key"])] = _heaviest(data["components"])
            case EventKind.ISOLATION_FAILED:
                self._reasons.pop(str(data["key"]), None)
            case EventKind.ISOLATION_VERIFIED:
                reason = self._reasons.pop(str(data["key"]), "unknown")
                self.isolations[reason] = self.isolations.get(reason, 0) + 1
            case EventKind.RESTORATION_VERIFIED:
                self.restorations += 1
            case EventKind.ISOLATION_BLOCKED:
                guard = str(data["guard"])
                self.blocked[guard] = self.blocked.get(guard, 0) + 1
            case EventKind.TRIAL_STARTED:
                self._tried = _changed(data["from"], data["to"])
            case EventKind.TRIAL_KEPT | EventKind.TRIAL_ROLLED_BACK | EventKind.ROLLBACK_FAILED:
                for name in self._tried:
                    self.trials[name, TRIAL_OUTCOMES[event.kind]] += 1
            case _:
                pass

    @contextmanager
    def calling(self, clock: Clock) -> Iterator[None]:
        """Time a call to the plant while this is entered; a refusal is an answer, too."""
        started_s = clock.monotonic_s()
        answered = True
        try:
            yield
        except PlantUnavailableError:
            answered = False
            raise
        finally:
            self.plant_up = answered
            self.plant_requests.add(clock.monotonic_s() - started_s)

    def scheduled(self, tick: Callable[[], None], interval_s: float, clock: Clock) -> Callable[[], None]:
        """`tick`, watched for how late it begins on its grid and how many points of that it has missed."""
        grid_s, last = math.inf, -1
        self.tick_interval_s = interval_s

        def watched() -> None:
            nonlocal grid_s, last
            now_s = clock.monotonic_s()
            grid_s = min(grid_s, now_s)
            point = round((now_s - grid_s) / interval_s)
            grid_s = min(grid_s, now_s - point * interval_s)  # the earliest begin so far shows where the grid lies
            self.tick_lag_s = now_s - grid_s - point * interval_s
            self.ticks_missed[TICK] += max(0, point - last - 1)
            last = point
            tick()

        return watched


def _counted(value: float | None) -> float:
    """What a counter may grow by: garbage and unknown values count as nothing."""
    return float(value) if value is not None and math.isfinite(value) and value > 0 else 0.0


def _sum(counts: NDArray[np.float64]) -> float:
    return float(np.sum(counts, where=(counts >= 0.0) & (counts <= TRANSACTIONS_MAX)))


def _heaviest(components: object) -> str:
    """The component of g that weighed most: nothing of the free text of a reason becomes a label."""
    if not isinstance(components, Mapping):
        return "unknown"
    known = {name: abs(float(value)) for name, value in components.items() if name in REASONS}
    return REASONS[max(known, key=known.__getitem__)] if known else "unknown"


def _changed(before: object, after: object) -> tuple[str, ...]:
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return ()
    return tuple(name for name in PARAMETER_BOUNDS if before.get(name) != after.get(name))
