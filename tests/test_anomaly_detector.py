"""The streaming detector as its users see it: what it alarms on, what it forgives, and what it must never do."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from metrics.anomaly.config import DEFAULT
from metrics.anomaly.detector import NO_VIEW, StreamingDetector
from metrics.anomaly.persistent import StateMismatchError
from metrics.anomaly.views import View

MINUTE_S = 60.0


def run(values, *, times=None, detector=None):
    """All scores of ``values`` (rows, series), one a minute unless ``times`` says otherwise."""
    values = np.asarray(values, float)
    detector = detector or StreamingDetector(values.shape[1])
    times = np.arange(len(values)) * MINUTE_S if times is None else times
    return [detector.update(t, row) for t, row in zip(times, values, strict=True)]


def column(scores, name, series=0):
    return np.array([getattr(score, name)[series] for score in scores])


def noise(rows, series=1, seed=3):
    return np.random.default_rng(seed).normal(100.0, 2.0, (rows, series))


def test_a_spike_is_one_onset_with_its_reason():
    """A single spike raises one onset in its row, names its side, its size and its beginning."""
    values = noise(600)
    values[500] += 40.0
    scores = run(values)
    assert np.flatnonzero(column(scores, "onset")).tolist() == [500]
    spike = scores[500]
    assert spike.score[0] > 0.99
    assert spike.distance[0] > 10.0
    assert spike.deviation[0] > 5.0
    assert spike.since[0] == 500 * MINUTE_S
    assert View(spike.view[0]) in set(View)
    assert not spike.shift[0]


def test_a_dip_is_reported_below():
    """A value far below its limits gives a negative distance and deviation."""
    values = noise(600)
    values[500] -= 40.0
    dip = run(values)[500]
    assert dip.onset[0]
    assert dip.distance[0] < -10.0
    assert dip.deviation[0] < -5.0


def test_quiet_rows_have_no_reason():
    """A row within all limits has score 0, no view, no distance and no excursion."""
    scores = run(noise(400))
    quiet = next(s for s in reversed(scores) if s.evidence[0] == 0.0 and np.isnan(s.since[0]))
    assert quiet.score[0] == 0.0
    assert quiet.view[0] == NO_VIEW
    assert quiet.distance[0] == 0.0


def test_noise_alarms_rarely():
    """Stationary Gaussian noise raises at most one false alarm in a thousand rows of a series."""
    scores = run(noise(2000, series=100))
    alarms = sum(int(s.onset.sum()) for s in scores)
    assert alarms <= 200


def test_the_future_is_not_known():
    """Scores of a prefix do not depend on what follows it."""
    values = noise(400)
    other = values.copy()
    other[300:] *= 1000.0
    for ours, theirs in zip(run(values)[:300], run(other)[:300], strict=True):
        assert ours.evidence.tobytes() == theirs.evidence.tobytes()
        assert ours.news.tobytes() == theirs.news.tobytes()


def test_series_do_not_disturb_each_other():
    """A series scores exactly the same alone and among others."""
    values = noise(400, series=5)
    values[350, 2] = 500.0
    together = run(values)
    for series in range(5):
        alone = run(values[:, [series]])
        assert column(together, "evidence", series).tolist() == column(alone, "evidence").tolist()
        assert column(together, "news", series).tolist() == column(alone, "news").tolist()


def test_the_unit_of_measurement_does_not_matter():
    """Milliseconds and seconds give the same scores."""
    values = noise(500)
    values[450] += 30.0
    seconds, milliseconds = run(values), run(values * 1000.0)
    np.testing.assert_allclose(column(seconds, "evidence"), column(milliseconds, "evidence"), rtol=1e-6, atol=1e-6)


def test_missing_values_teach_nothing():
    """Rows of NaN between the others change no later score, and score 0 themselves."""
    values = noise(400)
    values[390] += 30.0
    gappy = np.full((800, 1), np.nan)
    gappy[::2] = values
    times = np.arange(800) * MINUTE_S / 2
    whole, holed = run(values), run(gappy, times=times)
    for name in ("evidence", "news", "deviation", "distance", "onset"):
        assert column(holed, name)[::2].tolist() == column(whole, name).tolist()
        assert not column(holed, name)[1::2].any()
    assert not column(holed, "seen")[1::2].any()


@pytest.mark.parametrize("absent", [np.nan, np.inf, -np.inf, 1e300])
def test_a_series_can_be_missing_among_others(absent):
    """What cannot be a measurement in one series leaves the others exactly as they were."""
    values = noise(300, series=2)
    holed = values.copy()
    holed[100:200, 1] = absent
    whole, partial = run(values), run(holed)
    assert column(partial, "evidence").tolist() == column(whole, "evidence").tolist()
    assert not column(partial, "evidence", 1)[100:200].any()


def test_a_series_may_start_late():
    """A series that has been silent for long warms up on its own rows and not on the common ones."""
    values = noise(600, series=2)
    values[:300, 1] = np.nan
    late = column(run(values), "evidence", 1)
    assert not late[: 300 + DEFAULT.warmup_rows].any()
    assert (
        column(run(values[300:, [1]], times=np.arange(300, 600) * MINUTE_S), "evidence").tolist() == late[300:].tolist()
    )


def test_irregular_steps_are_fine():
    """Rows from seconds to hours apart do not alarm by themselves, and a spike among them does."""
    values = noise(600)
    values[550] += 60.0
    times = np.cumsum(np.random.default_rng(5).exponential(600.0, 600))
    onsets = np.flatnonzero(column(run(values, times=times), "onset"))
    assert 550 in onsets
    assert onsets.size <= 3


def test_a_level_shift_alarms_once_and_becomes_normal():
    """A lasting step is one onset, is called a shift, fades, and its end is news again."""
    values = noise(1500)
    values[600:1200] += 20.0
    scores = run(values)
    onsets = np.flatnonzero(column(scores, "onset"))
    assert 600 in onsets
    assert not [row for row in onsets if 605 < row < 1200]
    shift = column(scores, "shift")
    assert not shift[:630].any()
    assert shift[640:660].all()
    assert column(scores, "since")[650] == 600 * MINUTE_S
    assert column(scores, "score")[1000:1200].max() < DEFAULT.onset_score
    assert column(scores, "onset")[1200:1210].any()


def test_a_burst_is_not_a_shift():
    """An incident that ends within ten rows is never called a new level."""
    values = noise(700)
    values[600:610] += 40.0
    scores = run(values)
    assert column(scores, "onset")[600]
    assert not column(scores, "shift").any()
    assert np.isnan(column(scores, "since")[680])


def test_the_same_again_is_not_news():
    """A spike no stronger than a recent one is scored but raises no alarm."""
    values = noise(800)
    values[600] = 160.0
    values[650] = 150.0
    scores = run(values)
    assert column(scores, "onset")[600]
    assert column(scores, "score")[650] > DEFAULT.onset_score
    assert column(scores, "news")[650] == 0.0


def test_the_same_again_much_later_is_news():
    """After the memory of rows and of a day has passed, the same spike alarms anew."""
    values = noise(1600)
    values[600] = 160.0
    values[1500] = 160.0
    scores = run(values)
    assert column(scores, "onset")[600]
    assert column(scores, "onset")[1500]


def test_a_daily_peak_is_habit_and_its_absence_is_not():
    """A peak at the same hour of every day stops alarming; the day it stays away does alarm, for the time of day."""
    rng = np.random.default_rng(9)
    rows_a_day, days = 288, 14
    day = np.zeros(rows_a_day)
    day[120:180] = 50.0
    values = (np.tile(day, days) + rng.normal(10.0, 1.0, rows_a_day * days))[:, None]
    absent = 12 * rows_a_day + 120
    values[absent : absent + 60] -= 50.0
    scores = run(values, times=np.arange(len(values)) * 300.0)
    onset = column(scores, "onset")
    assert onset[8 * rows_a_day : absent].sum() <= 2
    first = absent + int(np.argmax(onset[absent : absent + 60]))
    assert onset[first]
    assert View(scores[first].view[0]) in {View.DAY, View.DAY_FINE, View.WEEK}
    assert scores[first].distance[0] < 0.0


def test_the_first_movement_of_a_still_series_is_finite_news():
    """A constant series that moves alarms, with finite numbers."""
    values = np.full((300, 1), 7.0)
    values[250:] = 8.0
    scores = run(values)
    assert column(scores, "onset")[250]
    assert not column(scores, "onset")[:250].any()
    for name in ("evidence", "deviation", "distance"):
        assert np.isfinite(column(scores, name)).all()


def test_rounding_dust_is_no_news():
    """A constant that flickers in its last digits stays silent."""
    values = np.full((500, 1), 0.3)
    values[::7] += 1e-15
    values[400] -= 2e-15
    assert not column(run(values), "onset").any()


def test_restart_continues_bit_for_bit():
    """A detector restored from a saved file goes on exactly as the one that was saved."""
    values = noise(900, series=4)
    values[700, 1] += 50.0
    values[640:660, 2] = np.nan
    first = StreamingDetector(4)
    run(values[:650], detector=first)
    file = io.BytesIO()
    np.savez(file, **first.state())
    file.seek(0)
    second = StreamingDetector(4)
    with np.load(file) as saved:
        second.restore(saved)
    times = np.arange(650, 900) * MINUTE_S
    for ours, theirs in zip(
        run(values[650:], times=times, detector=first), run(values[650:], times=times, detector=second), strict=True
    ):
        for name in ours.__slots__:
            assert getattr(ours, name).tobytes() == getattr(theirs, name).tobytes()
    for name, array in first.state().items():
        assert array.tobytes() == second.state()[name].tobytes()


def test_memory_does_not_grow():
    """The state after a thousand rows is as large as the state of a new detector."""
    detector = StreamingDetector(3)
    before = {name: array.nbytes for name, array in detector.state().items()}
    run(noise(1000, series=3), detector=detector)
    assert {name: array.nbytes for name, array in detector.state().items()} == before


def test_earlier_scores_do_not_change_later():
    """What was returned for a row is not overwritten by the next ones."""
    detector = StreamingDetector(1)
    scores = run(noise(300), detector=detector)
    kept = [getattr(scores[-1], name).copy() for name in scores[-1].__slots__]
    run(noise(100, seed=8) + 50.0, times=np.arange(300, 400) * MINUTE_S, detector=detector)
    for name, before in zip(scores[-1].__slots__, kept, strict=True):
        np.testing.assert_array_equal(getattr(scores[-1], name), before)


def test_a_foreign_state_is_refused_whole():
    """A state of another number of series is refused by name, and nothing of it is taken over."""
    detector = StreamingDetector(2)
    run(noise(100, series=2), detector=detector)
    before = detector.state()
    with pytest.raises(StateMismatchError, match=r"should be float64\(2,\), got float64\(3,\)") as caught:
        detector.restore(StreamingDetector(3).state())
    assert caught.value.field == "rows"
    for name, array in detector.state().items():
        assert array.tobytes() == before[name].tobytes()


@pytest.mark.parametrize(("change", "field"), [("drop", "rows"), ("add", "mood")])
def test_an_incomplete_state_is_refused(change, field):
    """A state with an array too few or too many is refused, naming the array."""
    detector = StreamingDetector(1)
    state = detector.state()
    if change == "drop":
        del state[field]
    else:
        state[field] = np.zeros(1)
    with pytest.raises(StateMismatchError) as caught:
        detector.restore(state)
    assert caught.value.field == field


@pytest.mark.parametrize(("t", "x"), [(0.0, np.zeros(3)), (np.zeros(3), np.zeros(2)), (0.0, np.zeros((1, 2)))])
def test_rows_of_another_shape_are_refused(t, x):
    """A row that does not fit the number of series raises ValueError."""
    with pytest.raises(ValueError, match="expected values of shape"):
        StreamingDetector(2).update(t, x)


@settings(max_examples=30, deadline=None)
@given(arrays(float, (120, 2), elements=st.floats(width=64, allow_nan=True, allow_infinity=True)))
def test_any_input_gives_finite_scores(values):
    """Whatever floats arrive, scores stay finite, in range and without warnings."""
    for score in run(values):
        assert ((score.score >= 0.0) & (score.score <= 1.0)).all()
        assert np.isfinite(score.evidence).all()
        assert np.isfinite(score.deviation).all()
        assert ((score.news == 0.0) | (score.news == score.score)).all()
