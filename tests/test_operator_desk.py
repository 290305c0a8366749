"""Operators' commands: what each does, when it is refused, and what a pause means."""

import runpy
from pathlib import Path

import pytest

from state import command as asked
from state.action import ApplyParameters, IsolateNode, Reply, RestoreNode
from state.command import ExemptionKind
from state.decision import Answer
from state.durable import COMMANDS_KEPT, NodeStatus
from state.event import EventKind as E
from state.healing import HealingPolicy
from state.isolation import Guard, IsolationPolicy
from state.outcome import ExitCode, Outcome
from state.phase import Phase
from state.stimulus import (
    CorrectionsOpened,
    Ended,
    InvariantBroken,
    PlantLost,
    ProbeEnded,
    ProbeIntended,
    ProposalWritten,
    Replied,
    WindowEnded,
)
from state.verdict import CheckStatus

Stage = runpy.run_path(str(Path(__file__).with_name("governor_stage.py")))["Stage"]
QUICK = IsolationPolicy(probation_ticks=5, backoff_base_s=10.0, backoff_jitter=0.0, ttl_s=60.0)
WEEK_S = 7 * 24 * 3600.0
NAN, INF = float("nan"), float("inf")


def governing(*shape, policy=QUICK, **options):
    stage = Stage(*(shape or (50, 7)), policy=policy, daemon=True, **options).reach(Phase.GOVERNING)
    stage.tick()
    return stage


def isolated(stage, node="n0"):
    stage.make_bad(node)
    stage.until(E.ISOLATION_VERIFIED)
    return stage


def on_trial(**options):
    """In HEALING, the change applied."""
    stage = governing(healing=HealingPolicy(holdoff_s=0.0), **options)
    stage.tick(60)
    stage.unhealthy, stage.kpis["action_cost"] = ("action_cost",), 0.08
    stage.until(E.TRIAL_APPLIED)
    return stage


def refused(answer, words, guard=None):
    assert not answer.accepted
    assert words in answer.text
    assert answer.guard == guard


# --- what is journaled, and repetitions


def test_every_command_is_journaled_with_who_why_and_what_was_answered():
    """Accepted or refused, it is a durable fact."""
    stage = governing()
    stage.command(asked.Isolate("n3", 30.0), by="ada", reason="disk", key="k1")
    assert stage.of(E.COMMANDED)[0].data == {
        "asked": {"command": "isolate", "node": "n3", "for_s": 30.0},
        "by": "ada",
        "reason": "disk",
        "key": "k1",
        "accepted": True,
        "answer": "n3 is to be taken out for 30 s, or until it is restored",
    }
    stage.command(asked.Resume(), by="bob", reason="why not")
    assert stage.of(E.COMMAND_REFUSED)[0].data == {
        "asked": {"command": "resume"},
        "by": "bob",
        "reason": "why not",
        "key": None,
        "accepted": False,
        "answer": "it is not paused",
    }


def test_the_same_key_has_one_effect():
    """A repeated command is answered as before, and nothing is done or journaled."""
    stage = governing()
    first = stage.command(asked.Isolate("n3"), key="k1")
    stage.tick(5)
    events = len(stage.events)
    again = stage.command(asked.Isolate("n3"), key="k1")
    assert (again.accepted, again.text, again.repeated) == (True, first.text, True)
    assert not first.repeated
    assert len(stage.events) == events
    assert stage.isolated() == ["n3"]


def test_a_refusal_is_repeated_as_well():
    """What was refused stays refused under its key, even if it could be done now."""
    stage = governing()
    stage.command(asked.Resume(), key="k1")
    stage.command(asked.Pause(60.0))
    again = stage.command(asked.Resume(), key="k1")
    assert (again.accepted, again.text, again.repeated) == (False, "it is not paused", True)
    assert stage.phase is Phase.PAUSED


def test_a_key_belongs_to_one_command():
    """The same key for something else is refused, and has no effect."""
    stage = governing()
    stage.command(asked.Isolate("n3"), key="k1")
    answer = stage.command(asked.Isolate("n9"), key="k1")
    refused(answer, "key k1 was used for another command")
    assert stage.isolated() == ["n3"]


def test_keys_survive_a_restart():
    """A client that repeats its command after a crash does not have it done twice."""
    stage = governing()
    stage.command(asked.Exempt("n3", ExemptionKind.VETO, 60.0), key="k1")
    stage.restart()
    stage.tick()
    assert stage.command(asked.Exempt("n3", ExemptionKind.VETO, 60), key="k1").repeated
    assert len(stage.of(E.NODE_EXEMPTED)) == 1


def test_the_oldest_keys_are_forgotten():
    """The latest 256 are kept: the state does not grow for ever."""
    stage = governing()
    for number in range(COMMANDS_KEPT + 2):
        stage.command(asked.Resume(), key=f"k{number}")
    assert len(stage.state.commands) == 256
    assert not stage.command(asked.Resume(), key="k0").repeated
    assert stage.command(asked.Resume(), key="k9").repeated


@pytest.mark.parametrize(
    "command",
    [
        asked.Pause(NAN),
        asked.Pause(INF),
        asked.Isolate("n3", NAN),
        asked.Isolate("n3", INF),
        asked.Exempt("n3", ExemptionKind.VETO, NAN),
        asked.Exempt("n3", ExemptionKind.VETO, INF),
        asked.Exempt("n3", ExemptionKind.VETO, 1.0, NAN),
        asked.Exempt("n3", ExemptionKind.VETO, 1.0, INF),
    ],
)
def test_times_that_are_no_numbers_are_refused_and_can_be_journaled(command):
    """NaN and infinity take no effect, and do not break the journal."""
    stage = governing()
    assert not stage.command(command).accepted
    body = stage.of(E.COMMAND_REFUSED)[0].canonical()
    assert b'"nan"' in body or b'"inf"' in body
    assert stage.actions == []


# --- pause and resume


def test_a_pause_with_nothing_under_way_is_in_force_at_once():
    """Nothing new starts any more, whatever it looks like."""
    stage = governing()
    answer = stage.command(asked.Pause(600.0))
    assert answer.accepted
    assert answer.text == "paused for 600 s; only time limits of isolations are renewed meanwhile"
    assert stage.phase is Phase.PAUSED
    stage.make_bad("n0", gravity=4.0)
    stage.unhealthy = ("action_cost",)
    stage.tick(100)
    assert stage.actions == []
    assert stage.guards() == {Guard.PAUSED}


@pytest.mark.parametrize("for_s", [0.0, -1.0, WEEK_S + 1.0])
def test_a_pause_has_a_length(for_s):
    """More than nothing, at most a week."""
    stage = governing()
    refused(stage.command(asked.Pause(for_s)), "a pause lasts more than 0 and at most 604800 s")
    assert stage.phase is Phase.GOVERNING


def test_a_pause_ends_by_itself():
    """After its time the daemon goes on, in the state it came from."""
    stage = governing()
    stage.command(asked.Pause(30.0))
    assert stage.until(E.RESUMED) == 30
    assert stage.of(E.RESUMED)[0].data == {"by": "expiry"}
    assert stage.phase is Phase.GOVERNING
    assert stage.state.pause is None


def test_a_pause_can_be_prolonged_and_shortened():
    """The latest word counts, and it stays in force meanwhile."""
    stage = governing()
    stage.command(asked.Pause(30.0))
    stage.tick(20)
    assert stage.command(asked.Pause(100.0)).accepted
    assert stage.phase is Phase.PAUSED
    stage.tick(50)
    stage.command(asked.Pause(5.0), by="bob")
    assert stage.state.pause.by == "bob"
    assert stage.until(E.RESUMED) == 5
    assert len(stage.of(E.PAUSED)) == 1


def test_every_node_is_confirmed_afresh_after_a_pause():
    """Two bad ticks before and many during the pause condemn nobody: three after it do."""
    stage = governing()
    stage.make_bad("n0")
    stage.tick(2)
    stage.command(asked.Pause(600.0))
    stage.tick(20)
    answer = stage.command(asked.Resume())
    assert answer.text == "resumed in GOVERNING; every node is confirmed afresh"
    stage.tick(2)
    assert stage.actions == []
    stage.tick()
    assert stage.isolated() == ["n0"]


def test_doubt_starts_afresh_after_a_pause():
    """Contradicted sensors have to be seen for 30 ticks again."""
    stage = governing()
    stage.disagreement = 0.05
    stage.command(asked.Pause(600.0))
    stage.tick(100)
    stage.command(asked.Resume())
    stage.tick(29)
    assert stage.phase is Phase.GOVERNING
    stage.tick()
    assert stage.phase is Phase.SAFE_MODE


def test_clean_ticks_during_a_pause_let_nobody_in():
    """Re-admission, too, waits for fresh evidence."""
    stage = isolated(governing())
    stage.command(asked.Pause(600.0))
    stage.make_good("n0")
    stage.tick(50)
    assert stage.of(E.RESTORATION_INTENDED) == []
    stage.command(asked.Resume())
    assert stage.until(E.RESTORATION_INTENDED) == 5


def test_time_limits_are_renewed_during_a_pause():
    """Who is out stays out, whatever the evidence; the state stays PAUSED."""
    stage = isolated(governing())
    stage.command(asked.Pause(600.0))
    stage.trusted[:] = False
    stage.tick(400)
    assert "n0" in stage.plant.out
    assert stage.of(E.ISOLATION_EXPIRED) == []
    assert {type(action) for action in stage.actions[1:]} == {IsolateNode}
    assert {action.key[:6] for action in stage.actions[1:]} == {"renew-"}
    assert stage.phase is Phase.PAUSED


def test_a_renewal_that_fails_during_a_pause_changes_nothing():
    """It is tried again."""
    stage = isolated(governing())
    stage.command(asked.Pause(600.0))
    stage.plant.replies = [Reply.REFUSED, Reply.UNKNOWN]
    stage.tick(60)
    assert len(stage.of(E.RENEWAL_FAILED)) == 2
    assert stage.of(E.RENEWAL_VERIFIED) != []
    assert stage.phase is Phase.PAUSED


def test_a_pause_waits_for_the_answer_of_what_is_in_flight():
    """Nothing new starts from the command on; it is acknowledged once every call has its outcome."""
    stage = governing()
    stage.answering = False
    stage.make_bad("n0")
    stage.tick(3)
    answer = stage.command(asked.Pause(600.0))
    assert answer.text == "nothing new starts; paused for 600 s as soon as what is under way has ended"
    assert stage.phase is Phase.ISOLATING
    refused(stage.command(asked.Resume()), "the pause is not in force yet")
    stage.make_bad("n8")
    stage.tick(5)
    assert stage.isolated() == ["n0"]
    stage.tell(Replied("isolate-1", Reply.UNKNOWN, "lost", stage.now_s))
    stage.tick()
    assert stage.phase is Phase.PAUSED
    assert stage.state.nodes["n0"].status is NodeStatus.ISOLATED


def test_what_is_in_flight_settles_during_a_pause():
    """It is read back there; a failure is known when the pause ends."""
    stage = governing()
    stage.plant.replies, stage.plant.obeys = [Reply.UNKNOWN], False
    stage.make_bad("n0")
    stage.tick(3)
    stage.command(asked.Pause(600.0))
    assert stage.phase is Phase.PAUSED
    stage.until(E.ISOLATION_FAILED)
    assert stage.phase is Phase.PAUSED
    assert stage.command(asked.Resume()).text == "resumed in SAFE_MODE; every node is confirmed afresh"
    assert stage.state.safe_mode == "isolate of n0 failed: not seen at the plant within 10 s"


def test_a_pause_that_ends_while_something_is_in_flight():
    """It goes on where it was."""
    stage = governing()
    stage.plant.replies = [Reply.UNKNOWN]
    stage.make_bad("n0")
    stage.tick(3)
    stage.command(asked.Pause(600.0))
    assert stage.command(asked.Resume()).text == "resumed in ISOLATING; every node is confirmed afresh"
    stage.tick()
    assert stage.phase is Phase.GOVERNING


def test_a_pause_rolls_the_open_trial_back_first():
    """It is acknowledged once the last good value has been seen."""
    stage = on_trial()
    good = stage.of(E.TRIAL_STARTED)[0].data["from"]
    stage.command(asked.Pause(600.0))
    assert stage.phase is Phase.HEALING
    assert isinstance(stage.actions[-1], ApplyParameters)
    assert stage.actions[-1].parameters.as_dict() == good
    stage.tick()
    assert stage.kinds()[-2:] == [E.TRIAL_ROLLED_BACK, E.PAUSED]
    assert stage.phase is Phase.PAUSED
    stage.tick(100)
    assert len(stage.of(E.TRIAL_STARTED)) == 1


def test_a_rollback_that_fails_is_a_hold_when_the_pause_ends():
    """SAFE_MODE is not forgotten over a pause."""
    stage = on_trial()
    stage.plant.obeys = False
    stage.command(asked.Pause(600.0))
    stage.until(E.ROLLBACK_FAILED)
    assert stage.phase is Phase.PAUSED
    stage.command(asked.Resume())
    assert stage.phase is Phase.SAFE_MODE
    assert stage.state.safe_mode.startswith("a rollback failed")


def test_safe_mode_returns_after_a_pause():
    """With its cause, and ends by its own rules."""
    stage = governing()
    stage.make_bad(*stage.topology.nodes[:30])
    stage.tick()
    stage.command(asked.Pause(600.0))
    assert stage.phase is Phase.PAUSED
    stage.make_good(*stage.topology.nodes)
    stage.tick(200)
    stage.command(asked.Resume())
    assert stage.phase is Phase.SAFE_MODE
    assert stage.state.safe_mode == "storm: 30 of 50 nodes look bad at once"
    assert stage.until(E.SAFE_MODE_LEFT) == 61
    assert stage.phase is Phase.GOVERNING


def test_a_breach_during_a_pause_is_a_hold_after_it():
    """An internal error is told, and holds when the pause ends."""
    stage = governing()
    stage.command(asked.Pause(600.0))
    stage.tell(InvariantBroken("quorum_holds", "c0 keeps 2"))
    assert stage.phase is Phase.PAUSED
    stage.command(asked.Resume())
    assert stage.phase is Phase.SAFE_MODE


@pytest.mark.parametrize("phase", [Phase.PHASE_I, Phase.PHASE_II, Phase.PHASE_III])
def test_a_pause_returns_to_its_phase(phase):
    """The checks of the phase are made again then."""
    stage = Stage(daemon=True).reach(phase)
    stage.command(asked.Pause(30.0))
    assert stage.phase is Phase.PAUSED
    stage.until(E.RESUMED)
    assert stage.phase is phase


def test_a_pause_waits_for_probes():
    """What a probe has done to the plant is undone before the pause is in force."""
    stage = Stage(daemon=True).reach(Phase.PHASE_III)
    stage.tell(ProbeIntended("dissonance", {}, "n4"))
    stage.command(asked.Pause(600.0))
    stage.tick(5)
    assert stage.phase is Phase.PHASE_III
    stage.tell(ProbeEnded("dissonance"))
    stage.tick()
    assert stage.phase is Phase.PAUSED


def test_a_paused_controller_stays_paused_over_a_restart():
    """So does what is left of its time."""
    stage = isolated(governing())
    stage.command(asked.Pause(100.0))
    stage.tick(40)
    stage.restart()
    stage.make_bad("n8")
    assert stage.phase is Phase.PAUSED
    assert stage.until(E.RESUMED) == 60
    assert stage.isolated()[0] == "n0"
    assert "n8" not in stage.isolated()


def test_a_restart_with_an_unanswered_call_does_not_hold_the_pause_up_for_ever():
    """A call that nobody waits for any more has an outcome: unknown until it has been looked for."""
    stage = governing()
    stage.answering = False
    stage.make_bad("n0")
    stage.tick(3)
    stage.plant.out.clear()
    stage.command(asked.Pause(600.0))
    stage.restart()
    stage.make_good("n0")
    assert stage.until(E.PAUSED) == 1
    assert stage.until(E.ACTION_ABANDONED) == 10
    assert stage.state.nodes == {}
    assert stage.phase is Phase.PAUSED


def test_where_nothing_can_be_paused():
    """Before a start, in Phase IV, its corrections, and after the end."""
    stage = Stage()
    refused(stage.command(asked.Pause(60.0)), "nothing can be paused in IDLE")
    stage = Stage(healing=HealingPolicy(holdoff_s=0.0)).reach(Phase.GOVERNING)
    stage.tick(60)
    stage.tell(WindowEnded())
    refused(stage.command(asked.Pause(60.0)), "nothing can be paused in PHASE_IV")
    stage.tell(CorrectionsOpened())
    stage.unhealthy, stage.kpis["action_cost"] = ("action_cost",), 0.08
    stage.until(E.TRIAL_STARTED)
    refused(stage.command(asked.Pause(60.0)), "nothing can be paused in PHASE_IV")
    stage.until(E.TRIAL_APPLIED)
    stage.tell(Ended(Outcome(ExitCode.INCONCLUSIVE, ("because",))))
    refused(stage.command(asked.Pause(60.0)), "nothing can be paused in CRITICAL_DISSONANCE")


# --- SAFE_MODE


def test_safe_mode_is_cleared_by_a_person():
    """A hold that does not end by itself ends by command, and every node is confirmed afresh."""
    stage = governing()
    stage.plant.replies = [Reply.REFUSED]
    stage.make_bad("n0")
    stage.tick(4)
    assert stage.phase is Phase.SAFE_MODE
    answer = stage.command(asked.ClearSafeMode(), by="ada", reason="cable")
    assert answer.text == "back in GOVERNING; every node is confirmed afresh"
    assert stage.of(E.SAFE_MODE_LEFT)[0].data == {"reason": "cleared by ada: cable"}
    assert stage.state.safe_mode is None
    stage.tick(2)
    assert len(stage.actions) == 1
    stage.tick()
    assert stage.isolated() == ["n0", "n0"]


def test_safe_mode_is_not_cleared_while_its_cause_lasts():
    """Neither in a storm nor while the sensors are contradicted."""
    stage = governing()
    stage.make_bad(*stage.topology.nodes[:30])
    stage.tick()
    refused(stage.command(asked.ClearSafeMode()), "its cause still lasts (storm)", Guard.STORM)
    stage.make_good(*stage.topology.nodes)
    stage.disagreement = 0.05
    stage.tick()
    refused(stage.command(asked.ClearSafeMode()), "its cause still lasts (sensors_doubted)", Guard.SENSORS)
    stage.disagreement = 0.0
    stage.tick()
    assert stage.command(asked.ClearSafeMode()).accepted
    assert stage.phase is Phase.GOVERNING


def test_only_safe_mode_is_cleared():
    """Anywhere else there is nothing to clear."""
    refused(governing().command(asked.ClearSafeMode()), "it is not in SAFE_MODE but in GOVERNING")


def test_safe_mode_is_not_cleared_while_a_trial_is_rolled_back():
    """A trial does not outlive its hold."""
    stage = on_trial()
    stage.answering = False
    stage.tell(InvariantBroken("budgets_hold", "3 of 5 out"))
    stage.tick()
    refused(stage.command(asked.ClearSafeMode()), "a trial is still being rolled back")


def test_safe_mode_with_something_in_flight_is_left_for_isolating():
    """What is in flight is settled there."""
    stage = governing()
    stage.answering = False
    stage.make_bad("n0")
    stage.tick(3)
    stage.tell(InvariantBroken("budgets_hold", "3 of 5 out"))
    assert stage.command(asked.ClearSafeMode()).text == "back in ISOLATING; every node is confirmed afresh"
    stage.tell(Replied("isolate-1", Reply.APPLIED, "", stage.now_s))
    stage.tick()
    assert stage.phase is Phase.GOVERNING


def test_there_is_no_way_back_into_phase_iv():
    """A run that holds there ends there."""
    stage = Stage().reach(Phase.GOVERNING)
    stage.tell(WindowEnded())
    stage.tell(InvariantBroken("budgets_hold", "3 of 5 out"))
    refused(stage.command(asked.ClearSafeMode()), "there is no way back to PHASE_IV")


def test_a_failed_phase_is_made_again_by_command():
    """A person need not wait for the retry."""
    stage = Stage(daemon=True).reach(Phase.PHASE_II)
    stage.end_phase(Phase.PHASE_II, CheckStatus.FAILED)
    assert stage.command(asked.ClearSafeMode()).text == "back in PHASE_II; every node is confirmed afresh"


# --- isolation and restoration by hand


def test_isolation_by_hand_ends_by_its_time_limit():
    """A healthy node goes for as long as was asked, is not renewed, and bears no offence."""
    stage = governing()
    assert stage.command(asked.Isolate("n3", 30.0)).accepted
    assert stage.actions == [IsolateNode("isolate-1", "n3", 30.0)]
    stage.tick()
    assert (stage.state.nodes["n3"].by, stage.state.nodes["n3"].offences) == ("ada", 0)
    assert stage.until(E.ISOLATION_EXPIRED) == 29
    stage.until(E.NODE_READMITTED)
    assert stage.state.nodes == {}
    assert len(stage.actions) == 1


def test_isolation_by_hand_is_not_ended_by_the_policy():
    """A clean node that a person took out stays out, whatever its counters say, until its limit."""
    stage = governing()
    stage.command(asked.Isolate("n3", 600.0))
    stage.tick(599)
    assert "n3" in stage.plant.out
    assert stage.of(E.RESTORATION_INTENDED) == []


def test_isolation_by_hand_without_a_time_lasts_as_long_as_the_policy_s():
    """The answer says how long."""
    stage = governing()
    answer = stage.command(asked.Isolate("n3"))
    assert answer.text == "n3 is to be taken out for 130 s, or until it is restored"


def test_isolations_by_hand_never_make_a_node_flap():
    """Ten times out by hand, and it still comes back by its time limit; its earlier offences stay."""
    stage = isolated(governing(policy=IsolationPolicy(probation_ticks=5, backoff_base_s=10.0, flap_offences=2)))
    stage.make_good("n0")
    stage.until(E.RESTORATION_VERIFIED)
    for _ in range(10):
        assert stage.command(asked.Isolate("n0", 20.0)).accepted
        stage.until(E.ISOLATION_EXPIRED)
    assert stage.of(E.NODE_FLAPPING) == []
    assert stage.state.nodes["n0"].offences == 1


def test_a_failed_isolation_by_hand_takes_no_offence_away():
    """It had added none."""
    stage = isolated(governing())
    stage.make_good("n0")
    stage.until(E.RESTORATION_VERIFIED)
    stage.plant.replies = [Reply.REFUSED]
    stage.command(asked.Isolate("n0", 20.0))
    stage.tick()
    assert stage.of(E.ISOLATION_FAILED) != []
    assert stage.state.nodes["n0"].offences == 1


def test_budgets_hold_for_persons_too():
    """The third of a cluster of seven is refused, with guard and numbers."""
    stage = governing()
    for node in ("n8", "n9"):
        assert stage.command(asked.Isolate(node, 600.0)).accepted
        stage.tick(2)
    answer = stage.command(asked.Isolate("n10", 600.0))
    refused(answer, "guard budget_cluster forbids it: 0.429, limit 0.333", Guard.BUDGET_CLUSTER)
    assert stage.isolated() == ["n8", "n9"]


@pytest.mark.parametrize("kind", ExemptionKind)
def test_an_exemption_holds_for_persons_too(kind):
    """Somebody vouches for the node: that is to be settled between people first."""
    stage = governing()
    stage.command(asked.Exempt("n3", kind, 60.0), by="bob")
    guard = {ExemptionKind.VETO: Guard.VETO, ExemptionKind.MAINTENANCE: Guard.MAINTENANCE}[kind]
    refused(stage.command(asked.Isolate("n3")), f"guard {guard} forbids it", guard)
    stage.command(asked.EndExemption("n3"))
    assert stage.command(asked.Isolate("n3")).accepted


@pytest.mark.parametrize("for_s", [0.0, -5.0, 9.9, WEEK_S + 1])
def test_an_isolation_by_hand_has_a_length(for_s):
    """Long enough to be verified, at most a week."""
    refused(governing().command(asked.Isolate("n3", for_s)), "an isolation lasts at least 10 s and at most 604800 s")


def test_nobody_isolates_what_is_not_there_or_out_already():
    """The plant knows its nodes."""
    stage = governing()
    refused(stage.command(asked.Isolate("n99")), "the plant shows no node n99")
    stage.command(asked.Isolate("n3", 600.0))
    refused(stage.command(asked.Isolate("n3")), "guard action_in_flight forbids it", Guard.IN_FLIGHT)


def test_nobody_isolates_blindly():
    """Before the first look, and after the plant was lost, nothing is known."""
    stage = Stage().reach(Phase.GOVERNING)
    refused(stage.command(asked.Isolate("n3")), "the plant shows no node n3")
    stage.tick()
    stage.tell(PlantLost("silence"))
    refused(stage.command(asked.Isolate("n3")), "guard stale_evidence forbids it", Guard.STALE)


def test_nobody_isolates_in_a_hold_a_trial_or_a_storm():
    """The state's guards are the policy's."""
    stage = governing()
    stage.tell(InvariantBroken("budgets_hold", "3 of 5 out"))
    way_out = "see to the cause and clear it, or wait where it ends by itself"
    text = f"guard state forbids it: SAFE_MODE holds (invariant budgets_hold does not hold); {way_out}"
    assert stage.command(asked.Isolate("n3")) == Answer(accepted=False, text=text, guard=Guard.STATE)
    refused(on_trial().command(asked.Isolate("n3")), "guard trial_open forbids it", Guard.TRIAL_OPEN)
    stage = governing()
    stage.command(asked.Pause(60.0))
    assert stage.command(asked.Isolate("n3")).text == "guard paused forbids it"


def test_nobody_isolates_or_restores_before_it_governs():
    """The phase that forbids it is named, and what has to come first."""
    stage = Stage(50, 7, policy=QUICK, daemon=True).reach(Phase.PHASE_II)
    stage.tick()
    text = "guard state forbids it: no node is touched in PHASE_II; wait until it governs"
    assert stage.command(asked.Isolate("n3")) == Answer(accepted=False, text=text, guard=Guard.STATE)
    stage = isolated(governing())
    stage.tell(InvariantBroken("budgets_hold", "3 of 5 out"))
    refused(stage.command(asked.Restore("n0")), "guard state forbids it: SAFE_MODE holds", Guard.STATE)


def test_a_node_without_evidence_may_be_isolated_by_hand():
    """A person may know better; the journal says 0 where nothing is known."""
    stage = governing()
    stage.gravity[3] = NAN
    stage.tick()
    assert stage.command(asked.Isolate("n3", 30.0)).accepted
    assert stage.of(E.ISOLATION_INTENDED)[0].data["gravity"] == 0.0


def test_restoration_by_hand_does_not_wait_for_the_back_off():
    """A node that the policy took out comes back at once, on probation."""
    stage = isolated(governing())
    stage.make_good("n0")
    answer = stage.command(asked.Restore("n0"))
    assert answer.text == "n0 is to be let back in, on probation"
    assert stage.actions[-1] == RestoreNode("restore-2", "n0")
    stage.tick()
    assert stage.state.nodes["n0"].status is NodeStatus.PROBATION


def test_restoration_by_hand_is_refused_where_it_makes_no_sense():
    """Not isolated, in flight, gone, paused, in a trial."""
    stage = governing()
    refused(stage.command(asked.Restore("n0")), "n0 is not isolated by this controller")
    stage.make_bad("n0")
    stage.tick(3)
    refused(stage.command(asked.Restore("n0")), "n0 is not isolated by this controller")
    stage.tick()
    stage.answering = False
    stage.command(asked.Restore("n0"))
    refused(stage.command(asked.Restore("n0")), "an action on n0 is in flight", Guard.IN_FLIGHT)
    stage = isolated(governing())
    stage.command(asked.Pause(60.0))
    refused(stage.command(asked.Restore("n0")), "guard paused forbids it", Guard.PAUSED)


def test_restoration_by_hand_of_a_node_that_is_gone():
    """The plant would refuse it, and that would be a hold."""
    stage = isolated(governing(6, 1), "n5")
    topology_of = runpy.run_path(str(Path(__file__).with_name("governor_stage.py")))["topology_of"]
    stage.topology, stage.gravity, stage.trusted = topology_of(5, 1), stage.gravity[:5], stage.trusted[:5]
    stage.tick()
    refused(stage.command(asked.Restore("n5")), "the plant shows no node n5")


# --- exemptions and proposals


def test_an_exemption_is_journaled_with_its_owner_and_ends_by_time():
    """From when, until when, by whom and why."""
    stage = governing()
    answer = stage.command(asked.Exempt("n3", ExemptionKind.MAINTENANCE, 60.0, 10.0), by="bob", reason="new disk")
    assert answer.text == "n3 is left alone from 10 s on for 60 s (maintenance)"
    assert stage.of(E.NODE_EXEMPTED)[0].data == {
        "node": "n3",
        "kind": "maintenance",
        "owner": "bob",
        "reason": "new disk",
        "from_s": 11.0,
        "until_s": 71.0,
    }
    assert stage.until(E.EXEMPTION_ENDED) == 70
    assert stage.of(E.EXEMPTION_ENDED)[0].data == {"node": "n3", "by": "expiry"}
    assert stage.state.exemptions == {}


def test_an_exemption_begins_when_it_was_said_to():
    """Until then the node is governed like all others."""
    stage = governing()
    stage.command(asked.Exempt("n3", ExemptionKind.VETO, 60.0, 10.0))
    stage.make_bad("n3")
    stage.tick(3)
    assert stage.isolated() == ["n3"]


def test_exemptions_are_refused_where_they_make_no_sense():
    """Unknown nodes, no length, the past, more than a year."""
    stage = governing()
    refused(stage.command(asked.Exempt("n99", ExemptionKind.VETO, 60.0)), "the plant shows no node n99")
    for for_s, in_s in ((0.0, 0.0), (-1.0, 0.0), (60.0, -1.0), (4e7, 0.0), (60.0, 4e7)):
        refused(stage.command(asked.Exempt("n3", ExemptionKind.VETO, for_s, in_s)), "an exemption begins, and ends")
    refused(stage.command(asked.EndExemption("n3")), "n3 is not exempted")


def test_nobody_ends_an_exemption_by_another_one():
    """One's own is prolonged; of somebody else, or of another kind, it has to be ended first, for all to see."""
    stage = governing()
    stage.command(asked.Exempt("n3", ExemptionKind.VETO, 6000.0), by="ada")
    later = asked.Exempt("n3", ExemptionKind.MAINTENANCE, 3600.0, 9000.0)
    refused(stage.command(later, by="bob"), "n3 is left alone already: the veto of ada lasts for another 6000 s")
    refused(stage.command(later, by="ada"), "n3 is left alone already")
    assert stage.command(asked.Exempt("n3", ExemptionKind.VETO, 9000.0), by="ada").accepted
    stage.make_bad("n3")
    stage.tick(10)
    assert stage.isolated() == []


def test_an_exemption_ends_by_hand():
    """The node is governed again, by whose word is journaled."""
    stage = governing()
    stage.command(asked.Exempt("n3", ExemptionKind.VETO, 6000.0))
    stage.make_bad("n3")
    stage.tick(10)
    assert stage.actions == []
    assert stage.command(asked.EndExemption("n3"), by="bob").text == "n3 is governed like all others"
    assert stage.of(E.EXEMPTION_ENDED)[0].data == {"node": "n3", "by": "bob"}
    stage.tick()
    assert stage.isolated() == ["n3"]


def test_proposals_are_decided_once():
    """Approved or rejected, and not again."""
    stage = governing()
    stage.tell(ProposalWritten("p-1", "00" * 32))
    stage.tell(ProposalWritten("p-2", "11" * 32))
    assert stage.command(asked.DecideProposal("p-1", approve=True)).text.startswith("proposal p-1 is approved")
    assert stage.command(asked.DecideProposal("p-2", approve=False)).text == "proposal p-2 is rejected"
    assert [record.status for record in stage.state.proposals.values()] == ["approved", "rejected"]
    refused(stage.command(asked.DecideProposal("p-1", approve=False)), "cannot be decided: it is approved")
    refused(stage.command(asked.DecideProposal("p-9", approve=True)), "cannot be decided: there is none of that id")
