"""The pure parts of healing: what is worth a trial, what is measured, what is kept."""

import itertools

import pytest

from metrics.observation import Parameters
from state.healing import HealingPolicy, Measured, Window, abort_reason, improved, propose

POLICY = HealingPolicy()
BASELINE = {
    "objective": 0.10,
    "objective_se": 0.005,
    "violation": 0.03,
    "coherence": 0.91,
    "action_cost": 0.08,
    "ticks": 40,
}


def change(parameters=Parameters(), unhealthy=("coherence",), last="", *, kept=False):  # noqa: B008 - frozen
    return propose(POLICY, parameters, unhealthy, last_direction=last, last_kept=kept)


def measured(objective=0.10, violation=0.03):
    return Measured(objective, 0.0, violation, 0.91, 0.08, 40)


def test_first_trial_couples_more_strongly():
    """The first direction raises both couplings by the step, and leaves everything else alone."""
    proposed = change()
    assert proposed.direction == "both_up"
    assert proposed.parameters == Parameters(lambda1=0.375, lambda2=0.4375)
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
    assert change(last="global_up", kept=True).parameters == Parameters(lambda1=0.3, lambda2=0.4375)


def test_bounds_are_kept_and_skipped():
    """A step ends at its bound, and a direction that cannot move any more is passed over."""
    assert change(Parameters(lambda1=0.9, lambda2=0.9)).parameters == Parameters(lambda1=1.0, lambda2=1.0)
    assert change(Parameters(lambda1=1.0, lambda2=1.0)).direction == "both_down"
    assert change(Parameters(lambda1=0.5, lambda2=1.0), last="both_up").direction == "local_up"


@pytest.mark.parametrize("unhealthy", [(), ("rsi",), ("delta_lambda", "gravity_wells")])
def test_only_what_couplings_can_help_is_worth_a_trial(unhealthy):
    """KPIs that no coupling changes lead to no trial."""
    assert change(unhealthy=unhealthy) is None


def test_window_measures_what_the_model_says():
    """Means of J without ΔΛ, of the violation and of the two KPIs that abort."""
    window = Window(2)
    assert window.measure() is None
    window.add({"coherence": 0.95, "gas": 0.97, "action_cost": 0.03, "delta_entropy": -0.002})
    assert (len(window), window.full(), window.measure()) == (1, False, None)
    window.add({"coherence": 0.85, "gas": 0.93, "action_cost": 0.09, "delta_entropy": 0.0})
    result = window.measure()
    assert result.objective == pytest.approx((0.03 + 0.01 + 0.09 + 0.05 + 0.02) / 2)
    assert result.violation == pytest.approx((0.05 + 0.02 + 0.04) / 2)
    assert result.objective_se == pytest.approx(0.06)  # sd of 0.04 and 0.16 is 0.0849, over √2
    assert (result.coherence, result.action_cost, result.ticks) == (pytest.approx(0.90), pytest.approx(0.06), 2)


def test_window_leaves_out_ticks_with_an_unknown_kpi():
    """NaN, infinite and absent values are no sample."""
    window = Window(3)
    good = {"coherence": 0.95, "gas": 0.97, "action_cost": 0.03, "delta_entropy": 0.0}
    window.add(good | {"gas": float("nan")})
    window.add(good | {"action_cost": float("inf")})
    window.add({"coherence": 0.95})
    assert len(window) == 0
    window.add(good)
    assert window.last(5) == [(0.95, 0.03)]
    window.clear()
    assert window.last(5) == []


def test_window_forgets_the_oldest():
    """A full window slides."""
    window = Window(2)
    for coherence in (0.1, 0.9, 0.8):
        window.add({"coherence": coherence, "gas": 0.97, "action_cost": 0.03, "delta_entropy": 0.0})
    assert window.last(3) == [(0.9, 0.03), (0.8, 0.03)]


@pytest.mark.parametrize(
    ("objective", "violation", "kept"),
    [
        (0.50, 0.0279, True),  # the violation falls by more than 0.002
        (0.50, 0.0281, False),  # by less, and the objective is worse
        (0.105, 0.03, True),  # no more violation, objective worse by one standard error
        (0.1051, 0.03, False),
        (0.01, 0.0301, False),  # a better objective does not buy violation
    ],
)
def test_what_is_kept(objective, violation, kept):
    """Less violation, or no more of it at an objective no worse within its standard error."""
    assert improved(POLICY, BASELINE, measured(objective, violation)) is kept


@pytest.mark.parametrize(
    ("recent", "reason"),
    [
        ([(0.879, 0.05)] * 5, "coherence below 0.880 for 5 ticks"),
        ([(0.88, 0.05)] * 5, None),
        ([(0.879, 0.05)] * 4, None),
        ([(0.879, 0.05)] * 4 + [(0.9, 0.05)], None),
        ([(0.95, 0.129)] * 5, "action cost above 0.128 for 5 ticks"),
        ([(0.95, 0.128)] * 5, None),
    ],
)
def test_what_aborts(recent, reason):
    """Five ticks in a row beyond min(0.88, C0 − 0.02) or max(0.10, 1.6 I0)."""
    assert abort_reason(BASELINE, recent) == reason


def test_abort_limits_follow_a_bad_baseline():
    """Where coherence was low already, the limit lies below what it was; where cost was low, at 0.10."""
    low = BASELINE | {"coherence": 0.80, "action_cost": 0.02}
    assert abort_reason(low, [(0.785, 0.05)] * 5) is None
    assert abort_reason(low, [(0.775, 0.05)] * 5) == "coherence below 0.780 for 5 ticks"
    assert abort_reason(low, [(0.785, 0.101)] * 5) == "action cost above 0.100 for 5 ticks"
