"""Governor, policy and a real journal against any sequence of evidence, replies, commands, crashes and phases."""

import copy
import runpy
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import Phase as HypothesisPhase
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from metrics.errors import InvariantBreachError
from state import command as asked
from state.action import ApplyParameters, Reply
from state.command import ExemptionKind
from state.decision import Draft
from state.durable import POLICY, IntentKind
from state.event import EventKind as E
from state.governor import Governor
from state.healing import HealingPolicy
from state.isolation import Guard, IsolationPolicy, forbid_isolation
from state.journal import Journal
from state.phase import Phase
from state.recovery import recover
from state.stimulus import PlantLost, ProbeEnded, ProbeIntended, ProbeUndone, Replied, SnapshotDue
from state.verdict import CheckStatus

Stage = runpy.run_path(str(Path(__file__).with_name("governor_stage.py")))["Stage"]
NODES, CLUSTERS = 8, 2
POLICY_IN_USE = IsolationPolicy(
    confirm_ticks=2,
    fraction_max=0.4,
    evidence_nodes_min=4,
    rate_per_minute=30.0,
    verify_s=3.0,
    backoff_base_s=4.0,
    backoff_max_s=8.0,
    forgive_s=10.0,
    flap_offences=3,
    ttl_s=20.0,
    probation_ticks=2,
    storm_cooldown_s=4.0,
    doubt_ticks=2,
)
HEALING = HealingPolicy(settle_ticks=1, measure_ticks=2, baseline_ticks=2, holdoff_s=3.0, trials_max=2, verify_s=3.0)
STARTING = {E.ISOLATION_INTENDED, E.RESTORATION_INTENDED, E.TRIAL_STARTED}
WALL = "2026-01-01T00:00:00Z"

node_names = st.sampled_from([f"n{i}" for i in range(NODES)])
gravities = st.lists(
    st.sampled_from([0.2, 0.2, 0.2, 0.2, 0.9, 1.6, 2.5, 4.0, float("nan"), float("inf")]),
    min_size=NODES,
    max_size=NODES,
)
commands = st.one_of(
    st.builds(asked.Pause, st.sampled_from([1.0, 5.0, 30.0, float("nan")])),
    st.just(asked.Resume()),
    st.just(asked.ClearSafeMode()),
    st.builds(asked.Isolate, node_names, st.sampled_from([None, 3.0, 8.0, float("inf")])),
    st.builds(asked.Restore, node_names),
    st.builds(asked.Exempt, node_names, st.sampled_from(ExemptionKind), st.sampled_from([2.0, 9.0])),
    st.builds(asked.EndExemption, node_names),
)


class GovernorMachine(RuleBasedStateMachine):
    """What may happen, in any order; `stage` checks after every step that a replay gives the live state."""

    def __init__(self):
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.journal = Journal(Path(self.directory.name) / "journal.db")
        self.stage = Stage(NODES, CLUSTERS, policy=POLICY_IN_USE, healing=HEALING, daemon=True)
        self.kept, self.judged = 0, 0
        self.held_back = []  # replies that are late
        self.bad = dict.fromkeys(self.stage.topology.nodes, 0)  # trusted bad ticks in a row, counted apart
        self.latest = {}

    def teardown(self):
        self.journal.close()
        self.directory.cleanup()

    @initialize(phase=st.sampled_from([Phase.GOVERNING, Phase.GOVERNING, Phase.PHASE_I, Phase.PHASE_III]))
    def begin(self, phase):
        self.stage.reach(phase)
        self.keep()

    def keep(self):
        """What the loop does: events become durable before anything else happens."""
        new = self.stage.events[self.kept :]
        self.journal.append(new, epoch=self.stage.state.epoch, wall_time=WALL)
        self.kept = len(self.stage.events)

    @rule(
        gravity=gravities,
        untrusted=st.sets(st.integers(0, NODES - 1), max_size=3),
        repeat=st.integers(1, 4),
        doubted=st.sampled_from([0.0, 0.0, 0.0, 0.1, float("nan")]),
        cluster=st.sampled_from([0.2, 0.2, 2.0, float("nan")]),
        lag_s=st.sampled_from([0.0, 0.0, 0.0, 30.0]),
    )
    def look(self, gravity, untrusted, repeat, doubted, cluster, lag_s):
        stage = self.stage
        stage.gravity = np.array(gravity)
        stage.trusted = np.array([index not in untrusted for index in range(NODES)])
        stage.disagreement, stage.cluster_gravity, stage.lag_s = doubted, np.array([0.2, cluster]), lag_s
        for _ in range(repeat):
            self.tick()

    @rule(repeat=st.integers(1, 12))
    def calm(self, repeat):
        stage = self.stage
        stage.gravity, stage.trusted = np.full(NODES, 0.2), np.ones(NODES, dtype=bool)
        stage.disagreement, stage.cluster_gravity, stage.lag_s = 0.0, np.full(CLUSTERS, 0.2), 0.0
        for _ in range(repeat):
            self.tick()

    @rule(node=node_names, repeat=st.integers(2, 8))
    def ill(self, node, repeat):
        self.stage.make_bad(node, gravity=2.5)
        self.stage.trusted[self.stage.topology.index[node]] = True
        for _ in range(repeat):
            self.tick()

    def tick(self):
        stage = self.stage
        for name, gravity, trusted in zip(stage.topology.nodes, stage.gravity, stage.trusted, strict=True):
            self.latest[name] = bool(trusted) and bool(np.isfinite(gravity)) and float(gravity) > 1.5
            if trusted and np.isfinite(gravity):
                self.bad[name] = self.bad[name] + 1 if gravity > 1.5 else 0
        stage.tick()
        self.keep()

    @rule(replies=st.lists(st.sampled_from(list(Reply)), max_size=3), obeys=st.booleans())
    def plant_will(self, replies, obeys):
        self.stage.plant.replies, self.stage.plant.obeys = replies, obeys

    @rule()
    def plant_behaves(self):
        self.stage.plant.replies, self.stage.plant.obeys = [], True

    @rule(answering=st.booleans())
    def replies_come_late(self, answering):
        self.stage.answering = answering

    @rule(reply=st.sampled_from([Reply.APPLIED, Reply.REFUSED, Reply.UNKNOWN]))
    @precondition(lambda self: any(i.reply is None for i in self.stage.state.intents.values()))
    def a_late_reply(self, reply):
        key = next(key for key, intent in self.stage.state.intents.items() if intent.reply is None)
        self.stage.tell(Replied(key, reply, "late", self.stage.now_s))
        self.keep()

    @rule(node=node_names, out=st.booleans())
    def an_outsider(self, node, out):
        if out:
            self.stage.plant.out[node] = self.stage.now_s + 15.0
        else:
            self.stage.plant.out.pop(node, None)

    @rule(command=commands, key=st.sampled_from([None, None, "k1", "k2"]))
    def command(self, command, key):
        answer = self.stage.command(command, key=key)
        assert answer.text
        self.keep()

    @rule(unhealthy=st.sampled_from([(), ("action_cost",)]), cost=st.sampled_from([0.02, 0.08, 0.2, float("nan")]))
    def kpis(self, unhealthy, cost):
        self.stage.unhealthy, self.stage.kpis["action_cost"] = unhealthy, cost

    @rule(forget=st.booleans())
    def restart(self, forget):
        """The process dies, and another goes on from the journal alone."""
        snapshots = recover(self.journal, daemon=True).snapshots
        if forget and snapshots:
            self.journal.forget_before(snapshots[-1])
        live = self.stage.governor.snapshot()
        assert recover(self.journal, daemon=True).state.snapshot() == live
        self.stage.restart(lambda: recover(self.journal, daemon=True).state)
        self.bad = dict.fromkeys(self.bad, 0)
        self.keep()

    @rule()
    def plant_lost(self):
        self.stage.tell(PlantLost("silence"))
        self.keep()

    @rule()
    def snapshot(self):
        self.stage.tell(SnapshotDue())
        self.keep()

    @rule(status=st.sampled_from([CheckStatus.PASSED, CheckStatus.PASSED, CheckStatus.FAILED, CheckStatus.ERROR]))
    @precondition(lambda self: self.stage.phase in (Phase.PHASE_I, Phase.PHASE_II, Phase.PHASE_III))
    @precondition(lambda self: not self.stage.state.probes and self.stage.state.pause is None)
    def phase_ends(self, status):
        self.stage.end_phase(self.stage.phase, status)
        self.keep()

    @rule(node=node_names)
    @precondition(lambda self: self.stage.phase is Phase.PHASE_III and not self.stage.state.probes)
    def probe(self, node):
        self.stage.tell(ProbeIntended("dissonance", {"clear": "x"}, node))
        self.keep()

    @rule(undone=st.booleans())
    @precondition(lambda self: bool(self.stage.state.probes))
    def probe_over(self, undone):
        self.stage.tell(ProbeUndone("dissonance") if undone else ProbeEnded("dissonance"))
        self.keep()

    @invariant()
    def only_what_may_be_is_decided(self):
        """NaN never counts, nobody is isolated unconfirmed, and a pause starts nothing."""
        for event in self.stage.events[self.judged :]:
            if event.kind is E.ISOLATION_INTENDED and event.data["by"] == POLICY:
                node = event.data["node"]
                assert self.latest[node], f"{node} went without evidence now"
                assert self.bad[node] >= 2, f"{node} went unconfirmed"
        self.judged = len(self.stage.events)

    @invariant()
    def a_pause_starts_nothing(self):
        """From the request on, but for renewals and the rollback of what is on trial."""
        paused = False
        for event in self.stage.events:
            paused = paused or event.kind is E.PAUSE_REQUESTED
            paused = paused and event.kind is not E.RESUMED
            assert not (paused and event.kind in STARTING), event

    @invariant()
    def paused_means_that_every_call_has_an_outcome(self):
        """Renewals, which go on, may be under way."""
        state = self.stage.state
        if state.phase is Phase.PAUSED:
            assert all(intent.reply or intent.kind is IntentKind.RENEW for intent in state.intents.values())

    @invariant()
    def the_journal_is_the_state(self):
        """The journal's tip counts exactly the events that were decided."""
        assert self.journal.tip.seq == self.kept

    @invariant()
    def each_key_is_used_once(self):
        """One action for each idempotency key, but for a rollback that is asked for again after a restart."""
        keys = [action.key for action in self.stage.actions if not isinstance(action, ApplyParameters)]
        assert len(set(keys)) == len(keys)


GovernorMachine.TestCase.settings = settings(
    max_examples=100,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
TestGovernorWithJournal = GovernorMachine.TestCase


@pytest.mark.parametrize(
    ("planted", "words"),
    [
        ("the budget is counted before the action", "budgets_hold|quorum_holds"),
        ("nan counts", "went without evidence now|went unconfirmed|not JSON compliant"),
        ("a pause is ignored", "not in the table for PAUSED|assert not"),
        ("a restart forgets the back-off", "snapshot"),
    ],
)
def test_planted_bugs_are_found(planted, words, monkeypatch):
    """The machine is worth something: with a bug planted, a few hundred stories are enough to find it."""
    plant_bug(planted, monkeypatch)
    with pytest.raises((AssertionError, InvariantBreachError, ValueError), match=words):
        run_state_machine_as_test(GovernorMachine, settings=SEARCH)


SEARCH = settings(
    GovernorMachine.TestCase.settings,
    max_examples=400,
    phases=[HypothesisPhase.generate],
    database=None,
    derandomize=True,
    print_blob=False,
)


def plant_bug(planted, monkeypatch):
    if planted == "the budget is counted before the action":
        monkeypatch.setattr("state.nodes.forbid_isolation", forbid_before)
    elif planted == "nan counts":
        monkeypatch.setattr("state.confirmation.Confirmation.update", credulous)
    elif planted == "a pause is ignored":
        real = Governor._forbids_actions

        def deaf(governor, assessment):
            guard = real(governor, assessment)
            return None if guard == Guard.PAUSED else guard

        monkeypatch.setattr(Governor, "_forbids_actions", deaf)
    else:
        real_record = Draft.record

        def forgetful(draft, kind, /, **data):
            real_record(draft, kind, **data)
            if kind is E.ISOLATION_VERIFIED:
                draft.state.nodes[data["node"]].backoff_s = 0.0

        monkeypatch.setattr(Draft, "record", forgetful)


def forbid_before(policy, standing, node):
    """The over-ejection that counting before the action allows."""
    before = copy.copy(standing)
    before.out = standing.out.copy()
    before.cluster_out = standing.cluster_out.copy()
    before.total_out -= 1
    before.cluster_out[standing.topology.cluster_of[node]] -= 1
    return forbid_isolation(policy, before, node)


def credulous(counters, value, _trusted):
    """Counts whatever is not seen to be good."""
    bad = ~(value <= 1.5)
    counters.bad += bad
    counters.bad[~bad] = 0
    counters._bad_now = bad
    return bad
