"""Phase I, core system initialisation: is the plant there, does it stream, is our telemetry kept, is it coherent?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from controller.loop import Seen
from controller.session import Session, Ticking, ticks
from metrics.errors import IaceError, PlantError
from metrics.kpi import KpiStatus
from metrics.observation import Capability
from metrics.store_writer import NS_PER_S
from state.phase import Phase
from state.verdict import CheckResult, CheckStatus, PhaseResult

STREAM_TICKS = 5
CADENCE_FACTOR_MAX = 3.0  # a busy machine ticks late; a plant that is this far off does not keep its own clock
JUDGED_KPIS = ("coherence", "gas", "rsi")


def initialization(session: Session) -> Ticking[PhaseResult]:
    """Run the phase: warm up, watch the stream, read telemetry back, judge the KPIs."""
    started_s = session.loop.now_s
    first = yield from ticks(STREAM_TICKS)
    checks = [_answers(session), _modules(session)]
    warm = yield from _warm_up(session, first)
    checks.append(_stream(session, first + warm))
    checks.append(_round_trip(session, (first + warm)[-1]))
    checks += [_within_limits(session, (first + warm)[-1], name) for name in JUDGED_KPIS]
    return PhaseResult(Phase.PHASE_I, tuple(checks), started_s, session.loop.now_s)


def _warm_up(session: Session, first: list[Seen]) -> Ticking[list[Seen]]:
    """Wait until the windows of the judged KPIs have filled, but no longer than configured.

    A plant from which something has just been removed is given all of that time to recover.
    """
    seen: list[Seen] = []
    while len(first) + len(seen) < session.config.schedule.warmup_ticks:
        if _known((first + seen)[-1]) and not session.recovering:
            break
        seen.append((yield))
    return seen


def _known(seen: Seen) -> bool:
    """Whether every KPI that has a limit and is published can be judged."""
    published = [seen.assessment.kpis[name] for name in JUDGED_KPIS if name in seen.assessment.kpis]
    others = [v for name, v in seen.assessment.kpis.items() if name in seen.observation.kpis]
    judged = [verdict.persistent for verdict in published]
    return bool(judged) and KpiStatus.UNKNOWN not in judged and not any(math.isnan(v.value) for v in others)


def _answers(session: Session) -> CheckResult:
    names = sorted(session.info.capabilities)
    return CheckResult(
        "plant.answers",
        CheckStatus.PASSED,
        f"{session.info.name} answers as {session.info.system}",
        evidence={"capabilities": names},
    )


def _modules(session: Session) -> CheckResult:
    """Ask every module that the plant says it has for something, once."""
    plant = session.plant
    questions = {
        Capability.ISOLATE: plant.isolated,
        Capability.PARAMETERS: plant.parameters,
        Capability.LEDGER: plant.ledger,
    }
    answers: dict[str, str] = {}
    for capability, ask in questions.items():
        if not session.offers(capability):
            answers[capability] = "not offered"
            continue
        try:
            ask()
            answers[capability] = "online"
        except PlantError as error:
            answers[capability] = f"offline: {error}"
    offline = [f"{name} {state}" for name, state in answers.items() if state.startswith("offline")]
    if offline:
        return CheckResult("plant.modules", CheckStatus.FAILED, "; ".join(offline), evidence={"modules": answers})
    online = [name for name, state in answers.items() if state == "online"]
    return CheckResult(
        "plant.modules",
        CheckStatus.PASSED,
        f"every module the plant offers is online ({', '.join(['field', *online])})",
        evidence={"modules": answers},
    )


def _stream(session: Session, seen: Sequence[Seen]) -> CheckResult:
    """Fresh, monotone and gap-free observations, at the cadence that the plant says it keeps."""
    observations = [item.observation for item in seen]
    steps = [b.tick - a.tick for a, b in pairwise(observations)]
    backwards = sum(b.plant_time_s <= a.plant_time_s for a, b in pairwise(observations))
    gaps = sum(step != 1 for step in steps)
    evidence: dict[str, object] = {"observations": len(observations), "gaps": gaps, "not_monotone": backwards}
    problems = []
    if backwards:
        problems.append(f"plant time did not advance {backwards} times")
    if gaps and session.offers(Capability.NODES):
        problems.append(f"{gaps} gaps in {len(steps)} steps")
    interval_s = session.info.interval_s
    if session.info.real_time and interval_s > 0:
        elapsed_s = observations[-1].received_s - observations[0].received_s
        cadence_s = elapsed_s / max(1, sum(steps))
        evidence["cadence_s"], evidence["expected_s"] = cadence_s, interval_s
        if not interval_s / CADENCE_FACTOR_MAX <= cadence_s <= interval_s * CADENCE_FACTOR_MAX:
            problems.append(f"a tick every {cadence_s:.3f} s where {interval_s:.3f} s was announced")
    if problems:
        return CheckResult("stream.cadence", CheckStatus.FAILED, "; ".join(problems), gaps, 0, "ticks", evidence)
    text = f"{len(observations)} observations, fresh, monotone and without a gap"
    return CheckResult("stream.cadence", CheckStatus.PASSED, text, gaps, 0, "ticks", evidence)


def _round_trip(session: Session, last: Seen) -> CheckResult:
    """What was published must be in the store, value for value."""
    name = "telemetry.round_trip"
    at_ns = round(last.observation.plant_time_s * NS_PER_S)
    try:
        session.writer.flush(must_succeed=True)
        accounts = session.writer.accounts()
        different = [
            kpi
            for kpi in JUDGED_KPIS
            if kpi in last.assessment.kpis and not _same(session, f"kpi.{kpi}", at_ns, last.assessment.kpis[kpi].value)
        ]
    except IaceError as error:
        return CheckResult(name, CheckStatus.ERROR, str(error))
    evidence: dict[str, object] = {"written": accounts.written, "buffered": accounts.buffered}
    if different:
        text = f"{', '.join(different)} read back other than written"
        return CheckResult(name, CheckStatus.FAILED, text, len(different), 0, "series", evidence)
    text = f"{accounts.written} points written, the last tick read back as written"
    return CheckResult(name, CheckStatus.PASSED, text, accounts.written, None, "points", evidence)


def _same(session: Session, series: str, at_ns: int, value: float) -> bool:
    samples = session.store.range(series, at_ns, at_ns + 1)
    if math.isnan(value):
        return not samples  # what is not known is not written
    return [sample.value for sample in samples] == [value]


def _within_limits(session: Session, last: Seen, name: str) -> CheckResult:
    verdict = last.assessment.kpis.get(name)
    limit = session.record.catalogue[name].limit
    threshold = limit.healthy if limit is not None else None
    check = f"kpi.{name}"
    if verdict is None or verdict.persistent is KpiStatus.UNKNOWN:
        text = f"{name} has no full window after {session.config.schedule.warmup_ticks} ticks"
        return CheckResult(check, CheckStatus.INCONCLUSIVE, text, threshold=threshold)
    healthy = verdict.persistent is KpiStatus.HEALTHY
    status = CheckStatus.PASSED if healthy else CheckStatus.FAILED
    text = f"{name} {verdict.value:.3f} is persistently {verdict.persistent}"
    return CheckResult(check, status, text, verdict.value, threshold, "1")
