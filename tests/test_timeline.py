"""The stories of isolations and trials that a run's events amount to."""

from controller.timeline import timeline
from controller.wording import printable, sentence
from state.event import Event, EventKind

E = EventKind
INTENT = {
    "key": "isolate-1",
    "node": "n1",
    "cluster": "c0",
    "gravity": 2.5,
    "components": {"h": 1.0, "q": 2.0, "k": 0.0},
    "until_s": 900.0,
    "offence": 1,
    "reason": "|g| 2.50 above 1.5 for 3 ticks",
}


def stories(*events):
    return timeline(Event(kind, at_s, data) for kind, at_s, data in events)


def test_an_isolation_is_told_from_intent_to_return():
    """Intent, answer, verification, renewal and return make one story."""
    (story,) = stories(
        (E.ISOLATION_INTENDED, 10.0, INTENT),
        (E.ACTION_APPLIED, 10.5, {"key": "isolate-1"}),
        (E.ISOLATION_VERIFIED, 11.0, {"key": "isolate-1", "node": "n1"}),
        (E.RENEWAL_INTENDED, 800.0, {"key": "renew-2", "node": "n1", "until_s": 1700.0}),
        (E.ACTION_APPLIED, 800.0, {"key": "renew-2"}),
        (E.RENEWAL_VERIFIED, 801.0, {"key": "renew-2", "node": "n1"}),
        (E.RESTORATION_INTENDED, 1000.0, {"key": "restore-3", "node": "n1", "reason": "clean"}),
        (E.RESTORATION_VERIFIED, 1001.0, {"key": "restore-3", "node": "n1"}),
    ).isolations
    assert (story.intended_at_s, story.applied_at_s, story.verified_at_s, story.restored_at_s) == (10, 10.5, 11, 1001)
    assert (story.until_s, story.renewals, story.return_reason, story.probe) == (1700.0, 1, "clean", None)
    assert story.verified
    assert not story.out


def test_an_isolation_that_failed_is_not_out_and_not_verified():
    """A failed isolation ends with the reason; a failed return leaves the node out."""
    (failed,) = stories(
        (E.ISOLATION_INTENDED, 10.0, INTENT),
        (E.ACTION_REFUSED, 10.0, {"key": "isolate-1", "reason": "no"}),
        (E.ISOLATION_FAILED, 10.0, {"key": "isolate-1", "node": "n1", "reason": "no"}),
    ).isolations
    assert (failed.failure, failed.verified, failed.out) == ("no", False, False)
    (held,) = stories(
        (E.ISOLATION_INTENDED, 10.0, INTENT),
        (E.ISOLATION_VERIFIED, 11.0, {"key": "isolate-1", "node": "n1"}),
        (E.ISOLATION_FAILED, 90.0, {"key": "restore-2", "node": "n1", "reason": "not seen"}),
    ).isolations
    assert (held.failure, held.verified, held.out) == (None, True, True)


def test_a_node_isolated_twice_has_two_stories():
    """A return ends the latest open story of its node, also where somebody else let it in."""
    first, second = stories(
        (E.ISOLATION_INTENDED, 10.0, INTENT),
        (E.ISOLATION_VERIFIED, 11.0, {"key": "isolate-1", "node": "n1"}),
        (E.ISOLATION_EXPIRED, 50.0, {"node": "n1", "reason": "the plant shows it taking part"}),
        (E.ISOLATION_INTENDED, 60.0, {**INTENT, "key": "isolate-2", "offence": 2}),
    ).isolations
    assert (first.restored_at_s, first.return_reason) == (50.0, "the plant shows it taking part")
    assert (second.out, second.offence, second.verified) == (True, 2, False)


def test_an_isolation_of_a_probes_node_names_the_probe():
    """While a probe made a node ill its isolation is the probe's, afterwards it is its own."""
    during, after = stories(
        (E.PROBE_INTENDED, 5.0, {"probe": "dissonance", "undo": {}, "node": "n1"}),
        (E.ISOLATION_INTENDED, 10.0, INTENT),
        (E.ISOLATION_EXPIRED, 20.0, {"node": "n1", "reason": "x"}),
        (E.PROBE_ENDED, 30.0, {"probe": "dissonance", "result": {}}),
        (E.ISOLATION_INTENDED, 60.0, {**INTENT, "key": "isolate-2"}),
    ).isolations
    assert (during.probe, after.probe) == ("dissonance", None)


def test_a_trial_is_told_with_what_it_changed_and_measured(eventful_run):
    """A kept and a rolled-back trial, each with its measures and its outcome."""
    kept, failed = timeline(item.event for item in eventful_run.events).trials
    assert (kept.outcome, kept.applied_at_s, kept.ended_at_s) == ("kept", 421.0, 470.0)
    assert kept.changed() == {"lambda2": (0.35, 0.4375)}
    assert (failed.outcome, failed.rollback_reason, failed.ended_at_s) == ("rolled_back", "no improvement", 526.0)
    assert failed.measured["objective"] == 0.06


def test_answers_to_unknown_keys_are_left_out():
    """What does not fit the rest of the events makes no story."""
    told = stories(
        (E.ACTION_APPLIED, 1.0, {"key": "nobody"}),
        (E.RESTORATION_VERIFIED, 2.0, {"key": "restore-1", "node": "n1"}),
        (E.TRIAL_KEPT, 3.0, {"trial": 9, "measured": {}}),
        (E.RENEWAL_VERIFIED, 4.0, {"key": "renew-1", "node": "n1"}),
    )
    assert told.isolations == told.trials == told.blocked == ()


def test_every_kind_of_event_has_a_sentence(eventful_run):
    """Events read as sentences; one that lacks its data is named by its kind."""
    for item in eventful_run.events:
        assert sentence(item.event) != item.event.kind.value.replace("_", " ").lower()
    assert sentence(Event(E.TRIAL_KEPT, 1.0, {})) == "trial kept"
    for kind in EventKind:
        assert sentence(Event(kind, 0.0, {}))
    blocked = {"subject": "c2", "gravity": 2.1, "guard": "budget_cluster", "observed": 1.0, "limit": 1 / 3}
    told = sentence(Event(E.ISOLATION_BLOCKED, 0.0, blocked))
    assert told == "c2 (|g| 2.10) may not be isolated: budget_cluster would be 1, the limit is 0.3333"


def test_a_plants_words_cannot_move_the_cursor():
    """Control characters and line breaks become blanks."""
    assert printable("a\x1b[2Jb\nc\td") == "a [2Jb c d"
