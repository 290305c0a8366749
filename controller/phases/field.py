"""Phase III, field security: is coherence steady, is the gravity field sane, and does gravity gating really work?

Gating is proven on the plant itself: one node is made ill, and the very policy that will govern must detect, isolate
and verify it; then the cause is removed, the node let back in, and the field must be as before.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from controller.loop import Seen
from controller.session import Session, Ticking, caught_up, ticks, until
from metrics.errors import PlantError
from metrics.kpi import KpiStatus
from metrics.observation import Capability, NodeId
from state.durable import NodeStatus
from state.phase import Phase
from state.stimulus import ProbeEnded, ProbeIntended, ProbeUndone
from state.verdict import CheckResult, CheckStatus, PhaseResult

WINDOW_TICKS = 60
COHERENCE_SD_MAX = 0.02  # three times what a healthy cluster of five shows
GRAVITY_MEDIAN_MAX = 0.45  # healthy medians are 0.18 to 0.20
WELL_SHARE_MAX = 0.01
PROBE = "dissonance"
DETECT_TICKS = 60  # a byzantine node is detected within 8 to 17 ticks
RESTORE_TICKS = 30
CLEAN_TICKS = 120
RECOVER_TICKS = 150
CALM_TICKS = 5


def field(session: Session) -> Ticking[PhaseResult]:
    """Run the phase: watch coherence and the field, then prove the gating."""
    started_s = session.loop.now_s
    seen = yield from ticks(WINDOW_TICKS)
    checks = [_stability(session, seen), _distribution(session, seen)]
    checks.append((yield from _gating(session)))
    yield from until(session, lambda: not session.loop.governor.state.intents, RESTORE_TICKS)
    return PhaseResult(Phase.PHASE_III, tuple(checks), started_s, session.loop.now_s)


def _stability(session: Session, seen: Sequence[Seen]) -> CheckResult:
    """Coherence within its limit in all but stray ticks, and steady."""
    name = "field.coherence_stability"
    limit = session.record.catalogue["coherence"].limit
    values = [item.assessment.kpis["coherence"].value for item in seen if "coherence" in item.assessment.kpis]
    known = [value for value in values if math.isfinite(value)]
    if limit is None or len(known) < len(seen) // 2:
        text = f"coherence is known in only {len(known)} of {len(seen)} ticks"
        return CheckResult(name, CheckStatus.INCONCLUSIVE, text, len(known), len(seen), "ticks")
    spread = statistics.stdev(known)
    below = sum(value < limit.healthy for value in known)
    evidence = {"mean": statistics.fmean(known), "min": min(known), "ticks_below": below, "ticks": len(known)}
    text = f"coherence {evidence['mean']:.3f} ± {spread:.4f}, below {limit.healthy:g} in {below} of {len(known)} ticks"
    steady = spread <= COHERENCE_SD_MAX and 2 * below <= len(known)
    status = CheckStatus.PASSED if steady else CheckStatus.FAILED
    return CheckResult(name, status, text, spread, COHERENCE_SD_MAX, "1", evidence)


def _distribution(session: Session, seen: Sequence[Seen]) -> CheckResult:
    """|g| of the trusted active nodes looks like that of a healthy field."""
    name = "field.gravity_distribution"
    if not session.offers(Capability.NODES):
        return CheckResult(
            name, CheckStatus.SKIPPED, "the plant shows no nodes: no field, no isolation", required=False
        )
    samples = [
        item.assessment.reading.gravity[item.assessment.reading.trusted & item.assessment.active]
        for item in seen
        if item.assessment.reading is not None and item.assessment.active is not None
    ]
    gravity = np.concatenate(samples) if samples else np.empty(0)
    if not gravity.size:
        return CheckResult(name, CheckStatus.INCONCLUSIVE, "no node gave trusted evidence")
    critical = session.config.gravity.critical
    median, share = float(np.median(gravity)), float(np.mean(gravity > critical))
    sane = median <= GRAVITY_MEDIAN_MAX and share <= WELL_SHARE_MAX
    text = f"|g| median {median:.2f}, 99 % {np.quantile(gravity, 0.99):.2f}, above {critical:g} in {share:.2%}"
    evidence = {"node_ticks": int(gravity.size), "max": float(gravity.max()), "share_above_critical": share}
    status = CheckStatus.PASSED if sane else CheckStatus.FAILED
    return CheckResult(name, status, text, median, GRAVITY_MEDIAN_MAX, "g0", evidence)


def _gating(session: Session) -> Ticking[CheckResult]:
    """Inject a dissonance; it must be detected, isolated, verified and undone."""
    reason = _why_not(session)
    if reason is not None:
        return CheckResult("field.gating", CheckStatus.SKIPPED, reason, required=False, dry_run=session.dry_run)
    yield from caught_up(session)  # or the ticks that are still to come would tell of the time before the dissonance
    node = _target(session)
    if node is None:
        text = "every node is out or on record for something: none is left to be made ill"
        return CheckResult("field.gating", CheckStatus.INCONCLUSIVE, text)
    fault: dict[str, object] = {"id": PROBE, "kind": "byzantine", "nodes": [node]}
    undo = {"clear": PROBE, "restore": node}
    session.loop.tell(ProbeIntended(PROBE, undo, node))
    try:
        session.plant.inject(fault, key=f"{session.run_id}/{PROBE}", epoch=session.loop.governor.state.epoch)
    except PlantError as error:
        session.loop.tell(ProbeEnded(PROBE, {"error": str(error)}))
        return CheckResult("field.gating", CheckStatus.ERROR, f"the dissonance could not be injected: {error}")
    isolated_after = yield from until(session, lambda: _status(session, node) is NodeStatus.ISOLATED, DETECT_TICKS)
    undone = yield from _undo(session, node)
    recovered_after = (yield from _until_calm()) if undone else None
    session.loop.tell(ProbeEnded(PROBE, {"isolated_after_ticks": isolated_after, "recovered_after": recovered_after}))
    return _judge(session, node, isolated_after, undone=undone, recovered_after=recovered_after)


def _why_not(session: Session) -> str | None:
    missing = {Capability.NODES, Capability.ISOLATE, Capability.FAULTS} - session.info.capabilities
    if missing:
        return f"the plant does not offer {', '.join(sorted(missing))}"
    if not session.injecting:
        return "injecting a dissonance disturbs the cluster: allow it with --allow-fault-injection"
    return None


def _target(session: Session) -> NodeId | None:
    """The last node that takes part and is not on record for anything, if possible of a cluster that is all there."""
    topology, serving = session.loop.topology, session.serving()
    if topology is None:
        return None
    cluster_of = dict(zip(topology.nodes, topology.cluster_of.tolist(), strict=True))
    gaps = {cluster_of[node] for node in set(topology.nodes) - set(serving)}
    fit = [node for node in reversed(serving) if node not in session.loop.governor.state.nodes]
    return next((node for node in fit if cluster_of[node] not in gaps), next(iter(fit), None))


def _undo(session: Session, node: NodeId) -> Ticking[bool]:
    """Remove the cause, let the node back in; True once the plant shows both."""
    epoch = session.loop.governor.state.epoch
    try:
        session.plant.clear(PROBE, key=f"{session.run_id}/{PROBE}-clear", epoch=epoch)
    except PlantError:
        return False
    # An isolation that is still on its way has to arrive before it can be taken back, and the field's averages have to
    # forget the dissonance, or the node would be isolated again at once.
    yield from until(session, lambda: _status(session, node) is not NodeStatus.ISOLATING, RESTORE_TICKS)
    yield from until(session, lambda: _is_clean(session, node), CLEAN_TICKS)
    session.loop.tell(ProbeUndone(PROBE))
    back = yield from until(
        session, lambda: _status(session, node) not in (NodeStatus.ISOLATING, NodeStatus.ISOLATED), RESTORE_TICKS
    )
    return back is not None


def _until_calm() -> Ticking[int | None]:
    """Wait until every limit has been kept for a few ticks in a row; after how many ticks, or None."""
    calm = 0
    for waited in range(1, RECOVER_TICKS + 1):
        seen = yield
        statuses = {verdict.status for verdict in seen.assessment.kpis.values()}
        calm = 0 if statuses & {KpiStatus.WARNING, KpiStatus.CRITICAL} else calm + 1
        if calm >= CALM_TICKS:
            return waited
    return None


def _is_clean(session: Session, node: NodeId) -> bool:
    assessment = session.loop.assessment
    if assessment is None or assessment.reading is None or assessment.topology is None:
        return False
    index = assessment.topology.index[node]
    clean = assessment.reading.gravity[index] < session.config.isolation.readmit_gravity
    return bool(clean and assessment.reading.trusted[index])


def _status(session: Session, node: NodeId) -> NodeStatus:
    record = session.loop.governor.state.nodes.get(node)
    return NodeStatus.HEALTHY if record is None else record.status


def _judge(
    session: Session, node: NodeId, isolated_after: int | None, *, undone: bool, recovered_after: int | None
) -> CheckResult:
    evidence: Mapping[str, object] = {
        "node": node,
        "isolated_after_ticks": isolated_after,
        "undone": undone,
        "recovered_after_ticks": recovered_after,
    }
    problems = []
    if isolated_after is None:
        why = sorted({f"{r.guard}" for _, r in session.record.refusals if r.subject == node})
        problems.append(
            f"{node} was not isolated within {DETECT_TICKS} ticks" + (f" (refused by {', '.join(why)})" if why else "")
        )
    if not undone:
        problems.append(f"{node} was not let back in")
    elif recovered_after is None:
        problems.append(f"the KPIs did not recover within {RECOVER_TICKS} ticks")
    if problems:
        return CheckResult(
            "field.gating", CheckStatus.FAILED, "; ".join(problems), isolated_after, DETECT_TICKS, "ticks", evidence
        )
    text = f"{node} made ill: isolated and verified after {isolated_after} ticks, back and calm {recovered_after} later"
    return CheckResult("field.gating", CheckStatus.PASSED, text, isolated_after, DETECT_TICKS, "ticks", evidence)
