"""Which budget kept a confirmed well in place, and would it help to raise it?

A limit is raised no further than what it refused, and never beyond half of the nodes; where no number mends the lack,
and where a replay of the run shows that raising it changes nothing, the nodes are left to people.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace

from controller.estimates import Sure
from controller.findings import Finding, named, span
from controller.settings import Config
from controller.timeline import Blocked
from controller.wording import quantity
from state.isolation import Guard, Refusal

SHARE_MAX = 0.5  # with half of the nodes out, those that stay no longer outvote the rest
RATE_FACTOR = 2.0
RATE_SHARE, RATE_PER_MINUTE = "isolation.rate_share", "isolation.rate_per_minute"
RATE_WAIT_TICKS = 10  # a node that waits less than that for its token is what a rate limit is for

_BUDGETS: Mapping[Guard, str] = {
    Guard.BUDGET_CLUSTER: "isolation.cluster_fraction_max",
    Guard.BUDGET_FRACTION: "isolation.fraction_max",
    Guard.BUDGET_ABSOLUTE: "isolation.absolute_max",
    Guard.QUORUM: "isolation.quorum",
    Guard.EVIDENCE_NODES: "isolation.evidence_nodes_min",
}


def budget_findings(
    blocked: Sequence[Blocked],
    refusals: Mapping[Refusal, int],
    config: Config,
    nodes: int,
    since_s: Mapping[str, float],
) -> Iterator[Finding]:
    """Budgets that kept a confirmed well in place, with the least value that would have let it go.

    `nodes` is how many the plant has. What was refused under another limit than the one in force says nothing of it,
    nor does what a guard of `since_s` first refused before then, when a change of its limit was applied as proposed.
    """
    blocked = [item for item in blocked if item.at_s >= since_s.get(item.guard, -math.inf)]
    refusals = {item: n for item, n in refusals.items() if item.at_s >= since_s.get(item.guard, -math.inf)}
    for guard, path in _BUDGETS.items():
        limit = getattr(config.isolation, path.partition(".")[2])
        if limit is None:
            continue  # it was in force once, and is not set any more
        refused = {item: n for item, n in _refused(refusals, guard).items() if math.isclose(item.limit, limit)}
        held = [item for item in blocked if item.guard == guard and math.isclose(item.limit, limit)]
        if held or refused:
            yield _budget(guard, path, limit, held, refused)
    waited = {item: ticks for item, ticks in _refused(refusals, Guard.RATE).items() if ticks >= RATE_WAIT_TICKS}
    if waited:
        yield _rate(waited, config, nodes)


def _refused(refusals: Mapping[Refusal, int], guard: Guard) -> dict[Refusal, int]:
    return {item: count for item, count in refusals.items() if item.rule == "isolate" and item.guard == guard}


def _budget(guard: Guard, path: str, limit: float, held: Sequence[Blocked], refused: Mapping[Refusal, int]) -> Finding:
    seen = [item.observed for item in held] + [item.observed for item in refused]
    who = named(sorted({item.subject for item in held} | {item.subject for item in refused}))
    told = f"{path} ({quantity(limit)}) kept {who} from being isolated; the guard saw {span(seen)}."
    repair = Finding(
        kind="budget",
        title=f"Repair {who}, which {path} keeps in place",
        summary=f"{told} Do not move it that far: repair these, or add healthy nodes, so that the same limit holds "
        "more of them.",
        subjects=(guard.value,),
        evidence={
            "blocked": [asdict(item) for item in held],
            "refusals": [{**asdict(item), "count": count} for item, count in refused.items()],
        },
    )
    raised = _raised(guard, seen)
    if raised is None:
        return repair
    reach = f"At {quantity(raised)} this guard lets them go; others may still not."
    return _raise(repair, path, (limit, raised), told, reach)


def _rate(refused: Mapping[Refusal, int], config: Config, nodes: int) -> Finding:
    """The rate limit; of its two settings the one that gives the higher rate is the one that binds."""
    policy = config.isolation
    who = named(sorted({item.subject for item in refused}))
    by_share = policy.rate_share * nodes >= policy.rate_per_minute
    path, limit = (RATE_SHARE, policy.rate_share) if by_share else (RATE_PER_MINUTE, policy.rate_per_minute)
    per_minute = max(policy.rate_share * nodes, policy.rate_per_minute)
    told = (
        f"{path} ({quantity(limit)}, at {nodes} nodes {quantity(per_minute)} isolations a minute) let {who} wait for "
        f"{span([float(count) for count in refused.values()])} ticks."
    )
    repair = Finding(
        kind="budget",
        title=f"Repair {who}, which {path} lets wait",
        summary=f"{told} Repair these: they serve, and drag others along, until it is their turn.",
        subjects=(Guard.RATE.value,),
        evidence={"refusals": [{**asdict(item), "count": count} for item, count in refused.items()]},
    )
    raised = limit * RATE_FACTOR
    if by_share and raised >= 1.0:
        return repair
    reach = f"At {quantity(raised)} they are taken out {RATE_FACTOR:g} times as fast."
    return _raise(repair, path, (limit, raised), told, reach)


def _raise(repair: Finding, path: str, values: tuple[float, float], told: str, reach: str) -> Finding:
    """The proposal to raise a limit; `repair` is what is left to people where a replay shows no difference."""
    raised = quantity(values[1])
    return replace(
        repair,
        title=f"Raise {path} to {raised}, or add nodes",
        summary=f"{told} {reach} Raise it only if those that stay carry the load; adding healthy nodes has the same "
        "effect.",
        settings={path: values},
        risk=Sure("medium", "more nodes may be out at once, or faster; those that stay carry the load"),
        instead=replace(
            repair,
            summary=f"{told} A replay of this run with {raised} came out the same, so nothing shows that raising it "
            "would help: repair these, or add healthy nodes.",
        ),
    )


def _raised(guard: Guard, seen: Sequence[float]) -> float | None:
    """The least limit at which the guard lets it go, None where no limit should."""
    if guard in (Guard.BUDGET_CLUSTER, Guard.BUDGET_FRACTION):
        needed = math.ceil(max(seen) * 1e4) / 1e4
        return needed if needed <= SHARE_MAX else None
    if guard is Guard.BUDGET_ABSOLUTE:
        return int(max(seen))
    return None  # fewer active or trusted nodes than the quorum or the evidence asks for: no number mends that
