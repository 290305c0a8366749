"""The metric catalogue: the one home of every exported name, its type, labels, meaning, and where its value comes from.

Names are contracts: dashboards, alerts and scripts are written against them. Prefix `iace_`, base units, counters end
in `_total`. A value that is not known (None, NaN, an absent key) has no sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from metrics.export_snapshot import Durations, ExportSnapshot, NodeSample

Labelled: TypeAlias = Iterable[tuple[tuple[str, ...], float]]


class MetricType(StrEnum):
    """What Prometheus may do with the values."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class ExportedMetric:
    """One metric.

    Attributes:
        name: as it is exposed.
        help: what it is, in a sentence.
        type: its type; `value` gives what belongs to it.
        labels: names of its labels.
        value: reads a gauge's or counter's samples, label values and value each; None for the types below.
        durations: reads a histogram.
        info: reads an info metric's labels.
        nodes: reads one node's value; the metric has labels "node" and "cluster" then.
        kpi: the KPI that a gauge shows, by its name in the KPI catalogue.
    """

    name: str
    help: str
    type: MetricType = MetricType.GAUGE
    labels: tuple[str, ...] = ()
    value: Callable[[ExportSnapshot], Labelled] | None = None
    durations: Callable[[ExportSnapshot], Durations] | None = None
    info: Callable[[ExportSnapshot], Mapping[str, str]] | None = None
    nodes: Callable[[NodeSample], float] | None = None
    kpi: str | None = None


def _one(read: Callable[[ExportSnapshot], float | None]) -> Callable[[ExportSnapshot], Labelled]:
    def value(snapshot: ExportSnapshot) -> Labelled:
        single = read(snapshot)
        return [] if single is None or math.isnan(single) else [((), float(single))]

    return value


def _many(read: Callable[[ExportSnapshot], Mapping[str, float]]) -> Callable[[ExportSnapshot], Labelled]:
    return lambda snapshot: [((key,), value) for key, value in read(snapshot).items() if not math.isnan(value)]


def _pairs(read: Callable[[ExportSnapshot], Mapping[tuple[str, str], float]]) -> Callable[[ExportSnapshot], Labelled]:
    return lambda snapshot: read(snapshot).items()


def _kpi(name: str, help_: str, kpi: str) -> ExportedMetric:
    return ExportedMetric(name, help_, value=_one(lambda snapshot: snapshot.kpis.get(kpi)), kpi=kpi)


def _states(snapshot: ExportSnapshot) -> Labelled:
    return [((state,), float(state == snapshot.state)) for state in snapshot.states]


def _store_points(snapshot: ExportSnapshot) -> Labelled:
    return [
        ((store, outcome), float(getattr(accounts, outcome)))
        for store, accounts in snapshot.stores.items()
        for outcome in ("written", "dropped", "rejected")
    ]


_G, _C = MetricType.GAUGE, MetricType.COUNTER
_NODE = ("node", "cluster")

EXPORTED: tuple[ExportedMetric, ...] = (
    ExportedMetric("iace_state", "State of the controller: 1 for the one it is in.", _G, ("state",), _states),
    ExportedMetric(
        "iace_phase_result",
        "How a phase ended: 1 passed, 0 failed, -1 undecided.",
        _G,
        ("phase",),
        _many(lambda s: s.phase_results),
    ),
    ExportedMetric(
        "iace_phase_duration_seconds",
        "Plant time that a phase took.",
        _G,
        ("phase",),
        _many(lambda s: s.phase_durations_s),
    ),
    _kpi("iace_coherence_ratio", "Order parameter of all active nodes (C_S).", "coherence"),
    _kpi("iace_gas_ratio", "Geometric alignment score (GAS).", "gas"),
    _kpi("iace_rsi_ratio", "Recursive stability index (RSI).", "rsi"),
    _kpi("iace_lambda_opt", "Realised contraction rate of the phases, per second.", "lambda_opt"),
    _kpi("iace_delta_lambda", "Change of the contraction rate over 10 ticks, per second.", "delta_lambda"),
    _kpi("iace_delta_entropy", "Change of entropy over 10 ticks, in nats.", "delta_entropy"),
    _kpi("iace_action_cost_ratio", "Action-efficiency cost per committed transaction (I_eff).", "action_cost"),
    ExportedMetric(
        "iace_emission_tokens_total", "Tokens minted by the CAF.", _C, value=_one(lambda s: s.emission_tokens)
    ),
    ExportedMetric("iace_burned_tokens_total", "Tokens burned.", _C, value=_one(lambda s: s.burned_tokens)),
    ExportedMetric(
        "iace_transactions_total",
        "Transactions of all nodes, by what became of them.",
        _C,
        ("result",),
        _many(lambda s: s.transactions),
    ),
    _kpi("iace_transaction_rate", "Committed transactions a second, moving average.", "transaction_rate"),
    _kpi("iace_gravity_wells", "Active nodes with gravity above the critical value.", "gravity_wells"),
    _kpi("iace_stable_clusters", "Clusters in order and below critical.", "stable_clusters"),
    ExportedMetric(
        "iace_nodes", "Nodes, by where they stand with the controller.", _G, ("status",), _many(lambda s: s.nodes)
    ),
    ExportedMetric(
        "iace_node_gravity",
        "Gravity |g| of the worst nodes and of all that are isolated.",
        _G,
        _NODE,
        nodes=lambda n: n.gravity,
    ),
    ExportedMetric(
        "iace_node_isolated",
        "Whether the plant holds a node out: the worst nodes and all that are isolated.",
        _G,
        _NODE,
        nodes=lambda n: float(n.isolated),
    ),
    ExportedMetric(
        "iace_isolations_total",
        "Verified isolations, by the component of gravity that weighed most.",
        _C,
        ("reason",),
        _many(lambda s: s.isolations),
    ),
    ExportedMetric("iace_restorations_total", "Verified re-admissions.", _C, value=_one(lambda s: s.restorations)),
    ExportedMetric(
        "iace_isolations_blocked_total",
        "Isolations that a safety guard forbade.",
        _C,
        ("guard",),
        _many(lambda s: s.blocked),
    ),
    ExportedMetric(
        "iace_wells_blocked",
        "Confirmed gravity wells that a safety guard leaves in place.",
        _G,
        ("guard",),
        _many(lambda s: s.wells_blocked),
    ),
    ExportedMetric(
        "iace_anomaly_score", "How unusual a KPI is now, by the detector.", _G, ("kpi",), _many(lambda s: s.scores)
    ),
    ExportedMetric(
        "iace_anomalies_total", "Anomalies that began.", _C, ("kpi", "severity"), _pairs(lambda s: s.anomalies)
    ),
    ExportedMetric(
        "iace_kpi_limit", "Bound of a KPI that is in force.", _G, ("kpi", "level"), _pairs(lambda s: s.kpi_limits)
    ),
    _kpi("iace_supply_tokens", "Tokens in existence.", "supply"),
    _kpi("iace_entropy_nats", "Entropy of the commit shares and the supply.", "entropy"),
    _kpi(
        "iace_coherence_service_ratio",
        "Coherence inferred from service alone, without phase sensors.",
        "coherence_service",
    ),
    ExportedMetric(
        "iace_storm",
        "1 while so many nodes look bad at once that the sensors are suspected.",
        value=_one(lambda s: s.storm),
    ),
    ExportedMetric("iace_parameter", "Tunable parameter in force.", _G, ("parameter",), _many(lambda s: s.parameters)),
    ExportedMetric(
        "iace_healing_trials_total",
        "Parameter trials that ended, by parameter and outcome.",
        _C,
        ("parameter", "outcome"),
        _pairs(lambda s: s.trials),
    ),
    ExportedMetric(
        "iace_healing_exhausted",
        "1 while healing has given up and leaves the matter to people.",
        value=_one(lambda s: s.healing_exhausted),
    ),
    ExportedMetric("iace_proposals", "Improvement proposals by status.", _G, ("status",), _many(lambda s: s.proposals)),
    ExportedMetric("iace_plant_up", "1 where the plant answered the last call.", value=_one(lambda s: s.plant_up)),
    ExportedMetric(
        "iace_plant_request_seconds",
        "Time that calls to the plant took.",
        MetricType.HISTOGRAM,
        durations=lambda s: s.plant_requests,
    ),
    ExportedMetric(
        "iace_observation_age_seconds",
        "Age of the observation that this scrape shows.",
        value=_one(lambda s: s.observation_age_s),
    ),
    ExportedMetric(
        "iace_tick_duration_seconds",
        "Time that ticks of the controller took.",
        MetricType.HISTOGRAM,
        durations=lambda s: s.ticks,
    ),
    ExportedMetric(
        "iace_tick_interval_seconds", "Time between two scheduled ticks.", value=_one(lambda s: s.tick_interval_s)
    ),
    ExportedMetric(
        "iace_tick_lag_seconds", "How late the last scheduled tick began.", value=_one(lambda s: s.tick_lag_s)
    ),
    ExportedMetric(
        "iace_ticks_missed_total", "Scheduled ticks that were skipped.", _C, ("job",), _many(lambda s: s.ticks_missed)
    ),
    ExportedMetric(
        "iace_store_points_total", "Points, by what became of them.", _C, ("store", "outcome"), _store_points
    ),
    ExportedMetric(
        "iace_store_buffered_points",
        "Points that wait for their store.",
        _G,
        ("store",),
        _many(lambda s: {store: accounts.buffered for store, accounts in s.stores.items()}),
    ),
    ExportedMetric("iace_journal_events_total", "Events in the journal.", _C, value=_one(lambda s: s.journal_events)),
    ExportedMetric(
        "iace_journal_failures_total",
        "Decisions that the journal could not keep, and that were therefore not carried out.",
        _C,
        value=_one(lambda s: s.journal_failures),
    ),
    ExportedMetric("iace_leader", "1 where this controller may act.", value=_one(lambda s: s.leader)),
    ExportedMetric("iace_epoch", "Fencing epoch of this controller.", value=_one(lambda s: s.epoch)),
    ExportedMetric("iace_safe_mode", "1 while the controller holds fail-static.", value=_one(lambda s: s.safe_mode)),
    ExportedMetric(
        "iace_last_run_exit_code", "Exit code of the run, once it ended.", value=_one(lambda s: s.exit_code)
    ),
    ExportedMetric("iace_build_info", "What is running.", MetricType.INFO, info=lambda s: s.build),
)

KPI_METRICS: Mapping[str, str] = {metric.kpi: metric.name for metric in EXPORTED if metric.kpi is not None}
