"""What one scrape shows: plain values of one observation, built once and never changed.

The exporter is handed a snapshot and knows nobody who made it. What is not known is left out (an absent KPI, None), so
that a scrape never shows an invented or a stale number. Left out: names and help texts, see `export_catalogue.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from metrics.store_writer import StoreAccounts


@dataclass(frozen=True, slots=True)
class NodeSample:
    """One node that has series of its own.

    Attributes:
        node, cluster: its names.
        gravity: |g|; NaN where it is not known.
        isolated: whether the plant holds it out.
    """

    node: str
    cluster: str
    gravity: float
    isolated: bool


@dataclass(frozen=True, slots=True)
class Durations:
    """How long something took, each time since the start.

    Attributes:
        bounds_s: upper bounds of the buckets, ascending, without infinity.
        counts: times within each bound and beyond the last, not cumulated: one more than there are bounds.
        total_s: the sum.
    """

    bounds_s: tuple[float, ...]
    counts: tuple[int, ...]
    total_s: float


@dataclass(frozen=True, slots=True, eq=False)
class ExportSnapshot:
    """The controller and its plant at one tick.

    Attributes:
        state, states: the controller's state, and all there are.
        phase_results: phase to 1 (passed), 0 (failed) or -1 (undecided); absent before it has ended.
        phase_durations_s: phase to plant time, s.
        kpis: KPI to value, by catalogue name.
        kpi_limits: KPI and level ("healthy", "critical") to bound.
        scores: KPI to the detector's score.
        parameters: parameter to value in force.
        emission_tokens, burned_tokens: tokens minted and burned since the start.
        transactions: result to number since the start.
        nodes: status to number of nodes; empty for a plant without nodes.
        node_samples: the nodes with series of their own.
        isolations: reason to verified isolations since the start.
        restorations: verified re-admissions since the start.
        blocked: guard to isolations that it forbade since the start.
        wells_blocked: guard to confirmed wells that it leaves in place now.
        anomalies: KPI and severity to anomalies since the start.
        trials: parameter and outcome to healing trials since the start.
        proposals: status to improvement proposals.
        healing_exhausted: healing has given up and waits before it tries again.
        storm: so much looks bad at once that the sensors are suspected instead.
        safe_mode: the controller holds fail-static.
        leader: this controller may act; `epoch` is its fencing epoch.
        plant_up: the plant answered the last call; None before the first.
        received_s: monotonic time at which the observation was received, on the exporter's clock.
        observation_age_s: age of the observation; the exporter fills it in for each scrape.
        plant_requests, ticks: how long calls to the plant and ticks of the controller took.
        tick_interval_s: time between two scheduled ticks; None where nothing is scheduled.
        tick_lag_s: how late the last tick began; None where nothing is scheduled.
        ticks_missed: job to scheduled ticks that were skipped.
        stores: store to what became of its points.
        journal_events: events in the journal.
        journal_failures: decisions that the journal could not keep since the start.
        exit_code: how the run ended; None while it goes on.
        build: what is running, e.g. its version.
    """

    state: str
    states: tuple[str, ...]
    plant_requests: Durations
    ticks: Durations
    phase_results: Mapping[str, int] = field(default_factory=dict)
    phase_durations_s: Mapping[str, float] = field(default_factory=dict)
    kpis: Mapping[str, float] = field(default_factory=dict)
    kpi_limits: Mapping[tuple[str, str], float] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, float] = field(default_factory=dict)
    emission_tokens: float = 0.0
    burned_tokens: float = 0.0
    transactions: Mapping[str, float] = field(default_factory=dict)
    nodes: Mapping[str, int] = field(default_factory=dict)
    node_samples: tuple[NodeSample, ...] = ()
    isolations: Mapping[str, int] = field(default_factory=dict)
    restorations: int = 0
    blocked: Mapping[str, int] = field(default_factory=dict)
    wells_blocked: Mapping[str, int] = field(default_factory=dict)
    anomalies: Mapping[tuple[str, str], int] = field(default_factory=dict)
    trials: Mapping[tuple[str, str], int] = field(default_factory=dict)
    proposals: Mapping[str, int] = field(default_factory=dict)
    healing_exhausted: bool = False
    storm: bool = False
    safe_mode: bool = False
    leader: bool = False
    epoch: int = 0
    plant_up: bool | None = None
    received_s: float | None = None
    observation_age_s: float | None = None
    tick_interval_s: float | None = None
    tick_lag_s: float | None = None
    ticks_missed: Mapping[str, int] = field(default_factory=dict)
    stores: Mapping[str, StoreAccounts] = field(default_factory=dict)
    journal_events: int = 0
    journal_failures: int = 0
    exit_code: int | None = None
    build: Mapping[str, str] = field(default_factory=dict)
