"""Which of the things that a run saw call for a change, and for which?

Every function looks at one kind of evidence and answers with findings, none where there is nothing to say. Here are
doubted sensors and trials that were kept; nodes are in `repairs.py`, guards in `budgets.py`, limits in `thresholds.py`,
and which parameters are worth a trial is asked in `steps.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from controller.estimates import Estimate, Sure, measured, not_estimated
from controller.record import RunRecord
from controller.timeline import TrialStory
from controller.wording import changes, quantity, sentence
from metrics.observation import Parameters
from state.event import EventKind

NAMED_MAX = 5
DOUBTS = (EventKind.STORM_DETECTED, EventKind.SENSORS_DOUBTED)
_NO_RISK = Sure("low", "nothing is changed by it")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that calls for a change.

    Attributes:
        kind: "none", "parameters", "kpi", "node", "budget", "threshold" or "sensors".
        title, summary: for people; the summary says what was seen and what is proposed.
        subjects: what it is about, whatever the values are: with the kind, what tells that it was proposed before.
        settings, parameters: what would change, each from and to; both empty for work that only people can do.
        estimate: what the change would do; that of settings is replayed later.
        each: the same of each parameter alone, where that is known.
        risk: of carrying it out.
        evidence: what it stands on, JSON-able.
        conditions: the parameters in force under which it was found; None where they do not matter.
        direction: the rule that found the parameters, see `state.durable.Trial`.
        in_force: the parameters are in force already, so that there is nothing to be tried.
        what_if: other settings, not proposed, whose effect is to be replayed for comparison.
        nodes: those that people are to work on.
        passing: it says only that something is under way, so that who goes on need not tell it.
        instead: what is left of it where a replay shows that its settings would have changed nothing.
    """

    kind: str
    title: str
    summary: str
    subjects: tuple[str, ...]
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
    nodes: tuple[str, ...] = ()
    passing: bool = False
    instead: Finding | None = None

    @property
    def tried(self) -> bool:
        """Whether a trial carries it out."""
        return bool(self.parameters) and not self.in_force


def kept_finding(record: RunRecord, trials: Sequence[TrialStory], parameters: Parameters | None) -> Iterator[Finding]:
    """What trials have changed for the better, from the first value to the one in force; nothing where it is not."""
    helped = {
        item.event.data["trial"]
        for item in record.events
        if item.event.kind is EventKind.TRIAL_KEPT
        and (item.event.data.get("healed") or item.event.data.get("improved"))
    }
    kept: list[TrialStory] = []
    led_to = None if parameters is None else parameters.as_dict()
    for story in reversed(trials):
        if story.outcome == "kept" and story.trial in helped and story.after == led_to:
            kept.insert(0, story)
            led_to = dict(story.before)
    if not kept:
        return
    before, after = kept[0].before, kept[-1].after
    numbers = ", ".join(str(story.trial) for story in kept)
    estimate = measured(
        [(kept[0].baseline, kept[-1].measured or {})],
        f"measured before and after trial(s) {numbers} of this run, whatever else changed meanwhile included",
    )
    if estimate.worse:
        return
    told = changes(before, after)
    yield Finding(
        kind="parameters",
        title=f"Keep {told}",
        summary=f"Trials kept ({numbers}) changed {told} for the better, which is in force. "
        "Make it the plant's own default, or it is lost when it starts anew.",
        subjects=tuple(f"{name} {value!r} kept" for name, value in after.items() if before.get(name) != value),
        parameters={name: (before[name], after[name]) for name in after if before.get(name) != after[name]},
        estimate=estimate,
        evidence={"trials": [asdict(story) for story in kept]},
        conditions=parameters,
        in_force=True,
    )


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
            subjects=("sensors",),
            evidence={"moments": [{"seq": item.seq, "at_s": item.event.at_s, **item.event.data} for item in moments]},
        )


def named(subjects: Sequence[str]) -> str:
    """Subjects for people: the first few by name."""
    more = len(subjects) - NAMED_MAX
    return ", ".join(subjects[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")


def span(seen: Sequence[float]) -> str:
    """Where some values lie, for people."""
    low, high = min(seen), max(seen)
    return quantity(low) if low == high else f"{quantity(low)} to {quantity(high)}"
