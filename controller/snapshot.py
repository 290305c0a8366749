"""What a scrape shows of this controller: one value, built from what the loop knows at the end of a tick.

Everything in it belongs to one observation. Nodes have series of their own only where they matter (the worst by |g| and
all that the plant holds out), so that a plant of any size costs a bounded scrape.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from types import MappingProxyType

import numpy as np

from controller.meter import Meter
from controller.node_series import STATUSES, statuses, worst_nodes
from controller.record import RunRecord
from metrics.assessment import Assessment
from metrics.export_snapshot import ExportSnapshot, NodeSample
from metrics.observation import Parameters
from metrics.store_writer import StoreAccounts
from state.durable import DurableState
from state.event import EventKind
from state.isolation import SAFETY_GUARDS
from state.phase import Phase
from state.proposal_record import ProposalStatus
from state.verdict import PhaseVerdict
from state.view import NodeView, view

_RESULTS = {PhaseVerdict.PASSED: 1, PhaseVerdict.FAILED: 0, PhaseVerdict.UNDECIDED: -1}


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the nodes' series depend on.

    Attributes:
        node_series_max: nodes with series of their own, isolated ones apart.
        gravity_critical: |g| beyond which a node is suspect.
    """

    node_series_max: int
    gravity_critical: float


def snapshot(
    meter: Meter,
    record: RunRecord,
    bounds: Bounds,
    *,
    state: DurableState | None = None,
    assessment: Assessment | None = None,
    parameters: Parameters | None = None,
    stores: Mapping[str, StoreAccounts] = MappingProxyType({}),
    journal_events: int = 0,
    journal_failures: int = 0,
    leader: bool = False,
) -> ExportSnapshot:
    """Everything that a scrape shows.

    Args:
        meter: what was counted and timed.
        record: the run so far; its outcome, once it has one, gives the exit code.
        bounds: what the nodes' series depend on.
        state: the governor's; None where nothing is governed yet.
        assessment: of the latest tick, None before the first.
        parameters: those of the latest tick; None where the plant does not say.
        stores: accounts of each store's points.
        journal_events: events in the journal.
        journal_failures: decisions that the journal could not keep.
        leader: whether this controller may act.
    """
    seen = None if assessment is None else view(assessment)
    return ExportSnapshot(
        state=(Phase.IDLE if state is None else state.phase).value,
        states=tuple(phase.value for phase in Phase),
        phase_results={result.phase.value: _RESULTS[result.verdict] for result in record.phases},
        phase_durations_s={result.phase.value: result.ended_s - result.started_s for result in record.phases},
        kpis={} if assessment is None else {name: verdict.value for name, verdict in assessment.kpis.items()},
        kpi_limits=_limits(record),
        scores={} if assessment is None else dict(assessment.scores),
        parameters={} if parameters is None else parameters.as_dict(),
        emission_tokens=meter.emission_tokens,
        burned_tokens=meter.burned_tokens,
        transactions=dict(meter.transactions),
        nodes={} if seen is None else _statuses(seen, state, bounds.gravity_critical),
        node_samples=() if seen is None else _samples(seen, bounds.node_series_max),
        isolations=dict(meter.isolations),
        restorations=meter.restorations,
        blocked=dict(meter.blocked),
        wells_blocked=_blocked(state),
        anomalies=dict(meter.anomalies),
        trials=dict(meter.trials),
        proposals=_proposals(state),
        healing_exhausted=_exhausted(state, record),
        storm=state is not None and state.safe_mode_cause is EventKind.STORM_DETECTED,
        safe_mode=state is not None and state.safe_mode is not None,
        leader=leader,
        epoch=0 if state is None else state.epoch,
        plant_up=meter.plant_up,
        received_s=None if assessment is None else assessment.received_s,
        plant_requests=meter.plant_requests.read(),
        ticks=meter.ticks.read(),
        tick_interval_s=meter.tick_interval_s,
        tick_lag_s=meter.tick_lag_s,
        ticks_missed=dict(meter.ticks_missed),
        stores=dict(stores),
        journal_events=journal_events,
        journal_failures=journal_failures,
        exit_code=None if record.outcome is None else int(record.outcome.code),
        build=_build(),
    )


def _limits(record: RunRecord) -> dict[tuple[str, str], float]:
    limits: dict[tuple[str, str], float] = {}
    for kpi in record.catalogue.values():
        if kpi.limit is not None:
            limits[kpi.name, "healthy"] = kpi.limit.healthy
            if kpi.limit.critical is not None:
                limits[kpi.name, "critical"] = kpi.limit.critical
    return limits


def _blocked(state: DurableState | None) -> dict[str, int]:
    blocking = [] if state is None else list(state.blocked.values())
    return {guard.value: blocking.count(guard) for guard in sorted(SAFETY_GUARDS)}


def _proposals(state: DurableState | None) -> dict[str, int]:
    """How many proposals stand where."""
    standing = [] if state is None else [record.status for record in state.proposals.values()]
    return {status.value: standing.count(status) for status in ProposalStatus}


def _exhausted(state: DurableState | None, record: RunRecord) -> bool:
    """Whether healing has given up, and its back-off lasts."""
    times_s = record.history.plant_time_s
    return state is not None and bool(times_s) and times_s[-1] < state.exhausted_until_s


def _statuses(seen: NodeView, state: DurableState | None, gravity_critical: float) -> dict[str, int]:
    """How many nodes stand where."""
    counts = np.bincount(statuses(seen, state, gravity_critical), minlength=len(STATUSES))
    return {status.value: count for status, count in zip(STATUSES, counts.tolist(), strict=True)}


def _samples(seen: NodeView, node_series_max: int) -> tuple[NodeSample, ...]:
    topology, gravity = seen.topology, seen.reading.gravity
    return tuple(
        NodeSample(
            topology.nodes[i],
            topology.clusters[topology.cluster_of[i]],
            float(gravity[i]),
            not seen.active[i],
        )
        for i in worst_nodes(seen, node_series_max).tolist()
    )


@cache
def _build() -> Mapping[str, str]:
    return MappingProxyType({"version": version("iace"), "python": platform.python_version()})
