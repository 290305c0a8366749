"""A proposal's life: decided, carried out by a trial or a reload, verified or rolled back, or out of time."""

import dataclasses
import math
import re
import runpy
from pathlib import Path

import pytest

from metrics.haru.plant_model import Environment
from metrics.observation import Parameters
from state import command as asked
from state import proposal_record
from state.durable import GRAY_BOX
from state.event import Event
from state.event import EventKind as E
from state.healing import HealingPolicy
from state.isolation import IsolationPolicy
from state.journal import Journal
from state.phase import Phase
from state.proposal_record import RECORDS_KEPT, ProposalStatus
from state.recovery import recover
from state.restore import restored
from state.stimulus import InvariantBroken, ProposalWritten, SettingsBrought, SnapshotDue

Stage = runpy.run_path(str(Path(__file__).with_name("governor_stage.py")))["Stage"]
IN_FORCE = Parameters().as_dict()
QUICK = IsolationPolicy(probation_ticks=5, backoff_base_s=10.0, ttl_s=60.0)
BY_HAND = HealingPolicy(enabled=False, holdoff_s=0.0)
DETUNED = Environment(frequency_spread=0.15**2 + 0.0023, typical_spread=0.15**2 + 0.0023)
DRIFTED = Environment(frequency_spread=0.15**2, typical_spread=0.15**2)


def governing(healing=BY_HAND):
    stage = Stage(50, 7, policy=QUICK, healing=healing, daemon=True).reach(Phase.GOVERNING)
    stage.tick(70)
    return stage


def write(stage, name="p-1", *, parameters=None, previous=None, direction="both_up", **options):
    """A proposal of a trial, by default the next fixed step."""
    parameters = {"lambda1": 0.45, "lambda2": 0.525} if parameters is None else parameters
    options = {"parameters": parameters, "previous": previous or IN_FORCE, "direction": direction, **options}
    stage.tell(ProposalWritten(name, "00" * 32, **options))


def decide(stage, name="p-1", *, approve=True, by="ada"):
    return stage.command(asked.DecideProposal(name, approve), by=by)


def status(stage, name="p-1"):
    return str(stage.state.proposals[name].status)


def stands(stage, name="p-1"):
    """Who brought it where it stands, why, and who approved it."""
    record = stage.state.proposals[name]
    return record.by, record.reason, record.approved_by


def on_trial():
    """The next fixed step was proposed, approved and applied."""
    stage = governing()
    write(stage)
    decide(stage)
    stage.until(E.TRIAL_APPLIED)
    return stage


def modelled():
    """A trial of an approved proposal by the model has been applied in a lastingly drifted environment."""
    stage = governing()
    stage.environment = DETUNED
    stage.kpis["gas"] = 0.93
    stage.tick(20)
    write(stage, parameters={"lambda1": 0.42, "lambda2": 0.5}, direction=GRAY_BOX)
    assert decide(stage).accepted
    stage.until(E.TRIAL_APPLIED)
    return stage


def test_an_approved_change_is_tried_and_verified():
    """The trial names its proposal, and what holds the limits is kept: approved, applied, verified."""
    stage = governing()
    stage.kpis["action_cost"] = 0.08
    stage.tick(20)
    write(stage)
    stage.tick(5)
    assert (status(stage), stage.state.trial) == ("proposed", None)
    assert decide(stage).text == "proposal p-1 is approved; its trial begins as soon as nothing speaks against it"
    stage.until(E.TRIAL_STARTED)
    started = stage.of(E.TRIAL_STARTED)[0].data
    assert (started["proposal"], started["direction"]) == ("p-1", "both_up")
    assert started["reason"] == "proposal p-1, approved by ada"
    assert started["to"] == {**IN_FORCE, "lambda1": 0.45, "lambda2": 0.525}
    assert (status(stage), stage.state.proposals["p-1"].trial) == ("applied", 1)
    assert stands(stage) == ("trial", "its values are on trial", "ada")
    stage.kpis["action_cost"] = 0.02
    stage.until(E.TRIAL_KEPT)
    assert status(stage) == "verified"
    by, reason, approved_by = stands(stage)
    assert (by, approved_by) == ("trial", "ada")
    assert re.fullmatch(
        r"healed; violation 0\.0300 to 0\.0000 \(noise alone up to 0\.\d{4}\); objective 0\.0825 to 0\.0225", reason
    )
    assert stage.plant.parameters == Parameters(lambda1=0.45, lambda2=0.525)


def test_a_trial_that_was_only_interrupted_proves_nothing():
    """Kept for a well, because going back would be worse: its values stay, and it stays applied with the reason."""
    stage = modelled()
    stage.make_bad("n0", gravity=4.0)
    stage.until(E.TRIAL_KEPT)
    assert stage.plant.parameters == Parameters(lambda1=0.42, lambda2=0.5)
    assert status(stage) == "applied"
    by, reason, approved_by = stands(stage)
    assert (by, approved_by) == ("trial", "ada")
    assert reason.startswith("a gravity well was confirmed during the trial, and in the environment as it is now going")
    stage.restart()
    stage.tick(200)
    assert (status(stage), stands(stage)[1]) == ("applied", reason)


def test_a_trial_that_was_kept_in_hindsight_proves_nothing():
    """Things got worse, but going back would be worse still: applied, and the reason says both."""
    stage = modelled()
    stage.kpis["gas"] = 0.91
    stage.until(E.TRIAL_KEPT)
    assert status(stage) == "applied"
    reason = stands(stage)[1]
    assert reason.startswith("it made things worse, but in the environment as it is now going back would be worse; ")
    assert "violation 0.0200 to 0.0400 (noise alone up to 0." in reason


def test_what_made_things_worse_within_the_limits_proves_nothing_either():
    """Dearer, and kept only because going back would be dearer still: neither a success nor a failure to heal."""
    stage = governing()
    stage.environment = DETUNED
    stage.tick(20)
    write(stage, parameters={"lambda1": 0.42, "lambda2": 0.5}, direction=GRAY_BOX)
    assert decide(stage).accepted
    stage.until(E.TRIAL_APPLIED)
    stage.kpis["action_cost"] = 0.045
    stage.until(E.TRIAL_KEPT)
    kept = stage.of(E.TRIAL_KEPT)[0].data
    assert (kept["comparison"]["effect"], kept["healed"], kept["well"]) == ("worse", False, True)
    assert (status(stage), stage.state.failed_trials) == ("applied", 0)


def test_values_that_somebody_else_has_replaced_are_not_in_force():
    """The KPIs recover, but by other values than the proposal's: it is not verified."""
    stage = on_trial()
    stage.tick(12)
    stage.plant.parameters = Parameters(lambda1=0.9, lambda2=0.9)
    stage.until(E.TRIAL_KEPT)
    assert status(stage) == "rolled_back"
    assert stands(stage)[1].startswith("somebody else has set other parameters during the trial")


def test_a_rollback_that_fails_leaves_it_applied():
    """Where the last good values do not come back, the values of the trial are in force, and it says why."""
    stage = on_trial()
    stage.kpis["action_cost"] = 0.12
    stage.until(E.ROLLBACK_INTENDED)
    assert (status(stage), stands(stage)[1][:8]) == ("applied", "aborted:")
    stage.plant.parameters = Parameters(lambda1=0.45, lambda2=0.525)
    stage.plant.obeys = False
    stage.until(E.ROLLBACK_FAILED)
    assert status(stage) == "applied"
    assert stands(stage) == ("trial", "its rollback failed: the last good value was not seen within 10 s", "ada")


def test_what_does_not_help_is_rolled_back():
    """A trial that makes things worse ends in the values before, and so does its proposal."""
    stage = on_trial()
    stage.kpis["action_cost"] = 0.08
    stage.until(E.TRIAL_ROLLED_BACK)
    assert status(stage) == "rolled_back"
    by, reason, approved_by = stands(stage)
    assert (by, approved_by) == ("trial", "ada")
    assert (
        reason
        == "it made things worse; violation 0.0000 to 0.0300 (noise alone up to 0.0020); objective 0.0225 to 0.0825"
    )
    assert stage.plant.parameters == Parameters()
    stage.tick(50)
    assert len(stage.of(E.TRIAL_STARTED)) == 1


def test_a_restart_rolls_its_trial_back_and_forgets_no_proposal():
    """After a crash the journal tells each proposal's standing, and the open trial ends in the last good values."""
    stage = governing()
    write(stage)
    write(stage, "p-2")
    decide(stage)
    stage.until(E.TRIAL_APPLIED)
    stage.restart()
    assert (status(stage), status(stage, "p-2")) == ("applied", "proposed")
    stage.until(E.TRIAL_ROLLED_BACK)
    assert (status(stage), status(stage, "p-2")) == ("rolled_back", "proposed")
    assert stands(stage)[0] == "trial"
    assert stands(stage)[1].startswith("the controller was restarted during the trial")
    decide(stage, "p-2")
    stage.restart()
    stage.until(E.TRIAL_STARTED, 200)
    assert status(stage, "p-2") == "applied"


def test_a_snapshot_holds_the_proposals_in_their_order(tmp_path):
    """What a snapshot gives is what the events give, byte for byte."""
    stage = governing()
    for name in ("p-9", "p-1", "p-5"):
        write(stage, name, settings={"isolation.quorum": 4}, parameters=None, expires_s=9000.0)
    decide(stage, "p-5", approve=False)
    stage.tell(SnapshotDue())
    file = Journal(tmp_path / "journal.db")
    file.append(stage.events, epoch=1, wall_time="2030-01-01T00:00:00Z")
    recovered = recover(file, daemon=True).state
    file.close()
    assert recovered.snapshot() == stage.governor.snapshot()
    assert list(recovered.proposals) == ["p-9", "p-1", "p-5"]
    assert recovered.proposals["p-5"].status is ProposalStatus.REJECTED


def test_an_approved_change_waits_while_a_guard_forbids_it():
    """A well in place, or the hold-off after it, holds the trial back; the refusal names the proposal."""
    stage = governing(HealingPolicy(enabled=False, holdoff_s=60.0))
    stage.make_bad("n3")
    stage.until(E.ISOLATION_VERIFIED)
    write(stage)
    decide(stage)
    stage.tick(30)
    assert status(stage) == "approved"
    held = [(refusal.guard, refusal.subject) for refusal in stage.refusals if refusal.rule == "heal"]
    assert set(held) == {("holdoff", "p-1")}
    stage.until(E.TRIAL_STARTED)
    assert status(stage) == "applied"


def test_what_people_are_to_keep_expires_once_it_is_in_force_no_more():
    """A proposal without a trial that was found under some parameters goes with them, and cannot be approved then."""
    stage = governing()
    stage.tell(ProposalWritten("p-keep", "00" * 32, previous=IN_FORCE))
    stage.tick(5)
    assert status(stage, "p-keep") == "proposed"
    stage.plant.parameters = Parameters(lambda1=0.4)
    stage.tick()
    assert status(stage, "p-keep") == "expired"
    by, reason, _ = stands(stage, "p-keep")
    assert (by, reason) == (
        "policy",
        "it is about parameters that are not in force any more: lambda1 is 0.4 and no longer 0.3",
    )


def test_healing_that_has_given_up_does_not_hold_a_person_back():
    """Exhaustion leaves the matter to people, so their decision is carried out within its back-off."""
    stage = governing()
    stage.state.exhausted_until_s = stage.shadow.exhausted_until_s = 1e6
    stage.kpis["action_cost"] = 0.08
    stage.tick(20)
    write(stage)
    decide(stage)
    stage.until(E.TRIAL_APPLIED)
    stage.kpis["action_cost"] = 0.02
    stage.until(E.TRIAL_KEPT)
    assert stage.state.exhausted_until_s == 0.0  # it is healed, so healing may go on by itself


@pytest.mark.parametrize("approve", [True, False])
def test_nobody_decides_on_what_is_out_of_time(approve):
    """From its time on a proposal is expired, by nobody, and so is an approved trial that never got its turn."""
    stage = governing()
    write(stage, expires_s=stage.now_s + 20.0)
    stage.plant_safe_mode = True  # which holds trials back
    if approve:
        decide(stage)
    stage.tick(20)
    assert stage.of(E.PROPOSAL_DECIDED)[-1].data == {
        "id": "p-1",
        "status": "expired",
        "by": "expiry",
        "reason": "its time is over",
    }
    answer = decide(stage, approve=False)
    assert not answer.accepted
    assert answer.text == "proposal p-1 cannot be decided: it is expired"


def test_a_change_of_what_is_no_longer_in_force_is_over():
    """Where the parameters were changed otherwise, it ends and says which; approving it is refused before that."""
    stage = governing()
    write(stage)
    write(stage, "p-2", previous={**IN_FORCE, "alpha": 0.5})
    stage.tick()
    assert (status(stage), status(stage, "p-2")) == ("proposed", "proposed")  # α follows the supply by itself
    stage.plant.parameters = Parameters(lambda1=0.4)
    stage.tick()
    assert status(stage) == "expired"
    assert stage.state.proposals["p-1"].reason == (
        "it is about parameters that are not in force any more: lambda1 is 0.4 and no longer 0.3"
    )
    write(stage, "p-3")
    answer = decide(stage, "p-3")
    assert not answer.accepted
    assert answer.text.startswith("proposal p-3 cannot be approved: it is about parameters that are not in force")


def test_a_change_for_another_environment_is_refused_or_waits():
    """While the model expects nothing of it any more, it cannot be approved, and its trial does not begin."""
    stage = governing()
    stage.environment = DRIFTED
    stage.tick()
    write(stage, parameters={"lambda1": 0.42, "lambda2": 0.5}, direction=GRAY_BOX)
    decide(stage)
    stage.environment = dataclasses.replace(DRIFTED, price=8.0)  # coupling has become dear meanwhile
    stage.tick(30)
    assert status(stage) == "approved"
    assert {refusal.guard for refusal in stage.refusals if refusal.rule == "heal"} >= {"environment_moved"}
    write(stage, "p-2", parameters={"lambda1": 0.42, "lambda2": 0.5}, direction=GRAY_BOX)
    answer = decide(stage, "p-2")
    assert not answer.accepted
    assert answer.text.startswith("proposal p-2 cannot be approved: the environment has moved: the model now expects")
    stage.environment = DRIFTED
    stage.until(E.TRIAL_STARTED)
    assert stage.of(E.TRIAL_STARTED)[0].data["proposal"] == "p-1"


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"lambda1": 0.9}, "lambda1 would change by a factor of 3, and 2.01 is the most at a time"),
        ({"lambda2": 2.0}, "lambda2 = 2.0 is outside 0.01 to 1.0"),
        ({"alpha": 2.0}, "alpha would change by +1, and 0.5 is the most"),
        ({"lambda3": 0.5}, "lambda3 is not a parameter"),
    ],
)
def test_a_step_beyond_the_limits_is_not_approved(parameters, words):
    """Bounds and steps hold for proposals as for healing."""
    stage = governing()
    write(stage, parameters=parameters)
    answer = decide(stage)
    assert not answer.accepted
    assert words in answer.text
    assert status(stage) == "proposed"


@pytest.mark.parametrize(("old", "new"), [(0.097815, 0.048573), (0.011111, 0.022375)])
def test_the_rounding_of_a_proposed_value_is_no_larger_step(old, new):
    """The tuner's largest step, of a factor of e**.7, rounded to six digits as it is proposed, may be approved."""
    stage = governing()
    assert new == round(old * math.exp(math.copysign(0.7, new - old)), 6)
    stage.plant.parameters = Parameters(lambda1=old)
    stage.tick()
    write(stage, parameters={"lambda1": new}, previous=stage.plant.parameters.as_dict())
    assert decide(stage).accepted
    beyond = new + math.copysign(2e-6, new - old)
    write(stage, "p-2", parameters={"lambda1": beyond}, previous=stage.plant.parameters.as_dict())
    assert "p-2 cannot be approved: lambda1 " in decide(stage, "p-2").text


def test_settings_are_applied_by_a_reload_and_the_rest_by_people():
    """Approval says how; a reload marks what was approved, and only that."""
    stage = governing()
    for name in ("p-1", "p-2"):
        stage.tell(ProposalWritten(name, "00" * 32, 500.0, settings={"isolation.quorum": 4}))
    stage.tell(ProposalWritten("p-3", "00" * 32, 500.0))
    assert decide(stage).text == "proposal p-1 is approved; it is applied by the reload that brings its settings"
    assert decide(stage, "p-3").text == "proposal p-3 is approved; carrying it out is up to people"
    stage.tell(SettingsBrought("p-1", "ann"))
    stage.tell(SettingsBrought("p-2", "ann"))
    assert (status(stage), status(stage, "p-2")) == ("applied", "proposed")
    assert stage.of(E.PROPOSAL_DECIDED)[-1].data["by"] == "ann"
    stage.tick(590)
    assert [status(stage, name) for name in ("p-1", "p-2", "p-3")] == ["applied", "expired", "approved"]


def brought(stage, name="p-1"):
    """An approved change of settings has been brought by a reload."""
    stage.tell(ProposalWritten(name, "00" * 32, settings={"isolation.quorum": 4}))
    decide(stage, name)
    stage.tell(SettingsBrought(name, "ann"))


def test_settings_that_last_are_verified():
    """After 600 s in force without a hold or a pause, also over a restart; what that proves is said."""
    stage = governing()
    brought(stage)
    assert stands(stage) == ("ann", "its settings are in force", "ada")
    stage.tick(300)
    stage.restart()
    stage.tick(299)
    assert status(stage) == "applied"
    stage.tick()
    assert status(stage) == "verified"
    assert stands(stage) == (
        "policy",
        "in force for 600 s without SAFE_MODE or a pause; its effect was not measured",
        "ada",
    )


def test_a_hold_or_a_pause_begins_the_wait_of_settings_anew():
    """Neither counts as lasting, nor does the time before."""
    stage = governing()
    brought(stage)
    stage.tick(500)
    stage.tell(InvariantBroken("budgets_hold", "3 of 5 out"))
    stage.tick(200)
    assert (stage.phase, status(stage)) == (Phase.SAFE_MODE, "applied")
    assert stage.command(asked.ClearSafeMode()).accepted
    stage.tick(500)
    assert stage.command(asked.Pause(150.0)).accepted
    stage.tick(200)
    assert (stage.phase, status(stage)) == (Phase.GOVERNING, "applied")
    stage.tick(600)
    assert status(stage) == "verified"


def test_settings_that_are_taken_back_are_rolled_back():
    """A reload or restart without them ends what was applied; what is only approved goes on waiting."""
    stage = governing()
    brought(stage)
    stage.tell(ProposalWritten("p-2", "00" * 32, settings={"isolation.quorum": 5}))
    decide(stage, "p-2")
    for name, wanted in (("p-1", 4), ("p-2", 5)):
        stage.tell(SettingsBrought(name, "bob", f"isolation.quorum is 3 and not {wanted}"))
    assert (status(stage), status(stage, "p-2")) == ("rolled_back", "approved")
    assert stands(stage) == ("bob", "isolation.quorum is 3 and not 4", "ada")
    stage.tell(SettingsBrought("p-1", "bob"))
    stage.tick(700)
    assert status(stage) == "rolled_back"


def test_events_and_snapshots_of_earlier_versions_are_understood():
    """A proposal without hash, a trial that ends without a reason, and a record without the later fields."""
    stage = on_trial()
    state = stage.replayed()
    state.apply(Event(E.PROPOSAL_WRITTEN, stage.now_s, {"id": "p-old"}))
    data = {"trial": 1, "key": "rollback-9", "to": IN_FORCE, "fault": "nobody"}
    state.apply(Event(E.ROLLBACK_INTENDED, stage.now_s, data))
    state.apply(Event(E.TRIAL_ROLLED_BACK, stage.now_s, {"trial": 1}))
    assert (state.proposals["p-1"].status, state.proposals["p-1"].reason) == (ProposalStatus.ROLLED_BACK, "")
    plain = state.as_plain()
    for record in plain["proposals"]:
        for name in ("approved_by", "sha256", "since_s"):
            del record[name]
    assert restored(plain, daemon=True).proposals["p-1"].status is ProposalStatus.ROLLED_BACK


def test_only_so_many_are_remembered():
    """The oldest that are over are forgotten; what may still come to something is not."""
    stage = governing()
    write(stage, "open")
    for number in range(RECORDS_KEPT + 20):
        write(stage, f"p-{number}")
        decide(stage, f"p-{number}", approve=False)
    assert len(stage.state.proposals) == RECORDS_KEPT
    assert next(iter(stage.state.proposals)) == "open"
    assert f"p-{RECORDS_KEPT + 19}" in stage.state.proposals


def test_values_in_force_for_good_are_forgotten_like_all_that_is_over(monkeypatch):
    """One whose trial proved nothing comes to nothing more; one whose trial is open does, and lasting settings do."""
    monkeypatch.setattr(proposal_record, "RECORDS_KEPT", 10)
    stage = modelled()
    brought(stage, "p-settings")
    for number in range(20):
        write(stage, f"p-x{number}", previous={**IN_FORCE, "lambda1": 0.9})
        decide(stage, f"p-x{number}", approve=False)
    assert {"p-1", "p-settings"} <= stage.state.proposals.keys()
    stage.make_bad("n0", gravity=4.0)
    stage.until(E.TRIAL_KEPT)
    write(stage, "p-last")
    assert "p-1" not in stage.state.proposals
    assert {"p-last", "p-settings"} <= stage.state.proposals.keys()
