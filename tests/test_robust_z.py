"""The robust z-score, and the contract that every streaming detector keeps."""

from __future__ import annotations

import math

import numpy as np
import pytest

from metrics.robust_z import RobustZ

DETECTORS = [RobustZ]


def feed(detector, rows, start=0):
    return [
        detector.update(float(start + t), np.atleast_1d(np.asarray(row, dtype=np.float64)))
        for t, row in enumerate(rows)
    ]


@pytest.mark.parametrize("make", DETECTORS)
def test_a_jump_has_one_onset(make):
    """Every detector reports the beginning of a large lasting change once, in the series that changed."""
    rng = np.random.default_rng(3)
    rows = rng.normal(1.0, 0.01, (600, 3))
    rows[500:, 1] += 1.0
    onsets = np.array([scores.onset for scores in feed(make(3), rows)])
    assert onsets[:, 1].nonzero()[0].tolist()[:1] == [500]
    assert onsets[500:560, 1].sum() == 1


@pytest.mark.parametrize("make", DETECTORS)
def test_missing_values_are_no_news(make):
    """NaN and infinity never begin an anomaly, and what comes after them is judged as before."""
    rng = np.random.default_rng(4)
    detector = make(2)
    feed(detector, rng.normal(5.0, 0.1, (400, 2)))
    for t, missing in enumerate((math.nan, math.inf, -math.inf)):
        scores = detector.update(400.0 + t, np.array([missing, 5.0]))
        assert not scores.onset.any()
    scores = detector.update(404.0, np.array([9.0, 5.0]))
    assert scores.onset.tolist() == [True, False]


def test_score_counts_robust_deviations():
    """The score is the distance from the median in units of 1.4826 · MAD of the values before."""
    rows = [0.0, 1.0, 2.0, 3.0, 4.0]
    detector = RobustZ(1, warm_up=5)
    feed(detector, rows)
    scores = detector.update(5.0, np.array([5.0]))
    assert scores.score[0] == pytest.approx((5.0 - 2.0) / (1.4826 * 1.0))


def test_outliers_do_not_widen_the_spread():
    """Up to nearly half of the window may be outliers without hiding the next one."""
    rng = np.random.default_rng(5)
    rows = rng.normal(0.0, 1.0, 120)
    rows[::3] = 1000.0
    detector = RobustZ(1)
    feed(detector, rows)
    assert detector.update(120.0, np.array([1000.0])).score[0] == 100.0


def test_unknown_before_the_warm_up():
    """A series is not scored before it has brought enough values; its missing ones do not count."""
    detector = RobustZ(1, warm_up=3)
    scores = feed(detector, [1.0, math.nan, 1.0, 1.0, 1.0])
    assert [math.isnan(row.score[0]) for row in scores] == [True, True, True, True, False]


def test_hysteresis_keeps_one_event_together():
    """Between `end` and `begin` an anomaly goes on without another onset; below `end` it is over."""
    rng = np.random.default_rng(6)
    detector = RobustZ(1, begin=8.0, end=4.0)
    feed(detector, rng.normal(0.0, 1.0, 120))
    onsets = [bool(row.onset[0]) for row in feed(detector, [20.0, 6.5, 20.0, 0.0, 20.0], start=120)]
    assert onsets == [True, False, False, False, True]


def test_a_level_that_stays_becomes_normal():
    """After half a window at a new level the score is usual again."""
    detector = RobustZ(1, window=40, warm_up=20)
    rng = np.random.default_rng(7)
    feed(detector, rng.normal(0.0, 1.0, 40))
    last = feed(detector, rng.normal(50.0, 1.0, 41), start=40)[-1]
    assert last.score[0] < 4.0


def test_a_constant_series_is_not_divided_by_zero():
    """A series that never moved scores its first step as far, finitely."""
    detector = RobustZ(2)
    feed(detector, [[0.0, 1.0]] * 100)
    scores = detector.update(100.0, np.array([1.0, 1.0]))
    assert scores.score.tolist() == [100.0, 0.0]


def test_the_same_time_again_is_nothing_new():
    """A row of a time that was scored before teaches nothing and begins nothing."""
    detector = RobustZ(1)
    feed(detector, np.random.default_rng(8).normal(0.0, 1.0, 120))
    again = detector.update(119.0, np.array([500.0]))
    assert not again.onset[0]
    assert again.score[0] < 8.0
