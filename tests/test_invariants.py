"""Each invariant holds where it should, and names what is wrong where it does not."""

import runpy
from pathlib import Path

import pytest

from metrics.errors import InvariantBreachError
from metrics.observation import Parameters
from state import invariants
from state.durable import DurableState, Intent, IntentKind, NodeRecord, NodeStatus, PauseRecord, Trial
from state.isolation import IsolationPolicy
from state.machine import PhaseMachine
from state.phase import Phase

topology_of = runpy.run_path(str(Path(__file__).with_name("governor_stage.py")))["topology_of"]
FIFTY = topology_of(50, 7)


NEEDY = (Phase.HEALING, Phase.SAFE_MODE, Phase.PAUSED)  # each of these needs a trial, a reason, a pause


def state(*out, phase=Phase.GOVERNING):
    made = DurableState(PhaseMachine(daemon=False, phase=phase))
    for node in out:
        made.nodes[node] = NodeRecord(NodeStatus.ISOLATED, 0.0)
    return made


def broken(made, policy=None, topology=FIFTY):
    """Which invariant is breached first, and how; None if all hold."""
    try:
        invariants.check(made, policy or IsolationPolicy(), topology)
    except InvariantBreachError as breach:
        return breach.invariant, breach.detail
    return None


def trial(**values):
    proposed = Parameters().as_dict() | values
    return Trial(1, "apply-1", Parameters().as_dict(), proposed, "both_up", {}, 0.0)


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase not in NEEDY])
def test_a_fresh_state_breaks_nothing(phase):
    """Every invariant holds of an empty state."""
    assert broken(state(phase=phase)) is None


def test_cluster_budget():
    """Two of seven may be out, three may not; nodes that the plant no longer has do not count."""
    assert broken(state("n8", "n9", "gone")) is None
    assert broken(state("n8", "n9", "n10")) == ("budgets_hold", "3 of 7 nodes of c1 out")


def test_overall_and_absolute_budget():
    """16 of 50 are too many, and so are three where two are allowed."""
    policy = IsolationPolicy(cluster_fraction_max=1.0, quorum=0)
    assert broken(state(*FIFTY.nodes[:15]), policy) is None
    assert broken(state(*FIFTY.nodes[:16]), policy) == ("budgets_hold", "16 of 50 nodes out, allowed 0.30")
    few = IsolationPolicy(absolute_max=2)
    assert broken(state("n0", "n8"), few) is None
    assert broken(state("n0", "n8", "n20"), few) == ("budgets_hold", "3 nodes out, allowed 2")


def test_what_is_in_flight_counts_as_out():
    """An isolation on its way, or a renewal, counts; a restoration keeps its node counted until it is seen."""
    made = state("n8", "n9")
    made.nodes["n10"] = NodeRecord(NodeStatus.ISOLATING, 0.0)
    made.intents["isolate-1"] = Intent("isolate-1", IntentKind.ISOLATE, "n10", 0.0, 900.0)
    assert broken(made)[0] == "budgets_hold"
    made = state("n8", "n9", "n10")
    made.intents["restore-1"] = Intent("restore-1", IntentKind.RESTORE, "n10", 0.0, 0.0)
    assert broken(made)[0] == "budgets_hold"


def test_nodes_on_probation_are_in_service():
    """Only what is out or on its way counts."""
    made = state("n8", "n9")
    made.nodes["n10"] = NodeRecord(NodeStatus.PROBATION, 0.0)
    made.nodes["n11"] = NodeRecord(NodeStatus.HEALTHY, 0.0)
    assert broken(made) is None


def test_quorum():
    """Every cluster that we took nodes from keeps its quorum."""
    assert broken(state("n8"), IsolationPolicy(quorum=6)) is None
    assert broken(state("n8", "n9"), IsolationPolicy(quorum=6)) == ("quorum_holds", "c1 keeps 5 nodes, quorum 6")


def test_one_action_in_flight_for_a_node():
    """Two actions for one node are a bug."""
    made = state("n0")
    for key, kind in (("renew-1", IntentKind.RENEW), ("restore-2", IntentKind.RESTORE)):
        made.intents[key] = Intent(key, kind, "n0", 0.0, 0.0)
    assert broken(made) == ("intents_are_single", "several actions in flight for n0")


def test_isolating_means_an_isolation_in_flight():
    """A node that is being isolated without an intent, and the other way round, is a bug."""
    made = state()
    made.nodes["n0"] = NodeRecord(NodeStatus.ISOLATING, 0.0)
    assert broken(made) == ("intents_match_nodes", "isolating ['n0'], intended []")
    made = state()
    made.intents["isolate-1"] = Intent("isolate-1", IntentKind.ISOLATE, "n0", 0.0, 0.0)
    assert broken(made) == ("intents_match_nodes", "isolating [], intended ['n0']")


def test_parameters_within_bounds():
    """Neither what is tried nor what it falls back to leaves the bounds."""
    made = state(phase=Phase.HEALING)
    made.trial = trial(lambda1=1.0)
    assert broken(made) is None
    made.trial = trial(lambda2=1.01)
    assert broken(made) == ("parameters_within_bounds", "lambda2 = 1.01 outside 0.01 to 1.0")


def test_a_trial_has_its_phase():
    """HEALING means a trial, and a trial means HEALING or a hold."""
    assert broken(state(phase=Phase.HEALING)) == ("trial_has_its_phase", "HEALING without a trial")
    made = state(phase=Phase.GOVERNING)
    made.trial = trial()
    assert broken(made) == ("trial_has_its_phase", "a trial is open in GOVERNING")


def test_a_hold_has_a_reason():
    """SAFE_MODE always says why."""
    made = state(phase=Phase.SAFE_MODE)
    assert broken(made) == ("hold_has_a_reason", "SAFE_MODE without a reason")
    made.safe_mode = "storm"
    assert broken(made) is None


def test_a_pause_is_somebody_s_and_nothing_is_on_trial():
    """PAUSED means an acknowledged pause without an open trial."""
    made = state(phase=Phase.PAUSED)
    assert broken(made) == ("pause_is_kept", "PAUSED without an acknowledged pause")
    made.pause = PauseRecord("ada", "upgrade", 1.0, 100.0)
    assert broken(made) == ("pause_is_kept", "PAUSED without an acknowledged pause")
    made.pause.acknowledged = True
    assert broken(made) is None
    made.trial = trial()
    assert broken(made) == ("trial_has_its_phase", "a trial is open in PAUSED")


def test_budgets_speak_of_actions():
    """Where the plant itself has shrunk, more may be out than a budget allows without anybody having acted."""
    made = state("n8", "n9", "n10")
    invariants.check(made, IsolationPolicy(), FIFTY, taken=())
    with pytest.raises(InvariantBreachError, match="3 of 7 nodes of c1 out"):
        invariants.check(made, IsolationPolicy(), FIFTY)


def test_budgets_of_a_cluster_speak_of_actions_in_it():
    """Where a policy has been tightened, a cluster that is beyond it forbids nothing in another one."""
    made = state("n8", "n9", "n10")
    invariants.check(made, IsolationPolicy(), FIFTY, taken=["n0"])
    with pytest.raises(InvariantBreachError, match="3 of 7 nodes of c1 out"):
        invariants.check(made, IsolationPolicy(), FIFTY, taken=["n9"])
