"""What a trial did: windows measured, compared, and judged."""

import numpy as np
import pytest

from state.trial_window import Effect, Measured, Window, abort_reason, compare, t_quantile

GOOD = {"coherence": 0.95, "gas": 0.97, "action_cost": 0.03, "delta_entropy": 0.0}
BASELINE = {
    "objective": 0.10,
    "objective_se": 0.005,
    "violation": 0.03,
    "violation_se": 0.004,
    "coherence": 0.91,
    "gas": 0.94,
    "action_cost": 0.08,
    "ticks": 10,
}


def measured(objective=0.10, violation=0.03, *, error=0.0, ticks=40):
    return Measured(objective, error, violation, error, 0.91, 0.94, 0.08, ticks)


def effect(after, before=BASELINE):
    return compare(before, after, level=0.05, min_effect=0.002).effect


def test_window_measures_what_the_model_says():
    """Means of J without ΔΛ, of the violation and of the KPIs that abort."""
    window = Window(2)
    assert window.measure(2) is None
    window.add(GOOD | {"delta_entropy": -0.002})
    assert (len(window), window.measure(2)) == (1, None)
    window.add({"coherence": 0.85, "gas": 0.93, "action_cost": 0.09, "delta_entropy": 0.0})
    result = window.measure(2)
    assert result.objective == pytest.approx((0.03 + 0.01 + 0.09 + 0.05 + 0.02) / 2)
    assert result.violation == pytest.approx((0.05 + 0.02 + 0.04) / 2)
    assert result.objective_se == pytest.approx(0.06)  # sd of 0.04 and 0.16 is 0.0849, over √2
    assert result.violation_se == pytest.approx(0.055)
    assert (result.coherence, result.action_cost, result.ticks) == (pytest.approx(0.90), pytest.approx(0.06), 2)


def test_window_measures_its_end():
    """Asked for less than it holds, it tells of the last ticks; one tick has no spread, and none no mean."""
    window = Window(10)
    for coherence in (0.5, 0.9, 0.8):
        window.add(GOOD | {"coherence": coherence})
    assert window.measure(2).coherence == pytest.approx(0.85)
    assert window.measure(1).violation_se == 0.0
    assert window.measure(0) is None


def test_window_leaves_out_ticks_with_an_unknown_kpi():
    """NaN, infinite and absent values are no sample."""
    window = Window(3)
    window.add(GOOD | {"gas": float("nan")})
    window.add(GOOD | {"action_cost": float("inf")})
    window.add({"coherence": 0.95})
    assert len(window) == 0
    window.add(GOOD)
    assert window.last(5) == [(0.95, 0.97, 0.03)]
    window.clear()
    assert window.last(5) == []


def test_window_measures_nothing_of_long_ago():
    """As many ticks may be unknown in between as are known; what is older than that is no evidence of now."""
    window = Window(3)
    for kpis in (GOOD, GOOD, GOOD, {}, {}):
        window.add(kpis)
    assert window.measure(3) is not None
    window.add({})
    window.add({})
    assert window.measure(3) is None
    window.add(GOOD)
    assert window.measure(1) is not None
    assert window.measure(2) is None


def test_window_forgets_the_oldest():
    """A full window slides."""
    window = Window(2)
    for coherence in (0.1, 0.9, 0.8):
        window.add(GOOD | {"coherence": coherence})
    assert window.last(3) == [(0.9, 0.97, 0.03), (0.8, 0.97, 0.03)]


@pytest.mark.parametrize(
    ("objective", "violation", "found"),
    [
        (0.05, 0.0, Effect.HEALED),  # the limits hold
        (0.05, 0.002, Effect.HEALED),  # as good as
        (0.09, 0.012, Effect.IMPROVED),  # less by 0.018; noise alone passes 0.0097 once in twenty times
        (0.09, 0.021, Effect.INCONCLUSIVE),  # less by 0.009, which may be noise
        (0.10, 0.039, Effect.INCONCLUSIVE),
        (0.10, 0.042, Effect.WORSE),
    ],
)
def test_effects_are_told_from_noise(objective, violation, found):
    """A fall or rise of the violation counts beyond the least effect and beyond the noise, by the t-test."""
    assert effect(measured(objective, violation)) is found


def test_what_holds_the_limits_but_costs_more_is_worse():
    """Where nothing was violated before, a significantly dearer objective is no success, and an equal one is."""
    well = BASELINE | {"objective": 0.030, "objective_se": 0.001, "violation": 0.0, "violation_se": 0.0}
    assert effect(measured(0.0315, 0.0), well) is Effect.HEALED
    assert effect(measured(0.0400, 0.0), well) is Effect.WORSE


def test_a_lower_level_asks_for_more():
    """The level is that of the test: what passes at one in ten does not at one in fifty."""
    after = measured(0.09, 0.02, error=0.001)
    assert compare(BASELINE, after, level=0.1, min_effect=0.002).effect is Effect.IMPROVED
    assert compare(BASELINE, after, level=0.02, min_effect=0.002).effect is Effect.INCONCLUSIVE
    assert compare(BASELINE, after, level=0.1, min_effect=0.015).effect is Effect.INCONCLUSIVE


def test_a_longer_window_decides_what_a_shorter_one_could_not():
    """More ticks are more samples: the same figures become significant."""
    assert effect(measured(0.09, 0.021, ticks=40)) is Effect.INCONCLUSIVE
    assert effect(measured(0.09, 0.021, ticks=120)) is Effect.IMPROVED


def test_the_level_is_kept_on_smoothed_noise():
    """Two windows of the same 15-tick averages are told apart about as seldom as the level says."""
    rng, wrong, runs = np.random.default_rng(1), 0, 400
    for _ in range(runs):
        smooth, values = 0.0, []
        for noise in rng.normal(0.0, 0.05, 120):
            smooth += (noise - smooth) / 15
            values.append(0.15 + smooth)
        before, after = Window(10), Window(40)
        for value in values[60:70]:
            before.add(GOOD | {"action_cost": value})
        for value in values[80:]:
            after.add(GOOD | {"action_cost": value})
        wrong += effect(after.measure(40), before.measure(10).as_dict()) is Effect.IMPROVED
    assert wrong / runs < 0.20  # short windows of smoothed noise underestimate its spread


@pytest.mark.parametrize(
    ("level", "freedom", "value"),
    [(0.05, 2, 2.920), (0.05, 5, 2.015), (0.1, 2, 1.886), (0.02, 2, 4.849), (0.025, 3, 3.182), (0.05, 1e9, 1.645)],
)
def test_quantiles_of_students_t(level, freedom, value):
    """Values of the printed tables, within 4 %."""
    assert t_quantile(level, freedom) == pytest.approx(value, rel=0.04)


@pytest.mark.parametrize(
    ("recent", "reason"),
    [
        ([(0.879, 0.97, 0.05)] * 5, "coherence below 0.880 for 5 ticks"),
        ([(0.88, 0.97, 0.05)] * 5, None),
        ([(0.879, 0.97, 0.05)] * 4, None),
        ([(0.879, 0.97, 0.05)] * 4 + [(0.9, 0.97, 0.05)], None),
        ([(0.95, 0.919, 0.05)] * 5, "alignment below 0.920 for 5 ticks"),
        ([(0.95, 0.92, 0.05)] * 5, None),
        ([(0.95, 0.97, 0.129)] * 5, "action cost above 0.128 for 5 ticks"),
        ([(0.95, 0.97, 0.128)] * 5, None),
    ],
)
def test_what_aborts(recent, reason):
    """Five ticks in a row beyond min(0.88, C0 − 0.02), min(0.93, GAS0 − 0.02) or max(0.10, 1.6 I0)."""
    assert abort_reason(BASELINE, recent) == reason


def test_abort_limits_follow_a_bad_baseline():
    """Where coherence was low already, the limit lies below what it was; where cost was low, at 0.10."""
    low = BASELINE | {"coherence": 0.80, "action_cost": 0.02}
    assert abort_reason(low, [(0.785, 0.97, 0.05)] * 5) is None
    assert abort_reason(low, [(0.775, 0.97, 0.05)] * 5) == "coherence below 0.780 for 5 ticks"
    assert abort_reason(low, [(0.785, 0.97, 0.101)] * 5) == "action cost above 0.100 for 5 ticks"
