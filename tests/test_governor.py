"""The governor on stage: what it does with nodes, from the first bad tick to full trust again."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from metrics.errors import InvariantBreachError
from metrics.observation import Capability
from state import command as asked
from state.action import IsolateNode, Reply, RestoreNode
from state.durable import NodeStatus
from state.event import EventKind as E
from state.isolation import Guard, IsolationPolicy
from state.outcome import ExitCode, Outcome
from state.phase import Phase
from state.stimulus import (
    Ended,
    InvariantBroken,
    ProbeEnded,
    ProbeIntended,
    ProbeUndone,
    ProposalWritten,
    Replied,
    WindowClosing,
    WindowEnded,
)
from state.verdict import CheckStatus

_STAGE = runpy.run_path(str(Path(__file__).with_name("governor_stage.py")))
Stage, topology_of = _STAGE["Stage"], _STAGE["topology_of"]
QUICK = IsolationPolicy(probation_ticks=5, backoff_base_s=10.0, backoff_jitter=0.0, ttl_s=60.0, forgive_s=30.0)
EXACT = IsolationPolicy(backoff_jitter=0.0)


def governing(*shape, **options):
    return Stage(*shape, **options).reach(Phase.GOVERNING)


def of_fifty(**options):
    """50 nodes in 7 clusters: n0 to n7 are c0 (8 nodes), n8 to n14 are c1 (7 nodes)."""
    return governing(50, 7, **options)


def isolated(stage, node="n0", gravity=2.0):
    stage.make_bad(node, gravity=gravity)
    stage.until(E.ISOLATION_VERIFIED)
    return stage


# --- confirmation and isolation


def test_isolates_in_the_third_bad_tick():
    """A node beyond the critical gravity is confirmed and intended in its third bad tick, verified in the fourth."""
    stage = governing()
    stage.make_bad("n2")
    assert stage.tick(2) == []
    assert [event.kind for event in stage.tick()] == [E.GRAVITY_WELL_CONFIRMED, E.ISOLATION_INTENDED, E.ACTION_APPLIED]
    assert stage.phase is Phase.ISOLATING
    assert [event.kind for event in stage.tick()] == [E.ISOLATION_VERIFIED, E.ACTIONS_SETTLED]
    assert stage.phase is Phase.GOVERNING
    assert stage.state.nodes["n2"].status is NodeStatus.ISOLATED
    assert stage.actions == [IsolateNode("isolate-1", "n2", 900.0)]


def test_intent_tells_all_that_a_replay_and_a_person_need():
    """The intent carries key, node, cluster, evidence, time limit, offence and the tokens that are left."""
    stage = isolated(governing(), "n2")
    assert stage.of(E.ISOLATION_INTENDED)[0].data == {
        "key": "isolate-1",
        "node": "n2",
        "cluster": "c0",
        "gravity": 2.0,
        "components": {"h": 0.0, "q": 2.0, "k": 0.0},
        "until_s": 903.0,
        "offence": 1,
        "backoff_s": 63.48479852472296,
        "by": "policy",
        "tokens": 4.0,
        "reason": "|g| 2.00 above 1.5 for 3 ticks",
    }


@pytest.mark.parametrize("phase", [Phase.PHASE_I, Phase.PHASE_II, Phase.PHASE_III])
def test_phases_before_the_daemon_only_count(phase):
    """Before GOVERNING, and without a probe, a bad node leads to no event and no action."""
    stage = Stage().reach(phase)
    stage.make_bad("n0", gravity=4.0)
    assert stage.tick(10) == []


def test_idle_takes_assessments_without_an_effect():
    """Nothing is governed before the run has started."""
    stage = Stage()
    stage.make_bad("n0")
    assert stage.tick(5) == []
    assert stage.phase is Phase.IDLE


def test_a_healthy_plant_gives_no_event():
    """Hundreds of healthy ticks leave no trace in the journal."""
    assert of_fifty().tick(200) == []


@pytest.mark.parametrize("spoilt", ["untrusted", "nan"])
def test_missing_evidence_never_isolates(spoilt):
    """NaN or untrusted gravity, however high before, is not counted."""
    stage = of_fifty()
    if spoilt == "untrusted":
        stage.make_bad("n0", gravity=9.0)
        stage.trusted[0] = False
    else:
        stage.gravity[0] = np.nan
    assert stage.tick(30) == []


def test_a_confirmed_well_without_evidence_now_is_not_isolated():
    """Evidence that has gone stale when the action would commit voids it."""
    stage = of_fifty()
    stage.disagreement = 0.1
    stage.make_bad("n0", gravity=2.0)
    stage.tick(5)
    stage.disagreement = 0.0
    stage.trusted[0] = False
    stage.tick(5)
    assert stage.actions == []
    stage.trusted[0] = True
    stage.tick()
    assert stage.isolated() == ["n0"]


def test_five_nodes_lose_exactly_one():
    """With five nodes in one cluster one may go, the second bad one stays and is named with its guard."""
    stage = governing()
    stage.make_bad("n1", gravity=1.8)
    stage.make_bad("n3", gravity=2.4)
    stage.tick(40)
    assert stage.isolated() == ["n3"]
    assert stage.governor.blocked() == ("n1 (budget_cluster)",)
    assert len(stage.of(E.ISOLATION_BLOCKED)) == 1


def test_a_cluster_of_seven_loses_exactly_two():
    """A third of seven, counted after the action, is two."""
    stage = of_fifty()
    stage.make_bad("n8", "n9", "n10", gravity=2.0)
    stage.tick(40)
    assert stage.isolated() == ["n8", "n9"]
    assert stage.governor.blocked() == ("n10 (budget_cluster)",)


def test_worst_first_then_look_again():
    """In one cluster the worst goes first, and the next is confirmed afresh after that is verified."""
    stage = of_fifty()
    stage.make_bad("n8", gravity=1.7)
    stage.make_bad("n9", gravity=2.5)
    stage.tick(3)
    assert stage.isolated() == ["n9"]
    assert stage.guards() == {Guard.LOOK_AGAIN}
    stage.make_good("n8")  # the bad one had pulled it
    stage.tick(40)
    assert stage.isolated() == ["n9"]


def test_a_second_bad_node_is_confirmed_anew():
    """The one that stays bad after the look is isolated three ticks after the first was verified."""
    stage = of_fifty()
    stage.make_bad("n8", gravity=1.7)
    stage.make_bad("n9", gravity=2.5)
    stage.until(E.ISOLATION_VERIFIED)
    assert stage.tick(2) == []
    stage.tick()
    assert stage.isolated() == ["n9", "n8"]


def test_twice_the_critical_gravity_does_not_wait():
    """Beyond 2 × G_CRIT two of one cluster go in the same tick; exactly 2 × G_CRIT waits."""
    stage = of_fifty()
    stage.make_bad("n8", gravity=4.0)
    stage.make_bad("n9", gravity=3.1)
    stage.make_bad("n0", gravity=3.2)
    stage.make_bad("n1", gravity=3.0)
    stage.tick(3)
    assert stage.isolated() == ["n8", "n0", "n9"]


def test_clusters_do_not_wait_for_each_other():
    """One isolation at a time is meant per cluster."""
    stage = of_fifty()
    stage.make_bad("n0", "n8", "n15", gravity=2.0)
    stage.tick(3)
    assert stage.isolated() == ["n0", "n8", "n15"]


def test_rate_limit_holds_and_refills():
    """Five at once, then one each twelve seconds."""
    stage = of_fifty(policy=IsolationPolicy(rate_share=0.1))
    bad = ("n0", "n8", "n15", "n22", "n29", "n36")
    stage.make_bad(*bad)
    stage.tick(3)
    assert len(stage.isolated()) == 5
    assert stage.guards() == {Guard.RATE}
    stage.tick(11)
    assert len(stage.isolated()) == 5
    stage.tick()
    assert len(stage.isolated()) == 6
    assert stage.governor.blocked() == ()


def test_rate_limit_survives_a_restart():
    """A restarted controller has no fresh bucket."""
    stage = of_fifty(policy=IsolationPolicy(rate_share=0.1))
    stage.make_bad("n0", "n8", "n15", "n22", "n29")
    stage.tick(4)
    stage.restart()
    stage.make_bad("n36")
    stage.tick(3)
    assert len(set(stage.isolated())) == 5
    assert Guard.RATE in stage.guards()
    stage.tick(8)
    assert len(set(stage.isolated())) == 6


def test_confirmation_starts_cold_after_a_restart():
    """Two bad ticks before the restart do not count after it."""
    stage = of_fifty()
    stage.make_bad("n0")
    stage.tick(2)
    stage.restart()
    stage.tick(2)
    assert stage.actions == []
    stage.tick()
    assert stage.isolated() == ["n0"]


def test_another_topology_starts_all_counters_afresh():
    """Counters belong to nodes, not to positions."""
    stage = of_fifty()
    stage.make_bad("n0")
    stage.tick(2)
    other = runpy.run_path(str(Path(__file__).with_name("governor_stage.py")))["topology_of"](50, 5)
    stage.topology = other
    stage.cluster_gravity = np.full(5, 0.2)
    stage.tick(2)
    assert stage.actions == []


def test_others_isolations_count_towards_the_budget():
    """Nodes that somebody else holds out leave that much less for us, and are not ours to let in."""
    stage = of_fifty(policy=QUICK)
    stage.plant.out = {"n9": 1e9, "n10": 1e9}
    stage.make_bad("n8")
    stage.tick(100)
    assert stage.actions == []
    assert stage.governor.blocked() == ("n8 (budget_cluster)",)


def test_a_well_that_somebody_else_isolates_is_gone():
    """A blocked well that an operator takes out at the plant no longer stands in the way."""
    stage = governing()
    stage.make_bad("n1", gravity=1.8)
    stage.make_bad("n3", gravity=2.4)
    stage.tick(10)
    stage.plant.out["n1"] = 1e9
    stage.tick()
    assert stage.state.wells == set()
    assert stage.governor.blocked() == ()


def test_a_calm_well_is_gone_after_twenty_ticks():
    """A well is forgotten after 20 calm ticks, not while it hovers around the critical value."""
    stage = governing(dry_run=True)
    stage.make_bad("n0")
    stage.tick(3)
    for _ in range(5):
        stage.make_good("n0")
        stage.tick(19)
        stage.make_bad("n0")
        stage.tick()
    assert stage.state.wells == {"n0"}
    stage.make_good("n0")
    assert stage.until(E.GRAVITY_WELL_GONE) == 20
    assert stage.state.wells == set()


def test_a_cluster_well_is_blocked_and_nothing_isolated():
    """A whole cluster that drifts is a finding, not a target: its guard is told and nobody goes."""
    stage = of_fifty()
    stage.cluster_gravity[2] = 2.1
    stage.tick(20)
    assert stage.actions == []
    assert stage.governor.blocked() == ("c2 (budget_cluster)",)
    assert len(stage.of(E.ISOLATION_BLOCKED)) == 1
    stage.cluster_gravity[2] = 0.3
    stage.tick(20)
    assert stage.governor.blocked() == ()


def test_cluster_without_trusted_nodes_is_not_judged():
    """A cluster of which less than half is trusted is no well."""
    stage = of_fifty()
    stage.cluster_gravity[1] = 3.0
    stage.trusted[8:12] = False
    assert stage.tick(20) == []


def test_dry_run_acts_on_nothing_and_says_what_it_would_do():
    """A dry run confirms wells, refuses with its own guard, and touches nothing."""
    stage = governing(dry_run=True)
    stage.make_bad("n0", gravity=4.0)
    stage.unhealthy = ("action_cost",)
    stage.tick(150)
    assert stage.actions == []
    assert stage.kinds()[4:] == [E.GRAVITY_WELL_CONFIRMED]
    assert sum(refusal.guard == Guard.DRY_RUN and refusal.rule == "isolate" for refusal in stage.refusals) == 1


def test_a_dry_run_counts_what_it_would_have_done_as_done():
    """Of four bad nodes of a cluster of 8 two would be out, so the budget holds the others; clean ones would return."""
    stage = governing(50, 7, dry_run=True)
    for bad in (4.0, 4.1, 4.2, 4.3):
        stage.make_bad(f"n{bad * 10 - 40:.0f}", gravity=bad)
    stage.tick(30)
    held = {(refusal.guard, refusal.subject) for refusal in stage.refusals if refusal.rule == "isolate"}
    assert held == {
        *((Guard.DRY_RUN, node) for node in ("n2", "n3")),
        *((Guard.BUDGET_CLUSTER, node) for node in ("n0", "n1")),
    }
    stage.make_good("n2", "n3")
    stage.tick(200)
    assert stage.actions == []
    assert (Guard.DRY_RUN, "n1") in {(refusal.guard, refusal.subject) for refusal in stage.refusals}


def test_a_storm_says_of_every_node_that_it_is_left_alone():
    """Node, value, threshold and guard, in every tick of the storm and for nobody else."""
    stage = governing(20, 2)
    stage.make_bad(*stage.topology.nodes[:12], gravity=2.5)
    stage.tick(3)
    left = [refusal for refusal in stage.refusals if refusal.guard is Guard.STORM]
    assert sorted({refusal.subject for refusal in left}) == sorted(stage.topology.nodes[:12])
    assert len(left) == 36
    assert {(refusal.rule, refusal.observed, refusal.limit) for refusal in left} == {("isolate", 2.5, 1.5)}


def test_a_plant_that_cannot_isolate_is_only_watched():
    """Without the capability wells are told and refused."""
    stage = governing(capabilities=frozenset({Capability.NODES}))
    stage.make_bad("n0")
    stage.tick(5)
    assert stage.actions == []
    assert stage.guards() == {Guard.CAPABILITY}


def test_a_closing_window_starts_nothing_new():
    """After the window has closed no isolation begins, and what is in flight still settles."""
    stage = of_fifty()
    stage.make_bad("n0")
    stage.tick(3)
    stage.tell(WindowClosing())
    stage.make_bad("n8")
    stage.tick(10)
    assert stage.isolated() == ["n0"]
    assert stage.guards() == {Guard.CLOSING}
    assert stage.state.intents == {}
    stage.tell(WindowEnded())
    assert stage.phase is Phase.PHASE_IV
    stage.make_bad("n15")
    stage.tick(5)
    assert "n15" in stage.state.wells
    assert stage.isolated() == ["n0"]
    assert stage.guards() == {Guard.CLOSING, Guard.STATE}


def test_a_window_cannot_end_while_something_is_in_flight():
    """The window's end is ignored in ISOLATING."""
    stage = governing()
    stage.make_bad("n0")
    stage.tick(3)
    stage.tell(WindowEnded())
    assert stage.phase is Phase.ISOLATING


# --- read-back


def test_an_observation_from_before_the_reply_verifies_nothing():
    """Only what was received after the reply says anything about the action."""
    stage = governing()
    stage.make_bad("n0")
    stage.tick(3)
    stage.late_s = 5.0
    stage.tick(5)
    assert stage.of(E.ISOLATION_VERIFIED) == []
    stage.tick()
    assert len(stage.of(E.ISOLATION_VERIFIED)) == 1


def test_an_unanswered_action_stays_in_flight():
    """Without any reply nothing is believed, neither success nor failure."""
    stage = governing()
    stage.answering = False
    stage.make_bad("n0")
    stage.tick(60)
    assert list(stage.state.intents) == ["isolate-1"]
    assert stage.phase is Phase.ISOLATING


def test_an_unknown_result_is_settled_by_looking():
    """A lost answer is unknown until the plant shows the effect."""
    stage = governing()
    stage.plant.replies = [Reply.UNKNOWN]
    stage.make_bad("n0")
    stage.tick(3)
    assert stage.kinds()[-1] is E.ACTION_UNKNOWN
    assert stage.state.intents["isolate-1"].reply is Reply.UNKNOWN
    stage.tick()
    assert stage.kinds()[-2:] == [E.ISOLATION_VERIFIED, E.ACTIONS_SETTLED]


def test_an_unknown_result_without_effect_fails_at_the_deadline():
    """Ten seconds after the first look what has not shown has failed, and the controller holds."""
    stage = governing()
    stage.plant.replies, stage.plant.obeys = [Reply.UNKNOWN], False
    stage.make_bad("n0")
    stage.tick(3)
    assert stage.tick(10) == []
    assert [event.kind for event in stage.tick()] == [E.ISOLATION_FAILED]
    assert stage.phase is Phase.SAFE_MODE
    assert stage.state.safe_mode == "isolate of n0 failed: not seen at the plant within 10 s"
    assert "n0" not in stage.state.nodes


def test_a_refused_isolation_holds_at_the_next_look():
    """A plant that says no to an isolation, and goes on showing the node, is not under control."""
    stage = governing()
    stage.plant.replies = [Reply.REFUSED]
    stage.make_bad("n0")
    stage.tick(3)
    assert stage.kinds()[-1] is E.ACTION_REFUSED
    stage.tick()
    [failed] = stage.of(E.ISOLATION_FAILED)
    assert failed.data["reason"] == "told so"
    assert stage.phase is Phase.SAFE_MODE
    stage.tick(500)
    assert stage.phase is Phase.SAFE_MODE


@pytest.mark.parametrize("reply", [Reply.REFUSED, Reply.UNKNOWN])
def test_a_node_that_leaves_as_it_is_isolated_stops_nothing(reply):
    """Whatever the plant answered: a node that it does not show any more has not disobeyed."""
    stage = governing(6)
    stage.plant.replies = [reply]
    stage.make_bad("n5")
    stage.until(E.ISOLATION_INTENDED)
    stage.topology = topology_of(5, 1)
    stage.gravity, stage.trusted = stage.gravity[:5], stage.trusted[:5]
    stage.until(E.ACTION_ABANDONED)
    assert stage.phase is Phase.GOVERNING
    assert stage.state.nodes == {}


def test_time_limits_are_renewed_after_we_were_away():
    """The plant's time went on without us: whoever is out is renewed at once, whatever else is forbidden."""
    stage = isolated(governing())
    stage.command(asked.Pause(3600.0))
    stage.plant.out["n0"] -= 600.0
    stage.trusted[:] = False
    stage.restart()
    stage.tick()
    [renewal] = stage.of(E.RENEWAL_INTENDED)
    assert renewal.data["node"] == "n0"
    stage.tick(200)
    assert stage.phase is Phase.PAUSED
    assert "n0" in stage.plant.out
    assert len(stage.of(E.RENEWAL_INTENDED)) == 1


def test_a_long_tick_forgives_no_more_than_itself():
    """Healthy evidence counts for the time that it was seen, not for that of the latest tick times all ticks."""
    stage = isolated(governing(policy=IsolationPolicy(forgive_s=600.0)))
    stage.make_good("n0")
    stage.until(E.NODE_READMITTED, 1000)
    stage.tick(70)
    stage.tick_s = 9.0
    stage.tick()
    assert stage.of(E.OFFENCE_FORGIVEN) == []
    stage.tick_s = 1.0
    stage.until(E.OFFENCE_FORGIVEN, 600)


def test_a_hold_for_a_person_outranks_one_that_is_tried_again():
    """A phase that has not passed is tried again by itself; an invariant that is breached meanwhile is for people."""
    stage = Stage(daemon=True).start()
    stage.end_phase(Phase.PHASE_I, CheckStatus.FAILED)
    stage.tick(2)
    stage.tell(InvariantBroken("budgets_hold", "12 out"))
    stage.tick(600)
    assert stage.phase is Phase.SAFE_MODE
    assert stage.state.safe_mode == "invariant budgets_hold does not hold"


def test_a_node_that_vanishes_in_flight_is_given_up():
    """Every intent resolves within a bound, even if its node is not there any more; nobody has disobeyed then."""
    stage = governing(6, 1)
    stage.make_bad("n5")
    stage.tick(3)
    smaller = runpy.run_path(str(Path(__file__).with_name("governor_stage.py")))["topology_of"](5, 1)
    stage.topology, stage.gravity, stage.trusted = smaller, np.full(5, 0.2), np.ones(5, dtype=bool)
    assert stage.until(E.ACTION_ABANDONED) == 11
    assert stage.of(E.ACTION_ABANDONED)[0].data["reason"] == "the plant does not show the node any more"
    assert stage.state.intents == {}
    assert stage.state.wells == set()
    assert stage.phase is Phase.GOVERNING


def test_in_flight_actions_settle_in_safe_mode():
    """A hold starts nothing, but what was in flight is read back there, success and failure alike."""
    stage = of_fifty()
    stage.answering = False
    stage.make_bad("n0", "n8")
    stage.tick(3)
    stage.make_bad(*stage.topology.nodes[:30])
    stage.tick()
    assert stage.phase is Phase.SAFE_MODE
    stage.plant.out.pop("n8")
    for key in list(stage.state.intents):
        stage.tell(Replied(key, Reply.APPLIED, "", stage.now_s))
    stage.tick(12)
    assert [event.kind for event in stage.events[-2:]] == [E.ISOLATION_VERIFIED, E.ISOLATION_FAILED]
    assert stage.phase is Phase.SAFE_MODE
    assert stage.state.safe_mode_cause is E.ISOLATION_FAILED


def test_earlier_offences_survive_a_failed_isolation():
    """A failed isolation is no offence, and takes none away."""
    stage = isolated(governing(policy=QUICK))
    stage.make_good("n0")
    stage.until(E.RESTORATION_VERIFIED)
    stage.make_bad("n0")
    stage.plant.replies = [Reply.REFUSED]
    stage.until(E.ISOLATION_FAILED)
    assert stage.state.nodes["n0"].offences == 1
    assert stage.state.nodes["n0"].status is NodeStatus.HEALTHY


# --- re-admission


def test_readmission_needs_clean_ticks_and_back_off():
    """A clean node comes back after 60 clean ticks (more than the back-off of 60 s), on probation for 60 more."""
    stage = isolated(governing(policy=EXACT))
    stage.make_good("n0")
    assert stage.until(E.RESTORATION_INTENDED) == 60
    assert stage.actions[-1] == RestoreNode("restore-2", "n0")
    assert stage.until(E.RESTORATION_VERIFIED) == 1
    assert stage.state.nodes["n0"].status is NodeStatus.PROBATION
    assert stage.until(E.NODE_READMITTED) == 60
    assert stage.state.nodes["n0"].status is NodeStatus.HEALTHY


def test_between_clean_and_critical_a_node_stays_out():
    """|g| of 0.75 or more is not clean."""
    stage = isolated(governing())
    stage.make_bad("n0", gravity=0.75)
    stage.tick(300)
    assert stage.of(E.RESTORATION_INTENDED) == []


def test_back_off_grows_with_relapses_and_is_capped():
    """The second time out lasts twice, the third three times as long, up to the cap."""
    policy = IsolationPolicy(probation_ticks=5, backoff_base_s=20.0, backoff_max_s=50.0, backoff_jitter=0.0)
    stage = governing(policy=policy)
    times_out = []
    for _ in range(4):
        isolated(stage)
        since_s = stage.of(E.ISOLATION_INTENDED)[-1].at_s
        stage.make_good("n0")
        stage.until(E.RESTORATION_INTENDED)
        times_out.append(stage.now_s - since_s)
        stage.until(E.RESTORATION_VERIFIED)
    assert times_out == [20.0, 40.0, 50.0, 50.0]
    assert stage.state.nodes["n0"].offences == 4


def test_back_off_survives_a_restart():
    """Down time or not, the back-off is counted in plant time from the intent."""
    policy = IsolationPolicy(probation_ticks=5, backoff_base_s=100.0, backoff_jitter=0.0)
    stage = isolated(governing(policy=policy))
    stage.make_good("n0")
    stage.tick(50)
    stage.restart()
    stage.until(E.RESTORATION_INTENDED)
    assert stage.now_s - stage.of(E.ISOLATION_INTENDED)[0].at_s == 100.0


def test_healthy_time_forgives_offences():
    """Each `forgive_s` of healthy time after full re-admission takes one offence back."""
    stage = isolated(governing(policy=QUICK))
    stage.make_good("n0")
    stage.until(E.NODE_READMITTED)
    isolated(stage)
    assert stage.state.nodes["n0"].offences == 2
    stage.make_good("n0")
    stage.until(E.NODE_READMITTED)
    stage.tick(60)
    isolated(stage)
    assert [event.data for event in stage.of(E.OFFENCE_FORGIVEN)] == [
        {"node": "n0", "offences": 1},
        {"node": "n0", "offences": 0},
    ]
    assert stage.of(E.ISOLATION_INTENDED)[-1].data["offence"] == 1
    assert stage.state.nodes["n0"].offences == 1


def test_a_relapse_on_probation_is_isolated_again():
    """Probation is no protection."""
    stage = isolated(governing(policy=QUICK))
    stage.make_good("n0")
    stage.until(E.RESTORATION_VERIFIED)
    isolated(stage)
    assert stage.state.nodes["n0"].offences == 2


def test_time_limit_is_renewed_on_evidence():
    """A node that stays bad is renewed 120 s before its limit, and never comes back by time."""
    stage = isolated(governing())
    assert stage.until(E.RENEWAL_INTENDED, 900) == 780 - 1
    assert stage.actions[-1] == IsolateNode("renew-2", "n0", 900.0)
    stage.tick()
    assert stage.kinds()[-2:] == [E.RENEWAL_VERIFIED, E.ACTIONS_SETTLED]
    assert stage.state.nodes["n0"].until_s == 783.0 + 900.0
    stage.tick(2000)
    assert "n0" in stage.plant.out
    assert stage.of(E.ISOLATION_EXPIRED) == []


def test_without_evidence_a_time_limit_runs_out():
    """A node of which nothing is known any more is not kept out for ever."""
    stage = isolated(governing(policy=QUICK))
    stage.trusted[0] = False
    stage.until(E.ISOLATION_EXPIRED, 200)
    assert stage.of(E.RENEWAL_INTENDED) == []
    assert stage.state.nodes["n0"].status is NodeStatus.PROBATION


def test_a_renewal_is_only_believed_with_the_plants_word():
    """A moved time limit cannot be seen: a renewal without an answer has failed, and is tried again without a hold."""
    stage = isolated(governing(policy=QUICK))
    until_s = stage.state.nodes["n0"].until_s
    stage.plant.replies = [Reply.UNKNOWN]
    stage.until(E.RENEWAL_FAILED, 200)
    assert stage.state.nodes["n0"].status is NodeStatus.ISOLATED
    assert stage.state.nodes["n0"].until_s == until_s
    assert stage.until(E.RENEWAL_VERIFIED) == 1
    assert stage.phase is Phase.GOVERNING
    assert stage.state.nodes["n0"].until_s == until_s + 21.0


def test_a_refused_renewal_is_no_hold():
    """The old time limit holds, and the plant is asked again after the verification time."""
    stage = isolated(governing(policy=QUICK))
    stage.plant.replies = [Reply.REFUSED]
    stage.until(E.RENEWAL_FAILED, 200)
    assert stage.of(E.RENEWAL_FAILED)[0].data == {"key": "renew-2", "node": "n0", "reason": "told so"}
    stage.tick(8)
    assert stage.actions[-1].key == "renew-2"
    stage.tick()
    assert stage.actions[-1].key == "renew-3"
    assert stage.phase is Phase.ISOLATING


def test_a_short_time_limit_outlasts_the_back_off():
    """No isolation is so short that its back-off could not be sat out."""
    stage = isolated(governing(policy=IsolationPolicy(ttl_s=15.0, backoff_base_s=600.0, backoff_jitter=0.0)))
    assert stage.actions[0].ttl_s == 720.0


def test_a_node_let_in_by_others_goes_on_probation():
    """A node that the plant shows taking part though we hold it out is on probation, and judged afresh."""
    stage = isolated(governing(policy=QUICK))
    stage.plant.out.clear()
    assert [event.kind for event in stage.tick()] == [E.ISOLATION_EXPIRED]
    assert stage.state.nodes["n0"].status is NodeStatus.PROBATION
    stage.until(E.ISOLATION_VERIFIED)
    assert stage.state.nodes["n0"].offences == 2


def test_a_refused_restoration_holds_and_the_node_stays_counted():
    """A node that cannot be let in is still out."""
    stage = isolated(governing(policy=QUICK))
    stage.make_good("n0")
    stage.plant.replies = [Reply.REFUSED]
    stage.until(E.ISOLATION_FAILED)
    assert stage.phase is Phase.SAFE_MODE
    assert stage.state.out_of_service() == {"n0"}


def test_isolated_nodes_in_flight_twice_never():
    """A node with an action in flight gets no second one, however long it takes."""
    stage = isolated(governing(policy=IsolationPolicy(probation_ticks=5, backoff_base_s=10.0, verify_s=1000.0)))
    stage.make_good("n0")
    stage.answering = False
    stage.tick(200)
    assert [action.key for action in stage.actions] == ["isolate-1", "restore-2"]


# --- storms and doubted sensors


@pytest.mark.parametrize(
    ("nodes", "bad", "storms"), [(20, 10, False), (20, 11, True), (100, 54, False), (100, 55, True)]
)
def test_storm_begins_at_exactly_55_percent(nodes, bad, storms):
    """55 of 100 and 11 of 20 are storms in their first tick, one node less is not."""
    stage = governing(nodes, 2)
    stage.make_bad(*stage.topology.nodes[:bad])
    stage.tick()
    assert (stage.phase is Phase.SAFE_MODE) is storms


def test_storm_confirms_and_isolates_nobody():
    """In a storm the sensors are suspected: one event, no well, no action."""
    stage = of_fifty()
    stage.make_bad(*stage.topology.nodes[:30])
    stage.tick(20)
    assert stage.kinds()[4:] == [E.STORM_DETECTED]
    assert stage.of(E.STORM_DETECTED)[0].data == {"bad": 30, "assessed": 50, "fraction": 0.6}
    assert stage.state.safe_mode == "storm: 30 of 50 nodes look bad at once"
    assert stage.actions == []


def test_storm_ends_by_itself_and_all_start_afresh():
    """After 60 quiet seconds the daemon goes on; nobody is condemned by what was counted before."""
    stage = of_fifty()
    stage.make_bad(*stage.topology.nodes[:30])
    stage.tick(5)
    stage.make_good(*stage.topology.nodes)
    assert stage.until(E.SAFE_MODE_LEFT) == 61
    assert stage.phase is Phase.GOVERNING
    assert stage.state.safe_mode is None
    stage.make_bad("n0")
    stage.tick(2)
    assert stage.actions == []
    stage.tick()
    assert stage.isolated() == ["n0"]


def test_cool_down_counts_seconds_not_ticks():
    """With ticks of 30 s the cool-down of 60 s takes three ticks."""
    stage = of_fifty(tick_s=30.0)
    stage.make_bad(*stage.topology.nodes[:30])
    stage.tick()
    stage.make_good(*stage.topology.nodes)
    assert stage.until(E.SAFE_MODE_LEFT) == 3


def test_a_new_storm_in_safe_mode_restarts_the_cool_down():
    """Quiet means quiet throughout."""
    stage = of_fifty()
    for _ in range(3):
        stage.make_bad(*stage.topology.nodes[:30])
        stage.tick()
        stage.make_good(*stage.topology.nodes)
        stage.tick(50)
    assert stage.phase is Phase.SAFE_MODE
    assert len(stage.of(E.STORM_DETECTED)) == 1


def test_a_blackout_is_not_quiet():
    """SAFE_MODE is not left while nothing can be seen."""
    stage = of_fifty()
    stage.make_bad(*stage.topology.nodes[:30])
    stage.tick()
    stage.make_good(*stage.topology.nodes)
    stage.trusted[:] = False
    stage.tick(300)
    assert stage.phase is Phase.SAFE_MODE
    stage.trusted[:] = True
    assert stage.until(E.SAFE_MODE_LEFT) == 61


def test_safe_mode_waits_for_people_where_so_configured():
    """Without auto-clear a storm's hold stays."""
    stage = of_fifty(policy=IsolationPolicy(safe_mode_auto_clear=False))
    stage.make_bad(*stage.topology.nodes[:30])
    stage.tick()
    stage.make_good(*stage.topology.nodes)
    stage.tick(300)
    assert stage.phase is Phase.SAFE_MODE


def test_safe_mode_is_not_left_after_the_window():
    """A run that closes in SAFE_MODE ends there."""
    stage = of_fifty()
    stage.make_bad(*stage.topology.nodes[:30])
    stage.tick()
    stage.tell(WindowClosing())
    stage.make_good(*stage.topology.nodes)
    stage.tick(200)
    stage.tell(WindowEnded())
    assert stage.phase is Phase.SAFE_MODE


def test_too_little_evidence_is_no_storm_and_no_isolation():
    """Four trusted nodes judge nobody."""
    stage = governing(10, 2)
    stage.trusted[4:] = False
    stage.make_bad("n0", "n1", "n2", "n3")
    stage.tick(5)
    assert stage.phase is Phase.GOVERNING
    assert stage.actions == []
    assert stage.guards() == {Guard.EVIDENCE_NODES}


def test_doubted_sensors_hold_and_then_stop_the_daemon():
    """Contradicted sensors hold isolations at once, and lead to SAFE_MODE after 30 ticks."""
    stage = of_fifty()
    stage.make_bad("n0")
    stage.disagreement = 0.05
    stage.tick(29)
    assert stage.phase is Phase.GOVERNING
    assert stage.guards() == {Guard.SENSORS}
    stage.tick()
    assert stage.phase is Phase.SAFE_MODE
    assert stage.actions == []
    assert stage.of(E.SENSORS_DOUBTED)[0].data == {"disagreement": 0.05, "ticks": 30}
    assert stage.state.safe_mode == "sensors contradict service by 0.050"


def test_a_held_isolation_is_made_up_for():
    """Doubt holds, it does not latch: when it has gone the confirmed node goes."""
    stage = of_fifty()
    stage.make_bad("n0")
    stage.disagreement = 0.05
    stage.tick(10)
    stage.disagreement = 0.02
    stage.tick()
    assert stage.isolated() == ["n0"]


def test_doubt_adds_up_until_it_was_quiet():
    """Doubt in every other tick counts on; a minute of quiet wipes it out."""
    stage = of_fifty()
    for _ in range(29):
        stage.disagreement = 0.05
        stage.tick()
        stage.disagreement = 0.0
        stage.tick()
    stage.tick(61)
    stage.disagreement = 0.05
    stage.tick(29)
    assert stage.phase is Phase.GOVERNING
    stage.disagreement = 0.0
    stage.tick(5)
    stage.disagreement = 0.05
    stage.tick()
    assert stage.phase is Phase.SAFE_MODE


def test_unknown_disagreement_is_no_doubt():
    """NaN says nothing either way."""
    stage = of_fifty()
    stage.disagreement = float("nan")
    stage.make_bad("n0")
    stage.tick(40)
    assert stage.isolated() == ["n0"]


# --- probes in Phase III


def probing(policy=None, **options):
    stage = Stage(policy=policy, **options).reach(Phase.PHASE_III)
    stage.tell(ProbeIntended("dissonance", {"clear": "dissonance", "restore": "n4"}, "n4"))
    return stage


def test_a_probe_arms_the_policy_and_leaves_no_offence():
    """The probed node is isolated by the real policy, let back in without back-off, and has a clean record."""
    stage = isolated(probing(), "n4")
    assert stage.phase is Phase.PHASE_III
    stage.make_good("n4")
    stage.tell(ProbeUndone("dissonance"))
    assert stage.phase is Phase.ISOLATING
    stage.tick()
    assert stage.kinds()[-2:] == [E.RESTORATION_VERIFIED, E.ACTIONS_SETTLED]
    stage.tell(ProbeEnded("dissonance", {"isolated_after_ticks": 4}))
    assert stage.state.nodes == {}
    assert stage.state.probes == {}
    stage.end_phase(Phase.PHASE_III)
    assert stage.phase is Phase.GOVERNING


def test_after_the_probe_phase_iii_only_counts_again():
    """The policy is armed no longer than the probe is open."""
    stage = probing()
    stage.tell(ProbeEnded("dissonance"))
    stage.make_bad("n4")
    assert stage.tick(10) == []


def test_a_probe_without_a_node_arms_nothing():
    """A ledger probe is no reason to isolate anybody."""
    stage = Stage().reach(Phase.PHASE_III)
    stage.tell(ProbeIntended("overdraft", {}))
    stage.make_bad("n4")
    assert stage.tick(10) == []
    stage.tell(ProbeUndone("overdraft"))
    stage.tell(ProbeEnded("overdraft"))
    assert stage.state.probes == {}


def test_a_probe_that_ends_while_its_isolation_is_in_flight():
    """The record stays until the action has an end, without an offence."""
    stage = probing()
    stage.make_bad("n4")
    stage.tick(3)
    stage.tell(ProbeEnded("dissonance"))
    assert stage.state.nodes["n4"].offences == 0
    stage.tick()
    assert stage.kinds()[-2:] == [E.ISOLATION_VERIFIED, E.ACTIONS_SETTLED]
    assert stage.phase is Phase.PHASE_III


def test_a_probe_undone_while_its_isolation_is_in_flight_waits():
    """One action in flight for a node, also for a probe."""
    stage = probing()
    stage.make_bad("n4")
    stage.tick(3)
    stage.tell(ProbeUndone("dissonance"))
    assert [action.key for action in stage.actions] == ["isolate-1"]
    assert stage.guards("restore") == {Guard.IN_FLIGHT}


def test_a_storm_in_phase_iii_holds_and_returns_there():
    """A hold during Phase III changes nothing, ends by itself, and lets the phase go on where it was."""
    stage = isolated(probing(), "n4")
    stage.make_bad(*stage.topology.nodes[:4])
    stage.plant.out.clear()
    stage.tick()
    assert stage.phase is Phase.SAFE_MODE
    stage.make_good(*stage.topology.nodes)
    stage.tell(ProbeUndone("dissonance"))
    stage.until(E.SAFE_MODE_LEFT)
    assert stage.phase is Phase.PHASE_III
    stage.tell(ProbeEnded("dissonance"))
    stage.end_phase(Phase.PHASE_III)
    assert stage.phase is Phase.GOVERNING


def test_a_probe_undone_in_safe_mode_changes_nothing():
    """Fail-static holds for restorations too."""
    stage = isolated(probing(), "n4")
    stage.disagreement = 0.05
    stage.tick(30)
    assert stage.phase is Phase.SAFE_MODE
    stage.tell(ProbeUndone("dissonance"))
    assert len(stage.actions) == 1
    assert stage.refusals[-1].guard is Guard.STATE
    stage.tell(ProbeEnded("dissonance"))
    assert stage.state.nodes["n4"].offences == 0


def test_a_phase_that_passes_in_safe_mode_leads_to_governing():
    """The phase's end is taken in during a hold, and the hold then leads on."""
    stage = probing()
    stage.disagreement = 0.05
    stage.tick(30)
    stage.tell(ProbeEnded("dissonance"))
    stage.end_phase(Phase.PHASE_III)
    assert stage.phase is Phase.SAFE_MODE
    stage.disagreement = 0.0
    stage.until(E.SAFE_MODE_LEFT)
    assert stage.phase is Phase.GOVERNING


def test_phase_iii_may_pass_while_an_action_is_in_flight():
    """An isolation that outlasts its phase is verified in the daemon."""
    stage = probing()
    stage.make_bad("n4")
    stage.tick(3)
    stage.tell(ProbeEnded("dissonance"))
    stage.end_phase(Phase.PHASE_III)
    assert stage.phase is Phase.ISOLATING
    stage.tick()
    assert stage.kinds()[-2:] == [E.ISOLATION_VERIFIED, E.ACTIONS_SETTLED]
    assert stage.phase is Phase.GOVERNING


def test_a_long_probe_renews_its_isolation():
    """In Phase III a time limit is renewed like in the daemon."""
    stage = isolated(probing(QUICK), "n4")
    stage.until(E.RENEWAL_VERIFIED, 100)
    assert stage.phase is Phase.PHASE_III


# --- ends, breaches and bad input


@pytest.mark.parametrize("status", [CheckStatus.FAILED, CheckStatus.INCONCLUSIVE, CheckStatus.ERROR])
@pytest.mark.parametrize("phase", [Phase.PHASE_I, Phase.PHASE_II, Phase.PHASE_III])
def test_a_phase_that_has_not_passed(phase, status):
    """A run ends with it, a daemon holds, says why, and makes its checks again after half a minute."""
    run, daemon = Stage().reach(phase), Stage(daemon=True).reach(phase)
    run.end_phase(phase, status)
    daemon.end_phase(phase, status)
    assert run.phase is Phase.CRITICAL_DISSONANCE
    assert daemon.phase is Phase.SAFE_MODE
    assert daemon.state.safe_mode == f"{phase} has not passed"
    assert daemon.until(E.SAFE_MODE_LEFT) == 30
    assert daemon.phase is phase
    assert daemon.state.safe_mode is None


@pytest.mark.parametrize(("code", "phase"), [(0, Phase.COHERENT_LOCK), (50, Phase.CRITICAL_DISSONANCE)])
def test_run_ends_as_its_outcome_says(code, phase):
    """Only exit code 0 locks."""
    stage = governing()
    stage.tell(WindowEnded())
    stage.tell(ProposalWritten("p-1", "00" * 32))
    stage.tell(Ended(Outcome(ExitCode(code), ("because",))))
    assert stage.phase is phase
    stage.make_bad("n0")
    assert stage.tick(20) == []


@pytest.mark.parametrize("phase", [Phase.PHASE_I, Phase.PHASE_II, Phase.PHASE_III, Phase.GOVERNING])
def test_an_invariant_breach_holds_for_good(phase):
    """A breach is a hold with its name, which no quiet time ends."""
    stage = Stage(daemon=True).reach(phase)
    stage.tell(InvariantBroken("budgets_hold", "3 of 5 out"))
    stage.tick(200)
    assert stage.phase is Phase.SAFE_MODE
    assert stage.state.safe_mode == "invariant budgets_hold does not hold"


def test_a_person_s_reason_outranks_one_that_ends_by_itself():
    """A failed isolation during a storm's hold makes it a hold for people."""
    stage = of_fifty()
    stage.answering = False
    stage.make_bad("n0")
    stage.tick(3)
    stage.make_bad(*stage.topology.nodes[:30])
    stage.tick()
    assert stage.state.safe_mode_cause is E.STORM_DETECTED
    stage.tell(Replied("isolate-1", Reply.REFUSED, "no", stage.now_s))
    stage.make_good(*stage.topology.nodes)
    stage.tick(200)
    assert stage.phase is Phase.SAFE_MODE
    assert stage.state.safe_mode == "isolate of n0 failed: no"


def test_an_impossible_stimulus_is_a_bug():
    """A fact that the state contradicts is an invariant breach, not a silent change."""
    stage = governing()
    with pytest.raises(InvariantBreachError, match="RUN_STARTED is not in the table for GOVERNING"):
        stage.start()
    with pytest.raises(InvariantBreachError, match="nothing is known"):
        stage.tell(Replied("isolate-99", Reply.APPLIED, "", 0.0))
    assert stage.phase is Phase.GOVERNING


def test_a_plant_without_nodes_is_governed_without_them():
    """Assessments without a field decide nothing about nodes."""
    stage = governing()
    assessment = stage.assessment()
    bare = type(assessment)(
        **{name: getattr(assessment, name) for name in assessment.__slots__}
        | {"topology": None, "reading": None, "active": None}
    )
    stage.assessment = lambda: bare
    assert stage.tick(100) == []


def test_restart_reads_back_what_was_in_flight():
    """After a crash between intent and answer the plant is looked at before anything is believed."""
    stage = governing()
    stage.answering = False
    stage.make_bad("n0")
    stage.tick(3)
    stage.restart()
    stage.answering = True
    stage.tick()
    assert E.ISOLATION_VERIFIED in stage.kinds()
    assert [action.key for action in stage.actions] == ["isolate-1", "renew-2"]


def test_equal_stimuli_give_equal_bytes():
    """Two governors that are told the same decide the same, byte for byte."""

    def play():
        stage = of_fifty(policy=QUICK)
        for node in ("n8", "n9", "n3"):
            stage.make_bad(node, gravity=1.6 + int(node[1:]) / 10)
        stage.unhealthy = ("coherence",)
        stage.tick(100)
        stage.make_good("n8", "n9", "n3")
        stage.tick(200)
        return b"\n".join(event.canonical() for event in stage.events), stage.actions, stage.governor.snapshot()

    assert play() == play()
