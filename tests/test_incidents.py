"""The live detector of KPIs, which keeps the contract of every streaming detector."""

from __future__ import annotations

import math

import numpy as np

from metrics.anomaly.incidents import WITHHELD_ROWS, IncidentDetector


def feed(detector, rows, start=0):
    return [
        detector.update(float(start + t), np.atleast_1d(np.asarray(row, dtype=np.float64)))
        for t, row in enumerate(rows)
    ]


def test_a_jump_has_one_onset():
    """The beginning of a large lasting change is told once, in the series that changed."""
    rng = np.random.default_rng(3)
    rows = rng.normal(1.0, 0.01, (600, 3))
    rows[500:, 1] += 1.0
    onsets = np.array([scores.onset for scores in feed(IncidentDetector(3), rows)])
    assert [tuple(at) for at in np.argwhere(onsets)] == [(500, 1)]


def test_missing_values_are_no_news():
    """NaN and infinity never begin an incident, and what comes after them is judged as before."""
    detector = IncidentDetector(2)
    feed(detector, np.random.default_rng(4).normal(5.0, 0.1, (400, 2)))
    for t, missing in enumerate((math.nan, math.inf, -math.inf)):
        scores = detector.update(400.0 + t, np.array([missing, 5.0]))
        assert not scores.onset.any()
        assert math.isnan(scores.score[0])
    assert detector.update(404.0, np.array([9.0, 5.0])).onset.tolist() == [True, False]


def test_nothing_is_known_before_the_warm_up():
    """The first 60 values of a series have no score; missing ones do not count."""
    rows = [*np.random.default_rng(5).normal(0.0, 1.0, 60), math.nan, 0.5]
    scores = feed(IncidentDetector(1), rows)
    assert all(math.isnan(row.score[0]) for row in scores[:61])
    assert math.isfinite(scores[61].score[0])


def test_a_fault_does_not_dull_the_eye_for_the_next():
    """The same fault is told again when it returns, as what an incident shows is not learnt at first."""
    rng = np.random.default_rng(6)
    rows = rng.normal(0.95, 0.005, 400)
    rows[200:250] -= 0.2
    rows[300:350] -= 0.2
    onsets = [t for t, row in enumerate(feed(IncidentDetector(1), rows)) if row.onset[0]]
    assert onsets == [200, 300]


def test_a_level_that_stays_becomes_normal():
    """A new level is one incident; once it is the habit, going back to the old one is another."""
    rng = np.random.default_rng(7)
    rows = rng.normal(10.0, 1.0, 2000)
    rows[300:] += 20.0
    scores = feed(IncidentDetector(1), rows)
    assert [t for t, row in enumerate(scores) if row.onset[0]] == [300]
    assert scores[300 + WITHHELD_ROWS].score[0] > 10.0
    assert scores[-1].score[0] < 3.0


def test_the_reason_says_how_far_in_which_view_and_since_when():
    """A reason names the side, the deviations, the view with its excess, and the time at which it began."""
    detector = IncidentDetector(1)
    feed(detector, np.random.default_rng(8).normal(10.0, 1.0, 200))
    reason = detector.update(200.0, np.array([-15.0])).reason(0)
    assert "standard deviations below its habit, most " in reason
    assert reason.endswith("times the usual excess, since 200 s")
