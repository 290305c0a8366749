"""Counters of bad, calm and clean ticks."""

import numpy as np

from state.confirmation import PATIENCE_TICKS, Confirmation

NAN = float("nan")


def counted(*ticks):
    """One subject; each tick is its value, or None for an untrusted 9.0."""
    counters = Confirmation(1, critical=1.5, clean_below=0.75)
    for value in ticks:
        counters.update(np.array([9.0 if value is None else value]), np.array([value is not None]))
    return int(counters.bad[0]), int(counters.calm[0]), int(counters.clean[0])


def test_counts_ticks_in_a_row():
    """Each verdict counts up and takes the opposite ones back to nothing."""
    assert counted(1.6, 1.6, 1.6) == (3, 0, 0)
    assert counted(1.6, 1.6, 0.2) == (0, 1, 1)
    assert counted(0.2, 0.2, 1.0) == (0, 3, 0)
    assert counted(0.2, 1.6) == (1, 0, 0)


def test_limits_themselves_are_neither_bad_nor_clean():
    """Exactly critical is not bad, exactly the re-admission value is not clean."""
    assert counted(1.5) == (0, 1, 0)
    assert counted(0.75) == (0, 1, 0)


def test_missing_evidence_counts_neither_way():
    """NaN, infinite and untrusted values leave every counter as it is."""
    assert counted(1.6, 1.6, None, NAN, float("inf"), -float("inf")) == (2, 0, 0)
    assert counted(0.2, None, NAN) == (0, 1, 1)


def test_consecutive_does_not_span_a_blackout():
    """Ten blind ticks are waited for, the eleventh starts everything afresh."""
    assert PATIENCE_TICKS == 10
    assert counted(1.6, 1.6, *[None] * 10, 1.6) == (3, 0, 0)
    assert counted(1.6, 1.6, *[None] * 11, 1.6) == (1, 0, 0)
    assert counted(0.2, 0.2, *[NAN] * 11, 0.2) == (0, 1, 1)


def test_tells_where_it_looked_bad():
    """The answer is about this tick alone, and false where nothing is known."""
    counters = Confirmation(4, critical=1.5, clean_below=0.75)
    bad = counters.update(np.array([2.0, 2.0, NAN, 0.2]), np.array([True, False, True, True]))
    assert bad.tolist() == [True, False, False, False]


def test_confirmed_means_up_to_now():
    """So many bad ticks in a row, the latest of them now: a blind tick confirms nothing, though it keeps the count."""
    counters = Confirmation(1, critical=1.5, clean_below=0.75)
    confirmed = []
    for value in (1.6, 1.6, NAN, 1.6, 1.6, 0.2):
        counters.update(np.array([value]), np.ones(1, dtype=bool))
        confirmed.append(bool(counters.confirmed(2)[0]))
    assert confirmed == [False, True, False, True, True, False]


def test_restart_is_for_those_named_or_all():
    """Some subjects, or all of them, start from nothing."""
    counters = Confirmation(3, critical=1.5, clean_below=0.75)
    for _ in range(2):
        counters.update(np.array([2.0, 2.0, 0.2]), np.ones(3, dtype=bool))
    counters.restart(np.array([0]))
    assert counters.bad.tolist() == [0, 2, 0]
    counters.restart()
    assert (counters.bad.tolist(), counters.calm.tolist(), counters.clean.tolist()) == ([0] * 3, [0] * 3, [0] * 3)
