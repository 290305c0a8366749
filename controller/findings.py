"""Which of the things that a run saw call for a change, and for which?

Every function here looks at one kind of evidence and answers with findings, none where there is nothing to say. A
change is only put forward where the run's own numbers carry it: a budget is raised no further than what it refused, and
never beyond half of the nodes; a parameter step is the next one of the healing rule, with an effect only where a trial
of this run measured one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from controller.record import RunRecord
from controller.settings import Config
from controller.timeline import Blocked, Isolation, TrialStory, timeline
from controller.wording import changes, quantity, sentence
from metrics.observation import Parameters
from state.event import EventKind
from state.healing import Change, HealingPolicy, propose
from state.isolation import Guard, Refusal

NAMED_MAX = 5
SHARE_MAX = 0.5  # with half of the nodes out, those that stay no longer outvote the rest
RATE_FACTOR = 2.0
RATE_WAIT_TICKS = 10  # a node that waits less than that for its token is what a rate limit is for

NOT_ESTIMATED: Mapping[str, object] = {"estimated": False, "basis": "not estimated", "effects": {}}

_BUDGETS: Mapping[Guard, str] = {
    Guard.BUDGET_CLUSTER: "isolation.cluster_fraction_max",
    Guard.BUDGET_FRACTION: "isolation.fraction_max",
    Guard.BUDGET_ABSOLUTE: "isolation.absolute_max",
    Guard.RATE: "isolation.rate_per_minute",
    Guard.QUORUM: "isolation.quorum",
    Guard.EVIDENCE_NODES: "isolation.evidence_nodes_min",
}
_DOUBTS = (EventKind.STORM_DETECTED, EventKind.SENSORS_DOUBTED)
_EFFECTS = ("objective", "violation", "coherence", "action_cost")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that calls for a change.

    Attributes:
        kind: "none", "parameters", "kpi", "node", "budget" or "sensors".
        title, summary: for people; the summary says what was seen and what is proposed.
        settings, parameters: what would change, each from and to; both empty for work that only people can do.
        expectation: what the change would do, or that this is not estimated.
        evidence: what it stands on, JSON-able.
        command: what carries it out, with `{run}` for the run's own command line; None for work of people.
        does: what that command does.
    """

    kind: str
    title: str
    summary: str
    settings: Mapping[str, tuple[object, object]] = field(default_factory=dict)
    parameters: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    expectation: Mapping[str, object] = field(default_factory=lambda: NOT_ESTIMATED)
    evidence: Mapping[str, object] = field(default_factory=dict)
    command: str | None = None
    does: str = ""


def kept_finding(trials: Sequence[TrialStory]) -> Iterator[Finding]:
    """What the kept trials changed, from the first value to the last."""
    kept = [story for story in trials if story.outcome == "kept"]
    if not kept:
        return
    before, after = kept[0].before, kept[-1].after
    told = changes(before, after)
    numbers = ", ".join(str(story.trial) for story in kept)
    yield Finding(
        kind="parameters",
        title=f"Keep {told}",
        summary=f"Trials kept ({numbers}) changed {told} and are in force. Make them the plant's own defaults, or they "
        "are lost when it starts anew.",
        parameters={name: (before[name], after[name]) for name in after if before.get(name) != after[name]},
        expectation=_effects(
            [(kept[0].baseline, kept[-1].measured or {})],
            f"measured before and after trial(s) {numbers} of this run, whatever else changed meanwhile included",
        ),
        evidence={"trials": [asdict(story) for story in trials]},
    )


def step_finding(
    record: RunRecord, config: Config, parameters: Parameters | None, unhealthy: Sequence[str]
) -> Iterator[Finding]:
    """The next step of the healing rule for KPIs that ended outside their limits, or why there is none."""
    if not unhealthy:
        return
    names = ", ".join(unhealthy)
    trials = timeline(item.event for item in record.events).trials
    evidence = {"unhealthy": list(unhealthy), "trials": [asdict(story) for story in trials]}
    change = _next_step(trials, config, parameters, unhealthy)
    obstacle = _obstacle(record)
    if obstacle is not None or change is None or parameters is None:
        because = obstacle or ("no coupling acts on them" if parameters else "the plant does not show its parameters")
        yield Finding(
            kind="kpi",
            title=f"{names} outside limits",
            summary=f"{names} ended outside limits, and no step of the couplings is proposed, because {because}. Mend "
            "that, or find what changed in the plant's environment.",
            evidence=evidence,
        )
        return
    before, after = parameters.as_dict(), change.parameters.as_dict()
    alike = [(story.baseline, story.measured) for story in trials if story.direction == change.direction]
    measured = [(baseline, result) for baseline, result in alike if result is not None]
    basis = f"mean of {len(measured)} trial(s) of this run in the same direction"
    yield Finding(
        kind="parameters",
        title=f"Try {changes(before, after)}",
        summary=f"{names} ended outside limits. The next step is {change.direction.replace('_', ' ')}: "
        f"{changes(before, after)}; a run with healing tries it and rolls it back unless it helps.",
        parameters={name: (before[name], after[name]) for name in after if before[name] != after[name]},
        expectation=_effects(measured, basis) if measured else NOT_ESTIMATED,
        evidence=evidence,
        command=f"IACE_HEALING__AUTO_APPLY=true {{run}} --ticks {2 * config.schedule.ticks}",
        does="runs again with twice the window, tries the step, verifies it, keeps it or rolls it back",
    )


def node_findings(isolations: Sequence[Isolation], config: Config) -> Iterator[Finding]:
    """Nodes that keep coming back as wells, and nodes that were still out at the end."""
    stories: dict[str, list[Isolation]] = {}
    for story in isolations:
        if story.probe is None and story.verified:
            stories.setdefault(story.node, []).append(story)
    for node, own in stories.items():
        if len(own) > 1:
            yield _returning(node, own, config)
        elif own[-1].out:
            yield Finding(
                kind="node",
                title=f"Repair {node}",
                summary=f"{node} of {own[-1].cluster} was isolated ({own[-1].reason}) and was still out at the end, "
                f"until {quantity(own[-1].until_s)} s unless renewed. It is let in by itself once it looks clean.",
                evidence={"isolations": [asdict(story) for story in own]},
            )


def budget_findings(blocked: Sequence[Blocked], refusals: Mapping[Refusal, int], config: Config) -> Iterator[Finding]:
    """Budgets that kept a confirmed well in place, with the least value that would have let it go."""
    for guard, path in _BUDGETS.items():
        refused = {
            item: count
            for item, count in refusals.items()
            if item.rule == "isolate" and item.guard == guard and (guard is not Guard.RATE or count >= RATE_WAIT_TICKS)
        }
        held = [item for item in blocked if item.guard == guard]
        if held or refused:
            yield _budget(guard, path, held, refused, config)


def sensor_findings(record: RunRecord) -> Iterator[Finding]:
    """Moments in which the evidence contradicted itself."""
    moments = [item for item in record.events if item.event.kind in _DOUBTS]
    if moments:
        yield Finding(
            kind="sensors",
            title="Check the sensors",
            summary=f"The evidence contradicted itself {len(moments)} time(s), first at "
            f"{quantity(moments[0].event.at_s)} s ({sentence(moments[0].event)}). Nothing was isolated on it; check "
            "how the plant reports phases before trusting a verdict on its nodes.",
            evidence={"moments": [{"seq": item.seq, "at_s": item.event.at_s, **item.event.data} for item in moments]},
        )


def _next_step(
    trials: Sequence[TrialStory], config: Config, parameters: Parameters | None, unhealthy: Sequence[str]
) -> Change | None:
    if parameters is None:
        return None
    closed = [story for story in trials if story.outcome != "open"]
    return propose(
        HealingPolicy(step=config.healing.step),
        parameters,
        tuple(unhealthy),
        last_direction=closed[-1].direction if closed else "",
        last_kept=bool(closed) and closed[-1].outcome == "kept",
    )


def _obstacle(record: RunRecord) -> str | None:
    """What makes the KPIs no evidence about the couplings at the end of a run, None if nothing does."""
    doubted, wells = False, set[str]()
    for item in record.events:
        kind, subject = item.event.kind, str(item.event.data.get("subject") or item.event.data.get("node"))
        if kind in _DOUBTS or kind is EventKind.SAFE_MODE_LEFT:
            doubted = kind in _DOUBTS
        elif kind is EventKind.GRAVITY_WELL_CONFIRMED:
            wells.add(subject)
        elif kind in (EventKind.GRAVITY_WELL_GONE, EventKind.ISOLATION_VERIFIED):
            wells.discard(subject)
    if doubted:
        return "the sensors contradict service"
    return f"{_named(sorted(wells))} still pull(s) as gravity well" if wells else None


def _effects(measured: Sequence[tuple[Mapping[str, float], Mapping[str, float]]], basis: str) -> Mapping[str, object]:
    """Mean change between pairs of windows, with the standard error of the objective's."""
    count = len(measured)
    effects = {name: sum(after[name] - before[name] for before, after in measured) / count for name in _EFFECTS}
    variance = sum(before["objective_se"] ** 2 + after["objective_se"] ** 2 for before, after in measured)
    return {"estimated": True, "basis": basis, "effects": {**effects, "objective_se": math.sqrt(variance) / count}}


def _named(subjects: Sequence[str]) -> str:
    more = len(subjects) - NAMED_MAX
    return ", ".join(subjects[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")


def _returning(node: str, own: Sequence[Isolation], config: Config) -> Finding:
    base = config.isolation.backoff_base_s
    longer = min(config.isolation.backoff_max_s, 2 * base)
    settings: dict[str, tuple[object, object]] = {}
    command, does = None, ""
    if longer > base:
        settings["isolation.backoff_base_s"] = (base, longer)
        command, does = _with("isolation.backoff_base_s", longer), "runs again with a longer least time out"
    state = "still out at the end" if own[-1].out else "in again at the end"
    return Finding(
        kind="node",
        title=f"Repair or replace {node}",
        summary=f"{node} of {own[-1].cluster} was isolated {len(own)} times and {state}; isolation does not mend it. "
        "Until it is repaired, a longer least time out spares the cluster its returns.",
        settings=settings,
        evidence={"isolations": [asdict(story) for story in own]},
        command=command,
        does=does,
    )


def _budget(
    guard: Guard, path: str, held: Sequence[Blocked], refused: Mapping[Refusal, int], config: Config
) -> Finding:
    limit = getattr(config.isolation, path.partition(".")[2])
    subjects = sorted({item.subject for item in held} | {item.subject for item in refused})
    seen = [item.observed for item in held] + [item.observed for item in refused]
    raised = _raised(guard, seen, config)
    who = _named(subjects)
    told = f"{path} ({quantity(limit)}) kept {who} from being isolated; the guard saw {_span(seen)}."
    evidence = {
        "blocked": [asdict(item) for item in held],
        "refusals": [{**asdict(item), "count": count} for item, count in refused.items()],
    }
    if raised is None:
        return Finding(
            kind="budget",
            title=f"Repair {who}, which {path} keeps in place",
            summary=f"{told} Do not move it that far: repair these, or add healthy nodes, so that the same limit holds "
            "more of them.",
            evidence=evidence,
        )
    return Finding(
        kind="budget",
        title=f"Raise {path} to {quantity(raised)}, or add nodes",
        summary=f"{told} {quantity(raised)} would have let it happen. Raise it only if those that stay carry the load; "
        "adding healthy nodes has the same effect.",
        settings={path: (limit, raised)},
        evidence=evidence,
        command=_with(path, raised),
        does="runs again with the raised budget",
    )


def _raised(guard: Guard, seen: Sequence[float], config: Config) -> float | None:
    """The least limit that would have let it happen, None where no limit should."""
    if guard in (Guard.BUDGET_CLUSTER, Guard.BUDGET_FRACTION):
        needed = math.ceil(max(seen) * 1e4) / 1e4
        return needed if needed <= SHARE_MAX else None
    if guard is Guard.BUDGET_ABSOLUTE:
        return int(max(seen))
    if guard is Guard.RATE:
        return config.isolation.rate_per_minute * RATE_FACTOR
    return None  # fewer active or trusted nodes than the quorum or the evidence asks for: no number mends that


def _span(seen: Sequence[float]) -> str:
    low, high = min(seen), max(seen)
    return quantity(low) if low == high else f"{quantity(low)} to {quantity(high)}"


def _with(path: str, value: float) -> str:
    return f"IACE_{path.upper().replace('.', '__')}={value:g} {{run}}"
