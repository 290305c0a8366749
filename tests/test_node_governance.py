"""Nodes over the weeks: flapping, forgiveness, exemptions, time limits in static states, and a plant that changes."""

import runpy
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from metrics.observation import Capability
from state import command as asked
from state.action import IsolateNode, Reply, RestoreNode
from state.command import ExemptionKind
from state.durable import NodeStatus
from state.event import EventKind as E
from state.healing import HealingPolicy
from state.isolation import Guard, IsolationPolicy
from state.phase import Phase
from state.stimulus import InvariantBroken, PlantLost, ProbeEnded, ProbeIntended, ProbeUndone, Restarted, WindowEnded
from state.verdict import CheckStatus

_stage = runpy.run_path(str(Path(__file__).with_name("governor_stage.py")))
Stage, topology_of = _stage["Stage"], _stage["topology_of"]
QUICK = IsolationPolicy(
    probation_ticks=5, backoff_base_s=10.0, backoff_jitter=0.0, ttl_s=60.0, forgive_s=30.0, flap_offences=3
)


def governing(*shape, policy=QUICK, **options):
    return Stage(*(shape or (50, 7)), policy=policy, daemon=True, **options).reach(Phase.GOVERNING)


def isolated(stage, node="n0"):
    stage.make_bad(node)
    stage.until(E.ISOLATION_VERIFIED)
    return stage


def relapsing(stage, times, node="n0"):
    """Out and back in, so often, and then out again."""
    for _ in range(times):
        isolated(stage, node)
        stage.make_good(node)
        stage.until(E.RESTORATION_VERIFIED)
    return isolated(stage, node)


def shrink(stage, nodes, clusters=1):
    """The plant has fewer nodes from now on."""
    stage.topology = topology_of(nodes, clusters)
    stage.gravity, stage.trusted = stage.gravity[:nodes].copy(), stage.trusted[:nodes].copy()
    stage.cluster_gravity = np.full(clusters, 0.2)


# --- flapping


def test_the_third_isolation_is_for_a_person_to_end():
    """A node that came back ill twice stays out, however clean it looks, and is renewed for ever."""
    stage = relapsing(governing(), 2)
    assert [event.data for event in stage.of(E.NODE_FLAPPING)] == [{"node": "n0", "offences": 3}]
    stage.make_good("n0")
    restorations = len(stage.of(E.RESTORATION_INTENDED))
    stage.tick(1500)
    assert len(stage.of(E.RESTORATION_INTENDED)) == restorations
    assert "n0" in stage.plant.out
    assert stage.guards("restore") == {Guard.NOT_CLEAN, Guard.BACKOFF, Guard.FLAPPING}


def test_a_person_lets_a_flapping_node_in():
    """It is on probation then; its offences stay, and the next isolation is for a person again."""
    stage = relapsing(governing(), 2)
    stage.make_good("n0")
    assert stage.command(asked.Restore("n0")).accepted
    stage.until(E.NODE_READMITTED)
    assert len(stage.of(E.NODE_FLAPPING)) == 1
    isolated(stage)
    assert stage.state.nodes["n0"].offences == 4
    assert len(stage.of(E.NODE_FLAPPING)) == 2


def test_flapping_survives_a_restart():
    """A person has to decide, also after the controller has been restarted."""
    stage = relapsing(governing(), 2)
    stage.make_good("n0")
    stage.restart()
    stage.tick(300)
    assert stage.state.nodes["n0"].flapping
    assert stage.state.nodes["n0"].status is NodeStatus.ISOLATED


def test_an_isolation_that_fails_makes_nobody_flap():
    """It has not happened."""
    stage = governing()
    for _ in range(2):
        isolated(stage)
        stage.make_good("n0")
        stage.until(E.RESTORATION_VERIFIED)
    stage.plant.replies = [Reply.REFUSED]
    stage.make_bad("n0")
    stage.until(E.ISOLATION_FAILED)
    assert stage.state.nodes["n0"].offences == 2
    assert stage.of(E.NODE_FLAPPING) == []


# --- forgiveness


def test_offences_are_forgiven_by_evidence_not_by_time():
    """Thirty seconds of calm, trusted ticks take one offence back; a blackout takes none."""
    stage = relapsing(governing(), 1)
    stage.make_good("n0")
    stage.until(E.NODE_READMITTED)
    stage.trusted[:] = False
    stage.tick(300)
    assert stage.of(E.OFFENCE_FORGIVEN) == []
    stage.trusted[:] = True
    assert stage.until(E.OFFENCE_FORGIVEN) == 30
    assert stage.until(E.OFFENCE_FORGIVEN) == 30
    assert stage.state.nodes == {}


def test_forgiveness_counts_seconds():
    """With ticks of 10 s three calm ticks are worth 30 s."""
    stage = governing(tick_s=10.0)
    stage.make_bad("n0")
    stage.until(E.ISOLATION_VERIFIED)
    stage.make_good("n0")
    stage.until(E.NODE_READMITTED)
    stage.make_bad("n0")
    stage.tick()  # starts the count afresh
    stage.make_good("n0")
    assert stage.until(E.OFFENCE_FORGIVEN) == 3


def test_offences_on_probation_are_not_forgiven():
    """Full trust comes first."""
    stage = relapsing(governing(policy=IsolationPolicy(probation_ticks=100, backoff_base_s=10.0, forgive_s=30.0)), 0)
    stage.make_good("n0")
    stage.until(E.RESTORATION_VERIFIED)
    stage.tick(99)
    assert stage.of(E.OFFENCE_FORGIVEN) == []


def test_nodes_that_were_out_together_come_back_apart():
    """The back-off of each is drawn for itself, the same in every run."""
    stage = governing(policy=IsolationPolicy(probation_ticks=5, backoff_base_s=100.0))
    stage.make_bad("n0", "n8", "n15")
    stage.tick(4)
    stage.make_good("n0", "n8", "n15")
    stage.tick(120)
    times = {event.data["node"]: event.at_s for event in stage.of(E.RESTORATION_INTENDED)}
    assert times == {"n0": 109.0, "n8": 112.0, "n15": 113.0}
    backoffs = {event.data["node"]: event.data["backoff_s"] for event in stage.of(E.ISOLATION_INTENDED)}
    assert len(set(backoffs.values())) == 3


# --- exemptions


@pytest.mark.parametrize(
    ("kind", "guard"), [(ExemptionKind.VETO, Guard.VETO), (ExemptionKind.MAINTENANCE, Guard.MAINTENANCE)]
)
def test_an_exempted_node_is_not_isolated(kind, guard):
    """Either is explained at every tick; what is under maintenance is no well, as its evidence does not count."""
    stage = governing()
    stage.tick()
    stage.command(asked.Exempt("n0", kind, 6000.0))
    stage.make_bad("n0", gravity=9.0)
    stage.tick(100)
    assert stage.actions == []
    assert stage.guards() == {guard}
    assert bool(stage.of(E.GRAVITY_WELL_CONFIRMED)) is (kind is ExemptionKind.VETO)
    assert stage.governor.blocked() == ()


def test_a_veto_for_one_does_not_hold_the_others():
    """The next worst of its cluster goes."""
    stage = governing()
    stage.tick()
    stage.command(asked.Exempt("n0", ExemptionKind.VETO, 6000.0))
    stage.make_bad("n0", gravity=2.8)
    stage.make_bad("n1", gravity=2.0)
    stage.tick(3)
    assert stage.isolated() == ["n1"]


def test_maintenance_does_not_make_a_storm():
    """Eleven of twenty bad nodes are a storm, unless somebody is working on one of them."""
    for exempted, storms in ((None, True), ("n0", False)):
        stage = governing(20, 2)
        stage.tick()
        if exempted:
            stage.command(asked.Exempt(exempted, ExemptionKind.MAINTENANCE, 6000.0))
        stage.make_bad(*stage.topology.nodes[:11])
        stage.tick()
        assert (stage.phase is Phase.SAFE_MODE) is storms


def test_a_veto_counts_in_a_storm():
    """Vouching for a node does not take its evidence away."""
    stage = governing(20, 2)
    stage.tick()
    stage.command(asked.Exempt("n0", ExemptionKind.VETO, 6000.0))
    stage.make_bad(*stage.topology.nodes[:11])
    stage.tick()
    assert stage.phase is Phase.SAFE_MODE


def test_after_maintenance_a_node_is_judged_by_what_comes_then():
    """Three bad ticks after its end, and it goes."""
    stage = governing()
    stage.tick()
    stage.command(asked.Exempt("n0", ExemptionKind.MAINTENANCE, 50.0))
    stage.make_bad("n0")
    stage.until(E.EXEMPTION_ENDED)
    stage.tick(1)
    assert stage.actions == []
    stage.tick()
    assert stage.isolated() == ["n0"]


# --- time limits where nothing else is done


def in_hold(stage):
    stage.tell(InvariantBroken("budgets_hold", "3 of 5 out"))
    return Phase.SAFE_MODE


def in_phase_iv(stage):
    stage.tell(WindowEnded())
    return Phase.PHASE_IV


def in_trial(stage):
    stage.unhealthy, stage.kpis["action_cost"] = ("action_cost",), 0.08
    stage.until(E.TRIAL_STARTED)
    return Phase.HEALING


def in_pause(stage):
    stage.command(asked.Pause(5000.0))
    return Phase.PAUSED


@pytest.mark.parametrize("enter", [in_hold, in_phase_iv, in_trial, in_pause])
def test_static_means_that_who_is_out_stays_out(enter):
    """Clean or not seen at all, its time limit is renewed, and nobody is let in."""
    healing = HealingPolicy(holdoff_s=0.0, settle_ticks=200, measure_ticks=200)
    stage = isolated(governing(policy=IsolationPolicy(backoff_jitter=0.0, ttl_s=200.0), healing=healing))
    stage.make_good("n0")
    stage.tick(20)
    phase = enter(stage)
    stage.tick(200)
    stage.trusted[:] = False
    stage.tick(160)
    assert stage.phase is phase
    assert "n0" in stage.plant.out
    assert stage.of(E.RESTORATION_INTENDED) == []
    renewals = stage.of(E.RENEWAL_VERIFIED)
    assert len(renewals) >= 3
    assert all(later.at_s - earlier.at_s >= 80.0 for earlier, later in pairwise(renewals))


def test_a_dry_run_renews_nothing():
    """It acts on nothing, and says so; the time limit of what an earlier run took out passes."""
    stage = isolated(governing())
    stage.settings = type(stage.settings)(QUICK, HealingPolicy(), dry_run=True, daemon=True)
    stage.restart()
    actions = len(stage.actions)
    stage.until(E.ISOLATION_EXPIRED, 400)
    assert len(stage.actions) == actions
    assert stage.guards("renew") == {Guard.DRY_RUN}


def test_a_plant_that_can_isolate_no_more_is_not_asked_to_renew():
    """After coming back with fewer abilities."""
    stage = isolated(governing())
    stage.tell(PlantLost("silence"))
    stage.tell(Restarted(2, frozenset({Capability.NODES}), stage.now_s, {}))
    actions = len(stage.actions)
    stage.until(E.ISOLATION_EXPIRED, 400)
    assert len(stage.actions) == actions
    assert stage.guards("renew") == {Guard.CAPABILITY}


# --- nodes that leave and join


@pytest.mark.parametrize("when", ["isolating", "renewing", "restoring"])
def test_whatever_is_in_flight_for_a_node_that_leaves_is_abandoned(when):
    """Nobody has disobeyed, so it is no hold; the others are governed on."""
    stage = governing(12, 2)
    if when == "isolating":
        stage.make_bad("n11")
        stage.tick(3)
    else:
        isolated(stage, "n11")
        if when == "restoring":
            stage.make_good("n11")
        stage.until(E.RENEWAL_INTENDED if when == "renewing" else E.RESTORATION_INTENDED, 200)
    shrink(stage, 10, 2)
    assert stage.until(E.ACTION_ABANDONED) == 11
    assert stage.state.intents == {}
    assert stage.phase is Phase.GOVERNING
    isolated(stage, "n0")


def test_an_isolated_node_that_leaves_for_good_is_let_go():
    """Its isolation ends with its time limit, like every other."""
    stage = isolated(governing(12, 2), "n11")
    until_s = stage.state.nodes["n11"].until_s
    shrink(stage, 10, 2)
    stage.tick(5)
    assert stage.state.out_of_service() == {"n11"}
    stage.until(E.ISOLATION_EXPIRED, 300)
    assert stage.now_s == until_s
    assert stage.of(E.ISOLATION_EXPIRED)[0].data == {"node": "n11", "reason": "the plant does not show it any more"}
    assert stage.state.out_of_service() == set()


def test_an_isolated_node_that_comes_back_is_still_known():
    """It is isolated where the plant shows it so, and on probation where it does not."""
    for let_in in (False, True):
        stage = isolated(governing(12, 2), "n11")
        gravity, trusted = stage.gravity, stage.trusted
        shrink(stage, 10, 2)
        stage.tick(5)
        stage.topology, stage.gravity, stage.trusted = topology_of(12, 2), gravity, trusted
        if let_in:
            stage.plant.out.clear()
        stage.tick()
        wanted = NodeStatus.PROBATION if let_in else NodeStatus.ISOLATED
        assert stage.state.nodes["n11"].status is wanted
        assert stage.state.nodes["n11"].offences == 1


def test_a_smaller_plant_may_have_more_out_than_it_should():
    """Nobody acted, so it is no breach; nobody more goes, and time limits are renewed all the same."""
    stage = governing(14, 2)
    stage.make_bad("n0", "n1", gravity=4.0)
    stage.tick(4)
    shrink(stage, 9, 2)
    stage.make_bad("n5", gravity=4.0)
    stage.until(E.RENEWAL_VERIFIED, 200)
    assert stage.isolated()[:2] == ["n0", "n1"]
    assert "n5" not in stage.isolated()
    assert stage.phase is Phase.GOVERNING


# --- what is too old, and what was never sent


def test_evidence_that_is_too_old_decides_nothing():
    """A backlog is taken in, but acted upon only where it is none any more."""
    stage = governing()
    stage.lag_s = 10.5
    stage.make_bad("n0")
    stage.tick(5)
    assert stage.actions == []
    assert stage.guards() == {Guard.STALE}
    stage.lag_s = 10.0
    stage.tick()
    assert stage.isolated() == ["n0"]


def test_an_action_that_is_not_sent_is_void():
    """It is neither an offence nor a failure, and is decided anew."""
    stage = governing()
    stage.plant.replies = [Reply.VOID]
    stage.plant.obeys = False
    stage.make_bad("n0")
    stage.tick(3)
    assert stage.of(E.ACTION_ABANDONED)[0].data == {"key": "isolate-1", "reason": "told so"}
    assert (stage.state.intents, stage.state.nodes) == ({}, {})
    stage.plant.obeys = True
    stage.tick()
    assert [action.key for action in stage.actions] == ["isolate-1", "isolate-2"]


def test_a_restoration_that_is_not_sent_leaves_the_node_out():
    """And is tried again."""
    stage = isolated(governing())
    stage.make_good("n0")
    stage.plant.replies, stage.plant.obeys = [Reply.VOID], False
    stage.until(E.ACTION_ABANDONED)
    assert stage.state.out_of_service() == {"n0"}
    stage.plant.obeys = True
    stage.tick(2)
    assert isinstance(stage.actions[-1], RestoreNode)
    assert stage.state.nodes["n0"].status is NodeStatus.PROBATION


@pytest.mark.parametrize("reply", [None, Reply.UNKNOWN])
def test_after_a_restart_an_action_without_an_effect_is_abandoned(reply):
    """It may never have been sent: nobody has disobeyed, so it is no hold."""
    stage = governing()
    stage.answering = reply is not None
    stage.plant.replies, stage.plant.obeys = [reply or Reply.UNKNOWN], False
    stage.make_bad("n0")
    stage.tick(3)
    stage.answering = True
    stage.restart()
    stage.make_good("n0")
    assert stage.until(E.ACTION_ABANDONED) == 11
    assert stage.phase is Phase.GOVERNING
    assert stage.state.nodes == {}


def test_an_isolation_that_ended_before_anybody_looked_is_no_failure():
    """A controller that was away for longer than the time limit takes nobody for disobedient."""
    stage = governing()
    stage.make_bad("n0")
    stage.tick(3)
    stage.now_s += 1000.0
    stage.restart()
    stage.make_good("n0")
    assert stage.until(E.ACTION_ABANDONED) == 11
    assert stage.of(E.ACTION_ABANDONED)[0].data["reason"] == "its time limit had passed before anybody looked"
    assert stage.phase is Phase.GOVERNING


# --- phases that are tried again


def test_a_daemon_tries_a_failed_phase_again_later_each_time():
    """Half a minute, doubled each time, at most ten minutes; a phase that passes starts afresh."""
    stage = Stage(daemon=True).reach(Phase.PHASE_II)
    waits = []
    for _ in range(7):
        stage.end_phase(Phase.PHASE_II, CheckStatus.FAILED)
        waits.append(stage.until(E.SAFE_MODE_LEFT, 700))
        assert stage.phase is Phase.PHASE_II
    assert waits == [30, 60, 120, 240, 480, 600, 600]
    stage.end_phase(Phase.PHASE_II)
    stage.end_phase(Phase.PHASE_III, CheckStatus.INCONCLUSIVE)
    assert stage.until(E.SAFE_MODE_LEFT) == 30


def test_a_run_tries_nothing_again():
    """Its hold for a failed isolation lasts until its end."""
    stage = Stage().reach(Phase.GOVERNING)
    stage.plant.replies = [Reply.REFUSED]
    stage.make_bad("n0")
    stage.until(E.ISOLATION_FAILED)
    stage.tick(1000)
    assert stage.phase is Phase.SAFE_MODE


def test_a_phase_that_fails_in_a_storm_is_tried_again():
    """The phase's failure outranks the storm, and the retry leads back to it."""
    stage = Stage(policy=QUICK, daemon=True).reach(Phase.PHASE_III)
    stage.tell(ProbeIntended("dissonance", {}, "n4"))
    stage.make_bad(*stage.topology.nodes)
    stage.tick()
    assert stage.phase is Phase.SAFE_MODE
    stage.tell(ProbeEnded("dissonance"))
    stage.end_phase(Phase.PHASE_III, CheckStatus.FAILED)
    stage.make_good(*stage.topology.nodes)
    assert stage.state.safe_mode == "PHASE_III has not passed"
    assert stage.until(E.SAFE_MODE_LEFT) == 30
    assert stage.phase is Phase.PHASE_III


def test_a_probe_undone_in_a_pause_lets_nobody_in():
    """Whatever a caller says, PAUSED takes no action but renewals."""
    stage = Stage(policy=QUICK, daemon=True).reach(Phase.PHASE_III)
    stage.tick()
    stage.command(asked.Pause(600.0))
    stage.tell(ProbeIntended("dissonance", {}, "n4"))
    stage.plant.out["n4"] = 1e9
    stage.tell(ProbeUndone("dissonance"))
    assert not any(isinstance(action, IsolateNode | RestoreNode) for action in stage.actions)
    assert stage.phase is Phase.PAUSED
