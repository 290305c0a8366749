"""Phase IV: corrections while KPIs are outside their limits, then improvement proposals that others can act on."""

from __future__ import annotations

from pathlib import Path

from controller.proposals import ProposalFailedError, Situation, propose, write, written
from controller.recording import Recording
from controller.rehearsal import Rehearsal, tick_s
from controller.session import Session, Ticking
from metrics.observation import Capability
from state.event import EventKind
from state.phase import Phase
from state.stimulus import CorrectionsClosed, CorrectionsOpened
from state.verdict import CheckResult, CheckStatus, PhaseResult

CORRECTION_TICKS_MAX = 300
DELTA_TICKS = 10  # ΔΛ looks back that far, and a correction moves λ_opt by itself


def improvement(session: Session, directory: Path, command: str) -> Ticking[PhaseResult]:
    """Run the phase; `directory` takes the proposals, `command` is how such a run is started."""
    started_s = session.loop.now_s
    corrections = yield from _corrections(session, session.loop.unhealthy())
    checks = (corrections, _proposals(session, directory, command))
    return PhaseResult(Phase.PHASE_IV, checks, started_s, session.loop.now_s)


def _corrections(session: Session, unhealthy: tuple[str, ...]) -> Ticking[CheckResult]:
    name = "improvement.corrections"
    reason = _why_not(session, unhealthy)
    if reason is not None:
        return CheckResult(name, CheckStatus.SKIPPED, reason, required=False, dry_run=session.dry_run)
    if not unhealthy:
        return CheckResult(name, CheckStatus.PASSED, "every KPI is within its limits: nothing to correct", 0, None)
    state = session.loop.governor.state
    first_event, trials_before = len(session.record.events), state.trials
    session.loop.tell(CorrectionsOpened())
    for _ in range(CORRECTION_TICKS_MAX):
        seen = yield
        healthy = not seen.assessment.unhealthy()
        exhausted = session.loop.now_s < state.exhausted_until_s
        if state.phase is not Phase.HEALING and (healthy or exhausted or state.phase is Phase.SAFE_MODE):
            break
    session.loop.tell(CorrectionsClosed())
    while state.trial is not None:
        yield
    for _ in range(session.config.schedule.persistence_ticks + DELTA_TICKS):
        if not session.loop.unhealthy():
            break
        yield
    new = session.record.events[first_event:]
    kept = sum(item.event.kind is EventKind.TRIAL_KEPT for item in new)
    refused = [str(e.event.data.get("reason")) for e in new if e.event.kind is EventKind.ACTION_REFUSED]
    tried = state.trials - trials_before
    if refused:
        text = f"the plant refused a correction: {refused[0]}"
        return CheckResult(name, CheckStatus.FAILED, text, len(refused), 0, "trials", required=False)
    text = f"{tried} corrections tried, {kept} kept"
    return CheckResult(name, CheckStatus.PASSED, text, kept, None, "trials")


def _why_not(session: Session, unhealthy: tuple[str, ...]) -> str | None:
    phase = session.loop.governor.state.phase
    if phase is not Phase.PHASE_IV:
        return f"nothing is changed in {phase}"
    if not unhealthy:
        return None
    if not session.offers(Capability.PARAMETERS):
        return "the plant offers no parameters"
    if not session.config.auto_apply or not session.config.healing.enabled or session.dry_run:
        return "corrections are left to people (healing.auto_apply)"
    return None


def _proposals(session: Session, directory: Path, command: str) -> CheckResult:
    name = "improvement.proposal"
    try:
        proposals = propose(session.record, _situation(session, command))
        paths = write(proposals, directory)
    except ProposalFailedError as error:
        return CheckResult(name, CheckStatus.FAILED, str(error))
    session.record.proposals.extend(proposals)
    for proposal in proposals:
        session.loop.tell(written(proposal))
    text = f"{len(paths)} proposal(s) written to {directory}"
    return CheckResult(name, CheckStatus.PASSED, text, len(paths), None, "proposals")


def _situation(session: Session, command: str) -> Situation:
    loop, config = session.loop, session.config
    assessment, times_s = loop.assessment, session.record.history.plant_time_s

    def recorded(last_s: float) -> Recording:
        from controller.recording_store import recorded as read  # noqa: PLC0415 - most runs rehearse nothing

        session.writer.flush(must_succeed=True)
        return read(session.store, "this run", last_s=last_s)

    return Situation(
        now_s=loop.now_s,
        journal_tip=loop.journal_tip,
        config=config,
        command=command,
        parameters=loop.parameters,
        settable=session.offers(Capability.PARAMETERS),
        unhealthy=loop.unhealthy(),
        environment=None if assessment is None else assessment.environment,
        trust=loop.governor.state.trust,
        rehearsal=Rehearsal(recorded, config, nodes=session.record.nodes, tick_s=tick_s(times_s)),
    )
