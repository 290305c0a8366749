"""The daemon's report and proposals: what a run would leave behind if it ended now.

A daemon never reaches Phase IV; proposals are written with each report instead, so the verdict is that of a run whose
phases so far have passed. Only the latest result of each phase counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from controller.proposals import propose
from controller.record import KpiHistory, RunRecord
from controller.settings import Config
from metrics.observation import Parameters
from state.governor import Governor
from state.outcome import Facts, decide
from state.phase import Phase
from state.verdict import CheckResult, CheckStatus, PhaseResult, PhaseVerdict

REQUIRED = (Phase.PHASE_I, Phase.PHASE_II, Phase.PHASE_III)


def frozen(record: RunRecord, governor: Governor, unhealthy: tuple[str, ...]) -> RunRecord:
    """The record as it is now, with the verdict that a run would leave with; shares nothing that goes on changing."""
    latest = {result.phase: result for result in record.phases}
    history = KpiHistory(
        list(record.history.plant_time_s),
        list(record.history.phases),
        {name: list(values) for name, values in record.history.values.items()},
    )
    state = governor.state
    open_phases = [phase for phase in latest if latest[phase].verdict is not PhaseVerdict.PASSED]
    if state.phase in (Phase.IDLE, *REQUIRED):
        open_phases.append(state.phase)
    phases = (*latest.values(), _improvement(record))
    facts = Facts(
        phases=phases,
        errors=(),
        signal=None,
        undecided=tuple(f"{phase} is not over" for phase in dict.fromkeys(open_phases)),
        safe_mode=state.safe_mode,
        blocked=governor.blocked(),
        unhealthy=unhealthy,
    )
    out = state.out_of_service()
    return dataclasses.replace(
        record,
        history=history,
        phases=list(phases),
        events=list(record.events),
        anomalies=list(record.anomalies),
        refusals=dict(record.refusals),
        outcome=decide(facts),
        still_isolated=tuple((node, kept.until_s) for node, kept in sorted(state.nodes.items()) if node in out),
    )


def new_proposals(
    record: RunRecord,
    config: Config,
    *,
    journal_tip: tuple[int, str],
    parameters: Parameters | None,
    unhealthy: Sequence[str],
    open_titles: set[str],
) -> list[dict[str, object]]:
    """What `record` calls for and is not proposed yet."""
    if not record.history.plant_time_s:
        return []
    found = propose(
        record,
        journal_tip=journal_tip,
        config=config,
        command="iace govern",
        parameters=parameters,
        unhealthy=unhealthy,
    )
    return [proposal for proposal in found if proposal["kind"] != "none" and proposal["title"] not in open_titles]


def open_titles(proposals: Sequence[Mapping[str, object]]) -> set[str]:
    """What is proposed and not decided yet."""
    return {str(item["title"]) for item in proposals if item["status"] == "proposed"}


def _improvement(record: RunRecord) -> PhaseResult:
    text = "proposals are written with each report"
    now_s = record.history.plant_time_s[-1] if record.history.plant_time_s else 0.0
    return PhaseResult(Phase.PHASE_IV, (CheckResult("improvement.proposal", CheckStatus.PASSED, text),), now_s, now_s)
