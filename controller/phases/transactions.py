"""Phase II, transaction security: is the ledger whole, is money exact, and does the live ledger answer rightly?"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

from controller.loop import Seen
from controller.phases.chain_audit import ChainAudit, Claim
from controller.phases.ledger_probes import LedgerProbe
from controller.plants.plant import LedgerState
from controller.session import Session, Ticking, ticks
from metrics.errors import PlantError
from metrics.observation import Capability, NodeId
from state.phase import Phase
from state.stimulus import ProbeEnded, ProbeIntended
from state.verdict import CheckResult, CheckStatus, PhaseResult

WINDOW_TICKS = 45  # ΔH looks back 10 ticks on 30-tick averages
SPIKE_TICKS = 3  # at N = 5 a healthy system may show a single one
STRESS_TRANSACTIONS = 1000
STRESS_AMOUNT = 20
STRESS_PER_TICK = 100
PAGE_BLOCKS = 500
_CLAIMS = {
    Claim.CHAIN: "every block follows the one below it",
    Claim.ROOTS: "every Merkle root is that of its entries",
    Claim.SUPPLY: "supply is conserved to the token",
    Claim.BURN: "every burn is as the law says",
    Claim.EMISSION: "every emission is as the law says",
}


def transactions(session: Session) -> Ticking[PhaseResult]:
    """Run the phase: watch entropy and cost, probe and load the live ledger, then audit all of it."""
    started_s = session.loop.now_s
    seen = yield from ticks(WINDOW_TICKS)
    checks = yield from _live_ledger(session)
    checks += yield from _audits(session)
    checks.append(_entropy(session, seen))
    checks.append(_action_cost(session, seen))
    return PhaseResult(Phase.PHASE_II, tuple(checks), started_s, session.loop.now_s)


def _live_ledger(session: Session) -> Ticking[list[CheckResult]]:
    """Probes and stress, where the plant takes transactions and they are allowed."""
    only_commits = not session.offers(Capability.LEDGER)
    names = [f"ledger.probe.{name}" for name in ("good", "overdraft", "replay", "conflict", "malformed")]
    if not session.offers(Capability.COMMIT):
        return [_skipped(name, "the plant takes no transactions", required=False) for name in names]
    if not session.probing:
        reason = "probes move real tokens: allow them with --allow-probes"
        return [_skipped(name, reason, required=only_commits, dry_run=session.dry_run) for name in names]
    prefix = f"probe/{session.run_id}"
    undo = {"do": "send back what the probe accounts hold", "accounts": ["a", "b", "s", "stress"]}
    session.loop.tell(ProbeIntended("ledger", undo))
    probe = LedgerProbe(session, prefix, required=only_commits)
    checks = probe.run()
    if session.offers(Capability.LEDGER) and session.offers(Capability.NODES):
        checks.append((yield from _stress(session, f"{prefix}/stress")))
    try:
        probe.undo()
        left: object = "undone"
    except PlantError as error:
        left = f"not undone: {error}"
    session.loop.tell(ProbeEnded("ledger", {"checks": {c.name: c.status for c in checks}, "undo": left}))
    return checks


def _stress(session: Session, account: str) -> Ticking[CheckResult]:
    """A thousand transactions from an account of our own to nodes of every cluster, exact to the token."""
    name = "ledger.stress"
    payers = _one_of_each_cluster(session)
    if not payers:
        return _skipped(name, "the plant shows no node that takes part", required=False)
    share = math.ceil(STRESS_TRANSACTIONS * STRESS_AMOUNT * 1.1 / len(payers))
    started_s = session.loop.now_s
    refused: list[str] = []
    try:
        for number, payer in enumerate(payers):
            _pay(session, f"{account}/fund-{number}", payer, account, share, refused)
        funded = session.plant.balance(account)
        for number in range(STRESS_TRANSACTIONS):
            receiver = payers[number % len(payers)]
            _pay(session, f"{account}/{number}", account, receiver, STRESS_AMOUNT, refused)
            if number % STRESS_PER_TICK == STRESS_PER_TICK - 1:
                yield
        left = session.plant.balance(account)
        if left:
            _pay(session, f"{account}/undo", account, payers[0], left, refused)
    except PlantError as error:
        return CheckResult(name, CheckStatus.ERROR, str(error), required=False)
    expected = funded - STRESS_TRANSACTIONS * STRESS_AMOUNT
    took_s = session.loop.now_s - started_s
    evidence: dict[str, object] = {"clusters": len(payers), "refused": len(refused), "left": left, "expected": expected}
    if refused or left != expected:
        text = f"{len(refused)} refused ({refused[:1]}), {left} tokens left where {expected} should be"
        status = CheckStatus.FAILED
    else:
        text = f"{STRESS_TRANSACTIONS} transactions over {len(payers)} clusters, exact to the token"
        status = CheckStatus.PASSED
    return CheckResult(name, status, text, left, expected, "tokens", evidence, required=False, duration_s=took_s)


def _one_of_each_cluster(session: Session) -> list[NodeId]:
    topology, serving = session.loop.topology, set(session.serving())
    if topology is None:
        return []
    pairs = zip(topology.nodes, topology.cluster_of, strict=True)
    found = {int(cluster): node for node, cluster in pairs if node in serving}
    return [found[cluster] for cluster in sorted(found)]


def _pay(session: Session, key: str, sender: str, receiver: str, amount: int, refused: list[str]) -> None:
    answer = session.plant.commit({"id": key, "sender": sender, "receiver": receiver, "amount": amount})
    if not answer.approved:
        refused.append(f"{key}: {answer.reason}")


def _audits(session: Session) -> Ticking[list[CheckResult]]:
    """The whole chain recomputed, every node's tip compared, and the supply held against the balances."""
    names = [*(f"ledger.{claim}" for claim in Claim), "ledger.fork"]
    if not session.offers(Capability.LEDGER):
        return [_skipped(name, "the plant does not show its ledger", required=False) for name in names]
    try:
        state = session.plant.ledger()
        audit = yield from _audit_chain(session, state.tip.height)
    except PlantError as error:
        return [CheckResult(name, CheckStatus.ERROR, str(error)) for name in names]
    _compare(audit, state)
    return [*(_claim(audit, claim) for claim in Claim), _fork(state)]


def _audit_chain(session: Session, height: int) -> Ticking[ChainAudit]:
    """The chain up to `height`, which was its tip when this began; a long one takes several ticks."""
    audit, began_s = ChainAudit(), time.monotonic()
    while audit.blocks <= height:
        if time.monotonic() - began_s > session.turn_s:
            yield
            while session.loop.backlog:  # what has come meanwhile is taken in at once, in one and the same turn
                yield
            began_s = time.monotonic()
        page = session.plant.blocks(audit.blocks, min(PAGE_BLOCKS, height + 1 - audit.blocks))
        if not page:
            audit.findings[Claim.CHAIN].append(f"block {audit.blocks}: is missing below the tip at {height}")
            break
        for block in page:
            audit.feed(block)
    return audit


def _compare(audit: ChainAudit, state: LedgerState) -> None:
    """Hold the audited chain against what the plant says beside it."""
    if audit.tip != (state.tip.height, state.tip.hash):
        audit.findings[Claim.CHAIN].append(f"the chain ends in {audit.tip[1][:12]}, the tip is {state.tip.hash[:12]}")
    if audit.supply != state.supply:
        audit.findings[Claim.SUPPLY].append(f"the chain holds {audit.supply} tokens, the plant says {state.supply}")
    if state.balances_total != state.supply:
        difference = state.balances_total - state.supply
        audit.findings[Claim.SUPPLY].append(f"balances differ from the supply by {difference} tokens")


def _claim(audit: ChainAudit, claim: Claim) -> CheckResult:
    findings = audit.findings[claim]
    evidence: dict[str, object] = {"blocks": audit.blocks, "bodies": audit.bodies, "findings": findings}
    if findings:
        text = "; ".join(findings[:3])
        return CheckResult(f"ledger.{claim}", CheckStatus.FAILED, text, len(findings), 0, "findings", evidence)
    text = f"{_CLAIMS[claim]} ({audit.blocks} blocks recomputed)"
    return CheckResult(f"ledger.{claim}", CheckStatus.PASSED, text, 0, 0, "findings", evidence)


def _fork(state: LedgerState) -> CheckResult:
    others = {node: tip for node, tip in state.node_tips.items() if tip != state.tip}
    evidence: dict[str, object] = {"nodes": len(state.node_tips), "apart": sorted(others)[:20]}
    if not state.node_tips:
        text = "no node says which tip it holds"
        return CheckResult("ledger.fork", CheckStatus.INCONCLUSIVE, text, evidence=evidence)
    if others:
        text = f"{len(others)} of {len(state.node_tips)} nodes hold another chain: {', '.join(sorted(others)[:5])}"
        return CheckResult("ledger.fork", CheckStatus.FAILED, text, len(others), 0, "nodes", evidence)
    text = f"all {len(state.node_tips)} nodes hold the same tip"
    return CheckResult("ledger.fork", CheckStatus.PASSED, text, 0, 0, "nodes", evidence)


def _entropy(session: Session, seen: Sequence[Seen]) -> CheckResult:
    """No entropy spike: |ΔH| beyond its limit in no more than a stray tick or two."""
    values = _known(seen, "delta_entropy")
    limit = session.record.catalogue["delta_entropy"].limit
    if limit is None or not values:
        return _skipped("kpi.delta_entropy", "the plant publishes no ΔH", required=False)
    spikes = sum(abs(value) > limit.healthy for value in values)
    worst = max(abs(value) for value in values)
    status = CheckStatus.FAILED if spikes >= SPIKE_TICKS else CheckStatus.PASSED
    text = f"|ΔH| at most {worst:.5f}, above {limit.healthy:g} in {spikes} of {len(values)} ticks"
    return CheckResult("kpi.delta_entropy", status, text, worst, limit.healthy, "nat", required=False)


def _action_cost(session: Session, seen: Sequence[Seen]) -> CheckResult:
    """I_eff within its budget over the window, with what it is made of."""
    values = _known(seen, "action_cost")
    limit = session.record.catalogue["action_cost"].limit
    if limit is None or not values:
        return _skipped("kpi.action_cost", "the plant publishes no I_eff", required=False)
    mean = sum(values) / len(values)
    status = CheckStatus.PASSED if mean <= limit.healthy else CheckStatus.FAILED
    parts = _cost_parts(seen[-1].observation.kpis)
    text = f"I_eff {mean:.4f} over {len(values)} ticks"
    return CheckResult("kpi.action_cost", status, text, mean, limit.healthy, "1", {"components": parts}, required=False)


def _cost_parts(kpis: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in kpis.items() if name.startswith("cost_") and math.isfinite(value)}


def _known(seen: Sequence[Seen], name: str) -> list[float]:
    values = (item.observation.kpis.get(name, math.nan) for item in seen)
    return [value for value in values if math.isfinite(value)]


def _skipped(name: str, reason: str, *, required: bool, dry_run: bool = False) -> CheckResult:
    return CheckResult(name, CheckStatus.SKIPPED, reason, required=required, dry_run=dry_run)
