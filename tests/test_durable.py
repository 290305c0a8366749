"""The durable state: rebuilt exactly from the events, whatever happened."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metrics.errors import BadDataError
from state.action import Reply
from state.durable import DurableState, IntentKind, NodeStatus, replay
from state.event import Event, EventKind
from state.healing import HealingPolicy
from state.isolation import IsolationPolicy
from state.journal import Journal
from state.machine import PhaseMachine
from state.phase import Phase
from state.stimulus import CorrectionsOpened, InvariantBroken, ProbeEnded, ProbeIntended, ProbeUndone, WindowEnded

_stage = runpy.run_path(str(Path(__file__).with_name("governor_stage.py")))
Stage, reread = _stage["Stage"], _stage["reread"]
E = EventKind

# Everything happens within a few ticks, so that a short random story meets it.
HASTY = IsolationPolicy(
    confirm_ticks=2,
    evidence_nodes_min=4,
    rate_per_minute=30.0,
    verify_s=3.0,
    backoff_base_s=4.0,
    backoff_max_s=8.0,
    forgive_s=10.0,
    ttl_s=20.0,
    probation_ticks=2,
    storm_cooldown_s=4.0,
    doubt_ticks=2,
)
HASTY_HEALING = HealingPolicy(settle_ticks=1, measure_ticks=2, holdoff_s=3.0, trials_max=2, verify_s=3.0)
NODES, CLUSTERS = 12, 2


def fresh():
    return DurableState(PhaseMachine(daemon=False))


def rebuilt(events):
    """A new state from the events as they come back from the journal."""
    return replay(fresh(), [reread(event) for event in events])


gravity = st.lists(
    st.sampled_from([0.2, 0.2, 0.2, 0.2, 0.9, 1.6, 2.5, 4.0, float("nan"), float("inf")]),
    min_size=NODES,
    max_size=NODES,
)
tick = st.fixed_dictionaries(
    {
        "gravity": gravity,
        "repeat": st.integers(1, 6),
        "cluster": st.sampled_from([0.2, 0.2, 0.2, 2.0, float("nan")]),
        "untrusted": st.sets(st.integers(0, NODES - 1), max_size=3),
        "disagreement": st.sampled_from([0.0, 0.0, 0.0, 0.1, float("nan")]),
        "unhealthy": st.sampled_from([(), ("action_cost",), ("rsi",)]),
        "cost": st.sampled_from([0.02, 0.08, 0.2, float("nan")]),
        "replies": st.lists(st.sampled_from(list(Reply)), max_size=2),
        "obeys": st.sampled_from([True, True, True, False]),
        "answering": st.sampled_from([True, True, True, False]),
        "outsider": st.sampled_from([None, None, None, "n3", "clear"]),
        "restart": st.sampled_from([False, False, False, False, True]),
    }
)


def play(stage, steps):
    for step in steps:
        stage.gravity = np.array(step["gravity"])
        stage.cluster_gravity = np.array([0.2, step["cluster"]])
        stage.trusted = np.array([index not in step["untrusted"] for index in range(NODES)])
        stage.disagreement = step["disagreement"]
        stage.unhealthy, stage.kpis["action_cost"] = step["unhealthy"], step["cost"]
        stage.plant.replies, stage.plant.obeys = list(step["replies"]), step["obeys"]
        stage.answering = step["answering"]
        if step["outsider"] == "clear":
            stage.plant.out.clear()
        elif step["outsider"]:
            stage.plant.out[step["outsider"]] = 1e9
        if step["restart"]:
            stage.restart()
        stage.tick(step["repeat"])


def hasty(**options):
    return Stage(NODES, CLUSTERS, policy=HASTY, healing=HASTY_HEALING, **options)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(tick, min_size=3, max_size=15), st.sampled_from(["governing", "phase_iv", "probe", "daemon breach"]))
def test_replaying_any_story_gives_the_live_state(steps, setting):
    """Whatever happens, no step breaks an invariant, and the events rebuild the live state byte for byte.

    The stage compares the snapshots and asks every invariant after each single step.
    """
    stage = hasty(daemon=setting == "daemon breach")
    stage.reach(Phase.PHASE_III if setting == "probe" else Phase.GOVERNING)
    middle = len(steps) // 2
    if setting == "phase_iv":
        stage.tell(WindowEnded())
        stage.tell(CorrectionsOpened())
    elif setting == "probe":
        stage.tell(ProbeIntended("dissonance", {"clear": "dissonance", "restore": "n11"}, "n11"))
    play(stage, steps[:middle])
    if setting == "probe":
        stage.tell(ProbeUndone("dissonance"))
    elif setting == "daemon breach":
        stage.tell(InvariantBroken("quorum_holds", "c0 keeps 2"))
    play(stage, steps[middle:])
    if setting == "probe":
        stage.tell(ProbeEnded("dissonance"))
        stage.tick(5)
    assert rebuilt(stage.events).snapshot() == stage.governor.snapshot()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(tick, min_size=3, max_size=10))
def test_the_same_story_gives_the_same_bytes(steps):
    """Two governors that are told the same write the same journal."""
    journals = []
    for _ in range(2):
        stage = hasty().reach(Phase.GOVERNING)
        play(stage, steps)
        journals.append([event.canonical() for event in stage.events])
    assert journals[0] == journals[1]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(tick, min_size=3, max_size=10))
def test_every_intent_resolves_once_faults_stop(steps):
    """When plant and evidence are well again, nothing but renewals is in flight, and no trial stays open."""
    stage = hasty().reach(Phase.GOVERNING)
    play(stage, [step | {"answering": True, "restart": False} for step in steps])
    play(stage, [QUIET | {"repeat": 30}])
    in_flight = stage.state.intents.values()
    assert all(intent.kind is IntentKind.RENEW and intent.at_s == stage.now_s for intent in in_flight)
    assert stage.state.trial is None
    assert stage.phase in (Phase.GOVERNING, Phase.SAFE_MODE)


QUIET = {
    "gravity": [0.2] * NODES,
    "repeat": 1,
    "cluster": 0.2,
    "untrusted": set(),
    "disagreement": 0.0,
    "unhealthy": (),
    "cost": 0.02,
    "replies": [],
    "obeys": True,
    "answering": True,
    "outsider": None,
    "restart": False,
}


def eventful():
    """A story with isolations, a relapse, a storm, trials and a restart."""
    stage = hasty().reach(Phase.GOVERNING)
    bad = [4.0] + [0.2] * (NODES - 1)
    story = [
        {"gravity": bad, "repeat": 4},
        {"repeat": 12},
        {"gravity": bad, "repeat": 4},
        {"unhealthy": ("action_cost",), "cost": 0.08, "repeat": 30},
        {"gravity": [2.0] * NODES, "restart": True, "repeat": 3},
        {"repeat": 20},
    ]
    play(stage, [QUIET | step for step in story])
    return stage


def test_replay_from_a_real_journal_gives_the_live_snapshot(tmp_path):
    """Through SQLite and back the state is the same, byte for byte, and replaying again changes nothing."""
    stage = eventful()
    assert {E.ISOLATION_VERIFIED, E.NODE_READMITTED, E.TRIAL_ROLLED_BACK, E.STORM_DETECTED, E.SAFE_MODE_LEFT} <= set(
        stage.kinds()
    )
    journal = Journal(tmp_path / "journal.db")
    for event in stage.events:
        journal.append([event], epoch=1, wall_time="2025-01-01T00:00:00Z")
    journal.close()
    journal = Journal(tmp_path / "journal.db", read_only=True)
    for _ in range(2):
        events = [entry.event for entry in journal.entries()]
        assert replay(fresh(), events).snapshot() == stage.governor.snapshot()
    journal.close()


def test_replay_can_stop_and_go_on_anywhere():
    """Every prefix rebuilds a valid state, and going on from it ends in the same bytes."""
    stage = eventful()
    whole = rebuilt(stage.events).snapshot()
    for cut in range(0, len(stage.events), 7):
        assert replay(rebuilt(stage.events[:cut]), stage.events[cut:]).snapshot() == whole


def test_snapshot_is_canonical_json():
    """Keys are sorted, numbers are finite, and equal states give equal bytes."""
    one, other = fresh(), fresh()
    one.wells.update({"n2", "n1"})
    other.wells.update({"n1", "n2"})
    assert one.snapshot() == other.snapshot()
    assert one.snapshot().startswith(b'{"actions":0,"alpha_s":null,"blocked":{},"came_from":"IDLE",')


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (Event(E.PHASE_PASSED, 1.0, {}), "PHASE_PASSED is not in the table for IDLE"),
        (Event(E.ACTION_APPLIED, 1.0, {"key": "isolate-9"}), "'isolate-9', of which nothing is known"),
        (Event(E.RENEWAL_VERIFIED, 1.0, {"key": "renew-9"}), "'renew-9', of which nothing is known"),
        (Event(E.ISOLATION_EXPIRED, 1.0, {"node": "n9"}), "'n9', of which nothing is known"),
        (Event(E.TRIAL_APPLIED, 1.0, {"trial": 1}), "an open trial"),
        (Event(E.PROBE_ENDED, 1.0, {"probe": "p"}), "'p', of which nothing is known"),
        (Event(E.RUN_STARTED, 1.0, {}), "'epoch', of which nothing is known"),
        (Event(E.RUN_STARTED, 1.0, {"epoch": "1"}), "epoch must be a number, not '1'"),
    ],
)
def test_a_fact_that_contradicts_the_state_is_refused(event, words):
    """A journal that is not ours, or not whole, is told and not guessed at."""
    with pytest.raises(BadDataError, match=words):
        fresh().apply(event)


def test_out_of_service_counts_all_that_may_be_out():
    """Isolating, isolated and unknown nodes count, those on probation do not."""
    stage = Stage(50, 7).reach(Phase.GOVERNING)
    stage.make_bad("n0", "n8")
    stage.tick(3)
    assert stage.state.out_of_service() == {"n0", "n8"}
    assert {record.status for record in stage.state.nodes.values()} == {NodeStatus.ISOLATING}
    stage.tick()
    assert stage.state.out_of_service() == {"n0", "n8"}
    stage.plant.out.clear()
    stage.tick()
    assert stage.state.out_of_service() == set()


def test_canonical_bytes_are_the_one_form():
    """Sorted keys, no spaces, UTF-8, and nothing that JSON cannot carry."""
    event = Event(E.RUN_STARTED, 1.5, {"epoch": 1, "a": "é"})
    assert event.canonical() == '{"at_s":1.5,"data":{"a":"é","epoch":1},"kind":"RUN_STARTED"}'.encode()
    with pytest.raises(ValueError, match="must be finite"):
        Event(E.RUN_STARTED, float("nan")).canonical()
    with pytest.raises(ValueError, match="not JSON compliant"):
        Event(E.RUN_STARTED, 1.0, {"gravity": float("inf")}).canonical()
