"""The numbers of healing, and the fixed-step rule: what is worth a trial where no model can be made."""

import itertools

import pytest

from metrics.observation import Parameters
from state.healing import HealingPolicy, propose

POLICY = HealingPolicy()


def change(parameters=Parameters(), unhealthy=("coherence",), last="", *, kept=False):  # noqa: B008 - frozen
    return propose(POLICY, parameters, unhealthy, last_direction=last, last_kept=kept)


def test_first_trial_couples_more_strongly():
    """The first direction raises both couplings by the step, and leaves everything else alone."""
    proposed = change()
    assert proposed.direction == "both_up"
    assert proposed.parameters == Parameters(lambda1=0.45, lambda2=0.525)
    assert proposed.reason == "coherence outside limits; fixed step both_up"


def test_directions_follow_each_other_and_come_round():
    """After a failed direction comes the next, after the last the first."""
    order = ["both_up", "global_up", "local_up", "both_down", "both_up"]
    for last, following in itertools.pairwise(order):
        assert change(last=last).direction == following
    assert change(last="unknown").direction == "both_up"


def test_what_helped_is_tried_again():
    """A kept direction gets another step."""
    assert change(last="global_up", kept=True).direction == "global_up"
    assert change(last="global_up", kept=True).parameters == Parameters(lambda1=0.3, lambda2=0.525)


def test_bounds_are_kept_and_skipped():
    """A step ends at its bound, and a direction that cannot move any more is passed over."""
    assert change(Parameters(lambda1=0.9, lambda2=0.9)).parameters == Parameters(lambda1=1.0, lambda2=1.0)
    assert change(Parameters(lambda1=1.0, lambda2=1.0)).direction == "both_down"
    assert change(Parameters(lambda1=0.5, lambda2=1.0), last="both_up").direction == "local_up"


@pytest.mark.parametrize("unhealthy", [(), ("rsi",), ("delta_lambda", "gravity_wells")])
def test_only_what_couplings_can_help_is_worth_a_trial(unhealthy):
    """KPIs that no coupling changes lead to no trial."""
    assert change(unhealthy=unhealthy) is None


@pytest.mark.parametrize(("exhaustions", "seconds"), [(1, 600.0), (2, 1200.0), (4, 4800.0), (5, 7200.0), (500, 7200.0)])
def test_the_back_off_doubles_up_to_its_cap(exhaustions, seconds):
    """Ten minutes after the first exhaustion, twice as long after each further one, two hours at most."""
    assert POLICY.backoff_s(exhaustions) == seconds


def test_trials_are_drawn_from_a_bucket():
    """Ten at once, then one every two minutes; the bucket never holds more than ten."""
    assert POLICY.tokens(None, 0.0) == 10.0
    assert POLICY.tokens(0.0, 120.0) == pytest.approx(1.0)
    assert POLICY.tokens(9.5, 1e6) == 10.0
    assert POLICY.tokens(3.0, -5.0) == 3.0
