"""HARU's forecasts: what they learn, what they refuse to learn, how sure they are, and that they last."""

from __future__ import annotations

import numpy as np
import pytest

from metrics.anomaly.persistent import StateMismatchError
from metrics.haru.autoregression import HarmonicAutoregression
from metrics.haru.intervals import Intervals
from metrics.haru.periods import Periods
from metrics.haru.regression import ForgettingRegression


def noise(ticks, seed=1):
    return np.random.default_rng(seed).normal(0.0, 1.0, ticks)


def autoregressive(ticks, seed=1, coefficient=0.8):
    series = np.zeros(ticks)
    shocks = noise(ticks, seed)
    for t in range(1, ticks):
        series[t] = coefficient * series[t - 1] + shocks[t]
    return series


def fed(table, inputs=None, **options):
    """A model of the columns of `table` after its last row."""
    table = np.asarray(table, np.float64).reshape(len(table), -1)
    columns = 0 if inputs is None else inputs.shape[1]
    haru = HarmonicAutoregression(table.shape[1], inputs=columns, **options)
    for tick, row in enumerate(table):
        haru.update(tick, row, () if inputs is None else inputs[tick])
    return haru


COLUMNS = ("ar", "white", "walk", "wave", "heavy", "red")


@pytest.fixture(scope="module")
def zoo():
    """A model of six kinds of series after 3000 ticks, the squared errors from tick 1500 on, and persistence's."""
    ticks = 3000
    wave = 10.0 + np.sin(2.0 * np.pi * np.arange(ticks) / 60.0) + 0.2 * noise(ticks, 4)
    heavy = np.random.default_rng(5).standard_t(3, ticks)
    ar, red = autoregressive(ticks, 1, 0.5), autoregressive(ticks, 6, 0.95)
    table = np.column_stack([ar, 5.0 + noise(ticks, 2), np.cumsum(noise(ticks, 3)), wave, heavy, red])
    haru = HarmonicAutoregression(len(COLUMNS), horizons=(1, 5, 15))
    own, last = np.zeros(len(COLUMNS)), np.zeros(len(COLUMNS))
    for tick, row in enumerate(table):
        if tick >= 1500:
            own += (haru.forecast(1).mean - row) ** 2 / 1500
            last += (table[tick - 1] - row) ** 2 / 1500
        haru.update(tick, row)
    return haru, dict(zip(COLUMNS, own, strict=True)), dict(zip(COLUMNS, last, strict=True))


def test_nothing_is_forecast_before_the_first_value():
    """A series without a value has no forecast, rather than an invented one."""
    assert np.isnan(HarmonicAutoregression(2).forecast(1).mean).all()


def test_first_forecast_is_persistence():
    """What knows nothing says that nothing changes."""
    haru = HarmonicAutoregression(1)
    haru.update(0, [3.5])
    assert haru.forecast(10).mean[0] == 3.5


def test_autoregression_comes_close_to_the_best_possible(zoo):
    """On an AR(1) series, whose best squared error is 1, the error is within 10 % of that; persistence's is not."""
    _, own, last = zoo
    assert own["ar"] < 1.10
    assert last["ar"] > 1.25


def test_white_noise_is_forecast_by_its_mean(zoo):
    """On white noise the error is that of the mean, half of persistence's."""
    _, own, last = zoo
    assert own["white"] < 1.15
    assert last["white"] > 1.8


def test_random_walk_is_left_to_persistence(zoo):
    """Where persistence is the best possible forecast, the loss against it stays within 3 %."""
    _, own, last = zoo
    assert own["walk"] < 1.03 * last["walk"]


def test_discovers_a_period_and_forecasts_its_waves(zoo):
    """A period of 60 ticks is found by itself, and half a period ahead the forecast follows it."""
    haru, _, _ = zoo
    wave = COLUMNS.index("wave")
    assert haru.convergence().periods[wave, 0] == pytest.approx(60.0, rel=0.01)
    ahead = np.array([haru.forecast(h).mean[wave] for h in range(5, 61, 5)])
    truth = 10.0 + np.sin(2.0 * np.pi * (2999 + np.arange(5, 61, 5)) / 60.0)
    assert np.abs(ahead - truth).max() < 0.35


def test_noise_has_no_period(zoo):
    """Neither white nor heavy-tailed nor strongly coloured noise is given a period."""
    haru, _, _ = zoo
    others = [k for k, name in enumerate(COLUMNS) if name != "wave"]
    assert np.isnan(haru.convergence().periods[others]).all()


def test_learns_what_a_parameter_does():
    """After 20 changes of a parameter, the level that the next change leads to is foreseen, at once and well."""
    inputs = np.repeat(np.random.default_rng(3).uniform(0.7, 1.3, 20), 100)[:, np.newaxis]
    level, series = 0.0, []
    for (value,), disturbance in zip(inputs, noise(2000), strict=True):
        level += 0.2 * (10.0 * value - level)
        series.append(level + 0.05 * disturbance)
    haru = fed(np.array(series), inputs, horizons=(1, 15, 30))
    assert haru.forecast(30).mean[0] == pytest.approx(10.0 * inputs[-1, 0], abs=0.5)
    haru.update(2000, [series[-1]], [1.0])
    assert haru.forecast(30).mean[0] == pytest.approx(10.0, abs=0.6)


def test_single_outlier_is_not_learnt():
    """One absurd value moves neither the coefficients nor the forecast of the tick after next."""
    series = 5.0 + 0.1 * noise(1000)
    clean, hit = fed(series[:900]), fed(series[:900])
    clean.update(900, [series[900]])
    hit.update(900, [1000.0])
    for tick in range(901, 910):
        clean.update(tick, [series[tick]])
        hit.update(tick, [series[tick]])
    assert hit.forecast(5).mean[0] == pytest.approx(clean.forecast(5).mean[0], abs=0.05)
    assert np.abs(hit.regression.coefficients - clean.regression.coefficients).max() < 0.05


def test_level_shift_becomes_the_new_normal():
    """After a few ticks at a new level, forecasts start from there."""
    series = 5.0 + 0.1 * noise(1000)
    haru = fed(np.concatenate([series, 50.0 + series[:20] - 5.0]))
    assert haru.forecast(1).mean[0] == pytest.approx(50.0, abs=1.0)


def test_missing_values_are_bridged():
    """Missing values, and ticks that never came, leave the model as good as it was."""
    series = np.sin(2.0 * np.pi * np.arange(1400) / 50.0)
    haru = fed(series)
    learnt = haru.regression.coefficients.copy()
    for tick in range(1400, 1405):
        haru.update(tick, [np.nan])
    np.testing.assert_array_equal(haru.regression.coefficients, learnt)
    haru.update(1410, [np.sin(2.0 * np.pi * 1410 / 50.0)])
    assert haru.forecast(5).mean[0] == pytest.approx(np.sin(2.0 * np.pi * 1415 / 50.0), abs=0.1)


@pytest.mark.parametrize("garbage", [np.inf, -np.inf, 1e300, np.nan])
def test_garbage_counts_as_missing(garbage):
    """Infinite and absurdly large values are no values."""
    haru = fed(noise(200))
    haru.update(200, [garbage])
    assert np.isfinite(haru.forecast(5).mean).all()
    assert haru.convergence().rows[0] == 199


def test_repeated_tick_brings_nothing_new():
    """A tick that was seen before changes nothing at all."""
    haru = fed(noise(300))
    before = haru.state()
    haru.update(299, [77.0])
    for name, array in haru.state().items():
        np.testing.assert_array_equal(array, before[name])


def test_intervals_hold_what_they_promise(zoo):
    """90 % intervals hold 85 to 95 % of 200 truths at each horizon, whatever the noise is like."""
    coverage = np.delete(zoo[0].convergence().coverage, COLUMNS.index("wave"), axis=0)
    assert coverage.shape == (5, 3)
    assert coverage.min() > 0.85
    assert coverage.max() < 0.95


def test_intervals_are_never_too_narrow_while_learning(zoo):
    """A series whose forecasts get much better once its period is known has intervals that err on the wide side."""
    coverage = zoo[0].convergence().coverage[COLUMNS.index("wave")]
    assert coverage.min() > 0.87


def test_intervals_adapt_to_louder_noise():
    """When the noise triples, intervals cover again after a while."""
    intervals = Intervals(1, (1,), 0.9)
    rng = np.random.default_rng(3)
    inside = []
    for tick in range(4000):
        error = np.abs(rng.normal(0.0, 1.0 if tick < 2000 else 3.0, 1))
        inside.append(error[0] <= intervals.width[0, 0])
        intervals.score(0, error, np.array([True]))
    assert np.mean(inside[2500:]) == pytest.approx(0.9, abs=0.02)


def test_interval_grows_with_the_horizon(zoo):
    """On a random walk the interval widens as one looks farther ahead, also between and beyond calibrated horizons."""
    walk = COLUMNS.index("walk")
    forecasts = [zoo[0].forecast(h) for h in (1, 3, 10, 15, 60)]
    widths = [float(forecast.high[walk] - forecast.low[walk]) for forecast in forecasts]
    assert widths == sorted(widths)
    assert widths[-1] > 4.0 * widths[0]


def test_convergence_is_reported(zoo):
    """Coefficients of steady series come to rest, and the skill says what they save: a quarter on AR(0.5)."""
    convergence = zoo[0].convergence()
    assert convergence.converged[[COLUMNS.index("ar"), COLUMNS.index("white")]].tolist() == [True, True]
    assert convergence.skill[COLUMNS.index("ar")] == pytest.approx(0.25, abs=0.08)
    assert abs(convergence.skill[COLUMNS.index("walk")]) < 0.1
    assert not fed(noise(100)).convergence().converged[0]


def test_state_survives_a_restart_bit_for_bit():
    """What is restored from saved arrays forecasts exactly as the original goes on to."""
    table = np.column_stack([noise(1300, 1), np.sin(np.arange(1300) / 5.0)])
    original = fed(table[:1200])
    copy = HarmonicAutoregression(2)
    copy.restore(original.state())
    for tick in range(1200, 1300):
        original.update(tick, table[tick])
        copy.update(tick, table[tick])
    for name, array in original.state().items():
        np.testing.assert_array_equal(array, copy.state()[name])


def test_state_of_another_shape_is_refused():
    """A state of two series does not fit three."""
    with pytest.raises(StateMismatchError):
        HarmonicAutoregression(3).restore(HarmonicAutoregression(2).state())


def test_memory_does_not_grow():
    """The state after 1200 ticks takes as many bytes as an empty one."""
    size = sum(array.nbytes for array in HarmonicAutoregression(1).state().values())
    assert sum(array.nbytes for array in fed(noise(1200)).state().values()) == size


@pytest.mark.parametrize(("values", "inputs"), [([1.0, 2.0], [1.0]), ([1.0], []), ([1.0], [np.nan])])
def test_rows_of_another_shape_are_refused(values, inputs):
    """Rows must have the promised shape, and inputs must be numbers."""
    haru = HarmonicAutoregression(1, inputs=1)
    with pytest.raises(ValueError, match="expected 1 values and 1 finite inputs"):
        haru.update(0, values, inputs)


def test_horizon_must_be_positive():
    """There is no forecast of the present."""
    with pytest.raises(ValueError, match="at least 1 tick, not 0"):
        HarmonicAutoregression(1).forecast(0)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_step_after_a_standstill_is_survived(level):
    """A series that never moved and then takes another level is soon forecast to stay there, however far it jumped."""
    haru = fed(np.concatenate([np.full(1000, level), np.full(1000, level + 0.2)]))
    assert haru.forecast(15).mean[0] == pytest.approx(level + 0.2)
    assert np.abs(haru.regression.information).max() < 1e9


def test_regression_does_not_wind_up():
    """After 50,000 rows in which two of three features never moved, the equations are as well posed as at the start."""
    rng = np.random.default_rng(1)
    regression = ForgettingRegression(1, 3, ridge=10.0)
    memory, weight = np.array([200.0]), np.array([1.0])
    for x in rng.normal(0.0, 1.0, 50_000):
        regression.learn(np.array([[x, 0.0, 1e-9]]), np.array([2.0 * x]), weight, memory)
    eigenvalues = np.linalg.eigvalsh(regression.information[0])
    assert eigenvalues.min() == pytest.approx(10.0, rel=1e-6)
    assert eigenvalues.max() < 400.0
    assert regression.coefficients[0] == pytest.approx([1.9, 0.0, 0.0], abs=0.05)


def test_regression_equals_weighted_least_squares():
    """The coefficients are those of ridge regression with faded rows, solved directly."""
    rng = np.random.default_rng(2)
    rows, target = rng.normal(size=(300, 2)), rng.normal(size=300)
    regression = ForgettingRegression(1, 2, ridge=4.0)
    for row, y in zip(rows, target, strict=True):
        regression.learn(row[np.newaxis], np.array([y]), np.array([1.0]), np.array([50.0]))
    fade = (1.0 - 1.0 / 50.0) ** np.arange(299, -1, -1)
    information = (rows * fade[:, np.newaxis]).T @ rows + 4.0 * np.eye(2)
    assert regression.coefficients[0] == pytest.approx(np.linalg.solve(information, (rows.T * fade) @ target))


def test_long_periods_are_found_on_coarser_rings():
    """A period of 2000 ticks, too long for the finest ring, is found by the next one."""
    periods = Periods(1, 2)
    tick = np.arange(20_000)
    for value in np.sin(2.0 * np.pi * tick / 2000.0) + 0.3 * noise(20_000):
        periods.update(np.array([value]))
    assert periods.found[0, 0] == pytest.approx(2000.0, rel=0.02)


def test_period_that_ends_is_forgotten():
    """A period is dropped once its ring holds nothing of it any more."""
    periods = Periods(1, 2)
    for tick, value in enumerate(noise(6000)):
        periods.update(np.array([value + (3.0 * np.sin(2.0 * np.pi * tick / 40.0) if tick < 2500 else 0.0)]))
        if tick == 2400:
            assert periods.found[0, 0] == pytest.approx(40.0, rel=0.01)
    assert np.isnan(periods.found).all()
