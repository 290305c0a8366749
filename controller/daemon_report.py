"""The daemon's report and proposals: what a run would leave behind if it ended now.

A daemon never reaches Phase IV; proposals are written with each report instead, so the verdict is that of a run whose
phases so far have passed. Only the latest result of each phase counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from controller.carrying_out import GOVERN, RELOAD, TRIAL
from controller.config import DEFAULT_FILE
from controller.findings import Finding
from controller.loop import Loop
from controller.proposals import Situation, propose
from controller.record import KpiHistory, RunRecord
from controller.recording import Recording
from controller.rehearsal import Rehearsal, tick_s, value_at
from controller.settings import Config
from metrics.observation import Topology
from metrics.store.sqlite import SqliteStore
from state.durable import DurableState
from state.event import EventKind
from state.governor import Governor
from state.outcome import Facts, decide
from state.phase import Phase
from state.proposal_record import OPEN, ProposalStatus
from state.stimulus import SettingsBrought
from state.verdict import CheckResult, CheckStatus, PhaseResult, PhaseVerdict

REQUIRED = (Phase.PHASE_I, Phase.PHASE_II, Phase.PHASE_III)
_REMEMBERED = ("id", "kind", "subjects", "status", "carried_out_by", "written_s", "expires_s")


def frozen(
    record: RunRecord, governor: Governor, unhealthy: tuple[str, ...], topology: Topology | None = None
) -> RunRecord:
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
        nodes=0 if topology is None else len(topology.nodes),
        clusters=0 if topology is None else len(topology.clusters),
        history=history,
        phases=list(phases),
        events=list(record.events),
        anomalies=list(record.anomalies),
        refusals=dict(record.refusals),
        outcome=decide(facts),
        still_isolated=tuple((node, kept.until_s) for node, kept in sorted(state.nodes.items()) if node in out),
    )


def situation(
    record: RunRecord,
    governor: Governor,
    config: Config,
    loop: Loop | None,
    *,
    now_s: float,
    journal_tip: tuple[int, str],
    telemetry: Path,
    settable: bool,
    config_file: Path = DEFAULT_FILE,
) -> Situation:
    """What proposals are made from besides the record.

    Args:
        record: as of now.
        governor: with the durable state.
        config: the configuration in force.
        loop: at the plant; None while there is none.
        now_s: plant time.
        journal_tip: sequence and hash of the journal's last event.
        telemetry: the store that settings are rehearsed on.
        settable: whether the plant lets its parameters be changed.
        config_file: where settings are to be changed.
    """
    assessment = None if loop is None else loop.assessment

    def recorded(last_s: float) -> Recording:
        from controller.recording_store import recorded as read  # noqa: PLC0415 - most reports rehearse nothing

        store = SqliteStore(telemetry)
        try:
            return read(store, "this daemon's telemetry", last_s=last_s)
        finally:
            store.close()

    times_s = record.history.plant_time_s
    return Situation(
        now_s=now_s,
        journal_tip=journal_tip,
        config=config,
        command=GOVERN,
        config_file=str(config_file),
        parameters=None if loop is None else loop.parameters,
        settable=settable,
        unhealthy=() if loop is None else loop.unhealthy(),
        environment=None if assessment is None else assessment.environment,
        trust=governor.state.trust,
        rehearsal=Rehearsal(recorded, config, nodes=record.nodes, tick_s=tick_s(times_s)),
    )


def brought(state: DurableState, config: Config, by: str) -> list[SettingsBrought]:
    """What a configuration, brought by `by`, means for the approved and applied proposals of settings."""
    return [
        SettingsBrought(record.id, by, _lacking(record.settings, config))
        for record in state.proposals.values()
        if record.status in (ProposalStatus.APPROVED, ProposalStatus.APPLIED) and record.settings
    ]


def _lacking(settings: Mapping[str, object], config: Config) -> str:
    """Which settings are not as asked for, e.g. "isolation.quorum is 3 and not 4"."""
    told = ((path, value_at(config, path), wanted) for path, wanted in settings.items())
    return ", ".join(f"{path} is {value} and not {wanted}" for path, value, wanted in told if value != wanted)


def remembered(proposal: Mapping[str, object]) -> dict[str, object]:
    """Of an earlier proposal what later ones depend on."""
    return {name: proposal[name] for name in _REMEMBERED if name in proposal}


def new_proposals(
    record: RunRecord, situation: Situation, earlier: Sequence[Mapping[str, object]]
) -> list[dict[str, object]]:
    """What `record` calls for, but for what has been proposed, approved or rejected and is not out of date yet.

    What is about the same as one of these, whatever the values are, is not proposed again; nor is what says only that
    something is under way. Where settings were applied, only what was seen since then calls for other ones. While a
    trial waits for somebody's word or for its turn no other is proposed: each is a change of what is in force.

    Args:
        record: as of now.
        situation: where it stands.
        earlier: earlier proposals, or what is `remembered` of them.
    """
    if not record.history.plant_time_s:
        return []
    fresh = [item for item in earlier if _number(item, "expires_s") > situation.now_s]
    settled = {ProposalStatus.PROPOSED, ProposalStatus.APPROVED, ProposalStatus.REJECTED}
    told = frozenset(
        (str(item["kind"]), str(name))
        for item in fresh
        if item["status"] in settled
        for name in cast("Sequence[object]", item.get("subjects", ()))
    )
    situation = dataclasses.replace(situation, told=told, since_s=_since_s(record, earlier))
    trial_open = any(item.get("carried_out_by") == TRIAL and item["status"] in OPEN for item in fresh)

    def wanted(finding: Finding) -> bool:
        return finding.kind != "none" and not finding.passing and not (finding.tried and trial_open)

    return propose(record, situation, wanted)


def _since_s(record: RunRecord, earlier: Sequence[Mapping[str, object]]) -> dict[tuple[str, str], float]:
    """Kind and subject of applied settings, to when they were; to when they were proposed, where that is forgotten."""
    applied_s = {
        item.event.data["id"]: item.event.at_s
        for item in record.events
        if item.event.kind is EventKind.PROPOSAL_DECIDED and item.event.data["status"] == ProposalStatus.APPLIED
    }
    since_s = dict[tuple[str, str], float]()
    for item in earlier:
        if item.get("carried_out_by") == RELOAD and item["status"] in (ProposalStatus.APPLIED, ProposalStatus.VERIFIED):
            at_s = applied_s.get(item["id"], _number(item, "written_s"))
            for name in cast("Sequence[object]", item.get("subjects", ())):
                key = (str(item["kind"]), str(name))
                since_s[key] = max(at_s, since_s.get(key, at_s))
    return since_s


def _number(item: Mapping[str, object], name: str) -> float:
    value = item.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def _improvement(record: RunRecord) -> PhaseResult:
    text = "proposals are written with each report"
    now_s = record.history.plant_time_s[-1] if record.history.plant_time_s else 0.0
    return PhaseResult(Phase.PHASE_IV, (CheckResult("improvement.proposal", CheckStatus.PASSED, text),), now_s, now_s)
