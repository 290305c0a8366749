"""The time that decisions count: whatever the plant's clock does, none is gained and none goes back."""

import pytest

from controller.plant_time import PlantTime


def lived(time, ticks, *, start=1, tick_s=1.0, offset_s=0.0):
    """The governor's time after so many ticks of a plant."""
    for tick in range(start, start + ticks):
        now_s = time.at(tick, tick * tick_s + offset_s)
    return now_s


def test_the_plants_own_time_is_kept_where_nothing_was_before():
    """A run begins with its plant."""
    assert lived(PlantTime(), 5) == 5.0


def test_a_daemon_goes_on_where_it_was():
    """The first observation costs nothing, however long nobody looked; so does another plant after a loss."""
    time = PlantTime(100.0)
    assert lived(time, 3, start=5000) == 102.0
    time.rebase()
    assert time.now_s == 102.0
    assert lived(time, 3) == 104.0


def test_a_clock_that_goes_back_costs_nothing():
    """It counts on from where it was."""
    time = PlantTime()
    lived(time, 10)
    assert lived(time, 10, start=11, offset_s=-7200.0) == 19.0


def test_a_clock_that_goes_ahead_gains_nothing(caplog):
    """A step of two hours in one tick counts as the one tick that it was, and is told."""
    time = PlantTime()
    lived(time, 10)
    assert lived(time, 10, start=11, offset_s=7200.0) == 20.0
    assert caplog.messages == ["the plant's clock went ahead by 7201 s in 1 ticks: not counted"]


def test_a_clock_that_goes_ahead_at_once_gains_nothing_either():
    """Before anything is known of the ticks an hour is the most that may pass, however many were missed."""
    time = PlantTime(100.0)
    assert time.at(1, 1.0) == 100.0
    assert time.at(34, 7234.0) == 100.0
    assert lived(time, 3, start=35, offset_s=7200.0) == 103.0


def test_rounding_takes_no_time_back():
    """Sums of fractions are rounded, and still the time never goes back."""
    time, last_s = PlantTime(0.3), 0.0
    for tick in range(1, 2000):
        back_s = 1e7 / 3 if tick % 7 == 0 else 0.1
        now_s = time.at(tick, 0.1 * tick + back_s)
        assert now_s >= last_s
        last_s = now_s


def test_a_recording_goes_on_after_its_gaps():
    """What was recorded is believed: there is no clock that anybody could set."""
    time = PlantTime(live=False)
    lived(time, 10)
    assert lived(time, 10, start=11, offset_s=7200.0) == 7220.0


def test_a_plant_that_stood_still_teaches_nothing():
    """A first tick of a quarter of an hour, as after a stall, does not make a step of two hours look usual."""
    time = PlantTime(100.0)
    time.at(1, 30.0)
    assert time.at(2, 1020.0) == 1090.0
    assert time.at(3, 8250.0) == 1090.0
    assert lived(time, 3, start=4, tick_s=30.0, offset_s=8160.0) == 1180.0


def test_ticks_that_were_missed_are_time():
    """A hundred ticks that nobody saw took as long as a hundred ticks take."""
    time = PlantTime()
    lived(time, 10)
    assert time.at(110, 110.0) == 110.0


@pytest.mark.parametrize("tick_s", [3.0, 60.0])
def test_a_plant_that_ticks_more_slowly_is_followed(tick_s):
    """Somewhat slower ticks count at once; far slower ones as soon as they are the usual ones."""
    time = PlantTime()
    begun_s = lived(time, 100)
    for tick in range(101, 201):
        now_s = time.at(tick, 100.0 + (tick - 100) * tick_s)
    lost_s = 100 * tick_s - (now_s - begun_s)
    assert lost_s == (0.0 if tick_s == 3.0 else pytest.approx(16 * 59.0))
