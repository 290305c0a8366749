"""Which of the things that a run saw call for a change, and for which?

Every function here looks at one kind of evidence and answers with findings, none where there is nothing to say. A
change is only put forward where the run's own numbers carry it: a budget is raised no further than what it refused, and
never beyond half of the nodes. Which parameters are worth a trial is asked in `steps.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from controller.estimates import Estimate, Sure, measured, not_estimated
from controller.record import RunRecord
from controller.settings import Config
from controller.timeline import Blocked, Isolation, TrialStory
from controller.wording import changes, quantity, sentence
from metrics.observation import Parameters
from state.event import EventKind
from state.isolation import Guard, Refusal

NAMED_MAX = 5
SHARE_MAX = 0.5  # with half of the nodes out, those that stay no longer outvote the rest
RATE_FACTOR = 2.0
RATE_WAIT_TICKS = 10  # a node that waits less than that for its token is what a rate limit is for

_BUDGETS: Mapping[Guard, str] = {
    Guard.BUDGET_CLUSTER: "isolation.cluster_fraction_max",
    Guard.BUDGET_FRACTION: "isolation.fraction_max",
    Guard.BUDGET_ABSOLUTE: "isolation.absolute_max",
    Guard.RATE: "isolation.rate_per_minute",
    Guard.QUORUM: "isolation.quorum",
    Guard.EVIDENCE_NODES: "isolation.evidence_nodes_min",
}
DOUBTS = (EventKind.STORM_DETECTED, EventKind.SENSORS_DOUBTED)
_NO_RISK = Sure("low", "nothing is changed by it")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that calls for a change.

    Attributes:
        kind: "none", "parameters", "kpi", "node", "budget", "threshold" or "sensors".
        title, summary: for people; the summary says what was seen and what is proposed.
        settings, parameters: what would change, each from and to; both empty for work that only people can do.
        estimate: what the change would do; that of settings is replayed later.
        each: the same of each parameter alone, where that is known.
        risk: of carrying it out.
        evidence: what it stands on, JSON-able.
        conditions: the parameters in force under which it was found; None where they do not matter.
        direction: the rule that found the parameters, see `state.durable.Trial`.
        in_force: the parameters are in force already, so that there is nothing to be tried.
        what_if: other settings, not proposed, whose effect is to be replayed for comparison.
    """

    kind: str
    title: str
    summary: str
    settings: Mapping[str, tuple[object, object]] = field(default_factory=dict)
    parameters: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    estimate: Estimate = field(default_factory=not_estimated)
    each: Mapping[str, Estimate] = field(default_factory=dict)
    risk: Sure = _NO_RISK
    evidence: Mapping[str, object] = field(default_factory=dict)
    conditions: Parameters | None = None
    direction: str = ""
    in_force: bool = False
    what_if: Mapping[str, object] = field(default_factory=dict)

    @property
    def tried(self) -> bool:
        """Whether a trial carries it out."""
        return bool(self.parameters) and not self.in_force


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
        estimate=measured(
            [(kept[0].baseline, kept[-1].measured or {})],
            f"measured before and after trial(s) {numbers} of this run, whatever else changed meanwhile included",
        ),
        evidence={"trials": [asdict(story) for story in kept]},
        in_force=True,
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
    moments = [item for item in record.events if item.event.kind in DOUBTS]
    if moments:
        yield Finding(
            kind="sensors",
            title="Check the sensors",
            summary=f"The evidence contradicted itself {len(moments)} time(s), first at "
            f"{quantity(moments[0].event.at_s)} s ({sentence(moments[0].event)}). Nothing was isolated on it; check "
            "how the plant reports phases before trusting a verdict on its nodes.",
            evidence={"moments": [{"seq": item.seq, "at_s": item.event.at_s, **item.event.data} for item in moments]},
        )


def named(subjects: Sequence[str]) -> str:
    """Subjects for people: the first few by name."""
    more = len(subjects) - NAMED_MAX
    return ", ".join(subjects[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")


def _returning(node: str, own: Sequence[Isolation], config: Config) -> Finding:
    base = config.isolation.backoff_base_s
    longer = min(config.isolation.backoff_max_s, 2 * base)
    settings: dict[str, tuple[object, object]] = {}
    if longer > base:
        settings["isolation.backoff_base_s"] = (base, longer)
    state = "still out at the end" if own[-1].out else "in again at the end"
    return Finding(
        kind="node",
        title=f"Repair or replace {node}",
        summary=f"{node} of {own[-1].cluster} was isolated {len(own)} times and {state}; isolation does not mend it. "
        "Until it is repaired, a longer least time out spares the cluster its returns.",
        settings=settings,
        evidence={"isolations": [asdict(story) for story in own]},
        risk=Sure("low", "whoever is isolated stays out longer; no more nodes may be out at once")
        if settings
        else _NO_RISK,
    )


def _budget(
    guard: Guard, path: str, held: Sequence[Blocked], refused: Mapping[Refusal, int], config: Config
) -> Finding:
    limit = getattr(config.isolation, path.partition(".")[2])
    subjects = sorted({item.subject for item in held} | {item.subject for item in refused})
    seen = [item.observed for item in held] + [item.observed for item in refused]
    raised = _raised(guard, seen, config)
    who = named(subjects)
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
        risk=Sure("medium", "more nodes may be out at once, or faster; those that stay carry the load"),
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
