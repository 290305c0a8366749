"""Which budget kept a confirmed well in place, and would it help to raise it?

A limit is raised no further than what it refused, and never beyond half of the nodes; where no number mends the lack,
and where a replay of the run shows that raising it changes nothing, the nodes are left to people.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace

from controller.estimates import Sure
from controller.findings import Finding, named, span
from controller.record import Refused
from controller.settings import Config
from controller.timeline import Blocked
from controller.wording import quantity
from state.isolation import Guard

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
    refusals: Sequence[Refused],
    config: Config,
    nodes: int,
    since_s: Mapping[str, float],
) -> Iterator[Finding]:
    """Budgets that kept confirmed wells in place, with the least value that would have let them go.

    `nodes` is how many the plant has, `refusals` are those under the limits in force. What was blocked under another
    limit says nothing of this one, nor does what a guard of `since_s` first refused before then, when a change of its
    limit was applied as proposed.
    """
    blocked = [item for item in blocked if item.at_s >= since_s.get(item.guard, -math.inf)]
    refusals = [item for item in refusals if item.first_s >= since_s.get(item.latest.guard, -math.inf)]
    for guard, path in _BUDGETS.items():
        limit = getattr(config.isolation, path.partition(".")[2])
        if limit is None:
            continue  # it was in force once, and is not set any more
        refused = [item for item in _refused(refusals, guard) if math.isclose(item.latest.limit, limit)]
        held = [item for item in blocked if item.guard == guard and math.isclose(item.limit, limit)]
        if held or refused:
            yield _budget(guard, (path, limit), held, refused, nodes)
    waited = [item for item in _refused(refusals, Guard.RATE) if item.longest >= RATE_WAIT_TICKS]
    if waited:
        yield _rate(waited, config, nodes)


def _refused(refusals: Iterable[Refused], guard: Guard) -> list[Refused]:
    return [item for item in refusals if item.latest.rule == "isolate" and item.latest.guard == guard]


def _budget(
    guard: Guard, setting: tuple[str, float], held: Sequence[Blocked], refused: Sequence[Refused], nodes: int
) -> Finding:
    path, limit = setting
    seen = [item.observed for item in held] + [item.worst for item in refused]
    subjects = sorted({item.subject for item in held} | {item.latest.subject for item in refused})
    who = named(subjects)
    told = f"{path} ({quantity(limit)}) kept {who} from being isolated; the guard saw {span(seen)}."
    repair = Finding(
        kind="budget",
        title=f"Repair {who}, which {path} keeps in place",
        summary=f"{told} Do not move it that far: repair these, or add healthy nodes, so that the same limit holds "
        "more of them.",
        subjects=(guard.value,),
        evidence={
            "blocked": [asdict(item) for item in held],
            "refusals": [item.as_dict() for item in refused],
        },
    )
    together = max((item.together for item in refused), default=1)
    raised = _raised(guard, max(seen), together, nodes)
    if raised is None:
        return repair
    let = "one more of a cluster" if guard is Guard.BUDGET_CLUSTER and len(subjects) > 1 else "them"
    reach = f"At {quantity(raised)} this guard lets {let} go; others may still not."
    return _raise(repair, path, (limit, raised), told, reach)


def _rate(refused: Sequence[Refused], config: Config, nodes: int) -> Finding:
    """The rate limit; of its two settings the one that gives the higher rate is the one that binds."""
    policy = config.isolation
    who = named(sorted({item.latest.subject for item in refused}))
    by_share = policy.rate_share * nodes >= policy.rate_per_minute
    path, limit = (RATE_SHARE, policy.rate_share) if by_share else (RATE_PER_MINUTE, policy.rate_per_minute)
    per_minute = max(policy.rate_share * nodes, policy.rate_per_minute)
    told = (
        f"{path} ({quantity(limit)}, at {nodes} nodes {quantity(per_minute)} isolations a minute) let {who} wait for "
        f"{span([float(item.longest) for item in refused])} ticks in a row."
    )
    repair = Finding(
        kind="budget",
        title=f"Repair {who}, which {path} lets wait",
        summary=f"{told} Repair these: they serve, and drag others along, until it is their turn.",
        subjects=(Guard.RATE.value,),
        evidence={"refusals": [item.as_dict() for item in refused]},
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


def _raised(guard: Guard, seen: float, together: int, nodes: int) -> float | None:
    """The least limit at which the guard lets them go, None where no limit should.

    What it saw counts one node more than are out. Of those that it held at once, it would see one after the other; of
    how many clusters they are is not known here, so of a cluster's budget the next one alone is counted.
    """
    if guard is Guard.BUDGET_ABSOLUTE:
        return int(seen) + together - 1
    if guard not in (Guard.BUDGET_CLUSTER, Guard.BUDGET_FRACTION):
        return None  # fewer active or trusted nodes than the quorum or the evidence asks for: no number mends that
    others = (together - 1) / nodes if guard is Guard.BUDGET_FRACTION and nodes else 0.0
    needed = math.ceil(round((seen + others) * 1e4, 6)) / 1e4
    return needed if needed <= SHARE_MAX else None
