"""The detector's parts, each against what its docstring promises."""

import numpy as np
import pytest

from metrics.anomaly.config import DEFAULT
from metrics.anomaly.deviation import Deviation
from metrics.anomaly.events import Events
from metrics.anomaly.excursion import Excursions
from metrics.anomaly.rates import Rates
from metrics.anomaly.tail import Tails
from metrics.anomaly.views import Profile

ALL = np.array([True])


def rates(row, *, seen=ALL):
    return Rates(np.array([float(row)]), seen)


def news(events, row, evidence, t):
    fresh, score = events.update(np.array([0]), np.array([evidence]), np.array([float(row)]), np.array([t]))
    return bool(fresh[0]), float(score[0])


def test_rates_start_as_an_average_and_end_as_forgetting():
    """The n-th row teaches one n-th until that is less than the rate asked for."""
    assert rates(4).at_least(0.1) == pytest.approx(0.25)
    assert rates(10).at_least(0.1) == 0.1
    assert rates(5000).at_least(0.1) == 0.1


def test_rates_are_nothing_for_a_missing_value():
    """Where no value came the rate is 0, whatever is asked for."""
    mixed = Rates(np.array([100.0, 100.0]), np.array([True, False]))
    assert np.asarray(mixed.at_least(0.1)).tolist() == [0.1, 0.0]


def test_youth_ends_with_the_rows():
    """Only series that came and have few rows count as young."""
    mixed = Rates(np.array([3.0, 30.0, 3.0]), np.array([True, True, False]))
    young = mixed.younger(10)
    assert young is not None
    assert young.tolist() == [True, False, False]
    assert rates(11).younger(10) is None


def test_limits_settle_at_the_share_asked_for():
    """After a long run of noise about ``tail_share`` of the rows lie beyond each limit."""
    rng = np.random.default_rng(11)
    series, rows = 200, 3000
    tails = Tails(np.array([False]), series, DEFAULT)
    above = below = 0
    for row in range(1, rows + 1):
        value = rng.normal(0.0, 1.0, (1, series))
        _, evidence = tails.update(value, np.ones(series), Rates(np.full(series, float(row)), np.ones(series, bool)))
        if row > 1000:
            above += int((evidence > 0.0).sum())
            below += int((evidence < 0.0).sum())
    count = series * (rows - 1000)
    assert above / count == pytest.approx(DEFAULT.tail_share, rel=0.25)
    assert below / count == pytest.approx(DEFAULT.tail_share, rel=0.25)


def test_evidence_is_exponential_in_an_exponential_tail():
    """Beyond the limit of an exponential stream the mean evidence is about one nat."""
    rng = np.random.default_rng(12)
    series, total = 200, []
    tails = Tails(np.array([False]), series, DEFAULT)
    for row in range(1, 4001):
        value = rng.exponential(1.0, (1, series))
        _, evidence = tails.update(value, np.ones(series), Rates(np.full(series, float(row)), np.ones(series, bool)))
        if row > 1500:
            total.extend(evidence[evidence > 0.0])
    assert np.mean(total) == pytest.approx(1.0, rel=0.2)


def test_a_profile_knows_its_phases():
    """A phase seen before expects its own mean, a new one the fallback."""
    profile = Profile(1, 24, 86400.0, 0.1)
    hour_s = 3600.0
    full, fallback = np.array([1.0]), np.array([5.0])
    for day in range(3):
        profile.residual(np.float64(day * 86400.0 + 3 * hour_s), np.array([20.0]), fallback, full, rates(day + 1))
    known = profile.residual(np.float64(3 * 86400.0 + 3 * hour_s), np.array([21.0]), fallback, full, rates(4))
    new = profile.residual(np.float64(3 * 86400.0 + 4 * hour_s), np.array([21.0]), fallback, full, rates(5))
    assert known.tolist() == [1.0]
    assert new.tolist() == [16.0]


def test_deviation_forgives_a_restless_series():
    """A burst just after another is fewer deviations out than the first one was."""
    deviation = Deviation(1, DEFAULT)
    rng = np.random.default_rng(13)
    sizes = {}
    for row in range(1, 1001):
        y = rng.normal(0.0, 1.0, 1) + (50.0 if row in {500, 900} else 0.0)
        sizes[row] = float(deviation.update(y, rates(row))[0])
    assert sizes[500] > 40.0
    assert sizes[900] < sizes[500] / 1.5


def test_news_must_exceed_what_is_remembered():
    """Within the memory only a stronger event is news; what is remembered outlives weaker events in between."""
    events = Events(1, DEFAULT)
    assert news(events, 100, 10.0, 0.0)[0]
    assert not news(events, 150, 10.0, 3000.0)[0]
    assert not news(events, 200, 9.0, 6000.0)[0]
    assert news(events, 210, 10.5, 6600.0)[0]


@pytest.mark.parametrize(
    ("rows_later", "seconds_later", "is_news"),
    [
        (120, 200_000.0, False),
        (121, 200_000.0, True),
        (320, 86_400.0, False),
        (320, 90_001.0, True),
        (321, 86_400.0, True),
    ],
)
def test_memory_is_rows_and_a_day(rows_later, seconds_later, is_news):
    """A peak counts for 120 rows however long they take, and for a day as far as 320 rows reach."""
    events = Events(1, DEFAULT)
    news(events, 100, 10.0, 0.0)
    assert news(events, 100 + rows_later, 10.0, seconds_later)[0] is is_news


def test_a_weaker_peak_is_remembered_behind_a_stronger_one():
    """Once the stronger peak is forgotten, the weaker and younger one still stands in the way."""
    events = Events(1, DEFAULT)
    news(events, 100, 10.0, 0.0)
    news(events, 300, 8.0, 60_000.0)
    assert not news(events, 430, 7.0, 100_000.0)[0]
    assert news(events, 435, 9.0, 100_500.0)[0]


def test_the_score_is_relative_to_the_series_own_events():
    """The same evidence scores lower in a series whose events are strong."""
    calm, wild = Events(1, DEFAULT), Events(1, DEFAULT)
    for k in range(40):
        news(calm, 100 + 400 * k, 2.0, 1e5 * k)
        news(wild, 100 + 400 * k, 30.0, 1e5 * k)
    assert news(calm, 20_000, 12.0, 1e8)[1] > 0.97
    assert news(wild, 20_000, 12.0, 1e8)[1] < 0.5


def test_an_excursion_outlives_short_gaps():
    """Ten rows within the limits do not end an excursion, eleven do."""
    excursions = Excursions(1, DEFAULT)
    at, up = np.array([0]), np.array([1.0])
    excursions.update(at, up, np.array([100.0]), np.array([6000.0]))
    excursions.update(at, up, np.array([110.0]), np.array([6600.0]))
    assert excursions.present(np.array([120.0]))[0].tolist() == [6000.0]
    assert np.isnan(excursions.present(np.array([121.0]))[0]).all()
    excursions.update(at, up, np.array([121.0]), np.array([7260.0]))
    assert excursions.present(np.array([121.0]))[0].tolist() == [7260.0]


def test_swinging_is_no_shift():
    """An excursion as long as a shift that swings to both sides is not called one."""
    steady, swinging = Excursions(1, DEFAULT), Excursions(1, DEFAULT)
    for row in range(1, 61):
        at, rows, t = np.array([0]), np.array([float(row)]), np.array([60.0 * row])
        steady.update(at, np.array([1.0]), rows, t)
        swinging.update(at, np.array([1.0 if row % 2 else -1.0]), rows, t)
    assert steady.present(np.array([60.0]))[1].tolist() == [True]
    assert swinging.present(np.array([60.0]))[1].tolist() == [False]
