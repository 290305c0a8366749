"""Which parameters are worth a trial for KPIs that ended outside their limits, and what is expected of them?

Where the environment has been identified, those that the gray box expects most of within reach; where it cannot be,
the next step of the fixed-step rule, with an effect only where a trial of this run measured one. Where the KPIs say
nothing about the parameters, nothing is proposed, and the reason is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from controller.estimates import Estimate, Sure, measured, not_estimated, predicted
from controller.findings import DOUBTS, Finding, named
from controller.record import RunRecord
from controller.settings import Config
from controller.timeline import TrialStory, timeline
from controller.wording import changes, quantity
from metrics.haru import tuning
from metrics.haru.plant_model import Environment
from metrics.observation import Parameters
from state.durable import GRAY_BOX
from state.event import EventKind
from state.healing import DIGITS, TUNABLE_KPIS, Change, HealingPolicy, propose

_LANDED = frozenset({EventKind.ISOLATION_VERIFIED, EventKind.ISOLATION_FAILED, EventKind.ACTION_ABANDONED})
_CAREFUL = math.exp(tuning.DEFAULT_POLICY.reach)  # factor within which the tuner stays while the limits hold


def step_finding(
    record: RunRecord,
    config: Config,
    parameters: Parameters | None,
    unhealthy: Sequence[str],
    model: tuple[Environment, float] | None,
    now_s: float,
    *,
    settable: bool,
) -> Iterator[Finding]:
    """The parameters worth a trial for KPIs that ended outside their limits, or why there are none.

    `model` is the environment as identified and the trust in the gray box, None where it is not known; `settable`
    says whether the plant lets its parameters be changed. Where healing has given up, its own word is told.
    """
    given_up = list(_given_up(record, unhealthy, now_s))
    yield from given_up
    trials = timeline(item.event for item in record.events).trials
    if not unhealthy:
        return
    names = ", ".join(unhealthy)
    under_way = _under_way(record, trials)
    obstacle = under_way or _obstacle(record)
    if parameters is None:
        obstacle = obstacle or "the plant does not show its parameters"
    elif not settable:
        obstacle = obstacle or "the plant does not let them be changed"
    elif not TUNABLE_KPIS.intersection(unhealthy):
        obstacle = obstacle or "no coupling acts on them"
    change = None
    if obstacle is None and parameters is not None:
        change = _modelled(parameters, *model) if model else _next_step(trials, config, parameters, unhealthy)
    if change is not None and parameters is not None:
        yield _try(record, change, parameters, names, trials, model)
    elif not given_up:
        because = obstacle or "nothing within reach is expected to help"
        yield Finding(
            kind="kpi",
            title=f"{names} outside limits",
            summary=f"{names} ended outside limits, and no step of the couplings is proposed, because {because}. Mend "
            "that, or find what changed in the plant's environment.",
            subjects=("limits",),
            evidence={"unhealthy": list(unhealthy)},
            passing=under_way is not None,
        )


def _given_up(record: RunRecord, unhealthy: Sequence[str], now_s: float) -> Iterator[Finding]:
    """That healing has run out of ideas, with its own reason, unless all is well again."""
    last = None
    for item in record.events:
        if item.event.kind is EventKind.HEALING_EXHAUSTED:
            last = item
        elif item.event.kind is EventKind.TRIAL_KEPT and item.event.data.get("healed"):
            last = None
    if last is None:
        return
    told: Mapping[str, Any] = last.event.data
    until_s = float(told["until_s"])
    if not unhealthy and now_s >= until_s:
        return
    waits = f"It tries nothing before {quantity(until_s)} s" if now_s < until_s else "It may try again"
    yield Finding(
        kind="kpi",
        title="Help where healing has given up",
        summary=f"Healing gave up at {quantity(last.event.at_s)} s: {told['reason']}. {waits}; what it names is for "
        "people to change.",
        subjects=("healing",),
        evidence={
            "unhealthy": list(unhealthy),
            "moments": [{"seq": last.seq, "at_s": last.event.at_s, **told}],
        },
    )


def _try(
    record: RunRecord,
    change: Change,
    parameters: Parameters,
    names: str,
    trials: Sequence[TrialStory],
    model: tuple[Environment, float] | None,
) -> Finding:
    before, after = parameters.as_dict(), change.parameters.as_dict()
    moved = {name: (before[name], after[name]) for name in after if before[name] != after[name]}
    alike = [(story.baseline, story.measured) for story in trials if story.direction == change.direction]
    known = [(baseline, result) for baseline, result in alike if result is not None]
    each: dict[str, Estimate] = {}
    if model is not None:
        environment, trust = model
        estimate = predicted(environment, parameters, change.parameters, record, trust)
        each = {
            name: predicted(environment, parameters, replace(parameters, **{name: new}), record, trust)
            for name, (_, new) in moved.items()
        }
        rule = "the best that the gray box expects within reach"
    else:
        basis = f"mean of {len(known)} trial(s) of this run in the same direction"
        estimate = measured(known, basis) if known else not_estimated("no trial of this run went that way")
        rule = f"the next step of the fixed-step rule, {change.direction.replace('_', ' ')}"
    factor = max(math.exp(abs(math.log(new / old))) if old > 0 < new else math.inf for old, new in moved.values())
    return Finding(
        kind="parameters",
        title=f"Try {changes(before, after)}",
        summary=f"{names} ended outside limits. Proposed is {rule}: {changes(before, after)}. It is tried, measured "
        "against the window before, and rolled back unless it helps.",
        parameters=moved,
        subjects=tuple(f"{name} {'up' if new > old else 'down'}" for name, (old, new) in moved.items()),
        estimate=estimate,
        each=each,
        risk=Sure(
            "low" if factor <= _CAREFUL else "medium",
            f"the largest change is by a factor of {factor:.3g}; a trial is aborted beyond the hard limits and rolled "
            "back unless it helps, and one trial is open at a time",
        ),
        evidence={
            "unhealthy": names.split(", "),
            "trials": [asdict(s) for s in trials if s.direction == change.direction],
        },
        conditions=parameters,
        direction=change.direction,
    )


def _modelled(parameters: Parameters, environment: Environment, trust: float) -> Change | None:
    proposal = tuning.propose(environment, parameters, violating=True, trust=trust)
    if proposal is None:
        return None
    before = parameters.as_dict()
    values = {
        name: old if math.isclose(value, old, rel_tol=10.0**-DIGITS) else round(value, DIGITS)
        for (name, value), old in zip(proposal.parameters.as_dict().items(), before.values(), strict=True)
    }
    return Change(GRAY_BOX, Parameters.parse(values), proposal.reason)


def _next_step(
    trials: Sequence[TrialStory], config: Config, parameters: Parameters, unhealthy: Sequence[str]
) -> Change | None:
    closed = [story for story in trials if story.outcome != "open"]
    return propose(
        HealingPolicy(step=config.healing.step),
        parameters,
        tuple(unhealthy),
        last_direction=closed[-1].direction if closed else "",
        last_kept=bool(closed) and closed[-1].outcome == "kept",
    )


def _under_way(record: RunRecord, trials: Sequence[TrialStory]) -> str | None:
    """What has been begun and may change the KPIs yet, None if nothing has."""
    if trials and trials[-1].outcome == "open":
        return "a trial is under way"
    flying = set[str]()
    for item in record.events:
        if item.event.kind is EventKind.ISOLATION_INTENDED:
            flying.add(str(item.event.data["key"]))
        elif item.event.kind in _LANDED:
            flying.discard(str(item.event.data["key"]))
    return "an isolation is under way" if flying else None


def _obstacle(record: RunRecord) -> str | None:
    """What makes the KPIs no evidence about the couplings in force at the end of a run, None if nothing does."""
    doubted, wells = False, set[str]()
    for item in record.events:
        kind, subject = item.event.kind, str(item.event.data.get("subject") or item.event.data.get("node"))
        if kind in DOUBTS or kind is EventKind.SAFE_MODE_LEFT:
            doubted = kind in DOUBTS
        elif kind is EventKind.GRAVITY_WELL_CONFIRMED:
            wells.add(subject)
        elif kind in (EventKind.GRAVITY_WELL_GONE, EventKind.ISOLATION_VERIFIED):
            wells.discard(subject)
    if doubted:
        return "the sensors contradict service"
    return f"{named(sorted(wells))} still pull(s) as gravity well" if wells else None
