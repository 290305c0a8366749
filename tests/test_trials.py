"""Parameter trials on stage: proposed, kept, rolled back, and always verified."""

import math
import runpy
from pathlib import Path

import pytest

from metrics.observation import Capability, Parameters
from state.action import ApplyParameters, Reply
from state.event import EventKind as E
from state.healing import HealingPolicy
from state.isolation import Guard
from state.outcome import ExitCode, Outcome
from state.phase import Phase
from state.stimulus import CorrectionsOpened, Ended, InvariantBroken, WindowClosing, WindowEnded

Stage = runpy.run_path(str(Path(__file__).with_name("governor_stage.py")))["Stage"]
DEFAULT = Parameters()
BOTH_UP = Parameters(lambda1=0.45, lambda2=0.525)
QUICK = HealingPolicy(settle_ticks=2, measure_ticks=5, holdoff_s=0.0, trials_max=3)


def ailing(*shape, healing=None, **options):
    """A governed plant whose action cost is too high, with its baseline window full."""
    stage = Stage(*(shape or (50, 7)), healing=healing, **options).reach(Phase.GOVERNING)
    stage.kpis["action_cost"] = 0.08
    stage.tick(59)
    stage.unhealthy = ("action_cost",)
    return stage


def on_trial(healing=None, **options):
    """The same with a trial that is applied and read back."""
    stage = ailing(healing=healing, **options)
    stage.until(E.TRIAL_APPLIED)
    return stage


def test_a_trial_is_proposed_journaled_applied_and_read_back():
    """Persistently unhealthy KPIs lead to a trial whose last good value is journaled before it begins."""
    stage = ailing()
    stage.tick()
    assert stage.phase is Phase.HEALING
    assert stage.actions == [ApplyParameters("apply-1", BOTH_UP)]
    started = stage.of(E.TRIAL_STARTED)[0]
    assert started.data["from"] == DEFAULT.as_dict()
    assert started.data["to"] == BOTH_UP.as_dict()
    assert started.data["direction"] == "both_up"
    assert started.data["baseline"]["violation"] == pytest.approx(0.03)
    assert [event.kind for event in stage.tick()] == [E.TRIAL_APPLIED]


@pytest.mark.parametrize(("nodes", "clusters", "held"), [(50, 7, True), (200, 20, False)])
def test_a_node_that_went_out_holds_trials_off_unless_it_is_one_of_many(nodes, clusters, held):
    """KPIs are means: of 50 nodes one moves them, so its isolation has to settle first; of 200 it does not."""
    stage = Stage(nodes, clusters, healing=HealingPolicy(holdoff_s=60.0)).reach(Phase.GOVERNING)
    stage.kpis["action_cost"] = 0.08
    stage.tick(59)
    stage.make_bad("n3")
    stage.until(E.ISOLATION_VERIFIED)
    stage.unhealthy = ("action_cost",)
    stage.tick(5)
    assert bool(stage.of(E.TRIAL_STARTED)) is not held
    assert {refusal.guard for refusal in stage.refusals if refusal.rule == "heal"} == ({"holdoff"} if held else set())


def test_an_improvement_is_kept_after_settling_and_measuring():
    """10 ticks to settle and 40 to measure after the change was seen; then it is kept and GOVERNING goes on."""
    stage = on_trial()
    stage.kpis["action_cost"] = 0.02
    stage.unhealthy = ()
    assert stage.until(E.TRIAL_KEPT) == 50
    assert stage.phase is Phase.GOVERNING
    assert stage.plant.parameters == BOTH_UP
    assert stage.of(E.TRIAL_KEPT)[0].data["measured"]["action_cost"] == pytest.approx(0.02)


def test_the_transient_belongs_to_neither_side():
    """What the plant shows while it settles, short of an abort, does not decide."""
    stage = on_trial()
    stage.kpis["action_cost"] = 0.12
    stage.tick(10)
    stage.kpis["action_cost"] = 0.02
    stage.until(E.TRIAL_KEPT)
    assert stage.of(E.TRIAL_KEPT)[0].data["measured"]["action_cost"] == pytest.approx(0.02)


def test_what_does_not_help_is_rolled_back_and_verified():
    """More cost than before: back to the last good value, which is read back before GOVERNING goes on."""
    stage = on_trial()
    stage.kpis["action_cost"] = 0.09
    assert stage.until(E.ROLLBACK_INTENDED) == 50
    assert stage.phase is Phase.HEALING
    assert stage.actions[-1] == ApplyParameters("rollback-2", DEFAULT)
    assert stage.of(E.ROLLBACK_INTENDED)[0].data["reason"] == "it made things worse"
    assert [event.kind for event in stage.tick()] == [E.TRIAL_ROLLED_BACK]
    assert stage.phase is Phase.GOVERNING
    assert stage.plant.parameters == DEFAULT


def test_an_inconclusive_trial_is_measured_once_more_and_then_rolled_back():
    """Neither better nor worse after 40 ticks: 40 more, and then back, by as much evidence as there will be."""
    stage = on_trial()
    assert stage.until(E.ROLLBACK_INTENDED) == 90
    assert stage.of(E.ROLLBACK_INTENDED)[0].data["reason"] == "no improvement beyond the noise"
    assert stage.of(E.ROLLBACK_INTENDED)[0].data["measured"]["ticks"] == 80


def test_an_extended_trial_may_still_be_kept():
    """What shows in the second window only is an improvement as well."""
    stage = on_trial()
    stage.tick(51)
    stage.kpis["action_cost"] = 0.02
    assert stage.until(E.TRIAL_KEPT) == 39
    kept = stage.of(E.TRIAL_KEPT)[0].data
    assert (kept["improved"], kept["healed"]) == (True, False)
    assert kept["comparison"]["fall"] == pytest.approx(0.03 - 41 / 80 * 0.03)


def test_a_harmful_trial_is_aborted_once_it_has_settled():
    """Five ticks beyond the hard limit end a trial at once, but not in the transient of its own change."""
    stage = on_trial()
    stage.kpis["action_cost"] = 0.2
    assert stage.until(E.ROLLBACK_INTENDED) == 15
    assert stage.of(E.ROLLBACK_INTENDED)[0].data["reason"] == "aborted: action cost above 0.128 for 5 ticks"


def test_a_kept_direction_goes_on_and_a_failed_one_gives_way():
    """The next trial steps on from what was kept, and elsewhere after what was not."""
    stage = on_trial(QUICK)
    stage.kpis["action_cost"] = 0.07
    stage.until(E.TRIAL_KEPT)
    stage.kpis["action_cost"] = 0.075
    stage.until(E.TRIAL_ROLLED_BACK)
    stage.until(E.TRIAL_STARTED)
    directions = [event.data["direction"] for event in stage.of(E.TRIAL_STARTED)]
    assert directions == ["both_up", "both_up", "global_up"]
    assert stage.of(E.TRIAL_STARTED)[2].data["from"] == BOTH_UP.as_dict()


def test_what_a_trial_has_done_is_no_baseline_for_the_next():
    """KPIs are averages: a rolled back trial's damage fades before anything is compared, or 40 ticks have passed."""
    stage = on_trial()
    stage.kpis["action_cost"] = 0.14
    stage.until(E.TRIAL_ROLLED_BACK)
    for tick in range(1, 31):
        stage.kpis["action_cost"] = 0.08 + 0.06 * math.exp(-tick / 10)
        stage.tick()
    assert len(stage.of(E.TRIAL_STARTED)) == 1
    assert "baseline" in stage.guards("heal")
    stage.kpis["action_cost"] = 0.08
    stage.until(E.TRIAL_STARTED)
    assert stage.of(E.TRIAL_STARTED)[1].data["baseline"]["violation"] == pytest.approx(0.03, abs=0.001)


def test_a_worse_environment_does_not_hold_the_next_trial_back_for_long():
    """What stays worse than before the trial, and gets no better by itself, is not the trial's doing."""
    stage = on_trial()
    stage.kpis["action_cost"] = 0.10
    stage.until(E.TRIAL_ROLLED_BACK)
    assert stage.until(E.TRIAL_STARTED) == 20
    baseline = stage.of(E.TRIAL_STARTED)[1].data["baseline"]
    assert (baseline["ticks"], baseline["violation"]) == (10, pytest.approx(0.05))


def test_a_transient_is_no_level():
    """A plant that takes ten ticks to go back shows the trial's values for as long: they are no level."""
    stage = on_trial()
    stage.kpis["action_cost"] = 0.14
    stage.until(E.TRIAL_ROLLED_BACK)
    stage.tick(10)
    stage.kpis["action_cost"] = 0.08
    assert stage.until(E.TRIAL_STARTED) == 11
    assert stage.of(E.TRIAL_STARTED)[1].data["baseline"]["violation"] == pytest.approx(0.03)


def test_parameters_that_somebody_else_has_set_are_left_alone():
    """Nothing can be said of a trial whose values are no longer in force, and nobody's are overwritten."""
    stage = on_trial()
    stage.tick(12)
    stage.kpis["action_cost"] = 0.02
    stage.unhealthy = ()
    others = stage.plant.parameters = Parameters(lambda1=0.9, lambda2=0.9)
    stage.tick()
    assert stage.phase is Phase.HEALING
    assert [event.kind for event in stage.tick()] == [E.TRIAL_KEPT]
    kept = stage.of(E.TRIAL_KEPT)[0].data
    assert (kept["replaced"], kept["healed"], kept["improved"]) == (True, False, False)
    assert (stage.state.failed_trials, stage.state.trust) == (0, 1.0)
    stage.tick(100)
    assert stage.plant.parameters == others


def exhaust(stage):
    """Fail as many trials in a row as it takes."""
    while not stage.of(E.HEALING_EXHAUSTED):
        stage.kpis["action_cost"] = 0.08
        stage.until(E.TRIAL_APPLIED)
        stage.kpis["action_cost"] = 0.09
        stage.until(E.TRIAL_ROLLED_BACK)
    return stage


def test_failing_trials_stop_after_the_last():
    """After so many failures in a row it says so once, and tries nothing for ten minutes."""
    stage = exhaust(ailing(healing=QUICK))
    since_s = stage.now_s
    stage.tick(100)
    assert stage.state.trials == 3
    assert stage.guards("heal") == {"baseline", "exhausted"}
    assert stage.phase is Phase.GOVERNING
    [exhausted] = stage.of(E.HEALING_EXHAUSTED)
    assert exhausted.data["failed"] == 3
    assert exhausted.data["until_s"] == since_s + 600.0


def test_the_back_off_survives_a_restart_and_then_ends():
    """A restart forgets no exhaustion; after the back-off it may try again, and the next one lasts twice as long."""
    stage = exhaust(ailing(healing=QUICK))
    since_s = stage.now_s
    stage.restart()
    stage.until(E.TRIAL_STARTED, ticks_max=700)
    assert stage.now_s - since_s == 600.0
    stage.events.remove(stage.of(E.HEALING_EXHAUSTED)[0])
    stage.until(E.TRIAL_APPLIED)
    stage.kpis["action_cost"] = 0.09
    stage.until(E.TRIAL_ROLLED_BACK)
    exhaust(stage)
    assert stage.state.exhaustions == 2
    assert stage.state.exhausted_until_s - stage.now_s == 1200.0


def test_a_healed_cluster_forgets_its_failures():
    """A trial that ends in health resets the failures in a row, one that only helps does not."""
    stage = on_trial(QUICK)
    stage.kpis["action_cost"] = 0.09
    stage.until(E.TRIAL_ROLLED_BACK)
    stage.kpis["action_cost"] = 0.08
    stage.until(E.TRIAL_APPLIED)
    stage.kpis["action_cost"] = 0.07
    stage.until(E.TRIAL_KEPT)
    assert stage.state.failed_trials == 1
    stage.until(E.TRIAL_APPLIED)
    stage.kpis["action_cost"] = 0.04
    stage.until(E.TRIAL_KEPT)
    assert stage.state.failed_trials == 0


def test_trials_are_rationed():
    """When the bucket of trials is empty the next one waits until there is one in it."""
    stage = on_trial(HealingPolicy(settle_ticks=2, measure_ticks=5, holdoff_s=0.0, burst=1.0, per_hour=36.0))
    first_s = stage.of(E.TRIAL_STARTED)[0].at_s
    stage.kpis["action_cost"] = 0.09
    stage.until(E.TRIAL_ROLLED_BACK)
    stage.until(E.TRIAL_STARTED)
    assert stage.now_s - first_s == 100.0
    assert stage.guards("heal") == {Guard.RATE}


@pytest.mark.parametrize("lost", ["silent", "lost"])
def test_a_change_that_does_not_show_is_rolled_back(lost):
    """After ten seconds without the new parameters the trial ends in the last good value."""
    stage = ailing()
    stage.plant.obeys = False
    stage.plant.replies = [Reply.UNKNOWN if lost == "lost" else Reply.APPLIED]
    stage.until(E.TRIAL_STARTED)
    assert stage.until(E.ROLLBACK_INTENDED) == 11
    assert stage.until(E.TRIAL_ROLLED_BACK) == 1


def test_a_lost_answer_whose_change_shows_is_a_trial():
    """What the plant shows counts, not what it said."""
    stage = ailing()
    stage.plant.replies = [Reply.UNKNOWN]
    stage.until(E.TRIAL_STARTED)
    assert stage.until(E.TRIAL_APPLIED) == 1


def test_parameters_from_before_the_answer_prove_nothing():
    """A look from before the reply neither applies nor rolls back."""
    stage = ailing()
    stage.until(E.TRIAL_STARTED)
    stage.late_s = 5.0
    assert stage.until(E.TRIAL_APPLIED) == 6


def test_a_refused_change_ends_in_the_last_good_value():
    """A plant that refuses a change was never changed: even if it refuses the rollback too, nothing has failed."""
    stage = ailing()
    stage.plant.replies = [Reply.REFUSED, Reply.REFUSED]
    stage.tick()
    assert stage.kinds()[-4:] == [E.TRIAL_STARTED, E.ACTION_REFUSED, E.ROLLBACK_INTENDED, E.ACTION_REFUSED]
    assert stage.until(E.TRIAL_ROLLED_BACK) == 1
    assert stage.phase is Phase.GOVERNING


@pytest.mark.parametrize("reply", [Reply.APPLIED, Reply.UNKNOWN, Reply.REFUSED])
def test_a_rollback_that_does_not_show_holds(reply):
    """Ten seconds without the last good value: SAFE_MODE, for people."""
    stage = on_trial()
    stage.kpis["action_cost"] = 0.2
    stage.plant.obeys, stage.plant.replies = False, [reply]
    stage.until(E.ROLLBACK_INTENDED)
    assert stage.until(E.ROLLBACK_FAILED) == 11
    assert stage.phase is Phase.SAFE_MODE
    assert stage.state.safe_mode == "a rollback failed: the last good value was not seen within 10 s"
    assert stage.state.trial is None
    stage.tick(300)
    assert stage.phase is Phase.SAFE_MODE


def test_unknown_parameters_fail_a_trial_in_time():
    """A plant that stops showing its parameters cannot keep a trial open."""
    stage = ailing()
    stage.until(E.TRIAL_STARTED)
    stage.shows_parameters = False
    assert stage.until(E.ROLLBACK_INTENDED) == 11
    assert stage.until(E.ROLLBACK_FAILED) == 11


def test_unknown_kpis_end_a_trial_in_time():
    """A trial that cannot be measured is rolled back, after twice the window."""
    stage = on_trial(QUICK)
    stage.kpis["coherence"] = float("nan")
    assert stage.until(E.ROLLBACK_INTENDED) == 2 + 2 * 5
    assert stage.of(E.ROLLBACK_INTENDED)[0].data["reason"] == "the KPIs were unknown for too long"


def test_kpis_that_become_unknown_just_when_a_window_is_full_end_the_trial_in_time():
    """A window that has been judged without a result is not judged again and again while it cannot grow."""
    stage = on_trial(QUICK)
    stage.tick(2 + 5)
    assert stage.of(E.ROLLBACK_INTENDED) == []
    stage.kpis["coherence"] = float("nan")
    assert stage.until(E.ROLLBACK_INTENDED) == 2 + 2 * 10 - 7
    assert stage.of(E.ROLLBACK_INTENDED)[0].data["reason"] == "the KPIs were unknown for too long"


# --- when nothing is tried


def refused(guard, stage, ticks=80):
    stage.tick(ticks)
    assert stage.of(E.TRIAL_STARTED) == []
    assert guard in stage.guards("heal")


def test_nothing_is_tried_while_healthy():
    """Healthy KPIs ask for nothing."""
    stage = ailing()
    stage.unhealthy = ()
    stage.tick(200)
    assert stage.of(E.TRIAL_STARTED) == []
    assert stage.guards("heal") == set()


def test_nothing_is_tried_when_switched_off():
    """A disabled tuner does not even refuse."""
    stage = ailing(healing=HealingPolicy(enabled=False))
    stage.tick(100)
    assert stage.of(E.TRIAL_STARTED) == []


def test_nothing_is_tried_for_a_blocked_well():
    """While nodes are the matter nothing is tuned."""
    stage = ailing()
    stage.cluster_gravity[1] = 2.0
    stage.unhealthy = ()
    stage.tick(3)
    stage.unhealthy = ("action_cost",)
    refused("gravity_well", stage)


def test_nothing_is_tried_within_the_hold_off():
    """After a node went out the KPIs speak of that for a while."""
    stage = ailing()
    stage.unhealthy = ()
    stage.make_bad("n0")
    stage.until(E.ISOLATION_VERIFIED)
    since_s = stage.now_s
    stage.unhealthy = ("action_cost",)
    stage.until(E.TRIAL_STARTED)
    assert stage.now_s - since_s == 60.0
    assert stage.guards("heal") == {"holdoff"}


def test_nothing_is_tried_in_the_plants_own_safe_mode():
    """The plant's own safe mode blocks tuning, and no isolation."""
    stage = ailing()
    stage.plant_safe_mode = True
    refused("plant_safe_mode", stage)
    stage.make_bad("n0")
    stage.tick(3)
    assert stage.isolated() == ["n0"]


def test_nothing_is_tried_on_doubted_sensors():
    """Whoever doubts the sensors cannot tune by them."""
    stage = ailing()
    stage.disagreement = 0.1
    refused(Guard.SENSORS, stage, ticks=20)


def test_nothing_is_tried_without_the_capability_or_in_a_dry_run():
    """Both are told as what they are."""
    refused(Guard.CAPABILITY, ailing(capabilities=frozenset({Capability.NODES, Capability.ISOLATE})))
    refused(Guard.DRY_RUN, ailing(dry_run=True))
    stage = ailing()
    stage.shows_parameters = False
    refused(Guard.CAPABILITY, stage)


def test_nothing_is_tried_in_a_closing_window():
    """A trial that could not end in the window does not begin."""
    stage = ailing()
    stage.tell(WindowClosing())
    refused(Guard.CLOSING, stage)


def test_nothing_is_tried_while_single_nodes_stand_out():
    """A node above three quarters of the critical gravity may be the cause: it is waited for, but not for ever."""
    stage = ailing()
    stage.make_bad("n0", gravity=1.3)
    stage.tick(60)
    assert stage.of(E.TRIAL_STARTED) == []
    assert stage.guards("heal") == {"suspect_node"}
    stage.make_good("n0")
    stage.until(E.TRIAL_STARTED)


def test_nodes_that_stand_out_in_a_drift_are_no_reason_to_wait():
    """Where all nodes spread, the farthest of them is no suspect."""
    stage = ailing()
    stage.spread = 1.3
    stage.make_bad("n0", gravity=1.3)
    assert stage.until(E.TRIAL_STARTED) == 1


def test_nothing_is_tried_without_a_baseline():
    """Without a full window before there is nothing to compare with."""
    stage = Stage(50, 7).reach(Phase.GOVERNING)
    stage.unhealthy = ("action_cost",)
    stage.kpis["coherence"] = float("nan")
    stage.tick(200)
    assert stage.of(E.TRIAL_STARTED) == []


# --- what interrupts a trial


def test_a_well_rolls_the_trial_back_first_then_isolates():
    """A confirmed well during HEALING: rollback, read-back, and only then the isolation."""
    stage = on_trial()
    stage.make_bad("n0", gravity=4.0)
    stage.tick(3)
    assert stage.kinds()[-3:] == [E.GRAVITY_WELL_CONFIRMED, E.ROLLBACK_INTENDED, E.ACTION_APPLIED]
    assert stage.guards() == {Guard.TRIAL_OPEN}
    assert stage.isolated() == []
    stage.tick()
    assert stage.kinds()[-3:] == [E.TRIAL_ROLLED_BACK, E.ISOLATION_INTENDED, E.ACTION_APPLIED]
    assert stage.phase is Phase.ISOLATING
    assert stage.plant.parameters == DEFAULT


def test_a_well_at_the_tail_of_a_drift_does_not_end_its_trial():
    """What a drift makes of a node the trial may cure; a node beyond twice the critical gravity is another matter."""
    stage = ailing()
    stage.spread = 1.3
    stage.until(E.TRIAL_APPLIED)
    stage.make_bad("n0", gravity=2.0)
    stage.tick(5)
    assert stage.state.wells == {"n0"}
    assert stage.of(E.ROLLBACK_INTENDED) == []
    stage.make_bad("n0", gravity=3.5)
    stage.until(E.ROLLBACK_INTENDED)
    assert stage.until(E.ISOLATION_VERIFIED) <= 3


def test_who_interrupts_a_trial_does_not_count_against_it():
    """A trial that a well ended is no failure, and its direction is tried again."""
    stage = on_trial()
    stage.make_bad("n0", gravity=4.0)
    stage.until(E.ISOLATION_VERIFIED)
    assert stage.state.failed_trials == 0
    stage.until(E.TRIAL_STARTED)
    assert [event.data["direction"] for event in stage.of(E.TRIAL_STARTED)] == ["both_up", "both_up"]


def test_a_storm_rolls_the_trial_back_first_then_holds():
    """SAFE_MODE changes nothing, so a trial must not outlive its beginning."""
    stage = on_trial()
    stage.make_bad(*stage.topology.nodes[:30])
    stage.tick()
    assert stage.phase is Phase.HEALING
    assert stage.kinds()[-2:] == [E.ROLLBACK_INTENDED, E.ACTION_APPLIED]
    stage.tick()
    assert stage.kinds()[-2:] == [E.TRIAL_ROLLED_BACK, E.STORM_DETECTED]
    assert stage.plant.parameters == DEFAULT


def test_doubted_sensors_roll_a_trial_back():
    """Thirty doubted ticks end a trial, and then the daemon."""
    stage = on_trial()
    stage.disagreement = 0.1
    assert stage.until(E.ROLLBACK_INTENDED) == 30
    assert stage.until(E.SENSORS_DOUBTED) == 1


def test_the_windows_end_rolls_a_trial_back():
    """What is not proven by then is not kept."""
    stage = on_trial()
    stage.tell(WindowClosing())
    stage.tell(WindowEnded())
    stage.tick()
    assert stage.phase is Phase.GOVERNING
    stage.tell(WindowEnded())
    assert stage.phase is Phase.PHASE_IV
    assert stage.plant.parameters == DEFAULT


def test_a_breach_rolls_a_trial_back_in_safe_mode():
    """Even after a breach the last good value is restored and read back; then nothing changes any more."""
    stage = on_trial(daemon=True)
    stage.tell(InvariantBroken("quorum_holds", "c0 keeps 2"))
    assert stage.phase is Phase.SAFE_MODE
    stage.tick(100)
    assert stage.kinds()[-1] is E.TRIAL_ROLLED_BACK
    assert stage.phase is Phase.SAFE_MODE
    assert stage.plant.parameters == DEFAULT


def test_a_failed_rollback_in_safe_mode_is_told():
    """A breach keeps its place as the reason; the failed rollback is an event of its own."""
    stage = on_trial(daemon=True)
    stage.plant.obeys = False
    stage.tell(InvariantBroken("quorum_holds", "c0 keeps 2"))
    stage.until(E.ROLLBACK_FAILED)
    assert stage.state.safe_mode == "invariant quorum_holds does not hold"
    assert stage.state.trial is None


@pytest.mark.parametrize("rolling_back", [False, True])
def test_a_restart_in_a_trial_ends_in_the_last_good_value(rolling_back):
    """A controller that died in a trial, or in its rollback, rolls back and verifies."""
    stage = on_trial()
    if rolling_back:
        stage.kpis["action_cost"] = 0.2
        stage.plant.obeys = False
        stage.until(E.ROLLBACK_INTENDED)
        stage.plant.obeys = True
    stage.restart()
    stage.unhealthy = ()
    assert stage.until(E.TRIAL_ROLLED_BACK) == 1
    assert stage.plant.parameters == DEFAULT
    assert len({action.key for action in stage.actions}) == 2


def test_a_failed_trial_is_remembered_over_a_restart():
    """Directions and failures in a row are durable."""
    stage = on_trial(QUICK)
    stage.kpis["action_cost"] = 0.2
    stage.until(E.TRIAL_ROLLED_BACK)
    stage.restart()
    stage.kpis["action_cost"] = 0.08
    stage.until(E.TRIAL_STARTED)
    assert stage.of(E.TRIAL_STARTED)[-1].data["direction"] == "global_up"
    assert stage.state.failed_trials == 1


# --- Phase IV


def in_phase_iv(**options):
    stage = ailing(**options)
    stage.unhealthy = ()
    stage.tell(WindowClosing())
    stage.tell(WindowEnded())
    stage.unhealthy = ("action_cost",)
    return stage


def test_phase_iv_corrects_only_when_opened():
    """Corrections begin when the phase opens them, and come back to Phase IV."""
    stage = in_phase_iv()
    stage.tick(20)
    assert stage.of(E.TRIAL_STARTED) == []
    stage.tell(CorrectionsOpened())
    stage.until(E.TRIAL_APPLIED)
    stage.kpis["action_cost"] = 0.02
    stage.unhealthy = ()
    stage.until(E.TRIAL_KEPT)
    assert stage.phase is Phase.PHASE_IV
    stage.tell(Ended(Outcome(ExitCode.COHERENT_LOCK, ("fine",))))
    assert stage.phase is Phase.COHERENT_LOCK


def test_phase_iv_leaves_corrections_to_people_without_auto_apply():
    """Without `auto_apply` opening changes nothing."""
    stage = in_phase_iv(auto_apply=False)
    stage.tell(CorrectionsOpened())
    stage.tick(100)
    assert stage.of(E.TRIAL_STARTED) == []


def test_phase_iv_does_not_try_in_a_storm():
    """A storm in Phase IV ends the trial and forbids the next."""
    stage = in_phase_iv(healing=QUICK)
    stage.tell(CorrectionsOpened())
    stage.until(E.TRIAL_APPLIED)
    stage.make_bad(*stage.topology.nodes[:30])
    stage.until(E.TRIAL_ROLLED_BACK)
    stage.tick(50)
    assert stage.state.trials == 1
    assert stage.guards("heal") == {Guard.STORM}
    assert stage.phase is Phase.PHASE_IV


def test_a_well_in_a_correction_rolls_back_and_isolates_nobody():
    """Phase IV no longer isolates; the well is told."""
    stage = in_phase_iv()
    stage.tell(CorrectionsOpened())
    stage.until(E.TRIAL_APPLIED)
    stage.make_bad("n0")
    stage.until(E.TRIAL_ROLLED_BACK)
    stage.tick(10)
    assert stage.phase is Phase.PHASE_IV
    assert stage.isolated() == []
    assert stage.state.wells == {"n0"}
